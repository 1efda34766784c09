//! Bounds on reads of tables: what cuts says so and where the rest is, and what costs too much is refused before it runs.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use caudal_testkit::api::{Api, Reply};
use caudal_testkit::postgres::{database, execute};
use caudal_testkit::server::Server;

const SQLITE: &str = "sqlite:caudal.db";
const ROWS: i64 = 5_000;
const SCHEMA: &str =
    r#"{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}, "word": {"type": "string"}}}"#;

async fn filled(store: &str, settings: &[(&str, &str)]) -> (Server, Api) {
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().store(store).broker("none:");
    server.set_topic("things", Some(SCHEMA), "");
    for (name, value) in settings {
        server.set_env(name, *value);
    }
    server.start().await.unwrap();
    let api = server.api();
    let body: String = (0..ROWS).map(|n| format!("{{\"n\": {n}, \"word\": \"word {}\"}}\n", n % 100)).collect();
    let headers = [("content-type", "application/x-ndjson"), ("prefer", "return=minimal, wait=60")];
    let reply = api.post("/v1/topics/things/messages", &headers, body).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text());
    (server, api)
}

async fn stores() -> [String; 2] {
    [SQLITE.to_owned(), database().await.unwrap()]
}

fn numbers(reply: &Reply) -> Vec<i64> {
    assert!(matches!(reply.status, 200 | 206), "{}: {}", reply.status, reply.text());
    reply.json().as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).collect()
}

/// The address behind `rel="next"`, when the answer was cut.
fn next(reply: &Reply) -> Option<String> {
    let cut = reply.header("caudal-truncated") == "true";
    let link = reply.header("link").strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
    assert!(!cut || link.is_some(), "a cut without a way on: {:?}", reply.headers);
    link.map(str::to_owned)
}

async fn all_pages(api: &Api, first: &str) -> (Vec<i64>, usize) {
    let (mut found, mut pages, mut path) = (Vec::new(), 0, Some(first.to_owned()));
    while let Some(current) = path {
        let reply = api.get(&current).await.unwrap();
        found.extend(numbers(&reply));
        pages += 1;
        assert!(pages <= 60, "pages without end: {current}");
        path = next(&reply);
    }
    (found, pages)
}

#[tokio::test]
async fn rows_over_the_cap_are_on_the_next_page() {
    for store in stores().await {
        let (_server, api) = filled(&store, &[("CAUDAL_READ__ROWS_MAX", "2000")]).await;
        for (path, pages) in [
            ("/rest/v1/things?select=n", 3),
            ("/rest/v1/things?select=n&order=n.desc", 3),
            ("/rest/v1/things?select=n&limit=4500", 3),
            ("/rest/v1/things?select=n&n=gte.3000", 1),
            ("/rest/v1/things?select=n&n=gte.2999&order=word,n", 2),
        ] {
            let (mut found, seen) = all_pages(&api, path).await;
            assert_eq!(seen, pages, "{store} {path}");
            let first = ROWS - found.len() as i64;
            found.sort_unstable();
            assert_eq!(found, (first..ROWS).collect::<Vec<_>>(), "{store} {path}");
        }
        // Exactly the cap: a whole answer. Less than it by the caller's own wish: a page, and no cut.
        let reply = api.get("/rest/v1/things?select=n&n=lt.2000").await.unwrap();
        assert_eq!((next(&reply), reply.header("caudal-truncated")), (None, ""), "{store}");
        let reply = api.get("/rest/v1/things?select=n&limit=7").await.unwrap();
        assert_eq!((numbers(&reply).len(), next(&reply).is_some(), reply.header("caudal-truncated")), (7, true, ""));
        let counted = api.send("GET", "/rest/v1/things?select=n", &[("prefer", "count=exact")], "").await.unwrap();
        assert_eq!((counted.status, counted.header("content-range")), (206, "0-1999/5000"), "{store}");
    }
}

#[tokio::test]
async fn bytes_over_the_cap_are_on_the_next_page() {
    for store in stores().await {
        let (_server, api) = filled(&store, &[("CAUDAL_READ__BYTES_MAX", "20000")]).await;
        let (mut found, pages) = all_pages(&api, "/rest/v1/things?select=n").await;
        found.sort_unstable();
        assert_eq!(found, (0..ROWS).collect::<Vec<_>>(), "{store}");
        assert!(pages > 1, "{store}: nothing was cut");
    }
}

#[tokio::test]
async fn what_costs_too_much_is_refused_with_the_index_that_would_help() {
    for store in stores().await {
        let on_postgres = store != SQLITE;
        let (server, api) = filled(&store, &[("CAUDAL_READ__COST_MAX", if on_postgres { "60" } else { "1000" })]).await;
        if on_postgres {
            execute(&store, "analyze things").await.unwrap();
        }
        let path = "/rest/v1/things?select=n&word=eq.word%207";
        let refused = api.get(path).await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (422, "too_costly"), "{store}: {}", refused.text());
        let hint = refused.json()["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains("create index") && hint.contains("(\"word\")"), "{hint}");
        let counted =
            api.send("HEAD", "/rest/v1/things?limit=0&word=eq.a", &[("prefer", "count=exact")], "").await.unwrap();
        assert_eq!(counted.status, 422, "{store}: a count is not cheaper than its rows");
        let id = api.get("/rest/v1/things?select=_id&limit=1").await.unwrap();
        assert_eq!(id.status, 200, "{store}: a page of a plain scan is cheap: {}", id.text());
        let id = id.json()[0]["_id"].as_str().unwrap().to_owned();
        let by_id = api.get(&format!("/rest/v1/things?select=n&_id=eq.{id}")).await.unwrap();
        assert_eq!(by_id.status, 200, "{store}: {}", by_id.text());
        let dead = api.get("/v1/dead-letters?reason=eq.schema").await.unwrap();
        assert_eq!(dead.status, 200, "{store}: {}", dead.text());
        // The advice is sound: done as it says, the same read is allowed.
        if on_postgres {
            execute(&store, &hint).await.unwrap();
            drop(server);
            let (_server, api) = again(&store, "60").await;
            assert_eq!(numbers(&api.get(path).await.unwrap()).len() as i64, ROWS / 100);
        }
    }
}

async fn again(store: &str, cost_max: &str) -> (Server, Api) {
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().store(store).broker("none:");
    server.set_topic("things", Some(SCHEMA), "");
    server.set_env("CAUDAL_READ__COST_MAX", cost_max);
    server.start().await.unwrap();
    let api = server.api();
    (server, api)
}

#[tokio::test]
async fn without_bounds_a_whole_table_comes_in_one_answer() {
    for store in stores().await {
        let (_server, api) = filled(&store, &[]).await;
        let reply = api.get("/rest/v1/things?select=n").await.unwrap();
        assert_eq!((numbers(&reply).len() as i64, next(&reply)), (ROWS, None), "{store}");
    }
}
