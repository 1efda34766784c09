//! One message or an array of them, and what the producer is told.

use std::sync::Arc;

use serde_json::json;
use serde_json::value::RawValue;

use crate::{Context, id_of};

pub(crate) async fn one_document(cx: Arc<Context>) {
    let reply = cx.publish("notes", &[], r#"{"text": "hola"}"#, 201).await;
    let id = id_of(&reply);
    assert_eq!(reply.json()["state"], "stored");
    assert_eq!(reply.json()["topic"], "notes");
    assert_eq!(reply.header("location"), format!("/v1/topics/notes/messages/{id}"));
    // Readable at once, by the address that the answer gave.
    let record = cx.json(reply.header("location")).await;
    assert_eq!(record["payload"], json!({ "text": "hola" }));
    assert_eq!(record["_id"], json!(id));
    assert_eq!(record["_source"], "http");
    let receipt = cx.json(&format!("/v1/receipts/{id}")).await;
    assert_eq!((&receipt["state"], &receipt["topic"]), (&json!("stored"), &json!("notes")));
    assert!(receipt["published_at"].is_string() && receipt["stored_at"].is_string());
}

/// Numbers as they are written, not as doubles.
#[derive(serde::Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
}

pub(crate) async fn any_json(cx: Arc<Context>) {
    for document in ["null", "true", "\"text\"", "12.5", "1e-16383", "0e16383", "{}", " {\"a\": [1, {\"b\": null}]} \n"]
    {
        let reply = cx.publish("notes", &[], document, 201).await;
        let record = cx.api.get(reply.header("location")).await.unwrap().text();
        let Record { payload } = serde_json::from_str(&record).unwrap();
        assert!(caudal_core::json::same(payload.get(), document), "{document} became {payload}");
    }
}

pub(crate) async fn duplicates(cx: Arc<Context>) {
    let key = [("idempotency-key", "dup-1")];
    let first = cx.publish("notes", &key, r#"{"a": 1, "b": [2, 3]}"#, 201).await;
    let again = cx.publish("notes", &key, r#"{"a": 1, "b": [2, 3]}"#, 200).await;
    assert_eq!(id_of(&first), id_of(&again));
    assert_eq!(again.json()["state"], "duplicate");
    // The same content in another spelling.
    cx.publish("notes", &key, r#"{ "b":[2,3], "a":1 }"#, 200).await;
    assert_eq!(cx.count("notes", "_key=eq.dup-1").await, 1);
    // A key belongs to its topic.
    let elsewhere = cx.publish("events", &key, r#"{"a": 2}"#, 201).await;
    assert_ne!(id_of(&first), id_of(&elsewhere));
}

pub(crate) async fn conflicts(cx: Arc<Context>) {
    for (topic, one, other) in
        [("notes", r#"{"a": 1}"#, r#"{"a": 2}"#), ("orders", r#"{"n": 1, "paid": true}"#, r#"{"n": 1, "paid": false}"#)]
    {
        let name = format!("conflict-{topic}");
        let key = [("idempotency-key", name.as_str())];
        let first = cx.publish(topic, &key, one, 201).await;
        let reply = cx.publish(topic, &key, other, 422).await;
        assert_eq!(reply.code(), "conflict", "{}", reply.text());
        assert_eq!(id_of(&reply), id_of(&first));
        // The first outcome stands.
        cx.publish(topic, &key, one, 200).await;
        assert_eq!(cx.count(topic, &format!("_key=eq.{name}")).await, 1);
    }
}

pub(crate) async fn async_and_receipts(cx: Arc<Context>) {
    let headers = [("prefer", "respond-async"), ("idempotency-key", "async-1")];
    let status = if cx.queued { 202 } else { 201 };
    let reply = cx.publish("notes", &headers, r#"{"a": "later"}"#, status).await;
    let id = id_of(&reply);
    if cx.queued {
        assert_eq!(reply.header("location"), format!("/v1/receipts/{id}"));
        assert_eq!(reply.header("preference-applied"), "respond-async");
        assert_eq!(reply.json()["state"], "queued");
    }
    let receipt = cx.until(&id, "stored").await;
    assert_eq!(receipt["key"], "async-1");
    let unknown = cx.api.get(&format!("/v1/receipts/{}", uuid::Uuid::now_v7())).await.unwrap();
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
}

pub(crate) async fn wait(cx: Arc<Context>) {
    let reply = cx.publish("notes", &[("prefer", "wait=30")], r#"{"a": "soon"}"#, 201).await;
    assert_eq!(reply.header("preference-applied"), "wait=30");
    // A preference that is not known is ignored, RFC 7240 says.
    cx.publish("notes", &[("prefer", "wait=soon, colour=blue")], r#"{"a": 1}"#, 201).await;
}

pub(crate) async fn strict(cx: Arc<Context>) {
    let headers = [("prefer", "handling=strict")];
    let before = (cx.count("orders", "").await, cx.count("_dead_letters", "").await);
    let body = "{\"n\": 101}\n{\"n\": \"x\"}\n{\"n\": 103}\n";
    let reply = cx.send("orders", "application/x-ndjson", &headers, body, 422).await;
    assert_eq!((reply.code().as_str(), &reply.json()["pointer"]), ("schema", &json!("/n")));
    assert_eq!(reply.json()["index"], 1);
    let array = cx.publish("orders", &headers, r#"[{"n": 104}, {"n": 105, "paid": 1}]"#, 422).await;
    assert_eq!(array.json()["index"], 1);
    assert_eq!(before, (cx.count("orders", "").await, cx.count("_dead_letters", "").await));
    let good = cx.send("orders", "application/x-ndjson", &headers, "{\"n\": 106}\n{\"n\": 107}\n", 201).await;
    assert_eq!(good.json()["stored"], 2);
    let unknown = cx.publish("orders", &[("prefer", "handling=strict, colour=blue")], r#"{"n": 1}"#, 400).await;
    assert_eq!(unknown.code(), "bad_preference");
}

pub(crate) async fn idempotency_keys(cx: Arc<Context>) {
    let bare = cx.publish("notes", &[("idempotency-key", "k-bare")], "1", 201).await;
    let quoted = cx.publish("notes", &[("idempotency-key", "\"k-bare\"")], "1", 200).await;
    assert_eq!(id_of(&bare), id_of(&quoted));
    let reply = cx.publish("notes", &[("idempotency-key", r#""a \"b\" \\ c""#)], "2", 201).await;
    assert_eq!(cx.json(reply.header("location")).await["_key"], r#"a "b" \ c"#);
    let long = "k".repeat(1025);
    for bad in ["", "\"\"", "\"open", long.as_str()] {
        let reply = cx.publish("notes", &[("idempotency-key", bad)], "3", 400).await;
        assert_eq!(reply.code(), "key_invalid", "{bad:.20}");
    }
    let reply = cx.publish("notes", &[("idempotency-key", "one"), ("idempotency-key", "two")], "4", 400).await;
    assert_eq!(reply.code(), "key_invalid");
}

pub(crate) async fn arrays(cx: Arc<Context>) {
    let key = [("idempotency-key", "array-1")];
    let reply = cx.publish("orders", &key, r#" [ {"n": 11} , {"n": 12}, {"n": 13} ]"#, 201).await;
    let body = reply.json();
    assert_eq!((&body["records_total"], &body["stored"]), (&json!(3), &json!(3)));
    assert_eq!(body["records"][2]["index"], 2);
    assert_eq!(cx.count("orders", "_key=like.array-1*").await, 3);
    let again = cx.publish("orders", &key, r#"[{"n": 11},{"n": 12},{"n": 13}]"#, 200).await;
    assert_eq!(again.json()["duplicate"], 3);
    assert_eq!(again.json()["records"][0]["transaction_id"], body["records"][0]["transaction_id"]);
    // One bad record does not hurt its neighbours.
    let mixed = cx.publish("orders", &[], r#"[{"n": 14}, {"n": 1.5}, {"n": 16}]"#, 207).await.json();
    assert_eq!((&mixed["stored"], &mixed["dead"]), (&json!(2), &json!(1)), "{mixed}");
    let bad = &mixed["records"][1];
    assert_eq!((&bad["state"], &bad["code"], &bad["pointer"]), (&json!("dead"), &json!("schema"), &json!("/n")));
    let kept = cx.json(&format!("/v1/dead-letters/{}", bad["dead_letter"].as_str().unwrap())).await;
    assert_eq!(kept["payload"], r#"{"n": 1.5}"#);
    let minimal = cx.publish("orders", &[("prefer", "return=minimal")], r#"[{"n": 17}]"#, 201).await.json();
    assert_eq!((&minimal["stored"], &minimal["records"]), (&json!(1), &json!([])));
    let empty = cx.publish("orders", &[], "[]", 400).await;
    assert_eq!(empty.code(), "empty_body");
}

pub(crate) async fn keys_from_columns(cx: Arc<Context>) {
    let first = cx.publish("keyed", &[], r#"{"n": 5, "customer": "a"}"#, 201).await;
    let again = cx.publish("keyed", &[("idempotency-key", "ignored")], r#"{"n": 5, "customer": "a"}"#, 200).await;
    assert_eq!(id_of(&first), id_of(&again));
    assert_eq!(cx.publish("keyed", &[], r#"{"n": 5, "customer": "b"}"#, 422).await.code(), "conflict");
    // Parts of a key cannot run together.
    cx.publish("keyed-twice", &[], r#"{"customer": "a\",\"1", "n": 2}"#, 201).await;
    cx.publish("keyed-twice", &[], r#"{"customer": "a", "n": 12}"#, 201).await;
    cx.publish("keyed-twice", &[], r#"{"customer": "a", "n": 12}"#, 200).await;
    let missing = cx.publish("keyed-twice", &[], r#"{"n": 12}"#, 422).await;
    assert_eq!((missing.code().as_str(), &missing.json()["pointer"]), ("key_missing", &json!("/customer")));
}

pub(crate) async fn names_of_topics(cx: Arc<Context>) {
    let reply = cx.publish("ordres", &[], "{}", 404).await;
    assert_eq!(reply.code(), "unknown_topic");
    assert!(reply.text().contains("did you mean"), "{}", reply.text());
    let topics = cx.json("/v1/topics").await;
    assert!(topics["topics"].as_array().unwrap().iter().any(|t| t["topic"] == "orders" && t["typed"] == true));
    let columns = cx.json("/v1/topics/orders").await["columns"].clone();
    let of = |name: &str| columns.as_array().unwrap().iter().find(|c| c["name"] == name).unwrap()["type"].clone();
    assert_eq!([of("n"), of("amount"), of("at"), of("more")], ["int8", "float8", "timestamptz", "jsonb"]);
}

pub(crate) async fn values_survive(cx: Arc<Context>) {
    let body = r#"{"n": 9007199254740993, "amount": -0.1, "customer": "Ñandú 🦤 \u0007 =cmd", "paid": false,
        "at": "2024-02-29T23:59:59.123456+05:30", "day": "2024-02-29", "ref": "018F9C00-0000-7000-8000-000000000001",
        "more": {"big": 123456789012345678901234567890, "tiny": 0.000001, "list": [1, null, "x"]}, "stray": "kept"}"#;
    let reply = cx.publish("orders", &[], body, 201).await;
    let text = cx.api.get(reply.header("location")).await.unwrap().text();
    assert!(text.contains("9007199254740993"), "exact beyond 2^53: {text}");
    assert!(text.contains("123456789012345678901234567890"), "JSON keeps its digits: {text}");
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(record["amount"], -0.1);
    assert_eq!(record["customer"], "Ñandú 🦤 \u{7} =cmd");
    assert_eq!(record["at"], "2024-02-29T18:29:59.123456+00:00");
    assert_eq!(record["day"], "2024-02-29");
    assert_eq!(record["ref"], "018f9c00-0000-7000-8000-000000000001");
    assert_eq!(record["more"]["list"], json!([1, null, "x"]));
    assert_eq!(record["_extra"], json!({ "stray": "kept" }));
    // Two spellings of one letter are two values.
    for name in ["caf\u{e9}", "cafe\u{301}"] {
        cx.publish("orders", &[], &json!({ "n": 1, "customer": name }).to_string(), 201).await;
        let found = cx.api.send("GET", &format!("/rest/v1/orders?customer=eq.{name}"), &[], "").await.unwrap().json();
        assert!(found.as_array().unwrap().iter().all(|row| row["customer"] == name), "{found}");
    }
}
