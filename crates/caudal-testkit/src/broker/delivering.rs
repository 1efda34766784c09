//! How messages arrive.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use caudal_core::message::{Message, Origin};
use caudal_core::time::Instant;
use uuid::Uuid;

use super::{Harness, Ledger, Reader, bare, message, messages, sorted};

/// Messages that share one key, so that every broker that orders at all keeps them in order.
pub(crate) fn in_line(numbers: std::ops::Range<u64>) -> Vec<Message> {
    numbers.map(|number| Message { key: Some("one".to_owned()), ..message(number) }).collect()
}

pub async fn keeps_order_per_key(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("order");
    let keyed = |number: u64| Message { key: Some(format!("k{}", number % 7)), ..message(number) };
    for start in (0..210).step_by(30) {
        broker.publish(&topic, (start..start + 30).map(keyed).collect()).await.expect("publish works");
    }
    let got = Reader::fresh(&broker, &topic).await.take(210).await;
    assert_eq!(sorted(got.clone()), sorted((0..210).map(keyed).collect()));
    if !harness.ordered {
        return;
    }
    let mut by_key: HashMap<Option<String>, Vec<Instant>> = HashMap::new();
    got.into_iter().for_each(|m| by_key.entry(m.key).or_default().push(m.published_at));
    assert_eq!(by_key.len(), 7);
    assert!(by_key.values().all(|times| times.is_sorted() && times.len() == 30), "{by_key:?}");
}

pub async fn keeps_every_field(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("fields");
    let rich = Message {
        id: Uuid::max(),
        key: Some("clé \u{1F30A}\n\0 100% \"x\"=;,".to_owned()),
        source: "cloudevents:/a b/ñ".to_owned(),
        published_at: Instant(-1),
        attributes: Some(Bytes::from_static("{\"a\":\"é\\n\",\"b\":[1]}".as_bytes())),
        body: Bytes::from_static(b"\xff\x00\x01 not even JSON \xf0\x9f"),
    };
    let plain = Message { key: None, attributes: None, ..message(2) };
    let long = Message { key: Some("k".repeat(500)), published_at: Instant(i64::MAX), ..message(3) };
    let all = vec![rich, plain, long];
    for message in &all {
        broker.publish(&topic, vec![message.clone()]).await.expect("publish works");
    }
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(3).await;
    assert!(deliveries.iter().all(|d| d.origin == Origin::Accepted && d.fault.is_none() && d.missing == 0));
    assert!(deliveries.iter().all(|d| d.attempt == 1), "a first hand-over is the first");
    assert_eq!(sorted(bare(deliveries)), sorted(all));
}

pub async fn fans_out(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("fan");
    let mut one = Reader::new(&broker, &topic, "store", &Ledger::default()).await;
    let mut other = Reader::new(&broker, &topic, "audit", &Ledger::default()).await;
    broker.publish(&topic, in_line(0..50)).await.expect("publish works");
    harness.same(one.take(50).await, in_line(0..50));
    harness.same(other.take(50).await, in_line(0..50));
}

/// The same key again, with other content or the same, is for the store to judge: a broker that swallows it would leave its
/// producer without an outcome.
pub async fn keeps_a_key_that_comes_again(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("repeat");
    let first = message(2);
    let later = Message { published_at: Instant(3), ..first.clone() };
    let other = Message { body: Bytes::from_static(b"{\"other\":1}"), ..first.clone() };
    let all = vec![first, later, other];
    for message in &all {
        broker.publish(&topic, vec![message.clone()]).await.expect("publish works");
    }
    let mut got = Reader::fresh(&broker, &topic).await.take(3).await;
    got.sort_by_key(|message| (message.published_at, message.body.len()));
    let mut wanted = all;
    wanted.sort_by_key(|message| (message.published_at, message.body.len()));
    assert_eq!(got, wanted);
}

pub async fn bounds_a_receive(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("bounds");
    let body = Bytes::from(vec![b'1'; 10_000]);
    let all: Vec<Message> = in_line(0..20).into_iter().map(|m| Message { body: body.clone(), ..m }).collect();
    broker.publish(&topic, all.clone()).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let mut got = Vec::new();
    for (messages_max, bytes_max, most) in [(3, usize::MAX, 3), (100, 35_000, 3), (100, 1, 1)] {
        let some = reader.subscription.receive(messages_max, bytes_max).await.expect("receive works");
        assert!((1..=most).contains(&some.len()), "{} messages within {messages_max}, {bytes_max} bytes", some.len());
        reader.settle(&some).await;
        got.extend(bare(some));
    }
    got.extend(reader.take(all.len() - got.len()).await);
    harness.same(got, all);
}

pub async fn wakes_a_waiting_receive(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("wake");
    let mut reader = Reader::fresh(&broker, &topic).await;
    for round in 0..3 {
        let waiting = tokio::spawn(async move {
            let got = reader.take(1).await;
            (reader, got)
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!waiting.is_finished(), "there is nothing to receive yet");
        broker.publish(&topic, messages(round..round + 1)).await.expect("publish works");
        let got;
        (reader, got) = waiting.await.expect("the waiting task ends");
        assert_eq!(got, messages(round..round + 1));
    }
}

pub async fn loses_nothing_when_a_receive_is_dropped(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("dropped");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let publisher = tokio::spawn({
        let (broker, topic) = (broker.clone(), topic.clone());
        async move {
            for number in 0..100 {
                broker.publish(&topic, in_line(number..number + 1)).await.expect("publish works");
            }
        }
    });
    let mut got = Vec::new();
    let mut micros = 1;
    let deadline = tokio::time::Instant::now() + super::PATIENCE;
    while got.len() < 100 {
        assert!(tokio::time::Instant::now() < deadline, "only {} of 100 came", got.len());
        micros = micros * 7 % 10_007;
        // Dropped at any point of its way, again and again.
        let receive = reader.subscription.receive(7, usize::MAX);
        if let Ok(some) = tokio::time::timeout(Duration::from_micros(micros), receive).await {
            let some = some.expect("receive works");
            reader.settle(&some).await;
            got.extend(bare(some));
        }
    }
    publisher.await.expect("the publisher ends");
    harness.same(got, in_line(0..100));
}

pub async fn keeps_topics_apart(harness: &Harness) {
    let broker = harness.open().await;
    let (a, b) = (harness.topic("a.b_c-d"), harness.topic("a-b.c_d"));
    broker.publish(&a, in_line(0..5)).await.expect("publish works");
    broker.publish(&b, in_line(5..8)).await.expect("publish works");
    let mut from_a = Reader::fresh(&broker, &a).await;
    let mut from_b = Reader::fresh(&broker, &b).await;
    harness.same(from_b.take(3).await, in_line(5..8));
    harness.same(from_a.take(5).await, in_line(0..5));
}

/// A producer that never heard of Caudal: its message arrives whole, named the same at each hand-over.
pub async fn takes_foreign_messages(harness: &Harness) {
    let Some(publish) = &harness.foreign else { return };
    let broker = harness.open().await;
    let topic = harness.topic("foreign");
    let ledger = Ledger::default();
    // It makes the topic.
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    publish(topic.clone(), vec![("traceparent".into(), trace.into())], Bytes::from_static(b"{\"n\":1}")).await;
    let first = reader.receive(1).await.remove(0);
    assert_eq!((first.origin, &first.fault), (Origin::Foreign, &None));
    assert_eq!(first.message.body, &b"{\"n\":1}"[..]);
    let attributes = String::from_utf8_lossy(first.message.attributes.as_deref().unwrap_or_default()).into_owned();
    assert!(attributes.contains(trace), "the trace context travels: {attributes}");
    drop(reader);
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let again = reader.receive(1).await.remove(0);
    assert_eq!(again.message.key, first.message.key, "the same name at each hand-over");
    assert_eq!(again.message.body, first.message.body);
    reader.settle(&[again]).await;
    publish(topic.clone(), vec![], Bytes::from_static(b"not JSON")).await;
    let bad = reader.receive(1).await.remove(0);
    assert_eq!(bad.message.body, &b"not JSON"[..], "what is not JSON is for the engine to refuse");
    reader.settle(&[bad]).await;
}
