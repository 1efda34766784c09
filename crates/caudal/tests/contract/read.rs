//! Reading: one record, a table in PostgREST's form.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Context;

const ROWS: &str = r#"{"n": 1, "amount": 1.5, "customer": "Ana", "paid": true, "at": "2024-01-01T00:00:00Z", "day": "2024-01-01"}
{"n": 2, "amount": -2, "customer": "Bo_b", "paid": false, "at": "2024-02-01T12:00:00.5Z", "ref": "018f9c00-0000-7000-8000-000000000001"}
{"n": 3, "customer": "Ana, \"2\"", "at": "2024-03-01T00:00:00Z", "day": "2024-03-01"}
{"n": 4, "amount": 4, "customer": "=SUM(A1)", "paid": true}
{"n": 5, "amount": 100.25}
"#;

pub(crate) async fn fill(cx: &Context) {
    cx.send(
        "table",
        "application/x-ndjson",
        &[("idempotency-key", "rows")],
        ROWS,
        if cx.count("table", "").await == 0 { 201 } else { 200 },
    )
    .await;
}

async fn numbers(cx: &Context, query: &str) -> Vec<i64> {
    let path = format!("/rest/v1/table?select=n&{}", query.replace('"', "%22").replace(' ', "%20"));
    let reply = cx.api.get(&path).await.unwrap();
    assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    reply.json().as_array().unwrap().iter().map(|row| row["n"].as_i64().unwrap()).collect()
}

pub(crate) async fn record_and_cache(cx: Arc<Context>) {
    let location = cx.publish("notes", &[], "{\"cached\": true}", 201).await.header("location").to_owned();
    let first = cx.api.get(&location).await.unwrap();
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with('"') && first.header("cache-control").contains("immutable"));
    assert_eq!(cx.api.get(&location).await.unwrap().body, first.body);
    let unchanged = cx.api.send("GET", &location, &[("if-none-match", &etag)], "").await.unwrap();
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    let other = cx.api.send("GET", &location, &[("if-none-match", "\"other\"")], "").await.unwrap();
    assert_eq!(other.status, 200);
    let absent = cx.api.get("/v1/topics/notes/messages/018f9c00-0000-7000-8000-000000000009").await.unwrap();
    assert_eq!((absent.status, absent.code().as_str()), (404, "not_found"));
    let bad = cx.api.get("/v1/topics/notes/messages/12").await.unwrap();
    assert_eq!((bad.status, bad.code().as_str()), (400, "bad_id"));
}

pub(crate) async fn table(cx: Arc<Context>) {
    fill(&cx).await;
    assert_eq!(numbers(&cx, "order=n").await, [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&cx, "order=n.desc&limit=2").await, [5, 4]);
    assert_eq!(numbers(&cx, "order=n&limit=2&offset=3").await, [4, 5]);
    assert_eq!(numbers(&cx, "order=n&offset=9").await, [0i64; 0]);
    assert_eq!(numbers(&cx, "limit=0").await, [0i64; 0]);
    // Nulls last ascending and first descending, as in PostgreSQL, on both stores.
    assert_eq!(numbers(&cx, "order=amount,n").await, [2, 1, 4, 5, 3]);
    assert_eq!(numbers(&cx, "order=amount.desc,n").await, [3, 5, 4, 1, 2]);
    assert_eq!(numbers(&cx, "order=amount.nullsfirst").await[0], 3);
    assert_eq!(numbers(&cx, "order=amount.desc.nullslast").await, [5, 4, 1, 2, 3]);
    assert_eq!(numbers(&cx, "order=paid,n").await, [2, 1, 4, 3, 5]);
    let rows = cx.json("/rest/v1/table?select=number:n,who:customer&order=n&limit=1").await;
    assert_eq!(rows, json!([{ "number": 1, "who": "Ana" }]));
    let all = cx.json("/rest/v1/table?order=n&limit=1&select=*").await;
    assert!(all[0]["_stored_at"].is_string() && all[0]["_key"] == "rows#0");
}

pub(crate) async fn formats(cx: Arc<Context>) {
    fill(&cx).await;
    let path = "/rest/v1/table?select=n,amount,customer,paid,at,day&order=n";
    let csv = cx.api.send("GET", path, &[("accept", "text/csv")], "").await.unwrap();
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert_eq!(
        csv.text(),
        "n,amount,customer,paid,at,day\r\n1,1.5,Ana,true,2024-01-01T00:00:00+00:00,2024-01-01\r\n\
         2,-2,Bo_b,false,2024-02-01T12:00:00.5+00:00,\r\n3,,\"Ana, \"\"2\"\"\",,2024-03-01T00:00:00+00:00,2024-03-01\r\n\
         4,4,\"=SUM(A1)\",true,,\r\n5,100.25,,,,\r\n"
    );
    let ndjson = cx.api.send("GET", path, &[("accept", "application/x-ndjson")], "").await.unwrap();
    let lines: Vec<Value> = ndjson.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(Value::Array(lines), cx.json(path).await);
    let none = cx.api.get("/rest/v1/table?n=eq.77").await.unwrap();
    assert_eq!((none.status, none.json()), (200, json!([])));
    let refused = cx.api.send("GET", path, &[("accept", "image/png")], "").await.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (406, "not_acceptable"));
    assert_eq!(refused.json()["code"], "PGRST107");
}

pub(crate) async fn filters(cx: Arc<Context>) {
    fill(&cx).await;
    for (query, expected) in [
        ("n=eq.2", vec![2]),
        ("n=neq.2", vec![1, 3, 4, 5]),
        ("n=gt.2&n=lte.4", vec![3, 4]),
        ("amount=gte.1.5&amount=lt.100", vec![1, 4]),
        ("amount=not.gte.1.5", vec![2]),
        ("n=in.(1,3,9)", vec![1, 3]),
        ("n=not.in.(1,3)", vec![2, 4, 5]),
        ("n=in.()", vec![]),
        ("customer=in.(Ana,\"Ana, \\\"2\\\"\")", vec![1, 3]),
        ("customer=like.Ana*", vec![1, 3]),
        ("customer=like.*_b", vec![2]),
        ("customer=like.ana*", vec![]),
        ("customer=not.like.Ana*", vec![2, 4]),
        ("customer=eq.Ana, \"2\"", vec![3]),
        ("paid=is.true", vec![1, 4]),
        ("paid=is.null", vec![3, 5]),
        ("paid=not.is.null", vec![1, 2, 4]),
        ("paid=eq.false", vec![2]),
        ("at=gt.2024-01-15T00:00:00Z", vec![2, 3]),
        ("at=lt.2024-01-15", vec![1]),
        ("at=eq.2024-02-01T13:00:00.5%2B01:00", vec![2]),
        ("day=gte.2024-02-01", vec![3]),
        ("ref=eq.018f9c00-0000-7000-8000-000000000001", vec![2]),
        ("or=(n.eq.1,n.gt.4)", vec![1, 5]),
        ("and=(n.gt.1,or(paid.is.true,amount.gt.50))", vec![4, 5]),
        ("not.or=(n.eq.1,n.gt.4)", vec![2, 3, 4]),
        ("or=(customer.eq.\"Ana, \\\"2\\\"\",not.and(n.gt.1,n.lt.9))", vec![1, 3]),
        ("n=not.eq.1&or=(n.in.(1,2),customer.is.null)", vec![2, 5]),
    ] {
        assert_eq!(numbers(&cx, &format!("{query}&order=n")).await, expected, "{query}");
    }
}

pub(crate) async fn singular_and_counts(cx: Arc<Context>) {
    fill(&cx).await;
    let object = [("accept", "application/vnd.pgrst.object+json")];
    let one = cx.api.send("GET", "/rest/v1/table?n=eq.3&select=n", &object, "").await.unwrap();
    assert_eq!((one.status, one.json()), (200, json!({ "n": 3 })));
    for query in ["n=eq.77", "n=gt.1"] {
        let none = cx.api.send("GET", &format!("/rest/v1/table?{query}"), &object, "").await.unwrap();
        assert_eq!((none.status, none.code().as_str()), (406, "not_one_row"), "{query}");
        // What PostgREST's clients look at.
        assert_eq!(none.json()["code"], "PGRST116", "{query}");
    }
    let count = [("prefer", "count=exact")];
    let part = cx.api.send("GET", "/rest/v1/table?n=gt.1&order=n&limit=2&offset=1", &count, "").await.unwrap();
    assert_eq!((part.status, part.header("content-range")), (206, "1-2/4"));
    let whole = cx.api.send("GET", "/rest/v1/table", &count, "").await.unwrap();
    assert_eq!((whole.status, whole.header("content-range")), (200, "0-4/5"));
    let head = cx.api.send("HEAD", "/rest/v1/table?n=eq.1", &count, "").await.unwrap();
    assert_eq!((head.status, head.header("content-range"), head.body.len()), (200, "0-0/1", 0));
}

pub(crate) async fn suggestions(cx: Arc<Context>) {
    let reply = cx.api.get("/rest/v1/table?custmer=eq.a").await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (400, "unknown_column"));
    assert!(reply.text().contains("did you mean \\\"customer\\\""), "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["code"], "42703");
    assert!(["message", "details", "hint"].iter().all(|key| body.get(key).is_some()), "{body}");
    let reply = cx.api.get("/rest/v1/tabel").await.unwrap();
    assert_eq!(
        (reply.status, reply.code().as_str(), &reply.json()["code"]),
        (404, "unknown_table", &json!("PGRST205"))
    );
}

pub(crate) async fn injections(cx: Arc<Context>) {
    fill(&cx).await;
    for literal in ["'; drop table \"table\"; --", "' or '1'='1", "\\'; select 1", "$1", "%27", "a\" or 1=1", "${jndi}"]
    {
        let encoded: String = literal.bytes().map(|b| format!("%{b:02X}")).collect();
        for filter in [
            format!("customer=eq.{encoded}"),
            format!("customer=like.{encoded}"),
            format!("customer=in.(%22{}%22)", encoded.replace("%5C", "%5C%5C").replace("%22", "%5C%22")),
        ] {
            let reply = cx.api.get(&format!("/rest/v1/table?{filter}")).await.unwrap();
            assert_eq!((reply.status, reply.json()), (200, json!([])), "{literal} {filter}: {}", reply.text());
        }
        // It comes back as it was sent.
        let stored = cx.publish("orders", &[], &json!({ "n": 1, "customer": literal }).to_string(), 201).await;
        assert_eq!(cx.json(stored.header("location")).await["customer"], literal);
        assert_eq!(cx.json(&format!("/rest/v1/orders?customer=eq.{encoded}&select=n")).await, json!([{ "n": 1 }]));
    }
    assert_eq!(cx.count("table", "").await, 5);
}

pub(crate) async fn long_table(cx: Arc<Context>) {
    // Several batches of the store's reader, each row once.
    let body: String = (0..6_000).map(|n| format!("{{\"n\": {n}, \"customer\": \"long\"}}\n")).collect();
    cx.send("csv", "application/x-ndjson", &[("prefer", "return=minimal")], body, 201).await;
    let reply = cx.api.get("/rest/v1/csv?select=n&customer=eq.long&order=n").await.unwrap().json();
    let rows = reply.as_array().unwrap();
    assert!(rows.len() == 6_000 && rows.iter().enumerate().all(|(i, row)| row["n"] == i), "{} rows", rows.len());
}
