//! How records become deliveries.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use caudal_core::error::BrokerError;
use caudal_core::message::{Durability, Message, Origin};
use caudal_core::rejection::Code;
use caudal_testkit::broker::{Ledger, PATIENCE, Reader, bare, marks, message, messages};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use uuid::Uuid;

use super::{Step, cluster, keyed, open, step};

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_order_are_each_partitions_own() {
    let (kafka, topic) = cluster(4);
    let broker = open(&kafka).await;
    for start in (0..3000).step_by(300) {
        broker.publish(&topic, keyed(start..start + 300, 30)).await.unwrap();
    }
    let mut reader = Reader::fresh(&broker, &topic).await;
    let all = reader.receive(3000).await;
    let mut ends: HashMap<Uuid, u64> = HashMap::new();
    let mut by_key: HashMap<Option<String>, (HashSet<Uuid>, Vec<i64>)> = HashMap::new();
    for delivery in &all {
        let Step { lane, from, to } = step(delivery);
        assert_eq!((from, to), (ends.get(&lane).copied().unwrap_or(0), from + 1), "offsets join, lane by lane");
        ends.insert(lane, to);
        let (lanes, times) = by_key.entry(delivery.message.key.clone()).or_default();
        lanes.insert(lane);
        times.push(delivery.message.published_at.0);
        assert_eq!((delivery.attempt, delivery.missing), (1, 0));
    }
    assert!(by_key.values().all(|(lanes, times)| lanes.len() == 1 && times.is_sorted() && times.len() == 100));
    let state = broker.topic_state(&topic, "store").await.unwrap();
    let told: HashMap<Uuid, u64> = state.lanes.iter().map(|lane| (lane.lane, lane.next)).collect();
    assert_eq!(told, ends, "the topic's state tells the same lanes");
    assert!(state.lanes.iter().all(|lane| lane.first == 0));
    reader.settle(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_back_in_the_middle_of_a_stream() {
    let (kafka, topic) = cluster(2);
    let broker = open(&kafka).await;
    broker.publish(&topic, keyed(0..15_000, 50)).await.unwrap();
    let mut reader = Reader::fresh(&broker, &topic).await;
    let mut got = Vec::new();
    for _ in 0..4 {
        let some = reader.receive(2_000).await;
        reader.settle(&some[..700]).await;
        reader.subscription.nack(&marks(&some[700..]), Duration::from_millis(100)).await.unwrap();
        got.extend(bare(some[..700].to_vec()));
    }
    got.extend(reader.take(15_000 - got.len()).await);
    let ids: HashSet<Uuid> = got.iter().map(|message| message.id).collect();
    assert_eq!((got.len(), ids.len()), (15_000, 15_000), "each once, none skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_reading_loses_nothing() {
    let (kafka, topic) = cluster(3);
    let broker = open(&kafka).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    broker.publish(&topic, keyed(0..60_000, 30)).await.unwrap();
    let mut got = reader.take(1_000).await;
    // Longer than the adapter waits with a full buffer before it stops fetching.
    tokio::time::sleep(Duration::from_secs(5)).await;
    got.extend(reader.take(59_000).await);
    let ids: HashSet<Uuid> = got.iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_errors_lose_nothing() {
    let (kafka, topic) = cluster(2);
    let broker = open(&kafka).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let mut got = Vec::new();
    for (round, error) in (0..).zip([
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ]) {
        let errors = move |cluster: &rdkafka::mocking::MockCluster<'static, _>| {
            for api in
                [RDKafkaApiKey::Produce, RDKafkaApiKey::Fetch, RDKafkaApiKey::Heartbeat, RDKafkaApiKey::OffsetCommit]
            {
                cluster.request_errors(api, &[error; 2]);
            }
        };
        kafka.with(errors).unwrap();
        broker.publish(&topic, keyed(round * 100..round * 100 + 100, 10)).await.unwrap();
        let wanted: HashSet<Uuid> = messages(0..round * 100 + 100).iter().map(|message| message.id).collect();
        let seen = |got: &[Message]| got.iter().map(|message| message.id).collect::<HashSet<_>>();
        while seen(&got) != wanted {
            match tokio::time::timeout(PATIENCE, reader.subscription.receive(100, usize::MAX)).await.unwrap() {
                Ok(some) => {
                    reader.settle(&some).await;
                    got.extend(bare(some));
                }
                Err(BrokerError::Unavailable(_)) => {
                    reader = Reader::new(&broker, &topic, "store", &reader.ledger).await
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_records_are_taken_as_they_are() {
    let (kafka, topic) = cluster(1);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    kafka.publish("t", Some(b"k1"), &[header("h", "v")], Some(b"{\"n\":1}")).await.unwrap();
    kafka.publish("t", Some(b"\xff\0"), &[], None).await.unwrap();
    let event = [
        ("ce_specversion", "1.0"),
        ("ce_id", "7"),
        ("ce_source", "/s"),
        ("ce_type", "x"),
        ("content-type", "application/json"),
    ];
    let event: Vec<_> = event.iter().map(|(name, value)| header(name, value)).collect();
    kafka.publish("t", None, &event, Some(b"{\"n\":3}")).await.unwrap();
    let broker = open(&kafka).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let all = reader.receive(3).await;
    assert!(all.iter().all(|delivery| delivery.origin == Origin::Foreign));
    let (plain, tombstone, event) = (&all[0], &all[1], &all[2]);
    let cluster = "kafka:mockCluster";
    assert!(
        plain.message.key.as_deref().is_some_and(|key| key.starts_with(cluster) && key.contains(":t:0:0:")),
        "{plain:?}"
    );
    assert_eq!(plain.message.source, "kafka:t");
    assert_eq!(plain.message.attributes.as_deref(), Some(&br#"{"h":"v","kafka-key":"k1"}"#[..]));
    let fault = tombstone.fault.as_ref().expect("a tombstone holds nothing to store");
    assert_eq!(fault.code, Code::EmptyBody);
    assert!(fault.detail.contains("tombstone"), "{fault}");
    assert_eq!(tombstone.message.attributes.as_deref(), Some(&br#"{"kafka-key":"%FF%00"}"#[..]));
    assert_eq!((event.message.key.as_deref(), event.message.source.as_str()), (Some("/s 7"), "cloudevents:/s"));
    assert_eq!(event.fault, None);
    reader.settle(&all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finds_what_is_not_settled() {
    let (kafka, topic) = cluster(3);
    let broker = open(&kafka).await;
    broker.publish(&topic, keyed(0..300, 30)).await.unwrap();
    let ledger = Ledger::default();
    let find = async |number: u64| broker.find(&topic, &ledger, message(number).id).await.unwrap().map(|m| m.id);
    for number in [0, 150, 299] {
        assert_eq!(find(number).await, Some(message(number).id));
    }
    assert_eq!(find(300).await, None, "it was never published");
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let all = reader.receive(300).await;
    reader.settle(&all).await;
    assert_eq!(find(150).await, None, "it is settled");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_mock_cannot_tell_is_not_made_up() {
    let (kafka, topic) = cluster(1);
    let probe = open(&kafka).await.probe(&[topic]).await.unwrap();
    assert_eq!(probe.durability, Durability::Unknown, "{probe:?}");
    assert!(probe.product.contains("mockCluster") && probe.product.contains("brokers: 3"), "{probe:?}");
}
