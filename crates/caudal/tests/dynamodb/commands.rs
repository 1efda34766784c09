//! The commands and the routes, with `confirm.store` set.

use std::time::{Duration, Instant};

use caudal_testkit::endpoint::{Behaviour, Endpoint};
use caudal_testkit::server::Server;
use serde_json::{Value, json};

use crate::books::Books;
use crate::{PAYMENTS, TOPIC, lines, section};

struct Case {
    books: Books,
    endpoint: Endpoint,
    server: Server,
}

impl Case {
    async fn new(behaviour: Behaviour, more: &str) -> Self {
        let (books, endpoint) = (Books::shared().await, Endpoint::start(behaviour).await.unwrap());
        let section = section(&endpoint.url("/pay"), more);
        // Nothing can be stored there.
        let server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().store("sqlite:/nowhere/at/all.db");
        let server = server.broker("none:").topic(TOPIC, Some(PAYMENTS), &section).roles("confirm");
        let server = server.env("CAUDAL_CONFIRM__STORE", &books.url).env("CAUDAL_CONFIRM__IDLE_BEAT_MS", "100");
        Self { books, endpoint, server }
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.server.run(args).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    }

    fn enqueue(&self, lines: &str) -> (Option<i32>, String) {
        let file = self.server.home().join("payments.ndjson");
        std::fs::write(&file, lines).unwrap();
        self.run(&["confirm", "enqueue", TOPIC, &file.display().to_string(), "--json"])
    }
}

fn counts(text: &str) -> Value {
    let line = text.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("{text}"));
    serde_json::from_str(line).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enqueued_once_and_confirmed_once_without_any_sql() {
    let case = Case::new(Behaviour::default(), "").await;
    let (code, text) = case.enqueue(&lines(0..40));
    assert_eq!((code, counts(&text)), (Some(0), json!({"new": 40, "repeats": 0, "refused": 0})), "{text}");
    // Again, written differently, and with more behind it.
    let again = "{ \"amount\": 3,  \"payment_id\": \"p3\" }\n\n".to_owned() + &lines(4..42);
    let (code, text) = case.enqueue(&again);
    assert_eq!((code, counts(&text)), (Some(0), json!({"new": 2, "repeats": 37, "refused": 0})), "{text}");
    let (code, text) = case.run(&["confirm", "once", "--json"]);
    assert_eq!((code, &counts(&text)["confirmed"]), (Some(0), &42.into()), "{text}");
    case.books.judge(&case.endpoint, 0..42).await;
    let (code, text) = case.enqueue(&lines(0..42));
    assert_eq!((code, counts(&text)), (Some(0), json!({"new": 0, "repeats": 42, "refused": 0})), "{text}");
    let (code, text) = case.run(&["confirm", "verify", "--json"]);
    assert_eq!((code, &counts(&text)["sound"]), (Some(0), &true.into()), "{text}");
    assert_eq!(case.endpoint.totals().calls, 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_line_does_not_hurt_its_neighbours() {
    let case = Case::new(Behaviour::default(), "").await;
    assert_eq!(case.enqueue(&lines(0..1)).0, Some(0));
    let mixed = lines(1..3) + "{\"amount\": 5}\n{\"payment_id\": \"p0\", \"amount\": 999}\nnonsense\n" + &lines(3..5);
    let (code, text) = case.enqueue(&mixed);
    assert_eq!((code, counts(&text)), (Some(4), json!({"new": 4, "repeats": 0, "refused": 3})), "{text}");
    for part in ["line 3: schema", "(at /payment_id)", "line 4: ", "with another record", "line 5: malformed_json"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(case.run(&["confirm", "once"]).0, Some(0));
    case.books.judge(&case.endpoint, 0..5).await;
}

/// The id, and so the idempotency key, is the one that the same message would get by being published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_has_the_same_id_everywhere() {
    let mut sql = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().broker("none:").roles("api");
    sql = sql.topic(TOPIC, Some(PAYMENTS), "key = [\"payment_id\"]");
    sql.start().await.unwrap();
    let answer = sql.api().publish(TOPIC, &[], lines(7..8)).await.unwrap().json();
    assert_eq!(answer["transaction_id"], Books::id("p7").to_string(), "{answer}");
    let case = Case::new(Behaviour::default(), "").await;
    case.enqueue(&lines(7..8));
    assert_eq!(case.books.state("p7").await, "pending");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_confirms_and_drains() {
    let mut case = Case::new(Behaviour { declines: 0.3, ..Behaviour::default() }, "").await;
    case.enqueue(&lines(0..30));
    case.server.spawn().unwrap();
    let begun = Instant::now();
    while case.books.lane().await.confirmed + case.books.lane().await.rejected < 30 {
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}\n{}", case.books.lane().await, case.server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(case.server.stop().await.unwrap().success(), "{}", case.server.log());
    case.books.judge(&case.endpoint, 0..30).await;
    assert!(case.books.lane().await.rejected > 0 && case.server.log().contains("drained"), "{}", case.server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_routes_operate_what_is_there_and_say_what_cannot_be() {
    let case = Case::new(Behaviour::default(), "").await;
    case.enqueue(&lines(0..3));
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().broker("none:").roles("api,worker");
    server.set_env("CAUDAL_CONFIRM__STORE", &case.books.url);
    server.start().await.unwrap();
    let command = |args: &[&str]| {
        let output = server.run(args).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let lanes = server.api().get("/v1/confirmations/lanes").await.unwrap().json();
    assert_eq!((&lanes["lanes"][0]["topic"], &lanes["lanes"][0]["pending"]), (&TOPIC.into(), &3.into()), "{lanes}");
    assert_eq!(command(&["confirm", "pause", TOPIC, "--reason", "maintenance at the bank"]).0, Some(0));
    assert!(command(&["confirm", "status"]).1.contains("maintenance at the bank"));
    let id = Books::id("p1").to_string();
    assert!(command(&["confirm", "show", &id]).1.contains("pending"));
    assert_eq!(command(&["confirm", "void", &id, "--reason", "the customer withdrew"]).0, Some(0));
    assert_eq!(command(&["confirm", "redrive", &id]).0, Some(4));
    for path in ["/v1/confirmations", "/v1/confirmations?state=eq.held"] {
        let reply = server.api().get(path).await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (501, "not_searchable"), "{}", reply.text());
    }
    let many = server.api().post("/v1/confirmations/redrive?state=eq.dead", &[], "").await.unwrap();
    assert_eq!((many.status, many.code().as_str()), (501, "not_searchable"));
    let table = server.api().get("/rest/v1/_confirmations").await.unwrap();
    assert_eq!((table.status, table.code().as_str()), (404, "unknown_table"), "an empty table would be a lie");
    assert_eq!(command(&["confirm", "resume", TOPIC]).0, Some(0));
    assert_eq!(case.run(&["confirm", "once"]).0, Some(0));
    let lane = case.books.lane().await;
    assert_eq!((lane.confirmed, lane.void, case.endpoint.totals().calls), (2, 1, 2));
}

/// What would be stored and never confirmed is refused before anything is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_what_to_do() {
    let case = Case::new(Behaviour::default(), "").await;
    for roles in ["api", "worker", "api,worker,confirm"] {
        let (code, text) = case.run(&["serve", "--role", roles]);
        let parts = ["topics.payments.confirm", "never confirmed", "caudal confirm enqueue payments", "--role confirm"];
        assert!(code == Some(1) && parts.iter().all(|part| text.contains(part)), "{roles}: {code:?} {text}");
    }
    let (code, text) = case.run(&["confirm", "enqueue", "flights", "-"]);
    assert!(code == Some(1) && text.contains("these have: [payments]"), "{text}");

    let refused = |change: &dyn Fn(Server) -> Server, args: &[&str]| {
        let server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().broker("none:");
        let server = change(server.env("CAUDAL_CONFIRM__STORE", &case.books.url));
        let output = server.run(args).unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let keyless = section("http://127.0.0.1:9/", "").replace("key = [\"payment_id\"]", "");
    let enqueue = ["confirm", "enqueue", TOPIC, "-"];
    let text = refused(&|server| server.topic(TOPIC, Some(PAYMENTS), &keyless), &enqueue);
    assert!(text.contains("topics.payments.key"), "{text}");
    let whole = section("http://127.0.0.1:9/", "");
    let text =
        refused(&|server| server.topic(TOPIC, Some(PAYMENTS), &whole).env("CAUDAL_CONFIRM__STORE", ""), &enqueue);
    assert!(text.contains("caudal publish payments"), "{text}");
    let text = refused(&|server| server.env("CAUDAL_CONFIRM__STORE", "postgres://u:s3cret@h/d"), &enqueue);
    assert!(text.contains("dynamodb://<region>/<table>") && !text.contains("s3cret"), "{text}");
    let text = refused(&|server| server.store("dynamodb:payments"), &["migrate"]);
    assert!(text.contains("confirm.store"), "{text}");
    let adopt = "[adopt.orders]\ntable = \"orders\"\nkey = \"id\"\nstate = \"status\"\n\
                 [adopt.orders.confirm]\nurl = \"http://127.0.0.1:9/\"";
    let text =
        refused(&|server| server.topic(TOPIC, Some(PAYMENTS), &(whole.clone() + "\n" + adopt)), &["confirm", "once"]);
    assert!(text.contains("adopt.orders"), "{text}");
    let missing = format!("dynamodb:none-such?endpoint={}", case.books.url.split("endpoint=").nth(1).unwrap());
    let missing = missing.replace("&create=true", "");
    let text =
        refused(&|server| server.topic(TOPIC, Some(PAYMENTS), &whole).env("CAUDAL_CONFIRM__STORE", &missing), &enqueue);
    assert!(text.contains("create=true"), "{text}");
}
