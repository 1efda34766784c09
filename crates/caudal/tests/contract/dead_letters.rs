//! What was set aside: listed, repaired, sent back.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Context;

/// Ten thousand records of which seven are bad, each in its own way.
const BAD: [(usize, &str, &str, &str); 7] = [
    (0, r#"{"n": "0"}"#, "schema", "/n"),
    (1_234, r#"{"n": 1234, "amount": "cheap"}"#, "schema", "/amount"),
    (2_500, r#"{"n": 2500"#, "malformed_json", ""),
    (4_999, r#"{"n": 4999, "customer": "a\u0000b"}"#, "nul_character", ""),
    (5_000, r#"{"customer": "nobody"}"#, "schema", "/n"),
    (7_777, r#"{"n": 99999999999999999999}"#, "number_out_of_range", "/n"),
    (9_999, r#"{"n": 9999, "n": 9998}"#, "duplicate_key", "/n"),
];

pub(crate) async fn seven_bad_rows(cx: Arc<Context>) {
    let mut body = String::new();
    for n in 0..10_000 {
        match BAD.iter().find(|bad| bad.0 == n) {
            Some((_, line, _, _)) => body.push_str(line),
            None => body.push_str(&format!("{{\"n\": {n}, \"customer\": \"c{}\", \"paid\": true}}", n % 97)),
        }
        body.push('\n');
    }
    let headers = [("prefer", "return=minimal, wait=60"), ("idempotency-key", "bulk")];
    let reply = cx.send("bulk", "application/x-ndjson", &headers, body.clone(), 207).await.json();
    let states = (&reply["records_total"], &reply["stored"], &reply["dead"]);
    assert_eq!(states, (&json!(10_000), &json!(9_993), &json!(7)));
    assert_eq!(cx.count("bulk", "").await, 9_993);
    let mut ids = Vec::new();
    for ((n, line, reason, pointer), record) in BAD.iter().zip(reply["records"].as_array().unwrap()) {
        assert_eq!(
            (&record["index"], &record["code"], &record["pointer"]),
            (&json!(n), &json!(reason), &json!(pointer))
        );
        let id = record["dead_letter"].as_str().unwrap();
        let kept = cx.json(&format!("/v1/dead-letters/{id}")).await;
        assert_eq!(
            (&kept["reason"], &kept["pointer"], &kept["payload"]),
            (&json!(reason), &json!(pointer), &json!(line))
        );
        assert_eq!((&kept["state"], &kept["key"]), (&json!("dead"), &json!(format!("bulk#{n}"))));
        assert!(!kept["detail"].as_str().unwrap().is_empty());
        let receipt = cx.json(&format!("/v1/receipts/{}", record["transaction_id"].as_str().unwrap())).await;
        assert_eq!(receipt["state"], "dead");
        ids.push(id.to_owned());
    }
    // The same request again: nothing new, neither rows nor dead letters.
    let again = cx.send("bulk", "application/x-ndjson", &headers, body, 207).await.json();
    assert_eq!((&again["duplicate"], &again["stored"]), (&json!(9_993), &json!(0)));
    assert_eq!(cx.count("_dead_letters", "topic=eq.bulk").await, 7);
    for (id, (n, ..)) in ids.iter().zip(BAD) {
        let redrive = format!("/v1/dead-letters/{id}/redrive");
        let bad = cx.api.post(&redrive, &[], "").await.unwrap();
        assert_eq!((bad.status, &bad.json()["outcome"]), (422, &json!("dead")), "unrepaired: {}", bad.text());
        let payload = format!("/v1/dead-letters/{id}/payload");
        let json = [("content-type", "application/json")];
        let broken = cx.api.send("PUT", &payload, &json, "{\"n\": ").await.unwrap();
        assert_eq!((broken.status, broken.code().as_str()), (400, "malformed_json"));
        let repaired = cx.api.send("PUT", &payload, &json, format!("{{\"n\": {n}}}")).await.unwrap();
        assert_eq!(repaired.status, 200, "{}", repaired.text());
        let stored = cx.api.post(&redrive, &[], "").await.unwrap();
        assert_eq!((stored.status, &stored.json()["outcome"]), (201, &json!("stored")), "{}", stored.text());
        let second = cx.api.post(&redrive, &[], "").await.unwrap();
        assert_eq!((second.status, &second.json()["already_redriven"]), (200, &json!(true)), "{}", second.text());
        let late = cx.api.send("PUT", &payload, &json, "{\"n\": 1}").await.unwrap();
        assert_eq!((late.status, late.code().as_str()), (409, "already_redriven"));
    }
    assert_eq!(cx.count("bulk", "").await, 10_000);
    assert_eq!(cx.count("_dead_letters", "topic=eq.bulk&state=eq.dead").await, 0);
    assert_eq!(cx.count("bulk", "_key=eq.bulk%230&n=eq.0").await, 1);
}

async fn bury(cx: &Context, n: usize) -> Vec<String> {
    let body: String = (0..n).map(|i| format!("{{\"n\": \"{i}\"}}\n")).collect();
    let reply = cx.send("redrives", "application/x-ndjson", &[], body, 207).await.json();
    reply["records"].as_array().unwrap().iter().map(|r| r["dead_letter"].as_str().unwrap().to_owned()).collect()
}

fn command(cx: &Context, args: &[&str]) -> (i32, String) {
    let output = cx.server.run(args).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text)
}

pub(crate) async fn by_command(cx: Arc<Context>) {
    let id = bury(&cx, 1).await.remove(0);
    let (code, list) = command(&cx, &["dead-letters", "list", "topic=eq.redrives"]);
    assert!(code == 0 && list.contains(&id) && list.contains("schema"), "{list}");
    let (code, shown) = command(&cx, &["dead-letters", "show", &id, "--json"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["pointer"]), (0, &json!("/n")));
    let file = cx.server.home().join("repaired.json");
    std::fs::write(&file, "{\"n\": 1}").unwrap();
    let (code, text) = command(&cx, &["dead-letters", "repair", &id, file.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = command(&cx, &["dead-letters", "redrive", &id]);
    assert!(code == 0 && text.contains("stored"), "{text}");
    let (code, text) = command(&cx, &["dead-letters", "redrive", &id]);
    assert!(code == 0 && text.contains("already_redriven"), "{text}");
    let (code, text) = command(&cx, &["dead-letters", "show", &uuid::Uuid::now_v7().to_string()]);
    assert_eq!(code, 3, "{text}");
}

pub(crate) async fn by_filter(cx: Arc<Context>) {
    let ids = bury(&cx, 5).await;
    for id in &ids[..3] {
        let body = "{\"n\": 1}";
        let reply = cx.api.send("PUT", &format!("/v1/dead-letters/{id}/payload"), &[], body).await.unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let rows = cx.count("redrives", "").await;
    let path = "/v1/dead-letters/redrive?topic=eq.redrives&reason=eq.schema";
    let dry = cx.api.post(&format!("{path}&dry_run=true"), &[], "").await.unwrap().json();
    assert_eq!(dry, json!({ "matching": 5, "dry_run": true }));
    assert_eq!(cx.count("redrives", "").await, rows);
    let (code, text) = command(&cx, &["dead-letters", "redrive", "topic=eq.redrives", "--dry-run", "--json"]);
    assert_eq!((code, serde_json::from_str::<Value>(&text).unwrap()["matching"].clone()), (0, json!(5)));
    let done = cx.api.post(path, &[], "").await.unwrap().json();
    let counts = (&done["stored"], &done["still_dead"], &done["duplicate"], &done["already_redriven"]);
    assert_eq!(counts, (&json!(3), &json!(2), &json!(0), &json!(0)), "{done}");
    assert_eq!(cx.count("redrives", "").await, rows + 3);
    let again = cx.api.post(path, &[], "").await.unwrap().json();
    assert_eq!((&again["matching"], &again["still_dead"]), (&json!(2), &json!(2)), "{again}");
    let bad = cx.api.post("/v1/dead-letters/redrive?colour=eq.blue", &[], "").await.unwrap();
    assert_eq!((bad.status, bad.code().as_str()), (400, "unknown_column"));
}

/// A conflict in a batch is set aside, repaired into a duplicate, and settled as one.
pub(crate) async fn of_a_conflict(cx: Arc<Context>) {
    let key = [("idempotency-key", "clash")];
    cx.send("redrives", "application/x-ndjson", &key, "{\"n\": 1}\n{\"n\": 2}", 201).await;
    let reply = cx.send("redrives", "application/x-ndjson", &key, "{\"n\": 1}\n{\"n\": 3}", 207).await.json();
    assert_eq!((&reply["duplicate"], &reply["dead"]), (&json!(1), &json!(1)));
    let record = &reply["records"][1];
    assert_eq!(record["code"], "conflict");
    let id = record["dead_letter"].as_str().unwrap();
    // The transaction itself is stored; its receipt says so and shows the dead letter beside it.
    let receipt = cx.json(&format!("/v1/receipts/{}", record["transaction_id"].as_str().unwrap())).await;
    assert_eq!((&receipt["state"], &receipt["dead_letters"][0]["reason"]), (&json!("stored"), &json!("conflict")));
    cx.api.send("PUT", &format!("/v1/dead-letters/{id}/payload"), &[], "{\"n\": 2}").await.unwrap();
    let done = cx.api.post(&format!("/v1/dead-letters/{id}/redrive"), &[], "").await.unwrap();
    assert_eq!((done.status, &done.json()["outcome"]), (200, &json!("duplicate")), "{}", done.text());
    assert_eq!(cx.count("redrives", "_key=like.clash*").await, 2);
}
