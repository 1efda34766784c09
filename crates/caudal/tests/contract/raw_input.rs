//! Bad input that no HTTP client sends: written to the socket byte by byte.

use std::time::{Duration, Instant};

use caudal_testkit::api::Api;

use crate::{SQLITE, server};

const PATIENCE: Duration = Duration::from_secs(20);

async fn rows(api: &Api, topic: &str) -> String {
    let reply = api.send("GET", &format!("/rest/v1/{topic}?limit=0"), &[("prefer", "count=exact")], "").await.unwrap();
    reply.header("content-range").to_owned()
}

fn post(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/topics/notes/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_http_is_refused_and_the_connection_closed() {
    for broker in ["embedded:", "none:"] {
        let mut server = server(SQLITE, broker);
        server.start().await.unwrap();
        let api = server.api();
        let smuggled = "7\r\n\"first\"\r\n0\r\n\r\n";
        for (name, request, status) in [
            ("27 two lengths", post("content-length: 3\r\ncontent-length: 4\r\n", "1234"), 400),
            ("27 length that is no number", post("content-length: +3\r\n", "123"), 400),
            ("27 bad chunk size", post("transfer-encoding: chunked\r\n", "zz\r\n1\r\n0\r\n\r\n"), 400),
            ("27 chunk longer than it says", post("transfer-encoding: chunked\r\n", "1\r\n12\r\n0\r\n\r\n"), 400),
            ("27 unknown transfer coding", post("transfer-encoding: gzip\r\n", "x"), 400),
            ("29 no host", "GET /ping HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
            (
                "29 two hosts",
                "GET /ping HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\nhost: localhost\r\n\r\n".to_owned(),
                400,
            ),
            ("not HTTP", "hello\r\n\r\n".to_owned(), 400),
            ("space before the colon", "GET /ping HTTP/1.1\r\nhost : localhost\r\n\r\n".to_owned(), 400),
            ("NUL in a header", "GET /ping HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n".to_owned(), 400),
        ] {
            let begun = Instant::now();
            let answer = api.raw(&[request.as_bytes()], PATIENCE).await.unwrap();
            let first = answer.lines().next().unwrap_or_default();
            assert!(first.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {answer:?}");
            assert!(begun.elapsed() < PATIENCE, "{name}: the connection stays open");
            assert_eq!(rows(&api, "notes").await, "*/0", "{name}");
        }
        // 30: HTTP/2 is not spoken, so its floods meet a closed connection.
        let answer = api.raw(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], PATIENCE).await.unwrap();
        assert_eq!(answer, "");
        // 27, length and chunks: hyper goes by the chunks and closes (RFC 9112 §6.1). What follows must not be taken for a
        // second request, which is what a smuggler is after.
        for both in [
            "content-length: 2\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ncontent-length: 2\r\n",
        ] {
            let begun = Instant::now();
            let request = post(both, smuggled) + "GET /v1/topics HTTP/1.1\r\nhost: localhost\r\n\r\n";
            let answer = api.raw(&[request.as_bytes()], PATIENCE).await.unwrap();
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer:?}");
            assert!(
                answer.to_ascii_lowercase().contains("connection: close") && begun.elapsed() < PATIENCE,
                "{answer:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_giant_is_refused_before_it_is_sent() {
    let mut server = server(SQLITE, "none:");
    server.start().await.unwrap();
    let head = post("content-length: 99999999999\r\nexpect: 100-continue\r\n", "");
    let answer = server.api().raw(&[head.as_bytes()], PATIENCE).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    assert!(!answer.contains("100 Continue"), "{answer:?}");
    // In chunks nothing is declared; it is refused as soon as it shows. A client that goes on writing may meet the closed
    // connection before it reads the answer.
    let head = post("transfer-encoding: chunked\r\n", "");
    let chunk = [b"100000\r\n", &[b' '; 0x10_0000][..], b"\r\n"].concat();
    let pieces: Vec<&[u8]> = std::iter::once(head.as_bytes()).chain((0..20).map(|_| &chunk[..])).collect();
    let answer = server.api().raw(&pieces, PATIENCE).await.unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer:?}");
    assert_eq!(rows(&server.api(), "notes").await, "*/0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_keeps_what_was_whole_or_nothing() {
    for broker in ["embedded:", "none:"] {
        let mut server = server(SQLITE, broker);
        server.start().await.unwrap();
        let api = server.api();
        let head =
            "POST /v1/topics/orders/messages HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\n";
        let declared = format!("{head}content-length: 1000\r\n\r\n{{\"n\": 1}}\n{{\"n\": 2}}\n{{\"n\"");
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n9\r\n{{\"n\": 3}}\n\r\n9\r\n{{\"n\"");
        for request in [declared, chunked] {
            // Closing the writing half tells the server that nothing more comes.
            let answer = half_closed(&api, request.as_bytes()).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer:?}");
        }
        assert_eq!(rows(&api, "orders").await, "*/0", "{broker} nobody was told that anything is stored");
        let reply = api.get("/rest/v1/_dead_letters").await.unwrap().json();
        assert_eq!(reply, serde_json::json!([]), "half a line is not a bad record");
    }
}

async fn half_closed(api: &Api, request: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(api.url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(request).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The server's patience is 30 seconds; both kinds of slow client are tried at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_sent_away() {
    let mut server = server(SQLITE, "none:");
    server.start().await.unwrap();
    let api = server.api();
    let patience = Duration::from_secs(60);
    let slow_head: [&[u8]; 1] = [b"POST /v1/topics/notes/messages HTTP/1.1\r\nhost: local"];
    let body = post("content-length: 100\r\n", "{\"a\": ");
    let slow_body = [body.as_bytes()];
    let begun = Instant::now();
    let (head, body) = tokio::join!(api.raw(&slow_head, patience), api.raw(&slow_body, patience));
    assert!(begun.elapsed() < patience, "a slow client keeps its connection");
    let (head, body) = (head.unwrap(), body.unwrap());
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head:?}");
    assert!(body.starts_with("HTTP/1.1 408") && body.contains("slow_body"), "{body:?}");
    assert_eq!(rows(&api, "notes").await, "*/0");
}

/// What callers send into log lines cannot end a line or colour a terminal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_one_line_a_message_whatever_callers_send() {
    let mut server = server(SQLITE, "embedded:").env("CAUDAL_LOG__LEVEL", "debug");
    server.start().await.unwrap();
    let api = server.api();
    let evil = "\u{1b}[31mred\r\nINFO forged line";
    let reply = api.publish("notes", &[], serde_json::json!({ evil: evil }).to_string()).await.unwrap();
    assert_eq!(reply.status, 201, "it is stored as it is: {}", reply.text());
    let reply = api.publish("adds", &[], serde_json::json!({ "n": 1, (evil): evil }).to_string()).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text());
    api.publish("orders", &[], serde_json::json!({ "n": evil }).to_string()).await.unwrap();
    api.get("/rest/v1/table?%1b%5b31m%0d%0aINFO=eq.1").await.unwrap();
    api.publish("%1b%5b31m%0d%0aINFO", &[], "{}").await.unwrap();
    let log = server.log();
    assert!(!log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("INFO forged")), "{log}");
}
