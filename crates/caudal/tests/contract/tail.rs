//! The live tail: every record once, also when another server wrote it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use caudal_testkit::api::Events;
use caudal_testkit::postgres;

use crate::{Context, server};

const PATIENCE: Duration = Duration::from_secs(60);

/// Reads events until each of `wanted` numbers was there, and fails on one that comes twice.
async fn collect(events: &mut Events, from: u64, wanted: u64) -> Option<String> {
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let mut last = None;
    while (seen.len() as u64) < wanted {
        let event = events.next(PATIENCE).await.unwrap();
        let n = event.data["n"].as_u64().unwrap();
        if n >= from {
            let times = seen.entry(n).or_default();
            *times += 1;
            assert_eq!(*times, 1, "{n} came twice");
        }
        last = event.id.or(last);
    }
    last
}

fn lines(from: u64, to: u64) -> String {
    (from..to).map(|n| format!("{{\"n\": {n}}}\n")).collect()
}

pub(crate) async fn sees_each_record_once(cx: Arc<Context>) {
    let mut events = cx.api.follow("/v1/topics/tailed/stream", &[]).await.unwrap();
    cx.send("tailed", "application/x-ndjson", &[("prefer", "return=minimal")], lines(0, 1_500), 201).await;
    for n in 1_500..1_520 {
        cx.publish("tailed", &[], &format!("{{\"n\": {n}}}"), 201).await;
    }
    let mark = collect(&mut events, 0, 1_520).await.expect("an id to resume from");
    drop(events);
    // What came while nobody followed is there after a reconnect.
    cx.send("tailed", "application/x-ndjson", &[], lines(1_520, 1_600), 201).await;
    let mut events = cx.api.follow("/v1/topics/tailed/stream", &[("last-event-id", &mark)]).await.unwrap();
    collect(&mut events, 1_520, 80).await;
}

/// Two servers write into one PostgreSQL at once; each one's tail sees both, whatever order the commits come in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_sees_what_another_server_stores() {
    let database = postgres::database().await.unwrap();
    let mut servers = [server(&database, "none:"), server(&database, "none:")];
    for server in &mut servers {
        server.start().await.unwrap();
    }
    let [first, second] = servers.each_ref().map(|server| server.api());
    let mut at_first = first.follow("/v1/topics/tailed/stream", &[]).await.unwrap();
    let mut at_second = second.follow("/v1/topics/tailed/stream", &[]).await.unwrap();
    let write = |api: caudal_testkit::api::Api, from: u64| async move {
        for part in 0..20 {
            let begin = from + part * 25;
            let headers = [("content-type", "application/x-ndjson")];
            let reply = api.post("/v1/topics/tailed/messages", &headers, lines(begin, begin + 25)).await.unwrap();
            assert_eq!(reply.status, 201, "{}", reply.text());
        }
    };
    tokio::join!(
        write(first, 0),
        write(second, 500),
        collect(&mut at_first, 0, 1_000),
        collect(&mut at_second, 0, 1_000)
    );
}
