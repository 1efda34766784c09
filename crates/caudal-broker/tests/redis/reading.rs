//! Losses in a stream, deliveries that are out for long, readers that die, and what is trimmed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_broker::Place;
use caudal_core::message::Message;
use caudal_core::ports::Broker;
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{PATIENCE, Reader, bare, messages};
use caudal_testkit::redis::shared;
use redis::cmd;

use super::{ask, broker, config, fresh, key, open};

fn url() -> String {
    shared().expect("a server").url()
}

/// The ids of what a topic's stream holds.
async fn ids(topic: &TopicName) -> Vec<String> {
    let entries: Vec<(String, Vec<String>)> = ask(&url(), cmd("XRANGE").arg(key(topic)).arg("-").arg("+")).await;
    entries.into_iter().map(|(id, _)| id).collect()
}

/// Entries that were trimmed before they were read are counted, right before the next, once.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_before_it_was_read_is_missing() {
    let topic = fresh("trimmed");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..4)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    assert_eq!(reader.take(4).await, messages(0..4));
    drop(reader);
    for start in [4, 24] {
        // Nobody reads: of these twenty the stream keeps ten.
        broker.publish(&topic, messages(start..start + 20)).await.expect("publish works");
        let _: u64 = ask(&url(), cmd("XTRIM").arg(key(&topic)).arg("MAXLEN").arg("=").arg(10)).await;
        let mut reader = Reader::fresh(&broker, &topic).await;
        let deliveries = reader.receive(10).await;
        let missing: Vec<u64> = deliveries.iter().map(|delivery| delivery.missing).collect();
        assert_eq!(missing, [10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        reader.settle(&deliveries).await;
        assert_eq!(bare(deliveries), messages(start + 10..start + 20));
        assert_eq!(broker.topic_state(&topic, "store").await.expect("the topic is known").waiting, Some(0));
    }
}

/// Before the first read ever too; and a group that is made later misses nothing that was gone before it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_before_the_first_read_is_missing() {
    let topic = fresh("early");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..5)).await.expect("publish works");
    let _: u64 = ask(&url(), cmd("XTRIM").arg(key(&topic)).arg("MAXLEN").arg("=").arg(2)).await;
    for (subscription, missing) in [("store", 3), ("later", 0)] {
        let mut reader = Reader::new(&broker, &topic, subscription, &Default::default()).await;
        let deliveries = reader.receive(2).await;
        assert_eq!(
            deliveries.iter().map(|delivery| delivery.missing).collect::<Vec<_>>(),
            [missing, 0],
            "{subscription}"
        );
    }
}

/// Deleted while it was pending: it is acked away, counted once, and what is left comes again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_it_was_pending_is_missing() {
    let topic = fresh("deleted");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..5)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    assert_eq!(reader.receive(5).await.len(), 5);
    drop(reader);
    let ids = ids(&topic).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let again = reader.receive(5).await;
    assert!(again.iter().all(|delivery| delivery.attempt == 2 && delivery.missing == 0), "{again:?}");
    // One comes again from another reader, the others are given back one by one.
    let _: u64 = ask(&url(), cmd("XDEL").arg(key(&topic)).arg(&ids[..2])).await;
    drop(reader);
    let mut reader = Reader::fresh(&broker, &topic).await;
    let left = reader.receive(3).await;
    assert_eq!(
        left.iter().map(|delivery| (delivery.missing, delivery.attempt)).collect::<Vec<_>>(),
        [(2, 3), (0, 3), (0, 3)]
    );
    let _: u64 = ask(&url(), cmd("XDEL").arg(key(&topic)).arg(&ids[2])).await;
    let marks = caudal_testkit::broker::marks(&left[..2]);
    reader.subscription.nack(&marks, Duration::ZERO).await.expect("nack works");
    let last = reader.receive(1).await;
    assert_eq!((last[0].missing, last[0].attempt), (1, 4), "{last:?}");
    reader.settle(&last).await;
    reader.settle(&left[2..]).await;
    assert_eq!(broker.topic_state(&topic, "store").await.expect("the topic is known").waiting, Some(0));
}

/// A store that takes long must not make others take over what is being worked on.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_worked_on_does_not_come_again() {
    let topic = fresh("slow");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..5)).await.expect("publish works");
    let mut slow = Reader::fresh(&broker, &topic).await;
    // Some are handed out, one waits for long, the others wait for the worker.
    let deliveries = slow.receive(3).await;
    let late = caudal_testkit::broker::marks(&deliveries[2..]);
    slow.subscription.nack(&late, Duration::from_secs(13)).await.expect("nack works");
    let mut other = Reader::fresh(&broker, &topic).await;
    let stolen = tokio::time::timeout(Duration::from_secs(12), other.subscription.receive(10, usize::MAX)).await;
    assert!(stolen.is_err(), "{stolen:?}");
    slow.settle(&deliveries[..2]).await;
    slow.take(3).await;
}

/// A process that dies gives nothing back; others take it over.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_had_comes_again() {
    let topic = fresh("dead");
    open(url()).await.publish(&topic, messages(0..5)).await.expect("publish works");
    let of_topic = topic.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let broker = open(url()).await;
            let mut reader = Reader::fresh(&broker, &of_topic).await;
            assert_eq!(reader.receive(5).await.len(), 5);
            // Its tasks end with the runtime and say no farewell.
            std::mem::forget(reader);
        });
        runtime.shutdown_background();
    })
    .join()
    .expect("the process dies");
    let begun = Instant::now();
    let broker = open(url()).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let again = reader.receive(5).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    assert!(again.iter().all(|delivery| delivery.attempt == 2), "{:?}", again[0]);
    assert_eq!(bare(again), messages(0..5));
}

/// What was read ahead and never handed to the worker was not handed over; the subscription's consumer goes with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_saw_counts_as_no_hand_over() {
    let topic = fresh("ahead");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..10)).await.expect("publish works");
    for _ in 0..4 {
        let mut reader = Reader::fresh(&broker, &topic).await;
        assert_eq!(reader.receive(1).await.len(), 1);
    }
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(10).await;
    assert_eq!(deliveries.iter().map(|delivery| delivery.attempt).collect::<Vec<_>>(), [5, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    let consumers: Vec<Vec<redis::Value>> =
        ask(&url(), cmd("XINFO").arg("CONSUMERS").arg(key(&topic)).arg("store")).await;
    assert_eq!(consumers.len(), 2, "one reads, one has what was given back: {consumers:?}");
}

/// What every group has acked goes; what one of them still needs stays.
#[tokio::test(flavor = "multi_thread")]
async fn acked_entries_are_removed_and_no_others() {
    let topic = fresh("memory");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..2000)).await.expect("publish works");
    let mut store = Reader::fresh(&broker, &topic).await;
    store.take(2000).await;
    let mut audit = Reader::new(&broker, &topic, "audit", &Default::default()).await;
    let first = audit.receive(1500).await;
    audit.settle(&first[..1000]).await;
    let length = async || -> u64 { ask(&url(), cmd("XLEN").arg(key(&topic))).await };
    let deadline = Instant::now() + PATIENCE;
    while length().await > 1150 {
        assert!(Instant::now() < deadline, "{} entries are left", length().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(length().await >= 1000, "only what both have acked goes");
    drop(audit);
    let mut audit = Reader::new(&broker, &topic, "audit", &Default::default()).await;
    let rest = audit.receive(1000).await;
    assert!(rest.iter().all(|delivery| delivery.missing == 0));
    assert_eq!(bare(rest), messages(1000..2000));
}

/// Somebody else's stream is left as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_with_a_name_of_its_own() {
    let topic = fresh("named");
    let stream = format!("orders-{topic}");
    let mut config = config(url());
    config.places.insert(topic.clone(), Place { publish: Some(stream.clone()), consume: Some("caudal".into()) });
    let broker = broker(config).await;
    broker.publish(&topic, messages(0..3)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    assert_eq!(reader.take(3).await, messages(0..3));
    let mut add = cmd("XADD");
    let id: String = ask(&url(), add.arg(&stream).arg("*").arg("n").arg(1).arg("name").arg("a")).await;
    let delivery = reader.receive(1).await.remove(0);
    assert_eq!(delivery.message.body, r#"{"n":"1","name":"a"}"#);
    assert_eq!(delivery.message.key, Some(format!("redis:{stream}:{id}")));
    assert_eq!(delivery.message.source, format!("redis:{stream}"));
    reader.settle(&[delivery]).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let length: u64 = ask(&url(), cmd("XLEN").arg(&stream)).await;
    assert_eq!(length, 4);
}

/// Publishing into nothing is an error, once; then the stream is made again, and read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_deleted_under_everybody() {
    let topic = fresh("gone");
    let broker = open(url()).await;
    broker.publish(&topic, messages(0..1)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    reader.take(1).await;
    let _: u64 = ask(&url(), cmd("DEL").arg(key(&topic))).await;
    let lost = broker.publish(&topic, messages(1..2)).await;
    assert!(matches!(lost, Err(caudal_core::error::BrokerError::Unavailable(_))), "{lost:?}");
    let ended = tokio::time::timeout(PATIENCE, reader.subscription.receive(1, 1)).await.expect("it is noticed");
    assert!(matches!(ended, Err(caudal_core::error::BrokerError::Unavailable(_))), "{ended:?}");
    broker.publish(&topic, messages(1..2)).await.expect("publish works again");
    assert_eq!(Reader::fresh(&broker, &topic).await.take(1).await, messages(1..2));
}

/// Large entries are not read all at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_entries_arrive_whole() {
    let topic = fresh("heavy");
    let broker: Arc<dyn Broker> = open(url()).await;
    let body = bytes::Bytes::from(vec![b'1'; 2 * 1024 * 1024]);
    let heavy = |numbers| -> Vec<_> {
        messages(numbers).into_iter().map(|message| Message { body: body.clone(), ..message }).collect()
    };
    broker.publish(&topic, heavy(0..40)).await.expect("publish works");
    let got = Reader::fresh(&broker, &topic).await.take(40).await;
    assert!(got == heavy(0..40));
}
