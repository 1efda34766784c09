//! Records that leave after their time: not before it, accounted for, and never stored again under their key.

use std::time::Instant;

use caudal_testkit::postgres;
use serde_json::{Value, json};

use crate::{ORDERS, SQLITE, id_of, server};

/// Far above what publishing takes here, far below a test's patience.
const RETENTION: &str = "retention = \"3s\"\nkey = [\"n\"]";

async fn leaves(store: &str, broker: &str) {
    let mut server = server(store, broker).topic("brief", Some(ORDERS), RETENTION);
    server.start().await.unwrap();
    let api = server.api();
    let body: String = (0..500).map(|n| format!("{{\"n\": {n}}}\n")).collect();
    let ndjson = [("content-type", "application/x-ndjson")];
    let begun = Instant::now();
    let stored = api.post("/v1/topics/brief/messages", &ndjson, body.clone()).await.unwrap();
    assert_eq!((stored.status, &stored.json()["stored"]), (201, &json!(500)), "{}", stored.text());
    assert_eq!(api.publish("orders", &[], "{\"n\": 1}").await.unwrap().status, 201);
    let first = id_of(&api.publish("brief", &[], "{\"n\": 0}").await.unwrap());

    let book = async || -> Value {
        let books = api.get("/v1/reconcile?count=exact&topic=brief").await.unwrap().json();
        assert_eq!(books["unaccounted"], 0, "{books:#}");
        books["topics"][0].clone()
    };
    // Never before its time, and the books balance all the while.
    loop {
        let book = book().await;
        let (rows, expired) = (book["rows"].as_u64(), book["expired"].as_u64().unwrap());
        if expired > 0 {
            assert!(begun.elapsed().as_secs() >= 3, "{book:#}");
        }
        assert!(rows.is_none_or(|rows| rows + expired == 500), "{book:#}");
        if expired >= 499 {
            break;
        }
        assert!(begun.elapsed().as_secs() < 60, "{book:#}\n{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let receipt = api.get(&format!("/v1/receipts/{first}")).await.unwrap().json();
    assert_eq!((&receipt["state"], &receipt["topic"]), (&json!("expired"), &json!("brief")), "{receipt}");
    // All again, in one body with a new one: nothing but that is stored.
    let again = format!("{body}{{\"n\": 1000}}\n");
    let again = api.post("/v1/topics/brief/messages", &ndjson, again).await.unwrap();
    let report = again.json();
    assert_eq!((again.status, &report["stored"], &report["duplicate"]), (201, &json!(1), &json!(500)), "{report:.400}");
    assert_eq!(api.publish("brief", &[], "{\"n\": 7}").await.unwrap().status, 200);
    book().await;
    // A topic that keeps its records has kept them.
    let kept = api.get("/rest/v1/orders?select=n").await.unwrap().json();
    assert_eq!(kept, json!([{ "n": 1 }]));
    // A restart changes nothing about it.
    server.stop().await.unwrap();
    server.start().await.unwrap();
    assert_eq!(server.api().publish("brief", &[], "{\"n\": 8}").await.unwrap().status, 200);
    assert!(!server.log().contains("cannot remove"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_leave_and_their_keys_stay() {
    let database = postgres::database().await.unwrap();
    tokio::join!(leaves(SQLITE, "none:"), leaves(&database, "none:"));
    leaves(&postgres::database().await.unwrap(), "embedded:").await;
}
