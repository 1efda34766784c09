//! The catalogue of bad input: for each entry the same clear refusal on both stores, and nothing kept.

use caudal_testkit::api::Api;
use caudal_testkit::postgres;
use caudal_testkit::server::Server;
use serde_json::{Value, json};

use crate::formats::gzip;
use crate::{SQLITE, server};

/// One request that must be refused.
struct Bad {
    name: String,
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    code: &'static str,
}

impl Bad {
    fn new(
        name: impl Into<String>,
        method: &'static str,
        path: impl Into<String>,
        status: u16,
        code: &'static str,
    ) -> Self {
        Self { name: name.into(), method, path: path.into(), headers: Vec::new(), body: Vec::new(), status, code }
    }

    /// A document posted to a topic.
    fn json(name: impl Into<String>, topic: &str, body: impl Into<Vec<u8>>, status: u16, code: &'static str) -> Self {
        let bad = Self::new(name, "POST", format!("/v1/topics/{topic}/messages"), status, code);
        bad.header("content-type", "application/json").body(body)
    }

    fn get(name: impl Into<String>, path: impl Into<String>, status: u16, code: &'static str) -> Self {
        Self::new(name, "GET", path, status, code)
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(known, _)| *known != name || name == "x-many");
        self.headers.push((name, value.into()));
        self
    }

    fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

fn deep(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

/// Entries 1 to 15: what a document may not be. Each is tried on a topic with a schema and on one without.
fn documents() -> Vec<Bad> {
    let mut bad = Vec::new();
    let members: Vec<String> = (0..10_001).map(|i| format!("\"m{i}\":1")).collect();
    let whole: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("1 cut off", b"{\"n\": 1".to_vec(), 400, "malformed_json"),
        ("1 single quotes", b"{'n': 1}".to_vec(), 400, "malformed_json"),
        ("1 trailing comma", b"{\"n\": 1,}".to_vec(), 400, "malformed_json"),
        ("1 comment", b"{\"n\": 1} // x".to_vec(), 400, "malformed_json"),
        ("1 bare word", b"nul".to_vec(), 400, "malformed_json"),
        ("1 leading zero", b"{\"n\": 01}".to_vec(), 400, "malformed_json"),
        ("2 a second document", b"{\"n\": 1} {\"n\": 2}".to_vec(), 400, "malformed_json"),
        ("3 empty", b"".to_vec(), 400, "empty_body"),
        ("4 not UTF-8", b"{\"n\": 1, \"customer\": \"\xff\"}".to_vec(), 400, "invalid_utf8"),
        ("4 overlong UTF-8", b"{\"n\": 1, \"customer\": \"\xc0\xaf\"}".to_vec(), 400, "invalid_utf8"),
        ("4 surrogate in UTF-8", b"{\"n\": 1, \"customer\": \"\xed\xa0\x80\"}".to_vec(), 400, "invalid_utf8"),
        ("5 byte order mark", b"\xef\xbb\xbf{\"n\": 1}".to_vec(), 400, "invalid_utf8"),
        ("5 UTF-16", b"\xff\xfe{\0}\0".to_vec(), 400, "invalid_utf8"),
        ("6 lone surrogate", br#"{"n": 1, "customer": "\ud800"}"#.to_vec(), 400, "malformed_json"),
        ("6 reversed surrogates", br#"{"n": 1, "customer": "\udc00\ud800"}"#.to_vec(), 400, "malformed_json"),
        ("7 NUL in a value", br#"{"n": 1, "customer": "a\u0000b"}"#.to_vec(), 422, "nul_character"),
        ("7 NUL in a key", br#"{"n": 1, "a\u0000b": 1}"#.to_vec(), 422, "nul_character"),
        ("7 NUL deep inside", br#"{"n": 1, "more": [{"a": "\u0000"}]}"#.to_vec(), 422, "nul_character"),
        ("7 raw NUL", b"{\"n\": 1, \"customer\": \"a\0b\"}".to_vec(), 400, "malformed_json"),
        ("8 key twice", br#"{"n": 1, "n": 1}"#.to_vec(), 400, "duplicate_key"),
        ("8 unknown key twice", br#"{"n": 1, "x": 1, "x": 2}"#.to_vec(), 400, "duplicate_key"),
        ("8 key twice in another spelling", br#"{"n": 1, "\u006e": 2}"#.to_vec(), 400, "duplicate_key"),
        ("8 key twice deep inside", br#"{"n": 1, "more": {"a": {"b": 1, "b": 2}}}"#.to_vec(), 400, "duplicate_key"),
        ("11 1e400", br#"{"n": 1, "more": 1e400}"#.to_vec(), 422, "number_out_of_range"),
        ("11 1e-20000", br#"{"n": 1, "more": 1e-20000}"#.to_vec(), 422, "number_out_of_range"),
        ("12 NaN", br#"{"n": 1, "amount": NaN}"#.to_vec(), 400, "malformed_json"),
        ("12 Infinity", br#"{"n": 1, "amount": -Infinity}"#.to_vec(), 400, "malformed_json"),
        ("13 deep", format!("{{\"n\": 1, \"more\": {}}}", deep(64)).into_bytes(), 400, "too_deep"),
        ("13 very deep", "[".repeat(100_000).into_bytes(), 400, "too_deep"),
        ("14 members", format!("{{\"n\": 1, {}}}", members.join(",")).into_bytes(), 422, "too_many_members"),
        ("15 long key", format!("{{\"n\": 1, \"{}\": 1}}", "k".repeat(257)).into_bytes(), 422, "string_too_long"),
        (
            "15 long string",
            format!("{{\"n\": 1, \"customer\": \"{}\"}}", "s".repeat(1_000_001)).into_bytes(),
            422,
            "string_too_long",
        ),
    ];
    for (name, body, status, code) in whole {
        // A body that begins with a bracket is a batch.
        for topic in ["orders", "notes"] {
            bad.push(Bad::json(format!("{name} ({topic})"), topic, body.clone(), status, code));
        }
    }
    bad
}

/// Entries 10, 11, 44 to 46: documents that a schema refuses.
fn breaches() -> Vec<Bad> {
    let mut bad: Vec<Bad> = [
        ("10 beyond i64", r#"{"n": 9223372036854775808}"#, "number_out_of_range"),
        ("10 inexact double", r#"{"n": 1, "amount": 9007199254740993}"#, "number_out_of_range"),
        ("11 1e400 in a column", r#"{"n": 1, "amount": 1e400}"#, "number_out_of_range"),
        ("44 fraction", r#"{"n": 1.5}"#, "schema"),
        ("44 missing", r#"{"amount": 1}"#, "schema"),
        ("44 null", r#"{"n": null}"#, "schema"),
        ("44 wrong type", r#"{"n": 1, "paid": "yes"}"#, "schema"),
        ("44 not an object", "7", "schema"),
        ("44 not a UUID", r#"{"n": 1, "ref": "{018f9c00-0000-7000-8000-000000000001}"}"#, "schema"),
        ("46 no zone", r#"{"n": 1, "at": "2024-01-01T00:00:00"}"#, "schema"),
        ("46 year 10000", r#"{"n": 1, "at": "10000-01-01T00:00:00Z"}"#, "schema"),
        ("46 second 60", r#"{"n": 1, "at": "2016-12-31T23:59:60Z"}"#, "schema"),
        ("46 February 30", r#"{"n": 1, "day": "2024-02-30"}"#, "schema"),
        ("46 year 0", r#"{"n": 1, "day": "0000-01-01"}"#, "schema"),
    ]
    .into_iter()
    .map(|(name, body, code)| Bad::json(name, "orders", body, 422, code))
    .collect();
    // Caudal's own columns are not a producer's to fill.
    bad.push(Bad::json("44 protected field", "strict", r#"{"n": 1, "_id": "x"}"#, 422, "unknown_field"));
    bad.push(Bad::json("45 key column missing", "keyed-twice", r#"{"n": 1}"#, 422, "key_missing"));
    bad.push(Bad::json("45 empty key", "notes", "1", 400, "key_invalid").header("idempotency-key", "\"\""));
    bad.push(Bad::json("45 long key", "notes", "1", 400, "key_invalid").header("idempotency-key", "k".repeat(1025)));
    bad
}

/// Entries 16 to 31 as far as an HTTP client can send them.
fn requests() -> Vec<Bad> {
    let big = format!("\"{}\"", "x".repeat(5 * 1024 * 1024)).into_bytes();
    let bomb = gzip(&vec![b' '; 20 * 1024 * 1024]);
    let mut cut = gzip(b"{\"n\": 1, \"customer\": \"some text that is long enough\"}");
    cut.truncate(cut.len() - 12);
    let mut flipped = gzip(b"{\"n\": 1}");
    let last = flipped.len() - 8;
    flipped[last] ^= 0xff;
    let note = |name: &str, status, code| Bad::json(name, "notes", "{\"n\": 1}", status, code);
    let mut many = note("25 seventy headers", 431, "");
    for i in 0..70 {
        many = many.header("x-many", format!("{i}"));
    }
    vec![
        Bad::json("16 record over the limit", "notes", big, 413, "record_too_large"),
        Bad::json("17 gzip bomb", "notes", bomb, 413, "body_too_large").header("content-encoding", "gzip"),
        Bad::json(
            "17 zstd bomb",
            "notes",
            zstd::encode_all(&vec![b' '; 20 << 20][..], 3).unwrap(),
            413,
            "body_too_large",
        )
        .header("content-encoding", "zstd"),
        Bad::json("17 bomb of lines", "orders", gzip(&vec![b' '; 80 * 1024 * 1024]), 413, "body_too_large")
            .header("content-type", "application/x-ndjson")
            .header("content-encoding", "gzip"),
        Bad::json("18 gzip cut off", "notes", cut, 400, "bad_encoding").header("content-encoding", "gzip"),
        Bad::json("18 gzip with a wrong checksum", "notes", flipped, 400, "bad_encoding")
            .header("content-encoding", "gzip"),
        note("18 not gzip at all", 400, "bad_encoding").header("content-encoding", "gzip"),
        note("18 not zstd at all", 400, "bad_encoding").header("content-encoding", "zstd"),
        note("19 unknown coding", 415, "unsupported_media_type").header("content-encoding", "br"),
        note("19 nested coding", 415, "unsupported_media_type").header("content-encoding", "gzip, gzip"),
        note("20 text", 415, "unsupported_media_type").header("content-type", "text/plain"),
        note("20 form", 415, "unsupported_media_type").header("content-type", "application/x-www-form-urlencoded"),
        Bad::new("20 no content type", "POST", "/v1/topics/notes/messages", 415, "unsupported_media_type").body("{}"),
        note("21 charset", 415, "unsupported_media_type").header("content-type", "application/json; charset=latin1"),
        Bad::new("22 method", "DELETE", "/v1/topics/notes/messages", 405, "method_not_allowed"),
        Bad::new("22 method on a table", "PATCH", "/rest/v1/notes", 405, "method_not_allowed"),
        Bad::get("23 accept", "/rest/v1/notes", 406, "not_acceptable").header("accept", "image/png"),
        Bad::get("24 path", "/v2/everything", 404, "not_found"),
        many,
        note("25 long header", 431, "headers_too_large").header("x-long", "x".repeat(17 * 1024)),
        Bad::get("26 long target", format!("/rest/v1/notes?_key=eq.{}", "x".repeat(9_000)), 414, "uri_too_long"),
        note("29 foreign host", 421, "misdirected_request").header("host", "evil.example"),
        note("31 expectation", 417, "bad_expectation").header("expect", "200-ok"),
    ]
}

/// Entries 32 to 43: reading what is not there or not allowed.
fn reads() -> Vec<Bad> {
    let table = |name: &str, query: String, code| Bad::get(name, format!("/rest/v1/table?{query}"), 400, code);
    let many: Vec<String> = (0..33).map(|i| format!("n=neq.{i}")).collect();
    let list: Vec<String> = (0..1_001).map(|i| i.to_string()).collect();
    vec![
        table("32 unknown field", "nope=eq.1".into(), "unknown_column"),
        table("33 unknown operator", "n=similar.1".into(), "bad_filter"),
        table("33 no operator", "n=1".into(), "bad_filter"),
        table("33 text for a number", "n=eq.one".into(), "bad_value"),
        table("33 too big a number", "n=eq.9223372036854775808".into(), "bad_value"),
        table("33 bad time", "at=gt.soon".into(), "bad_value"),
        table("33 bad UUID", "ref=eq.1".into(), "bad_value"),
        table("33 like on a number", "n=like.1*".into(), "bad_filter"),
        table("33 is maybe", "paid=is.maybe".into(), "bad_filter"),
        table("33 open list", "n=in.(1,2".into(), "bad_filter"),
        table("33 open logic", "or=(n.eq.1".into(), "bad_filter"),
        table("33 deep logic", format!("or={}n.eq.1{}", "(or".repeat(10) + "(", ")".repeat(11)), "bad_filter"),
        table("33 NUL in a value", "customer=eq.a%00b".into(), "bad_filter"),
        table("35 SQL in select", "select=n%3Bdrop%20table%20x".into(), "unknown_column"),
        table("35 SQL in order", "order=n%3Bselect%201".into(), "unknown_column"),
        table("35 function in select", "select=pg_sleep(1)".into(), "unknown_relation"),
        table("35 cast in select", "select=n::regclass".into(), "bad_filter"),
        table("37 33 terms", many.join("&"), "bad_filter"),
        table("37 1,001 values", format!("n=in.({})", list.join(",")), "bad_filter"),
        table("38 limit beyond 64 bits", "limit=99999999999999999999".into(), "bad_filter"),
        table("38 huge offset", "offset=99999999999999999999".into(), "bad_filter"),
        table("38 limit in words", "limit=ten".into(), "bad_filter"),
        table("41 broken escape", "customer=eq.%zz".into(), "bad_filter"),
        table("41 not UTF-8", "customer=eq.%ff".into(), "bad_filter"),
        Bad::json("41 broken escape in a path", "%zz", "{}", 400, "bad_topic_name"),
        Bad::json("41 NUL in a path", "a%00b", "{}", 400, "bad_topic_name"),
        Bad::json("41 dots in a path", "%2e%2e%2fnotes", "{}", 400, "bad_topic_name"),
        Bad::json("41 a path that is not UTF-8", "%ff", "{}", 400, "bad_path"),
        Bad::json("42 upper case", "Notes", "{}", 400, "bad_topic_name"),
        Bad::json("42 space", "no%20tes", "{}", 400, "bad_topic_name"),
        Bad::json("42 look-alike letter", "n%D0%BEtes", "{}", 400, "bad_topic_name"),
        Bad::json("42 right to left", "%E2%80%AEsetoN", "{}", 400, "bad_topic_name"),
        Bad::json("42 long", &"n".repeat(200), "{}", 400, "bad_topic_name"),
        Bad::json("42 ANSI", "%1b%5b31mred", "{}", 400, "bad_topic_name"),
        Bad::json("43 unknown", "nottes", "{}", 404, "unknown_topic"),
        Bad::get("43 unknown table", "/rest/v1/pg_catalog.pg_class", 404, "unknown_table"),
        Bad::get("43 a system table", "/rest/v1/_positions", 404, "unknown_table"),
    ]
}

/// Rows of every table and dead letters: what "nothing stored" is held to.
async fn kept(api: &Api) -> Value {
    let books = api.get("/v1/reconcile?count=exact").await.unwrap().json();
    assert_eq!(books["unaccounted"], 0, "{books:#}");
    let topics = books["topics"].as_array().unwrap().iter();
    let rows: Vec<Value> =
        topics.map(|t| json!([t["topic"], t["rows"], t["published"].as_u64().unwrap_or(0)])).collect();
    let dead = api.send("GET", "/rest/v1/_dead_letters?limit=0", &[("prefer", "count=exact")], "").await.unwrap();
    json!([rows, dead.header("content-range")])
}

async fn verdict(server: &Server, bad: &Bad) -> Result<Value, String> {
    let api = server.api();
    let headers: Vec<(&str, &str)> = bad.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply =
        api.send(bad.method, &bad.path, &headers, bad.body.clone()).await.map_err(|e| format!("no answer: {e:#}"))?;
    let code = reply.code();
    if (reply.status, code.as_str()) != (bad.status, bad.code) {
        return Err(format!("{} {code}, not {} {}: {:.300}", reply.status, bad.status, bad.code, reply.text()));
    }
    let problem = reply.json();
    // Seventy headers never reach a handler; everything else says what is wrong, in words and for machines.
    if !bad.code.is_empty() {
        let detail = problem["detail"].as_str().unwrap_or_default();
        let kind = problem["type"].as_str().unwrap_or_default();
        if detail.is_empty() || detail.len() > 1_000 || kind != format!("/docs/errors/{code}") {
            return Err(format!("not a good problem: {problem}"));
        }
        let media = reply.header("content-type");
        if !media.starts_with("application/problem+json") && !bad.path.starts_with("/rest/") {
            return Err(format!("content type {media}"));
        }
    }
    if reply.status == 405 && reply.header("allow").is_empty() {
        return Err("405 without Allow".to_owned());
    }
    Ok(json!([reply.status, code, problem["pointer"], problem["detail"]]))
}

async fn is_refused_alike(broker: &str) {
    let mut sqlite = server(SQLITE, broker);
    let mut postgres = server(&postgres::database().await.unwrap(), broker);
    sqlite.start().await.unwrap();
    postgres.start().await.unwrap();
    let before = (kept(&sqlite.api()).await, kept(&postgres.api()).await);
    let table: Vec<Bad> = [documents(), breaches(), requests(), reads()].into_iter().flatten().collect();
    let mut wrong = Vec::new();
    for bad in &table {
        match (verdict(&sqlite, bad).await, verdict(&postgres, bad).await) {
            (Ok(one), Ok(other)) if one == other => {}
            (Ok(one), Ok(other)) => wrong.push(format!("{}: {one} on SQLite, {other} on PostgreSQL", bad.name)),
            (one, other) => wrong.push(format!("{}: {}", bad.name, one.err().or(other.err()).unwrap_or_default())),
        }
        let after = (kept(&sqlite.api()).await, kept(&postgres.api()).await);
        assert_eq!(before, after, "{} left something behind", bad.name);
    }
    println!("{broker} {} entries", table.len());
    assert!(wrong.is_empty(), "{broker} {} of {} are wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    for server in [&sqlite, &postgres] {
        let log = server.log();
        assert!(!log.contains('\u{1b}') && !log.contains("panicked"), "{log}");
        assert_eq!(server.api().get("/readyz").await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_alike_in_direct_mode() {
    is_refused_alike("none:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_alike_in_queued_mode() {
    is_refused_alike("embedded:").await;
}
