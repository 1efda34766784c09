//! What every broker must do, as tests against the real thing.
//!
//! A broker's own test file names a function that makes a [`Harness`] and lets [`broker_conformance!`](crate::broker_conformance)
//! write one test a rule:
//!
//! ```text
//! caudal_testkit::broker_conformance!(harness);
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Message};
use caudal_core::ports::{Broker, Subscription};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use futures_util::future::BoxFuture;
use uuid::Uuid;

/// Longer than any step takes; a step that never ends fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

type Open = dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>> + Send + Sync;

/// Opens a broker over storage that starts empty and outlives each opening.
pub struct Harness {
    open: Box<Open>,
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Harness")
    }
}

impl Harness {
    /// `open` is called again only after the broker it gave before was closed. Keep a temporary directory inside it.
    pub fn new(
        open: impl Fn() -> BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>> + Send + Sync + 'static,
    ) -> Self {
        Self { open: Box::new(open) }
    }

    async fn open(&self) -> Arc<dyn Broker> {
        (self.open)().await.expect("the broker opens")
    }
}

/// One test for each rule of [`broker`](crate::broker), over the harness that the expression makes.
#[macro_export]
macro_rules! broker_conformance {
    ($harness:expr) => {
        $crate::broker_conformance!(@ $harness,
            delivers_in_order,
            keeps_every_field,
            fans_out,
            seeks,
            refuses_to_seek_beyond_the_end,
            acks_what_was_read,
            bounds_a_receive,
            wakes_a_waiting_receive,
            loses_nothing_when_a_receive_is_dropped,
            takes_concurrent_publishers,
            takes_large_bodies,
            takes_more_than_one_group_at_once,
            keeps_everything_over_a_reopen,
            counts_what_was_published,
            finds_a_message,
            keeps_topics_apart,
            refuses_after_close,
        );
    };
    (@ $harness:expr, $($rule:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                $crate::broker::$rule(&$harness).await;
            }
        )*
    };
}

pub fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a topic name")
}

/// A message whose id and body follow from its number.
pub fn message(number: u64) -> Message {
    Message {
        id: Uuid::new_v5(&Uuid::NAMESPACE_OID, &number.to_le_bytes()),
        key: number.is_multiple_of(2).then(|| format!("key-{number}")),
        source: "http".to_owned(),
        published_at: Instant(number as i64),
        attributes: number.is_multiple_of(3).then(|| Bytes::from(format!("{{\"n\":{number}}}"))),
        body: Bytes::from(format!("{{\"number\":{number},\"text\":\"{}\"}}", "x".repeat((number % 50) as usize))),
    }
}

pub fn messages(numbers: std::ops::Range<u64>) -> Vec<Message> {
    numbers.map(message).collect()
}

/// Receives until `count` messages came.
pub async fn receive(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = tokio::time::timeout(PATIENCE, subscription.receive(count - all.len(), usize::MAX)).await;
        let some = some.expect("messages come in time").expect("receive works");
        assert!(!some.is_empty(), "a receive without messages");
        all.extend(some);
    }
    assert_eq!(all.len(), count, "more messages than were asked for");
    all
}

fn bare(deliveries: Vec<Delivery>) -> Vec<Message> {
    deliveries.into_iter().map(|delivery| delivery.message).collect()
}

async fn subscribed(broker: &Arc<dyn Broker>, name: &str) -> Box<dyn Subscription> {
    broker.subscribe(&topic(name), "store").await.expect("subscribe works")
}

pub async fn delivers_in_order(harness: &Harness) {
    let broker = harness.open().await;
    for start in (0..100).step_by(10) {
        broker.publish(&topic("t"), messages(start..start + 10)).await.expect("publish works");
    }
    let mut subscription = subscribed(&broker, "t").await;
    let deliveries = receive(&mut *subscription, 100).await;
    let next: Vec<u64> = deliveries.iter().map(|delivery| delivery.next).collect();
    assert_eq!(next, (1..=100).collect::<Vec<_>>(), "offsets count messages from zero");
    assert_eq!(bare(deliveries), messages(0..100));
}

pub async fn keeps_every_field(harness: &Harness) {
    let broker = harness.open().await;
    let odd = Message {
        id: Uuid::max(),
        key: Some(String::new()),
        source: String::new(),
        published_at: Instant(i64::MIN),
        attributes: Some(Bytes::new()),
        body: Bytes::new(),
    };
    let rich = Message {
        key: Some("clé \u{1F30A}\n\0".to_owned()),
        source: "cloudevents:/a b".to_owned(),
        attributes: Some(Bytes::from_static(br#"{"a":1}"#)),
        body: Bytes::from_static(b"\xff\x00 not even JSON"),
        ..message(1)
    };
    let plain = Message { key: None, attributes: None, ..message(2) };
    let all = vec![odd, rich, plain];
    broker.publish(&topic("t"), all.clone()).await.expect("publish works");
    let mut subscription = subscribed(&broker, "t").await;
    assert_eq!(bare(receive(&mut *subscription, 3).await), all);
}

pub async fn fans_out(harness: &Harness) {
    let broker = harness.open().await;
    let mut one = broker.subscribe(&topic("t"), "store").await.expect("subscribe works");
    let mut other = broker.subscribe(&topic("t"), "audit").await.expect("subscribe works");
    broker.publish(&topic("t"), messages(0..50)).await.expect("publish works");
    assert_eq!(bare(receive(&mut *one, 50).await), messages(0..50));
    one.ack(50).await.expect("ack works");
    assert_eq!(bare(receive(&mut *other, 50).await), messages(0..50));
    assert_eq!(one.incarnation(), other.incarnation());
}

pub async fn seeks(harness: &Harness) {
    let broker = harness.open().await;
    for start in (0..60).step_by(6) {
        broker.publish(&topic("t"), messages(start..start + 6)).await.expect("publish works");
    }
    let mut subscription = subscribed(&broker, "t").await;
    for offset in [59, 0, 17, 18, 30, 1] {
        subscription.seek(offset).await.expect("seek works");
        let deliveries = receive(&mut *subscription, (60 - offset) as usize).await;
        assert_eq!(deliveries[0].next, offset + 1);
        assert_eq!(bare(deliveries), messages(offset..60), "from {offset}");
    }
    subscription.seek(60).await.expect("the end is a place");
    broker.publish(&topic("t"), messages(60..61)).await.expect("publish works");
    assert_eq!(bare(receive(&mut *subscription, 1).await), messages(60..61));
}

pub async fn refuses_to_seek_beyond_the_end(harness: &Harness) {
    let broker = harness.open().await;
    broker.publish(&topic("t"), messages(0..3)).await.expect("publish works");
    let mut subscription = subscribed(&broker, "t").await;
    let error = subscription.seek(5).await.expect_err("offset 5 was never given out");
    assert!(format!("{error}").contains('5'), "{error} names the offset");
    assert_eq!(bare(receive(&mut *subscription, 3).await), messages(0..3), "it stands where it stood");
}

pub async fn acks_what_was_read(harness: &Harness) {
    let broker = harness.open().await;
    broker.publish(&topic("t"), messages(0..10)).await.expect("publish works");
    let mut subscription = subscribed(&broker, "t").await;
    for delivery in receive(&mut *subscription, 10).await {
        subscription.ack(delivery.next).await.expect("ack works");
    }
    subscription.ack(4).await.expect("an older ack changes nothing");
    subscription.ack(11).await.expect_err("nobody can have settled what was never published");
    broker.publish(&topic("t"), messages(10..12)).await.expect("publish works");
    assert_eq!(bare(receive(&mut *subscription, 2).await), messages(10..12));
}

pub async fn bounds_a_receive(harness: &Harness) {
    let broker = harness.open().await;
    let body = Bytes::from(vec![b'1'; 10_000]);
    let all: Vec<Message> = messages(0..20).into_iter().map(|m| Message { body: body.clone(), ..m }).collect();
    broker.publish(&topic("t"), all.clone()).await.expect("publish works");
    let mut subscription = subscribed(&broker, "t").await;
    let mut got = Vec::new();
    let some = subscription.receive(3, usize::MAX).await.expect("receive works");
    assert!((1..=3).contains(&some.len()), "{} messages, at most 3 were asked for", some.len());
    got.extend(bare(some));
    let some = subscription.receive(100, 35_000).await.expect("receive works");
    assert!((1..=3).contains(&some.len()), "{} messages of 10,000 bytes in 35,000", some.len());
    got.extend(bare(some));
    let some = subscription.receive(100, 1).await.expect("receive works");
    assert_eq!(some.len(), 1, "the first message comes whatever its size, and only that");
    got.extend(bare(some));
    let rest = all.len() - got.len();
    got.extend(bare(receive(&mut *subscription, rest).await));
    assert_eq!(got, all);
}

pub async fn wakes_a_waiting_receive(harness: &Harness) {
    let broker = harness.open().await;
    let mut subscription = subscribed(&broker, "t").await;
    for round in 0..5 {
        let waiting = tokio::spawn(async move {
            let deliveries = receive(&mut *subscription, 1).await;
            (subscription, deliveries)
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished(), "there is nothing to receive yet");
        broker.publish(&topic("t"), messages(round..round + 1)).await.expect("publish works");
        let deliveries;
        (subscription, deliveries) = waiting.await.expect("the waiting task ends");
        assert_eq!(bare(deliveries), messages(round..round + 1));
    }
}

pub async fn loses_nothing_when_a_receive_is_dropped(harness: &Harness) {
    let broker = harness.open().await;
    let mut subscription = subscribed(&broker, "t").await;
    let publisher = tokio::spawn({
        let broker = broker.clone();
        async move {
            for number in 0..200 {
                broker.publish(&topic("t"), messages(number..number + 1)).await.expect("publish works");
            }
        }
    });
    let mut got = Vec::new();
    let mut micros = 1;
    while got.len() < 200 {
        micros = micros * 7 % 1009;
        // Dropped at any point of its way, again and again.
        let some = tokio::time::timeout(Duration::from_micros(micros), subscription.receive(7, usize::MAX)).await;
        if let Ok(some) = some {
            got.extend(bare(some.expect("receive works")));
        }
    }
    publisher.await.expect("the publisher ends");
    assert_eq!(got, messages(0..200));
}

pub async fn takes_concurrent_publishers(harness: &Harness) {
    const PUBLISHERS: u64 = 64;
    const EACH: u64 = 200;
    let broker = harness.open().await;
    let tasks: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let broker = broker.clone();
            tokio::spawn(async move {
                let numbers = publisher * EACH..(publisher + 1) * EACH;
                let mut numbers = numbers.collect::<Vec<_>>().into_iter();
                let mut size = 1;
                loop {
                    let batch: Vec<Message> = numbers.by_ref().take(size).map(message).collect();
                    if batch.is_empty() {
                        return;
                    }
                    broker.publish(&topic("t"), batch).await.expect("publish works");
                    size = size % 13 + 1;
                }
            })
        })
        .collect();
    let mut one = broker.subscribe(&topic("t"), "store").await.expect("subscribe works");
    let mut other = broker.subscribe(&topic("t"), "audit").await.expect("subscribe works");
    let total = (PUBLISHERS * EACH) as usize;
    let (got, again) = tokio::join!(receive(&mut *one, total), receive(&mut *other, total));
    for task in tasks {
        task.await.expect("a publisher ends");
    }
    assert_eq!(got, again, "one total order");
    let numbers: HashMap<Uuid, u64> = messages(0..PUBLISHERS * EACH).iter().map(|m| m.id).zip(0..).collect();
    let mut next: Vec<u64> = (0..PUBLISHERS).map(|publisher| publisher * EACH).collect();
    for delivery in got {
        let number = numbers[&delivery.message.id];
        let expected = &mut next[(number / EACH) as usize];
        assert_eq!(number, *expected, "a publisher's messages keep their order, each once");
        assert_eq!(delivery.message, message(number));
        *expected += 1;
    }
    assert!(next.iter().zip(1..).all(|(next, publisher)| *next == publisher * EACH));
}

pub async fn takes_large_bodies(harness: &Harness) {
    let broker = harness.open().await;
    let large = |number: u64| Message { body: Bytes::from(vec![number as u8; 4 * 1024 * 1024]), ..message(number) };
    for number in 0..3 {
        broker.publish(&topic("t"), vec![large(number)]).await.expect("publish works");
        broker.publish(&topic("t"), messages(100 + number..101 + number)).await.expect("publish works");
    }
    let mut subscription = subscribed(&broker, "t").await;
    for number in 0..3 {
        assert!(bare(receive(&mut *subscription, 1).await) == vec![large(number)], "large body {number}");
        assert_eq!(bare(receive(&mut *subscription, 1).await), messages(100 + number..101 + number));
    }
}

pub async fn takes_more_than_one_group_at_once(harness: &Harness) {
    let broker = harness.open().await;
    broker.publish(&topic("t"), Vec::new()).await.expect("nothing is published easily");
    broker.publish(&topic("t"), messages(0..20_000)).await.expect("publish works");
    let mut subscription = subscribed(&broker, "t").await;
    assert!(bare(receive(&mut *subscription, 20_000).await) == messages(0..20_000));
}

pub async fn keeps_everything_over_a_reopen(harness: &Harness) {
    let mut incarnation = None;
    for round in 0..4 {
        let broker = harness.open().await;
        let mut subscription = subscribed(&broker, "t").await;
        assert_eq!(*incarnation.get_or_insert(subscription.incarnation()), subscription.incarnation());
        broker.publish(&topic("t"), messages(round * 25..(round + 1) * 25)).await.expect("publish works");
        let deliveries = receive(&mut *subscription, (round as usize + 1) * 25).await;
        assert_eq!(bare(deliveries), messages(0..(round + 1) * 25));
        drop(subscription);
        broker.close().await.expect("close works");
    }
}

pub async fn counts_what_was_published(harness: &Harness) {
    let broker = harness.open().await;
    let unknown = broker.topic_state(&topic("t")).await;
    assert!(matches!(unknown, Err(BrokerError::UnknownTopic(_))), "{unknown:?}");
    let subscription = subscribed(&broker, "t").await;
    let state = broker.topic_state(&topic("t")).await.expect("the topic is known");
    assert_eq!((state.first, state.next), (0, 0));
    broker.publish(&topic("t"), messages(0..7)).await.expect("publish works");
    broker.publish(&topic("t"), messages(7..10)).await.expect("publish works");
    let state = broker.topic_state(&topic("t")).await.expect("the topic is known");
    assert_eq!((state.first, state.next), (0, 10));
    assert_eq!(state.incarnation, subscription.incarnation());
    assert!(state.bytes > 0);
    drop(subscription);
    broker.close().await.expect("close works");
    let broker = harness.open().await;
    assert_eq!(broker.topic_state(&topic("t")).await.expect("the topic is known"), state);
}

pub async fn finds_a_message(harness: &Harness) {
    let broker = harness.open().await;
    broker.publish(&topic("t"), messages(0..300)).await.expect("publish works");
    let find = async |from, number| broker.find(&topic("t"), from, message(number).id).await.expect("find works");
    assert_eq!(find(0, 0).await, Some(message(0)));
    assert_eq!(find(0, 299).await, Some(message(299)));
    assert_eq!(find(123, 123).await, Some(message(123)));
    assert_eq!(find(124, 123).await, None, "it lies before");
    assert_eq!(find(0, 300).await, None, "it was never published");
    assert_eq!(find(300, 1).await, None);
    assert_eq!(find(10_000, 1).await, None);
}

pub async fn keeps_topics_apart(harness: &Harness) {
    let broker = harness.open().await;
    broker.publish(&topic("a"), messages(0..5)).await.expect("publish works");
    broker.publish(&topic("b"), messages(5..8)).await.expect("publish works");
    let mut a = subscribed(&broker, "a").await;
    let mut b = subscribed(&broker, "b").await;
    assert_eq!(bare(receive(&mut *a, 5).await), messages(0..5));
    assert_eq!(bare(receive(&mut *b, 3).await), messages(5..8));
    assert_ne!(a.incarnation(), b.incarnation());
}

pub async fn refuses_after_close(harness: &Harness) {
    let broker = harness.open().await;
    broker.publish(&topic("t"), messages(0..5)).await.expect("publish works");
    let mut subscription = subscribed(&broker, "t").await;
    receive(&mut *subscription, 5).await;
    let waiting = tokio::spawn(async move { subscription.receive(1, usize::MAX).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    broker.close().await.expect("close works");
    broker.close().await.expect("closing twice is harmless");
    let ended = tokio::time::timeout(PATIENCE, waiting).await.expect("it wakes").expect("the task ends");
    assert!(matches!(ended, Err(BrokerError::Unavailable(_))), "{ended:?}");
    let refused = broker.publish(&topic("t"), messages(5..6)).await;
    assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
    let refused = broker.publish(&topic("new"), messages(5..6)).await;
    assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
}
