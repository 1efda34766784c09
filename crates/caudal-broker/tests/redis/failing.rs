//! Servers that die, and servers that hang.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_core::error::BrokerError;
use caudal_testkit::broker::{PATIENCE, Reader, messages};
use caudal_testkit::redis::Redis;

use super::{fresh, open, subscribe};

/// Whatever was confirmed before the server was killed is there afterwards: batches, from several publishers at once.
#[tokio::test(flavor = "multi_thread")]
async fn every_confirmed_message_survives_the_servers_process() {
    const PUBLISHERS: u64 = 4;
    const BATCH: u64 = 200;
    let server = Arc::new(Redis::start().expect("a server"));
    let topic = fresh("killed");
    let broker = open(server.url()).await;
    broker.publish(&topic, messages(0..1)).await.expect("publish works");
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (broker, topic, stop) = (broker.clone(), topic.clone(), stop.clone());
            tokio::spawn(async move {
                let mut confirmed = Vec::new();
                for round in 0.. {
                    if stop.load(std::sync::atomic::Ordering::Relaxed) {
                        break;
                    }
                    let start = 1 + (round * PUBLISHERS + publisher) * BATCH;
                    match broker.publish(&topic, messages(start..start + BATCH)).await {
                        Ok(()) => confirmed.extend(messages(start..start + BATCH).into_iter().map(|m| m.id)),
                        Err(BrokerError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                confirmed
            })
        })
        .collect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.kill();
        server.restart().expect("it starts again");
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut missing = HashSet::new();
    for publisher in publishers {
        missing.extend(publisher.await.expect("a publisher ends"));
    }
    println!("{} confirmed over five kills", missing.len());
    assert!(missing.len() > 1000, "{} confirmed", missing.len());
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        let some = tokio::time::timeout_at(deadline.into(), reader.subscription.receive(10_000, usize::MAX)).await;
        let some =
            some.unwrap_or_else(|_| panic!("{} confirmed messages are lost", missing.len())).expect("receive works");
        assert!(some.iter().all(|delivery| delivery.missing == 0), "a restart is no loss");
        reader.settle(&some).await;
        let came: HashSet<_> = some.iter().map(|delivery| delivery.message.id).collect();
        missing.retain(|id| !came.contains(id));
    }
}

/// A server that is held answers nobody; everybody is told soon, and all goes on when it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_away() {
    let server = Redis::start().expect("a server");
    let topic = fresh("held");
    let broker = open(server.url()).await;
    broker.publish(&topic, messages(0..1)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    assert_eq!(reader.take(1).await, messages(0..1));
    server.hold().expect("it is held");
    let begun = Instant::now();
    let publishing: Vec<_> = (0..8)
        .map(|n| {
            let (broker, topic) = (broker.clone(), topic.clone());
            tokio::spawn(async move { broker.publish(&topic, messages(n..n + 1)).await })
        })
        .collect();
    for publish in publishing {
        let outcome = publish.await.expect("it ends");
        assert!(matches!(outcome, Err(BrokerError::Unavailable(_))), "{outcome:?}");
    }
    let waiting = reader.subscription.receive(1, usize::MAX).await;
    assert!(matches!(waiting, Err(BrokerError::Unavailable(_))), "{waiting:?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "noticed after {:?}", begun.elapsed());
    let begun = Instant::now();
    let away = broker.publish(&topic, messages(0..1)).await;
    assert!(matches!(away, Err(BrokerError::Unavailable(_))), "{away:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "told after {:?}", begun.elapsed());
    server.let_go().expect("it goes on");
    broker.publish(&topic, messages(100..101)).await.expect("publish works again");
    let mut subscription = subscribe(&broker, &topic).await.expect("subscribe works again");
    let mut seen = HashSet::new();
    while !seen.contains(&messages(100..101)[0].id) {
        let some = tokio::time::timeout(PATIENCE, subscription.receive(100, usize::MAX)).await.expect("it comes");
        seen.extend(some.expect("receive works").into_iter().map(|delivery| delivery.message.id));
    }
}
