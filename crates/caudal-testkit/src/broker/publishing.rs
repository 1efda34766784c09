//! What a publish promises.

use std::collections::HashMap;

use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::{Durability, Message};
use uuid::Uuid;

use super::delivering::in_line;
use super::{Harness, Ledger, PATIENCE, Reader, message, messages, sorted};

pub async fn keeps_what_nobody_subscribed_to_yet(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("early");
    broker.publish(&topic, Vec::new()).await.expect("nothing is published easily");
    broker.publish(&topic, in_line(0..10)).await.expect("publish works");
    let mut store = Reader::new(&broker, &topic, "store", &Ledger::default()).await;
    let mut audit = Reader::new(&broker, &topic, "audit", &Ledger::default()).await;
    harness.same(store.take(10).await, in_line(0..10));
    harness.same(audit.take(10).await, in_line(0..10));
}

pub async fn takes_concurrent_publishers(harness: &Harness) {
    let publishers = 32.min(harness.volume / 20).max(2);
    let each = (harness.volume / publishers / 3).max(5);
    let broker = harness.open().await;
    let topic = harness.topic("many");
    let tasks: Vec<_> = (0..publishers)
        .map(|publisher| {
            let (broker, topic) = (broker.clone(), topic.clone());
            tokio::spawn(async move {
                let key = Some(format!("p{publisher}"));
                let numbers = publisher * each..(publisher + 1) * each;
                let mut numbers = numbers.collect::<Vec<_>>().into_iter();
                let mut size = 1;
                loop {
                    let batch: Vec<Message> =
                        numbers.by_ref().take(size).map(|n| Message { key: key.clone(), ..message(n) }).collect();
                    if batch.is_empty() {
                        return;
                    }
                    broker.publish(&topic, batch).await.expect("publish works");
                    size = size % 13 + 1;
                }
            })
        })
        .collect();
    let total = publishers * each;
    let got = Reader::fresh(&broker, &topic).await.take(total as usize).await;
    for task in tasks {
        task.await.expect("a publisher ends");
    }
    let numbers: HashMap<Uuid, u64> = messages(0..total).iter().map(|m| m.id).zip(0..).collect();
    let mut of_each: Vec<Vec<u64>> = vec![Vec::new(); publishers as usize];
    got.iter().map(|m| numbers[&m.id]).for_each(|number| of_each[(number / each) as usize].push(number));
    for (publisher, mut numbers) in (0..).zip(of_each) {
        if !harness.ordered {
            numbers.sort_unstable();
        }
        let all: Vec<u64> = (publisher * each..(publisher + 1) * each).collect();
        assert_eq!(numbers, all, "a publisher's messages keep their order, each once");
    }
}

pub async fn takes_large_bodies(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("large");
    let size = harness.body_max.min(4 * 1024 * 1024);
    let large = |number: u64| Message {
        body: Bytes::from(vec![b'a' + number as u8; size]),
        key: Some("one".to_owned()),
        ..message(number)
    };
    for number in 0..3 {
        broker.publish(&topic, vec![large(number)]).await.expect("publish works");
        broker.publish(&topic, in_line(100 + number..101 + number)).await.expect("publish works");
    }
    let got = Reader::fresh(&broker, &topic).await.take(6).await;
    let sent = (0..3).flat_map(|number| [vec![large(number)], in_line(100 + number..101 + number)]).flatten();
    assert!(sorted(got) == sorted(sent.collect()), "large bodies arrive whole");
}

/// A message that the broker cannot take is refused by name, and its neighbours in other publishes do not notice.
pub async fn refuses_what_is_too_large(harness: &Harness) {
    if harness.body_max == usize::MAX {
        return;
    }
    let broker = harness.open().await;
    let topic = harness.topic("huge");
    broker.publish(&topic, in_line(0..1)).await.expect("publish works");
    let huge = Message { body: Bytes::from(vec![b'x'; harness.body_max * 2]), ..message(1) };
    let refused = broker.publish(&topic, vec![huge]).await;
    assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");
    broker.publish(&topic, in_line(2..3)).await.expect("publish works on");
    let got = Reader::fresh(&broker, &topic).await.take(2).await;
    assert_eq!(sorted(got), sorted([in_line(0..1), in_line(2..3)].concat()));
}

pub async fn takes_more_than_one_group_at_once(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("volume");
    broker.publish(&topic, in_line(0..harness.volume)).await.expect("publish works");
    let got = Reader::fresh(&broker, &topic).await.take(harness.volume as usize).await;
    match harness.ordered {
        true => assert!(got == in_line(0..harness.volume)),
        false => assert!(sorted(got) == sorted(in_line(0..harness.volume))),
    }
}

pub async fn keeps_everything_over_a_reopen(harness: &Harness) {
    let topic = harness.topic("reopen");
    let ledger = Ledger::default();
    for round in 0..3 {
        let broker = harness.open().await;
        let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
        broker.publish(&topic, in_line(round * 20..round * 20 + 10)).await.expect("publish works");
        harness.same(reader.take(10).await, in_line(round * 20..round * 20 + 10));
        // Nobody reads these before the next opening.
        broker.publish(&topic, in_line(round * 20 + 10..round * 20 + 20)).await.expect("publish works");
        drop(reader);
        broker.close().await.expect("close works");
        let broker = harness.open().await;
        let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
        harness.same(reader.take(10).await, in_line(round * 20 + 10..round * 20 + 20));
        drop(reader);
        broker.close().await.expect("close works");
    }
}

/// What waits is counted, by lanes or as one number.
pub async fn knows_what_waits(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("waits");
    let ledger = Ledger::default();
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    broker.publish(&topic, in_line(0..12)).await.expect("publish works");
    waits_for(harness, &broker, &topic, &ledger, 12).await;
    reader.take(12).await;
    waits_for(harness, &broker, &topic, &ledger, 0).await;
}

/// Some brokers tell late.
async fn waits_for(
    _harness: &Harness,
    broker: &std::sync::Arc<dyn caudal_core::ports::Broker>,
    topic: &caudal_core::topic::TopicName,
    ledger: &Ledger,
    wanted: u64,
) {
    use caudal_core::ports::Positions;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let state = broker.topic_state(topic, "store").await.expect("the topic is known");
        let mut waiting = state.waiting;
        for lane in &state.lanes {
            let at = ledger.position(lane.lane).await.expect("a position").unwrap_or(lane.first);
            *waiting.get_or_insert(0) += lane.next - at;
        }
        if waiting == Some(wanted) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{waiting:?} wait, not {wanted}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

pub async fn says_what_its_word_is_worth(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("probe");
    broker.publish(&topic, in_line(0..1)).await.expect("publish works");
    let probe = broker.probe(&[topic]).await.expect("probe works");
    assert!(!probe.product.is_empty());
    assert!(!probe.reasons.is_empty(), "{probe:?} says why");
    assert!(Durability::Unknown < Durability::Process && Durability::Failover < Durability::Power);
}

pub async fn refuses_after_close(harness: &Harness) {
    let broker = harness.open().await;
    let topic = harness.topic("closed");
    broker.publish(&topic, in_line(0..5)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    reader.take(5).await;
    let mut subscription = reader.subscription;
    let waiting = tokio::spawn(async move { subscription.receive(1, usize::MAX).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    broker.close().await.expect("close works");
    broker.close().await.expect("closing twice is harmless");
    let ended = tokio::time::timeout(PATIENCE, waiting).await.expect("it wakes").expect("the task ends");
    assert!(matches!(ended, Err(BrokerError::Unavailable(_))), "{ended:?}");
    for topic in [topic, harness.topic("new")] {
        let refused = broker.publish(&topic, in_line(5..6)).await;
        assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
    }
}
