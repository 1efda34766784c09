//! Where a subscription begins, by what the store says and what Kafka still keeps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::error::{BrokerError, StoreError};
use caudal_core::message::{Marks, Message};
use caudal_core::ports::Positions;
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Ledger, PATIENCE, Reader, bare, marks, message, messages, receive};
use caudal_testkit::kafka::Kafka;
use uuid::Uuid;

use super::{Step, cluster, open, open_url, step};

#[tokio::test(flavor = "multi_thread")]
async fn resumes_where_the_store_stands_and_not_the_group() {
    let (kafka, topic) = cluster(1);
    let broker = open(&kafka).await;
    broker.publish(&topic, messages(0..10)).await.unwrap();
    let ledger = Ledger::default();
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let all = reader.receive(10).await;
    // The group is told that all is read; the store commits only a part.
    reader.subscription.ack(&marks(&all)).await.unwrap();
    ledger.commit(&marks(&all[..4])).unwrap();
    drop(reader);
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let rest = reader.receive(6).await;
    assert_eq!(step(&rest[0]).from, 4);
    assert_eq!(bare(rest), messages(4..10));
}

/// What the mock drops when a partition has more than 5 MiB is what retention drops.
async fn with_a_dropped_beginning() -> (Kafka, TopicName, Ledger) {
    let (kafka, topic) = cluster(1);
    let broker = open_url(format!("{}&compression.type=none", kafka.url())).await;
    for number in 0..10 {
        broker.publish(&topic, messages(number..number + 1)).await.unwrap();
    }
    let ledger = Ledger::default();
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let five = reader.receive(5).await;
    reader.settle(&five).await;
    let large = Bytes::from(vec![b'1'; 1024 * 1024]);
    for number in 10..20 {
        let large = Message { body: large.clone(), ..message(number) };
        broker.publish(&topic, vec![large]).await.unwrap();
    }
    drop(reader);
    broker.close().await.unwrap();
    (kafka, topic, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_what_retention_dropped_before_it_was_read() {
    let (kafka, topic, ledger) = with_a_dropped_beginning().await;
    let broker = open(&kafka).await;
    let lane = broker.topic_state(&topic, "store").await.unwrap().lanes[0];
    assert!(lane.first > 5 && lane.next == 20, "{lane:?}");
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let rest = reader.receive((20 - lane.first) as usize).await;
    assert_eq!(rest[0].missing, lane.first - 5);
    assert_eq!(step(&rest[0]), Step { lane: lane.lane, from: 5, to: lane.first + 1 });
    assert!(rest[1..].iter().all(|delivery| delivery.missing == 0));
    assert_eq!(bare(rest.clone()).last().unwrap().id, message(19).id);
    reader.settle(&rest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_is_dropped_while_reading_ends_the_subscription() {
    let (kafka, topic, ledger) = with_a_dropped_beginning().await;
    let broker = open(&kafka).await;
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let first = reader.receive(1).await.remove(0);
    // Goes back to where there is nothing any more.
    reader.subscription.nack(&marks(&[first]), Duration::ZERO).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, reader.subscription.receive(1, usize::MAX)).await.unwrap();
    assert!(matches!(ended, Err(BrokerError::Unavailable(_))), "{ended:?}");
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let first = reader.receive(1).await.remove(0);
    assert!(first.missing > 0, "{first:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_shorter_than_what_was_read_is_read_from_its_start() {
    let (kafka, topic) = cluster(1);
    let broker = open(&kafka).await;
    broker.publish(&topic, messages(0..3)).await.unwrap();
    let lane = broker.topic_state(&topic, "store").await.unwrap().lanes[0].lane;
    let ledger = Ledger::default();
    ledger.commit(&Marks { steps: vec![Step { lane, from: 0, to: 1000 }], tags: vec![] }).unwrap();
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let all = reader.receive(3).await;
    assert_eq!(step(&all[0]), Step { lane, from: 1000, to: 1 });
    reader.settle(&all).await;
    assert_eq!(bare(all), messages(0..3));
    assert_eq!(ledger.position(lane).await.unwrap(), Some(3));
}

/// A store that cannot say where the subscription stands.
struct Away;

#[async_trait]
impl Positions for Away {
    async fn position(&self, _: Uuid) -> Result<Option<u64>, StoreError> {
        Err(StoreError::unavailable("the store is away"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_while_the_store_does_not_say_from_where() {
    let (kafka, topic) = cluster(1);
    let broker = open(&kafka).await;
    broker.publish(&topic, messages(0..3)).await.unwrap();
    let mut subscription = broker.subscribe(&topic, "store", Arc::new(Away)).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, subscription.receive(10, usize::MAX)).await.unwrap();
    assert!(matches!(ended, Err(BrokerError::Position(_))), "{ended:?}");
    drop(subscription);
    let mut subscription = broker.subscribe(&topic, "store", Arc::new(Ledger::default())).await.unwrap();
    assert_eq!(bare(receive(&mut *subscription, 3).await), messages(0..3));
}
