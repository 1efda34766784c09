//! What only the embedded log has: offsets that count messages from zero, any of which can be gone to, and one total order.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::HashMap;

use bytes::Bytes;
use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Publish};
use caudal_core::time::Instant;
use caudal_testkit::broker::{bare, message, messages, next, receive, topic};
use tempfile::TempDir;
use uuid::Uuid;

async fn open(dir: &TempDir) -> EmbeddedBroker {
    let config = EmbeddedConfig { segment_bytes: 8192, ..EmbeddedConfig::default() };
    EmbeddedBroker::open(dir.path(), config).await.expect("it opens")
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

async fn published(broker: &EmbeddedBroker, numbers: std::ops::Range<u64>) {
    broker.publish(&topic("t"), messages(numbers)).await.expect("publish works");
}

#[tokio::test]
async fn offsets_count_messages_from_zero() {
    let dir = dir();
    let broker = open(&dir).await;
    for start in (0..100).step_by(10) {
        published(&broker, start..start + 10).await;
    }
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.unwrap();
    let deliveries = receive(&mut subscription, 100).await;
    assert_eq!(deliveries.iter().map(next).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    assert_eq!(bare(deliveries), messages(0..100));
}

#[tokio::test]
async fn keeps_even_empty_fields() {
    let dir = dir();
    let broker = open(&dir).await;
    let odd = Message {
        id: Uuid::max(),
        key: Some(String::new()),
        source: String::new(),
        published_at: Instant(i64::MIN),
        attributes: Some(Bytes::new()),
        body: Bytes::new(),
    };
    broker.publish(&topic("t"), vec![odd.clone()]).await.unwrap();
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.unwrap();
    assert_eq!(bare(receive(&mut subscription, 1).await), [odd]);
}

#[tokio::test]
async fn seeks() {
    let dir = dir();
    let broker = open(&dir).await;
    for start in (0..60).step_by(6) {
        published(&broker, start..start + 6).await;
    }
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.unwrap();
    for offset in [59, 0, 17, 18, 30, 1] {
        subscription.seek(offset).await.expect("seek works");
        let deliveries = receive(&mut subscription, (60 - offset) as usize).await;
        assert_eq!(next(&deliveries[0]), offset + 1);
        assert_eq!(bare(deliveries), messages(offset..60), "from {offset}");
    }
    subscription.seek(60).await.expect("the end is a place");
    published(&broker, 60..61).await;
    assert_eq!(bare(receive(&mut subscription, 1).await), messages(60..61));
}

#[tokio::test]
async fn refuses_to_seek_beyond_the_end() {
    let dir = dir();
    let broker = open(&dir).await;
    published(&broker, 0..3).await;
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.unwrap();
    let error = subscription.seek(5).await.expect_err("offset 5 was never given out");
    assert!(format!("{error}").contains('5'), "{error} names the offset");
    assert_eq!(bare(receive(&mut subscription, 3).await), messages(0..3), "it stands where it stood");
}

#[tokio::test]
async fn acks_what_was_read() {
    let dir = dir();
    let broker = open(&dir).await;
    published(&broker, 0..10).await;
    let mut subscription = broker.open_subscription(&topic("t"), "store").await.unwrap();
    for delivery in receive(&mut subscription, 10).await {
        subscription.ack_to(next(&delivery)).expect("ack works");
    }
    subscription.ack_to(4).expect("an older ack changes nothing");
    subscription.ack_to(11).expect_err("nobody can have settled what was never published");
    published(&broker, 10..12).await;
    assert_eq!(bare(receive(&mut subscription, 2).await), messages(10..12));
}

#[tokio::test]
async fn counts_what_was_published() {
    let dir = dir();
    let broker = open(&dir).await;
    let unknown = broker.log_state(&topic("t"));
    assert!(matches!(unknown, Err(BrokerError::UnknownTopic(_))), "{unknown:?}");
    let subscription = broker.open_subscription(&topic("t"), "store").await.unwrap();
    let state = broker.log_state(&topic("t")).unwrap();
    assert_eq!((state.first, state.next), (0, 0));
    published(&broker, 0..7).await;
    published(&broker, 7..10).await;
    let state = broker.log_state(&topic("t")).unwrap();
    assert_eq!((state.first, state.next), (0, 10));
    assert_eq!(state.incarnation, subscription.incarnation());
    assert!(state.bytes > 0);
    drop(subscription);
    broker.close().await.expect("close works");
    assert_eq!(open(&dir).await.log_state(&topic("t")).unwrap(), state);
}

#[tokio::test]
async fn topics_are_lives_of_their_own() {
    let dir = dir();
    let broker = open(&dir).await;
    let a = broker.open_subscription(&topic("a"), "store").await.unwrap();
    let b = broker.open_subscription(&topic("b"), "store").await.unwrap();
    assert_ne!(a.incarnation(), b.incarnation());
}

#[tokio::test]
async fn finds_a_message() {
    let dir = dir();
    let broker = open(&dir).await;
    published(&broker, 0..300).await;
    let find = async |from, number| broker.find_from(&topic("t"), from, message(number).id).await.expect("find works");
    assert_eq!(find(0, 0).await, Some(message(0)));
    assert_eq!(find(0, 299).await, Some(message(299)));
    assert_eq!(find(123, 123).await, Some(message(123)));
    assert_eq!(find(124, 123).await, None, "it lies before");
    assert_eq!(find(0, 300).await, None, "it was never published");
    assert_eq!(find(300, 1).await, None);
    assert_eq!(find(10_000, 1).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_subscriptions_see_one_order() {
    const PUBLISHERS: u64 = 64;
    const EACH: u64 = 200;
    let dir = dir();
    let broker = std::sync::Arc::new(open(&dir).await);
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let broker = broker.clone();
            tokio::spawn(async move {
                for start in (publisher * EACH..(publisher + 1) * EACH).step_by(10) {
                    published(&broker, start..start + 10).await;
                }
            })
        })
        .collect();
    let mut one = broker.open_subscription(&topic("t"), "store").await.unwrap();
    let mut other = broker.open_subscription(&topic("t"), "audit").await.unwrap();
    let total = (PUBLISHERS * EACH) as usize;
    let (got, again) = tokio::join!(receive(&mut one, total), receive(&mut other, total));
    for task in tasks {
        task.await.expect("a publisher ends");
    }
    assert_eq!(got, again);
    let numbers: HashMap<Uuid, u64> = messages(0..PUBLISHERS * EACH).iter().map(|m| m.id).zip(0..).collect();
    let mut expected: Vec<u64> = (0..PUBLISHERS).map(|publisher| publisher * EACH).collect();
    for delivery in got {
        let number = numbers[&delivery.message.id];
        let expected = &mut expected[(number / EACH) as usize];
        assert_eq!(number, *expected, "a publisher's messages keep their order, each once");
        *expected += 1;
    }
}
