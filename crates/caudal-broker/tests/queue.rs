//! The publish queue's bounds: publishers wait, and nobody waits for ever.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::Arc;
use std::time::Duration;

use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Publish};
use caudal_testkit::broker::{message, messages, topic};

async fn open(dir: &tempfile::TempDir, queue_bytes: usize, queue_messages: usize) -> Arc<EmbeddedBroker> {
    let config = EmbeddedConfig { segment_bytes: 65_536, queue_bytes, queue_messages, ..EmbeddedConfig::default() };
    Arc::new(EmbeddedBroker::open(dir.path(), config).await.expect("it opens"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_queue_makes_publishers_wait_and_takes_all() {
    for (queue_bytes, queue_messages) in [(300, 100), (1_000_000, 2), (1, 1), (0, 0)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let broker = open(&dir, queue_bytes, queue_messages).await;
        let publishers = (0..50).map(|publisher: u64| {
            let broker = broker.clone();
            tokio::spawn(async move {
                let start = publisher * 10;
                broker.publish(&topic("t"), messages(start..start + 9)).await?;
                broker.publish(&topic("t"), messages(start + 9..start + 10)).await
            })
        });
        for publisher in publishers.collect::<Vec<_>>() {
            let published = tokio::time::timeout(Duration::from_secs(30), publisher).await.expect("it does not hang");
            published.expect("the publisher ends").expect("publish works");
        }
        assert_eq!(broker.log_state(&topic("t")).expect("the topic is known").next, 500);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_gives_up_waiting_leaves_the_queue_as_it_was() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(&dir, 500, 10).await;
    let topic = topic("t");
    for micros in 0..200 {
        let publish = broker.publish(&topic, messages(0..20));
        let _ = tokio::time::timeout(Duration::from_micros(micros), publish).await;
    }
    let publish = broker.publish(&topic, messages(0..1));
    tokio::time::timeout(Duration::from_secs(30), publish).await.expect("there is room").expect("publish works");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_writes_what_waits() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(&dir, 1_000_000, 10_000).await;
    broker.publish(&topic("t"), messages(0..1)).await.expect("publish works");
    let publishers: Vec<_> = (1..200)
        .map(|number| {
            let broker = broker.clone();
            tokio::spawn(async move { broker.publish(&topic("t"), messages(number..number + 1)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_micros(300)).await;
    broker.close().await.expect("close works");
    let mut published = 1;
    for publisher in publishers {
        match publisher.await.expect("the publisher ends") {
            Ok(()) => published += 1,
            Err(error) => assert!(matches!(error, BrokerError::Unavailable(_)), "{error:?}"),
        }
    }
    let broker = open(&dir, 1_000_000, 10_000).await;
    assert_eq!(broker.log_state(&topic("t")).expect("the topic is known").next, published);
}

#[tokio::test]
async fn a_message_beyond_all_bounds_is_refused_and_the_log_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(&dir, 1_000_000, 10_000).await;
    let huge = Message { body: vec![0; 257 * 1024 * 1024].into(), ..message(0) };
    let refused = broker.publish(&topic("t"), vec![huge]).await.expect_err("it is too large");
    assert!(refused.to_string().contains("more than the log takes"), "{refused}");
    broker.publish(&topic("t"), messages(0..1)).await.expect("publish works");
}
