//! The routes of the service that Caudal replaces, with the body of its own document.

use std::sync::Arc;

use serde_json::json;

use crate::{Context, id_of};

/// As the document writes it, line breaks and indentation included.
const BODY: &str = "        {
            \"topic_arn\": \"data-ingestion-topic\",
            \"message\": \"Este es un mensaje de prueba para el Challenge Latam.\"
        }
";
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

pub(crate) async fn as_written(cx: Arc<Context>) {
    let reply = cx.api.post("/ingresar-datos", &JSON, BODY).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let id = id_of(&reply);
    assert_eq!(reply.json(), json!({ "status": "Publicación OK", "transaction_id": id }));
    cx.until(&id, "stored").await;
    let data = cx.json(&format!("/data/{id}")).await;
    assert_eq!(data["datos"], "Este es un mensaje de prueba para el Challenge Latam.");
    assert_eq!(data["transaction_id"], json!(id));
    assert!(data["id"].is_i64(), "{data}");
    let again = cx.json(&format!("/data/{}", data["id"])).await;
    assert_eq!(again, data);
}

pub(crate) async fn arn_and_slash(cx: Arc<Context>) {
    let body = r#"{"topic_arn": "arn:aws:sns:us-east-1:123456789012:data-ingestion-topic", "message": {"a": [1, 2]}}"#;
    let reply =
        cx.api.post("/ingresar-datos/", &[("content-type", "application/json; charset=utf-8")], body).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let id = id_of(&reply);
    cx.until(&id, "stored").await;
    assert_eq!(cx.json(&format!("/data/{id}")).await["datos"], json!({ "a": [1, 2] }));
    // Another topic, by its short name.
    let reply =
        cx.api.post("/ingresar-datos", &JSON, r#"{"topic_arn": "orders", "message": {"n": 42}}"#).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    cx.until(&id_of(&reply), "stored").await;
    assert_eq!(cx.json(&format!("/data/{}", id_of(&reply))).await["datos"]["n"], 42);
}

pub(crate) async fn refusals(cx: Arc<Context>) {
    let before = cx.json("/v1/reconcile?count=exact").await;
    let rows = |books: &serde_json::Value| -> Vec<u64> {
        books["topics"].as_array().unwrap().iter().map(|t| t["rows"].as_u64().unwrap()).collect()
    };
    for (media, body, status) in [
        ("text/plain", BODY, 415),
        ("application/json", "{\"topic_arn\": ", 400),
        ("application/json", "", 400),
        ("application/json", "[]", 422),
        ("application/json", r#"{"message": "x"}"#, 422),
        ("application/json", r#"{"topic_arn": "data-ingestion-topic"}"#, 422),
        ("application/json", r#"{"topic_arn": 7, "message": "x"}"#, 422),
        ("application/json", r#"{"topic_arn": "no-such-topic", "message": "x"}"#, 404),
        ("application/json", r#"{"topic_arn": "UPPER", "message": "x"}"#, 400),
        ("application/json", r#"{"topic_arn": "orders", "message": {"n": "x"}}"#, 422),
    ] {
        let reply = cx.api.post("/ingresar-datos", &[("content-type", media)], body).await.unwrap();
        assert_eq!(reply.status, status, "{media} {body}: {}", reply.text());
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
    let none = cx.api.post("/ingresar-datos", &[], BODY).await.unwrap();
    assert_eq!(none.status, 415);
    for path in ["/ingresar-datos", "/ingresar-datos/"] {
        let get = cx.api.get(path).await.unwrap();
        assert_eq!((get.status, get.header("allow")), (405, "POST"));
    }
    let delete = cx.api.send("DELETE", "/data/1", &[], "").await.unwrap();
    assert_eq!(delete.status, 405);
    assert!(delete.header("allow").contains("GET"), "{:?}", delete.headers);
    assert_eq!(rows(&before), rows(&cx.json("/v1/reconcile?count=exact").await), "nothing is stored");
}

pub(crate) async fn by_row_number(cx: Arc<Context>) {
    for absent in ["999999", "0", "-1", "018f9c00-0000-7000-8000-000000000009"] {
        assert_eq!(cx.api.get(&format!("/data/{absent}")).await.unwrap().status, 404, "{absent}");
    }
    let bad = cx.api.get("/data/abc").await.unwrap();
    assert_eq!((bad.status, bad.code().as_str()), (400, "bad_id"));
    assert_eq!(cx.api.get("/data/99999999999999999999").await.unwrap().status, 400);
    // Rows are numbered in order of storing, from 1, without the other topics' rows.
    let body = r#"{"topic_arn": "data-ingestion-topic", "message": "n"}"#;
    let mut numbers = Vec::new();
    for _ in 0..3 {
        let reply = cx.api.post("/ingresar-datos", &JSON, body).await.unwrap();
        cx.until(&id_of(&reply), "stored").await;
        numbers.push(cx.json(&format!("/data/{}", id_of(&reply))).await["id"].as_i64().unwrap());
    }
    assert!(numbers.is_sorted() && numbers[0] > 0 && numbers[2] > numbers[0], "{numbers:?}");
}
