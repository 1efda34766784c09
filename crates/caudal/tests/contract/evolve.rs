//! Fields that the schema does not name, and schemas that grow.

use std::sync::Arc;

use caudal_testkit::postgres;
use serde_json::{Value, json};

use crate::{Context, SQLITE, server};

pub(crate) async fn keeps(cx: Arc<Context>) {
    let reply = cx.publish("orders", &[], r#"{"n": 1, "extra_a": 1, "extra_b": {"deep": [true]}}"#, 201).await;
    let record = cx.json(reply.header("location")).await;
    assert_eq!(record["_extra"], json!({ "extra_a": 1, "extra_b": { "deep": [true] } }));
    let drift = cx.json("/v1/topics/orders/drift").await;
    let field = drift["fields"].as_array().unwrap().iter().find(|f| f["field"] == "extra_a").unwrap();
    assert_eq!(field["json_type"], "integer");
    assert_eq!(field["suggested_ddl"], "ALTER TABLE \"orders\" ADD COLUMN \"extra_a\" int8");
}

pub(crate) async fn rejects(cx: Arc<Context>) {
    let reply = cx.publish("strict", &[], r#"{"n": 1, "extra": 1}"#, 422).await;
    assert_eq!((reply.code().as_str(), &reply.json()["pointer"]), ("unknown_field", &json!("/extra")));
    let reply =
        cx.send("strict", "application/x-ndjson", &[], "{\"n\": 1}\n{\"n\": 2, \"a/b~c\": 0}", 207).await.json();
    assert_eq!((&reply["stored"], &reply["records"][1]["pointer"]), (&json!(1), &json!("/a~1b~0c")));
    assert_eq!(cx.count("strict", "").await, 1);
}

pub(crate) async fn adds(cx: Arc<Context>) {
    cx.publish("adds", &[], r#"{"n": 1}"#, 201).await;
    let body = "{\"n\": 2, \"speed\": 10, \"tag\": \"x\"}\n{\"n\": 3, \"speed\": 1.5, \"ok\": true, \"list\": [1]}\n{\"n\": \"bad\"}";
    let reply = cx.send("adds", "application/x-ndjson", &[], body, 207).await.json();
    assert_eq!((&reply["stored"], &reply["dead"]), (&json!(2), &json!(1)), "{reply}");
    let rows = cx.json("/rest/v1/adds?order=n&select=n,speed,tag,ok,list,_extra").await;
    assert_eq!(rows[0], json!({ "n": 1, "speed": null, "tag": null, "ok": null, "list": null, "_extra": null }));
    assert_eq!(rows[1], json!({ "n": 2, "speed": 10, "tag": "x", "ok": null, "list": null, "_extra": null }));
    assert_eq!(rows[2], json!({ "n": 3, "speed": 1.5, "tag": null, "ok": true, "list": [1], "_extra": null }));
    let columns = cx.json("/v1/topics/adds").await["columns"].clone();
    let of = |name: &str| columns.as_array().unwrap().iter().find(|c| c["name"] == name).unwrap()["type"].clone();
    assert_eq!([of("speed"), of("tag"), of("ok"), of("list")], ["float8", "text", "bool", "jsonb"]);
    // Typed from now on, by filter and by check.
    assert_eq!(cx.count("adds", "speed=gt.1.2").await, 2);
    assert_eq!(cx.publish("adds", &[], r#"{"n": 4, "ok": "yes"}"#, 422).await.json()["pointer"], "/ok");
    // One message at a time, too; the row that brings a column has it.
    let reply = cx.publish("adds-one", &[], r#"{"n": 1, "colour": "red"}"#, 201).await;
    let record = cx.json(reply.header("location")).await;
    assert_eq!((&record["colour"], &record["_extra"]), (&json!("red"), &Value::Null), "{record}");
}

const SMALL: &str = r#"{"type": "object", "properties": {"a": {"type": "integer"}}}"#;
const GROWN: &str = r#"{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}"#;
const RETYPED: &str = r#"{"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}"#;

async fn a_schema_file_grows(store: &str) {
    let mut server = server(store, "none:").topic("grown", Some(SMALL), "");
    server.start().await.unwrap();
    let first = server.api().publish("grown", &[], r#"{"a": 1, "b": "early"}"#).await.unwrap();
    assert_eq!(first.status, 201);
    server.stop().await.unwrap();
    server.set_topic("grown", Some(GROWN), "");
    server.start().await.unwrap();
    assert_eq!(server.api().publish("grown", &[], r#"{"a": 2, "b": "late"}"#).await.unwrap().status, 201);
    let rows = server.api().get("/rest/v1/grown?select=a,b,_extra&order=a").await.unwrap().json();
    assert_eq!(
        rows,
        json!([{ "a": 1, "b": null, "_extra": { "b": "early" } }, { "a": 2, "b": "late", "_extra": null }])
    );
    server.stop().await.unwrap();
    // A column cannot change its type; the message names it.
    server.set_topic("grown", Some(RETYPED), "");
    let error = server.start().await.unwrap_err().to_string();
    assert!(error.contains("column a of table grown"), "{error}");
}

#[tokio::test]
async fn a_schema_file_grows_between_starts() {
    a_schema_file_grows(SQLITE).await;
    a_schema_file_grows(&postgres::database().await.unwrap()).await;
}
