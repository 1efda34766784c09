//! Pages by cursor: together they are the whole answer, whatever the order, and nothing but what was given out is taken.
//!
//! `CAUDAL_SEED` repeats a run.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod forged;
mod found;
mod orders;

use caudal_testkit::api::{Api, Reply};
use caudal_testkit::postgres::database;
use caudal_testkit::server::Server;
use serde_json::Value;

pub(crate) const SQLITE: &str = "sqlite:caudal.db";
const SCHEMA: &str = r#"{"type": "object", "required": ["n"], "properties": {
  "n": {"type": "integer"}, "amount": {"type": "number"}, "word": {"type": "string"}, "flag": {"type": "boolean"},
  "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
  "ref": {"type": "string", "format": "uuid"}, "more": {}}}"#;

pub(crate) async fn stores() -> [String; 2] {
    [SQLITE.to_owned(), database().await.unwrap()]
}

/// A server with a topic whose columns may be null.
pub(crate) async fn serving(store: &str, settings: &[(&str, &str)]) -> (Server, Api) {
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal")).unwrap().store(store).broker("none:");
    server.set_topic("things", Some(SCHEMA), "");
    for (name, value) in settings {
        server.set_env(name, *value);
    }
    server.start().await.unwrap();
    let api = server.api();
    (server, api)
}

pub(crate) async fn publish(api: &Api, lines: String) {
    let headers = [("content-type", "application/x-ndjson"), ("prefer", "return=minimal, wait=60")];
    let reply = api.post("/v1/topics/things/messages", &headers, lines).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text());
}

/// Few distinct values and many nulls in every column; `n` is the row's number.
pub(crate) fn lines(rows: std::ops::Range<u64>) -> String {
    let mut lines = String::new();
    for n in rows {
        let mut fields = vec![format!("\"n\": {n}")];
        let mut field = |every: u64, name: &str, values: &[&str]| {
            if !n.is_multiple_of(every) {
                fields.push(format!("\"{name}\": {}", values[(n / 2) as usize % values.len()]));
            }
        };
        field(5, "amount", &["0.1", "0.30000000000000004", "-1e300", "5e-324", "-0.0", "7"]);
        field(4, "word", &["\"\"", "\"a\"", "\"A\"", "\"é,\\\"(\\\\\"", "\"%&=+ #\"", "\"null\"", "\"ñ\""]);
        field(3, "flag", &["true", "false"]);
        let times = ["\"2024-01-01T00:00:00.000001Z\"", "\"2024-01-01T00:00:00Z\"", "\"1969-12-31T23:59:59.999999Z\""];
        field(6, "at", &times);
        field(7, "day", &["\"2020-02-29\"", "\"1999-12-31\""]);
        field(2, "ref", &["\"00000000-0000-0000-0000-000000000001\"", "\"ffffffff-ffff-ffff-ffff-ffffffffffff\""]);
        field(8, "more", &["{\"k\": \"x\"}", "{\"k\": 10}", "{\"k\": 9}", "{\"k\": null}", "[1]"]);
        lines.push_str(&format!("{{{}}}\n", fields.join(", ")));
    }
    lines
}

pub(crate) fn rows(reply: &Reply) -> Vec<Value> {
    assert!(matches!(reply.status, 200 | 206), "{}: {}", reply.status, reply.text());
    reply.json().as_array().unwrap().clone()
}

/// The address behind `rel="next"`.
pub(crate) fn next(reply: &Reply) -> Option<String> {
    reply.header("link").strip_prefix('<').and_then(|rest| rest.strip_suffix(">; rel=\"next\"")).map(str::to_owned)
}

/// Every row of every page, and how many pages there were.
pub(crate) async fn walk(api: &Api, first: &str) -> (Vec<Value>, usize) {
    let (mut found, mut pages, mut path) = (Vec::new(), 0, Some(first.to_owned()));
    while let Some(current) = path {
        let reply = api.get(&current).await.unwrap();
        let page = rows(&reply);
        path = next(&reply);
        assert!(path.is_none() || !page.is_empty(), "a way on from nothing: {current}");
        if let Some(path) = &path {
            assert!(path.contains("cursor="), "{path}");
        }
        found.extend(page);
        pages += 1;
        assert!(pages <= 2_000, "pages without end: {current}");
    }
    (found, pages)
}
