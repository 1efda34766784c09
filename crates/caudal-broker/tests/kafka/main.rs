//! Kafka: the brokers' conformance suite, and what is Kafka's own.
//!
//! Everything here runs against librdkafka's MOCK CLUSTER and against no real broker. The mock speaks the real protocol over
//! loopback, but keeps its log in memory (so nothing is said about disks), makes no use of producer sequences (so nothing is
//! said about repetitions that a broker recognises), knows no admin requests (so topics are made as they are asked for) and
//! shows aborted transactions.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod consuming;
mod group;
mod positions;
mod refusals;

use std::sync::Arc;
use std::time::Duration;

use caudal_broker::RemoteConfig;
use caudal_broker::kafka::KafkaBroker;
use caudal_core::message::{Delivery, Mark, Message, Step};
use caudal_core::ports::Broker;
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Harness, message, topic};
use caudal_testkit::kafka::Kafka;

/// A group member that leaves or joins makes the mock wait for a session's length less a second.
const REBALANCE: Duration = Duration::from_secs(3);
/// Long past what a group takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const BODY_MAX: usize = 4 * 1024 * 1024;

fn harness() -> Harness {
    let kafka = Arc::new(Kafka::start().expect("the mock cluster starts"));
    let (crashing, foreign) = (kafka.clone(), kafka.clone());
    Harness::new(move || {
        let kafka = kafka.clone();
        Box::pin(async move { Ok(open(&kafka).await) })
    })
    .delays_nacks()
    .gives_back_within(REBALANCE)
    .body_max(BODY_MAX)
    .crash(move || {
        let kafka = crashing.clone();
        Box::pin(async move {
            kafka.down().expect("the mock cluster goes away");
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            kafka.up().expect("the mock cluster comes back");
        })
    })
    .foreign(move |topic, headers, body| {
        let kafka = foreign.clone();
        Box::pin(async move {
            kafka.publish(topic.as_str(), None, &headers, Some(&body)).await.expect("Kafka's own client publishes");
        })
    })
}

mod conformance {
    caudal_testkit::broker_conformance!(super::harness());
}

async fn open(kafka: &Kafka) -> Arc<dyn Broker> {
    open_url(kafka.url()).await
}

async fn open_url(url: String) -> Arc<dyn Broker> {
    Arc::new(KafkaBroker::open(RemoteConfig::new(url)).await.expect("a good URL"))
}

/// A cluster with one topic of that many partitions.
fn cluster(partitions: i32) -> (Kafka, TopicName) {
    let kafka = Kafka::start().expect("the mock cluster starts");
    kafka.create_topic("t", partitions).expect("a topic can be made");
    (kafka, topic("t"))
}

fn keyed(numbers: std::ops::Range<u64>, keys: u64) -> Vec<Message> {
    numbers.map(|number| Message { key: Some(format!("k{}", number % keys)), ..message(number) }).collect()
}

fn step(delivery: &Delivery) -> Step {
    match delivery.mark {
        Mark::Position { lane, from, to } => Step { lane, from, to },
        Mark::Tag(_) => panic!("{delivery:?} has no position"),
    }
}
