//! NDJSON, CSV, CloudEvents, compression.

use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::Context;

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) async fn ndjson(cx: Arc<Context>) {
    let body = "{\"n\": 1}\r\n\r\n\n   \n{\"n\": 2}\n{\"n\": 3}";
    let reply = cx.send("lines", "application/x-ndjson", &[("idempotency-key", "lines")], body, 201).await.json();
    assert_eq!((&reply["records_total"], &reply["stored"]), (&json!(3), &json!(3)), "{reply}");
    let again = cx.send("lines", "application/jsonl", &[("idempotency-key", "lines")], body, 200).await.json();
    assert_eq!(again["duplicate"], 3);
    // Many lines, cut anywhere by the chunks of the transport.
    let many: String =
        (0..2_500).map(|n| format!("{{\"n\": {n}, \"customer\": \"{}\"}}\n", "x".repeat(n % 90))).collect();
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = many.as_bytes().chunks(997).map(|c| Ok(c.to_vec())).collect();
    let streamed = reqwest_body(chunks);
    let headers = [("content-type", "application/x-ndjson"), ("prefer", "return=minimal")];
    let reply = cx.api.post("/v1/topics/lines/messages", &headers, streamed).await.unwrap();
    assert_eq!((reply.status, &reply.json()["stored"]), (201, &json!(2_500)), "{}", reply.text());
    assert_eq!(cx.count("lines", "").await, 2_503);
}

fn reqwest_body(chunks: Vec<Result<Vec<u8>, std::io::Error>>) -> reqwest::Body {
    reqwest::Body::wrap_stream(futures_util::stream::iter(chunks))
}

pub(crate) async fn csv(cx: Arc<Context>) {
    let body = "\u{feff}n,amount,customer,paid,at,day,more,stray\r\n\
        1,2.5,\"Uno, \"\"dos\"\"\nthree\",true,2024-01-01T00:00:00Z,2024-01-02,\"{\"\"a\"\": [1]}\",x\r\n\
        2,,,,,,,\n\
        003,1,,,,,,\n\
        4,1,too,few\n\
        5,1e2,\"=1+1\",false,,,,";
    let reply = cx.send("csv", "text/csv; charset=utf-8", &[], body, 207).await.json();
    assert_eq!((&reply["stored"], &reply["dead"]), (&json!(3), &json!(2)), "{reply}");
    assert_eq!((&reply["records"][2]["code"], &reply["records"][2]["pointer"]), (&json!("schema"), &json!("/n")));
    assert_eq!(reply["records"][3]["code"], "malformed_csv");
    let rows = cx.json("/rest/v1/csv?order=n&select=n,amount,customer,paid,at,day,more,_extra").await;
    assert_eq!(
        rows[0],
        json!({ "n": 1, "amount": 2.5, "customer": "Uno, \"dos\"\nthree", "paid": true, "at": "2024-01-01T00:00:00+00:00",
                "day": "2024-01-02", "more": { "a": [1] }, "_extra": { "stray": "x" } })
    );
    assert_eq!((&rows[1]["amount"], &rows[1]["_extra"]), (&Value::Null, &Value::Null));
    assert_eq!(rows[2]["amount"], 100);
    for bad in ["a,a\n1,2\n", "a,,b\n1,2,3\n"] {
        assert_eq!(cx.send("csv", "text/csv", &[], bad, 400).await.code(), "malformed_csv");
    }
    assert_eq!(cx.send("csv", "text/csv", &[], "n,amount\n", 400).await.code(), "empty_body");
}

pub(crate) async fn cloudevents_binary(cx: Arc<Context>) {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e%201"),
        ("ce-source", "/sensores/%C3%B1"),
        ("ce-type", "medida"),
        ("ce-time", "2024-01-01T00:00:00Z"),
        ("ce-subject", "\"quoted\""),
    ];
    let first = cx.publish("events", &headers, r#"{"t": 21.5}"#, 201).await;
    let record = cx.json(first.header("location")).await;
    assert_eq!(record["payload"], json!({ "t": 21.5 }));
    assert_eq!(record["_key"], "/sensores/ñ e 1");
    assert_eq!(record["_source"], "cloudevents:/sensores/ñ");
    assert_eq!(record["_extra"]["$attributes"]["subject"], "quoted");
    cx.publish("events", &headers, r#"{"t": 21.5}"#, 200).await;
    assert_eq!(cx.publish("events", &headers, r#"{"t": 22}"#, 422).await.code(), "conflict");
    for (bad, name) in [("ce-specversion", "0.3"), ("ce-id", ""), ("ce-time", "yesterday"), ("ce-source", "%ff")] {
        let changed: Vec<_> = headers.iter().map(|(n, v)| (*n, if *n == bad { name } else { v })).collect();
        assert_eq!(cx.publish("events", &changed, "{}", 400).await.code(), "malformed_event", "{bad}: {name}");
    }
}

const EVENT: &str = r#"{"specversion": "1.0", "id": "s-1", "source": "/s", "type": "t", "datacontenttype": "application/json", "data": {"b": 1, "a": 12345678901234567890123}}"#;

pub(crate) async fn cloudevents_structured(cx: Arc<Context>) {
    let media = "application/cloudevents+json; charset=utf-8";
    let first = cx.send("events", media, &[], EVENT, 201).await;
    let text = cx.api.get(first.header("location")).await.unwrap().text();
    assert!(text.contains("12345678901234567890123"), "the data's own bytes: {text}");
    assert!(text.contains("\"/s s-1\""), "{text}");
    cx.send("events", media, &[], EVENT, 200).await;
    for bad in [
        "[]",
        r#"{"specversion": "1.0", "id": "x", "source": "/s", "type": "t"}"#,
        r#"{"specversion": "1.0", "id": "x", "source": "/s", "type": "t", "data_base64": "AAAA"}"#,
        r#"{"specversion": "1.0", "id": "x", "source": "/s", "data": 1}"#,
        r#"{"specversion": "1.0", "id": "x", "source": "/s", "type": "t", "Upper": 1, "data": 1}"#,
    ] {
        assert_eq!(cx.send("events", media, &[], bad, 400).await.code(), "malformed_event", "{bad}");
    }
}

pub(crate) async fn cloudevents_batch(cx: Arc<Context>) {
    let media = "application/cloudevents-batch+json";
    let event = |id: &str| {
        format!(r#"{{"specversion": "1.0", "id": "{id}", "source": "/b", "type": "t", "data": {{"id": "{id}"}}}}"#)
    };
    let body = format!("[{}, {}, {}]", event("1"), event("2"), event("1"));
    let reply = cx.send("events", media, &[], body, 201).await.json();
    assert_eq!((&reply["stored"], &reply["duplicate"]), (&json!(2), &json!(1)), "{reply}");
    let mixed = format!("[{}, {{\"specversion\": \"1.0\"}}]", event("3"));
    let reply = cx.send("events", media, &[], mixed, 207).await.json();
    assert_eq!(
        (&reply["stored"], &reply["dead"], &reply["records"][1]["code"]),
        (&json!(1), &json!(1), &json!("malformed_event"))
    );
}

pub(crate) async fn compressed(cx: Arc<Context>) {
    let lines = "{\"n\": 1}\n{\"n\": 2}\n";
    let before = cx.count("orders", "").await;
    let members = [gzip(lines.as_bytes()), gzip(b"{\"n\": 3}\n")].concat();
    for (coding, body, records) in [
        ("gzip", gzip(lines.as_bytes()), 2),
        ("x-gzip", members, 3),
        ("zstd", zstd::encode_all(lines.as_bytes(), 3).unwrap(), 2),
        (
            "zstd",
            [zstd::encode_all(lines.as_bytes(), 3).unwrap(), zstd::encode_all(lines.as_bytes(), 1).unwrap()].concat(),
            4,
        ),
        ("identity", lines.as_bytes().to_vec(), 2),
    ] {
        let reply = cx.send("orders", "application/x-ndjson", &[("content-encoding", coding)], body.clone(), 201).await;
        assert_eq!(reply.json()["stored"], records, "{coding}");
        // In chunks of a few bytes, without a declared length.
        let chunks = body.chunks(3).map(|c| Ok(c.to_vec())).collect();
        let headers = [("content-type", "application/x-ndjson"), ("content-encoding", coding)];
        let reply = cx.api.post("/v1/topics/orders/messages", &headers, reqwest_body(chunks)).await.unwrap();
        assert_eq!((reply.status, &reply.json()["stored"]), (201, &json!(records)), "{coding}: {}", reply.text());
    }
    assert_eq!(cx.count("orders", "").await, before + 26);
    let one = cx.send("notes", "application/json", &[("content-encoding", "gzip")], gzip(b"{\"a\": 1}"), 201).await;
    assert_eq!(cx.json(one.header("location")).await["payload"], json!({ "a": 1 }));
}
