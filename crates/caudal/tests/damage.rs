//! A topic that is damaged where acknowledged messages lie must stop the process, loudly: not skip, not stall.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::PathBuf;
use std::time::Duration;

use caudal_testkit::server::{Server, free_port};

/// The first of several segments of a topic.
fn first_segment(server: &Server, topic: &str) -> PathBuf {
    let dir = server.data_dir().join("topics").join(topic);
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = files.filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
    segments.sort();
    assert!(segments.len() > 1, "one segment only: {segments:?}");
    segments.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_backlog_ends_the_process_and_nothing_is_skipped() {
    // Nobody listens there: the messages stay in the topic.
    let away = format!("postgres://postgres@127.0.0.1:{}/none", free_port().unwrap());
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal"))
        .unwrap()
        .store("sqlite:caudal.db")
        .broker("embedded:")
        .topic("notes", None, "")
        .env("CAUDAL_STORE__URL", &away)
        .env("CAUDAL_BROKER__SEGMENT_BYTES", "65536");
    server.start().await.unwrap();
    let filler = "x".repeat(4000);
    for n in 0..60 {
        let body = format!("{{\"n\":{n},\"filler\":\"{filler}\"}}");
        let reply = server.api().publish("notes", &[("prefer", "respond-async")], body).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
    }
    server.kill().unwrap();

    // One bit, in the middle of a message's body in an earlier segment.
    let segment = first_segment(&server, "notes");
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(64).position(|w| w.iter().all(|b| *b == b'x')).unwrap() + 10_000;
    assert_eq!(bytes[at], b'x');
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    server.unset_env("CAUDAL_STORE__URL");
    server.spawn().unwrap();
    let status = server.wait(Duration::from_secs(30)).await.unwrap().expect("the process goes on over a damaged topic");
    assert_eq!(status.code(), Some(70), "{}", server.log());
    let log = server.log();
    assert!(log.contains("notes") && log.contains(".log"), "the log names the topic and the file: {log}");
}
