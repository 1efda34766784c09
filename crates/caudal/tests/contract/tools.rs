//! The commands that talk to a server, the books, the probes.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{Context, SQLITE, server};

fn run(cx: &Context, args: &[&str]) -> (i32, String) {
    let output = cx.server.run(args).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), text + &String::from_utf8_lossy(&output.stderr))
}

pub(crate) async fn publish_query_receipt(cx: Arc<Context>) {
    let file = cx.server.home().join("some.ndjson");
    std::fs::write(&file, "{\"n\": 901, \"customer\": \"cli\"}\n{\"n\": 902, \"customer\": \"cli\"}\n").unwrap();
    let path = file.to_str().unwrap();
    let args = ["publish", "orders", path, "--idempotency-key", "cli", "--json"];
    let (code, text) = run(&cx, &args);
    assert_eq!((code, &serde_json::from_str::<Value>(&text).unwrap()["stored"]), (0, &json!(2)), "{text}");
    let (code, text) = run(&cx, &args);
    assert_eq!((code, &serde_json::from_str::<Value>(&text).unwrap()["duplicate"]), (0, &json!(2)), "{text}");
    let (code, text) = run(&cx, &["query", "orders", "customer=eq.cli", "select=_id,n", "order=n", "--json"]);
    let rows: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &rows[1]["n"]), (0, &json!(902)));
    let (code, text) = run(&cx, &["receipt", rows[0]["_id"].as_str().unwrap()]);
    assert!(code == 0 && text.contains("stored"), "{text}");
    std::fs::write(&file, "{\"n\": \"bad\"}\n").unwrap();
    assert_eq!(run(&cx, &["publish", "orders", path]).0, 4);
    assert_eq!(run(&cx, &["query", "no-such-table"]).0, 3);
    assert_eq!(run(&cx, &["query", "orders", "--url", "http://127.0.0.1:9"]).0, 5);
    assert_eq!(run(&cx, &["reconcile", "--count"]).0, 0);
}

pub(crate) async fn reconcile_and_metrics(cx: Arc<Context>) {
    let books = cx.json("/v1/reconcile?topic=notes&count=exact").await;
    let topic = &books["topics"][0];
    assert_eq!(
        (&books["unaccounted"], &topic["topic"], &topic["unaccounted"]),
        (&json!(0), &json!("notes"), &json!(0))
    );
    assert_eq!(topic["rows"], topic["durable"]["stored"]);
    let metrics = cx.api.get("/metrics").await.unwrap();
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text"));
    let text = metrics.text();
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("caudal_unaccounted{topic=\"notes\"} 0"), "{text:.2000}");
    assert_eq!(cx.api.get("/v1/reconcile?topic=nothing").await.unwrap().status, 404);
}

pub(crate) async fn probes(cx: Arc<Context>) {
    for path in ["/ping", "/livez", "/readyz", "/health", "/", "/docs/errors/conflict"] {
        assert_eq!(cx.api.get(path).await.unwrap().status, 200, "{path}");
    }
    assert_eq!(cx.json("/health").await["status"], "pass");
    let missing = cx.api.get("/v1/nothing").await.unwrap();
    assert_eq!((missing.status, missing.header("content-type")), (404, "application/problem+json"));
}

/// What a command of a server that need not run says.
fn alone(server: &caudal_testkit::server::Server, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let mut command = server.command(args).unwrap();
    let output = command.envs(env.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn config_check_masks_passwords_and_suggests() {
    let server = server(SQLITE, "none:");
    let url = [("CAUDAL_STORE__URL", "postgres://ana:s3cret@db/x")];
    let (code, text) = alone(&server, &["config", "check"], &url);
    assert!(code == 0 && text.contains("postgres://ana:****@db/x") && !text.contains("s3cret"), "{text}");
    let (code, text) = alone(&server, &["config", "check"], &[("CAUDAL_HTTP__LISTNE", "x")]);
    assert!(code == 1 && text.contains("did you mean http.listen?"), "{text}");
    let (code, text) = alone(&server, &["config", "check"], &[("CAUDAL_HTTP__LISTEN", "0.0.0.0:80")]);
    assert!(code == 1 && text.contains("caudal keys new"), "{text}");
    let (code, _) = alone(&server, &["frobnicate"], &[]);
    assert_eq!(code, 2);
}

#[test]
fn doctor_says_by_its_exit_code_whether_all_is_well() {
    let server = server(SQLITE, "none:");
    let (code, text) = alone(&server, &["doctor"], &[]);
    assert!(code == 0 && !text.contains("FAIL"), "{text}");
    let (code, text) = alone(&server, &["doctor"], &[("CAUDAL_STORE__URL", "postgres://u:pw@127.0.0.1:9/x")]);
    assert!(code == 1 && text.contains("FAIL  store") && !text.contains(":pw@"), "{text}");
    let (code, text) = alone(&server, &["doctor"], &[("CAUDAL_HTTP__LISTNE", "x")]);
    assert!(code == 1 && text.contains("FAIL  configuration"), "{text}");
}

#[tokio::test]
async fn migrate_twice_does_nothing_the_second_time() {
    for store in [SQLITE.to_owned(), caudal_testkit::postgres::database().await.unwrap()] {
        let server = server(&store, "embedded:");
        let (code, text) = alone(&server, &["migrate"], &[]);
        assert!(code == 0 && text.contains("applied "), "{text}");
        let (code, text) = alone(&server, &["migrate"], &[]);
        assert!(code == 0 && text.contains("nothing to do"), "{text}");
    }
}

/// Long enough that no row comes while the test looks; the wait itself is not waited for.
#[tokio::test]
async fn a_receipt_says_queued_while_the_store_is_away() {
    let database = caudal_testkit::postgres::Postgres::start().unwrap();
    let mut server = server(&database.url(), "embedded:").env("CAUDAL_HTTP__WAIT_MS", "100");
    server.start().await.unwrap();
    let api = server.api();
    let before = api.publish("notes", &[], "{\"a\": 1}").await.unwrap();
    database.stop_immediate().unwrap();
    let reply = api.publish("notes", &[("idempotency-key", "away")], "{\"a\": 2}").await.unwrap();
    assert_eq!((reply.status, &reply.json()["state"]), (202, &json!("queued")), "{}", reply.text());
    let id = crate::id_of(&reply);
    // Which messages are stored is in the store, so nobody can be told now, and must not be told wrong.
    let receipt = api.get(&format!("/v1/receipts/{id}")).await.unwrap();
    assert_eq!(receipt.status, 503, "{}", receipt.text());
    assert_eq!(api.get("/ping").await.unwrap().status, 200);
    assert_eq!(api.get("/readyz").await.unwrap().status, 200);
    assert_eq!(api.get("/health").await.unwrap().status, 503);
    database.start_again().unwrap();
    let cx = Context { api, server, queued: true, database: None, on_postgres: false };
    let receipt = cx.until(&id, "stored").await;
    assert_eq!(receipt["key"], "away");
    assert_eq!(cx.publish("notes", &[("idempotency-key", "away")], "{\"a\": 2}", 200).await.status, 200);
    assert_eq!(cx.until(&crate::id_of(&before), "stored").await["state"], "stored");
}
