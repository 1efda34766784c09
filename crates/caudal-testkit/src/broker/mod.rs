//! What every broker must do, as tests against the real thing.
//!
//! A broker's own test file names a function that makes a [`Harness`] and lets [`broker_conformance!`](crate::broker_conformance)
//! write one test a rule:
//!
//! ```text
//! caudal_testkit::broker_conformance!(harness().await);
//! ```
//!
//! Brokers that number their messages and brokers that remember what is settled pass the same rules, because a [`Reader`]
//! settles as the worker does: positions into a [`Ledger`] that stands for the store, then the broker's own ack.

pub mod delivering;
pub mod publishing;
pub mod settling;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::error::{BrokerError, StoreError};
use caudal_core::message::{Delivery, Mark, Marks, Message};
use caudal_core::ports::{Broker, Positions, Subscription};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use futures_util::future::BoxFuture;
use uuid::Uuid;

/// Longer than any step takes; a step that never ends fails instead of hanging.
pub const PATIENCE: Duration = Duration::from_secs(60);

type Open = dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>> + Send + Sync;
type Act = dyn Fn() -> BoxFuture<'static, ()> + Send + Sync;
type Foreign = dyn Fn(TopicName, Vec<(String, String)>, Bytes) -> BoxFuture<'static, ()> + Send + Sync;

/// Opens a broker over storage that outlives each opening, and says what this broker can do.
pub struct Harness {
    open: Box<Open>,
    /// Keeps the topics of tests that share a server apart.
    prefix: String,
    ordered: bool,
    locks: bool,
    counts: bool,
    delays: bool,
    waits: Duration,
    body_max: usize,
    volume: u64,
    crash: Option<Box<Act>>,
    foreign: Option<Box<Foreign>>,
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Harness").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Harness {
    /// `open` is called again only after the broker it gave before was closed. Keep servers and directories inside it. Its
    /// broker must know of the subscriptions `store` and `audit` when it publishes.
    pub fn new(
        open: impl Fn() -> BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            open: Box::new(open),
            prefix: Uuid::now_v7().simple().to_string()[24..].to_owned(),
            ordered: true,
            locks: false,
            counts: false,
            delays: false,
            waits: Duration::ZERO,
            body_max: usize::MAX,
            volume: 20_000,
            crash: None,
            foreign: None,
        }
    }

    /// The broker promises no order (SQS standard queues).
    pub fn unordered(self) -> Self {
        Self { ordered: false, ..self }
    }

    /// While messages of a key are out, the broker hands out no more of that key (SQS FIFO queues).
    pub fn locks_keys(self) -> Self {
        Self { locks: true, ..self }
    }

    /// The broker counts hand-overs.
    pub fn counts_attempts(self) -> Self {
        Self { counts: true, ..self }
    }

    /// The broker (or its adapter) holds a nacked message back for as long as it is told.
    pub fn delays_nacks(self) -> Self {
        Self { delays: true, ..self }
    }

    /// How long it may take until what a dropped subscription had comes again.
    pub fn gives_back_within(self, waits: Duration) -> Self {
        Self { waits, ..self }
    }

    /// The largest body that the broker takes.
    pub fn body_max(self, bytes: usize) -> Self {
        Self { body_max: bytes, ..self }
    }

    /// How many messages a test of volume sends; for emulators that are slow.
    pub fn volume(self, messages: u64) -> Self {
        Self { volume: messages, ..self }
    }

    /// Kills the server with SIGKILL and starts it again over the same storage. Give such a harness a server of its own.
    pub fn crash(self, act: impl Fn() -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { crash: Some(Box::new(act)), ..self }
    }

    /// Publishes with the broker's own client, without Caudal: topic, headers, body.
    pub fn foreign(
        self,
        publish: impl Fn(TopicName, Vec<(String, String)>, Bytes) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self { foreign: Some(Box::new(publish)), ..self }
    }

    pub async fn open(&self) -> Arc<dyn Broker> {
        (self.open)().await.expect("the broker opens")
    }

    /// A topic of this harness alone.
    pub fn topic(&self, name: &str) -> TopicName {
        topic(&format!("{}-{name}", self.prefix))
    }
}

/// One test for each rule of [`broker`](crate::broker), over the harness that the expression makes.
#[macro_export]
macro_rules! broker_conformance {
    ($harness:expr) => {
        $crate::broker_conformance!(@ $harness, delivering:
            keeps_order_per_key,
            keeps_every_field,
            fans_out,
            keeps_a_key_that_comes_again,
            bounds_a_receive,
            wakes_a_waiting_receive,
            loses_nothing_when_a_receive_is_dropped,
            keeps_topics_apart,
            takes_foreign_messages,
        );
        $crate::broker_conformance!(@ $harness, publishing:
            keeps_what_nobody_subscribed_to_yet,
            takes_concurrent_publishers,
            takes_large_bodies,
            refuses_what_is_too_large,
            takes_more_than_one_group_at_once,
            keeps_everything_over_a_reopen,
            knows_what_waits,
            says_what_its_word_is_worth,
            refuses_after_close,
        );
        $crate::broker_conformance!(@ $harness, settling:
            settles_for_good,
            hands_over_again_what_was_not_settled,
            hands_over_again_what_was_given_back,
            counts_hand_overs,
            bounds_what_is_out,
            survives_a_crash_of_the_broker,
        );
    };
    (@ $harness:expr, $part:ident: $($rule:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                $crate::broker::$part::$rule(&$harness).await;
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

pub fn bare(deliveries: Vec<Delivery>) -> Vec<Message> {
    deliveries.into_iter().map(|delivery| delivery.message).collect()
}

/// The offset that follows a delivery of a broker that numbers its messages.
pub fn next(delivery: &Delivery) -> u64 {
    match delivery.mark {
        Mark::Position { to, .. } => to,
        Mark::Tag(_) => panic!("{delivery:?} has no offset"),
    }
}

/// The marks of deliveries, which must join.
pub fn marks(deliveries: &[Delivery]) -> Marks {
    let mut marks = Marks::default();
    deliveries.iter().for_each(|delivery| marks.add(delivery.mark).expect("deliveries of a lane join"));
    marks
}

/// Positions as a store would keep them.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<HashMap<Uuid, u64>>>);

impl Ledger {
    /// Fenced like the store: a lane that is known must stand where the marks begin.
    pub fn commit(&self, settled: &Marks) -> Result<(), StoreError> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if settled.steps.iter().any(|step| lanes.get(&step.lane).is_some_and(|at| *at != step.from)) {
            return Err(StoreError::Fenced);
        }
        lanes.extend(settled.steps.iter().map(|step| (step.lane, step.to)));
        Ok(())
    }
}

#[async_trait]
impl Positions for Ledger {
    async fn position(&self, lane: Uuid) -> Result<Option<u64>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&lane).copied())
    }
}

/// A subscription that settles as the worker does.
pub struct Reader {
    pub subscription: Box<dyn Subscription>,
    pub ledger: Ledger,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("ledger", &self.ledger).finish_non_exhaustive()
    }
}

impl Reader {
    pub async fn new(broker: &Arc<dyn Broker>, topic: &TopicName, name: &str, ledger: &Ledger) -> Self {
        let subscription = broker.subscribe(topic, name, Arc::new(ledger.clone())).await.expect("subscribe works");
        Self { subscription, ledger: ledger.clone() }
    }

    /// One that starts with nothing settled.
    pub async fn fresh(broker: &Arc<dyn Broker>, topic: &TopicName) -> Self {
        Self::new(broker, topic, "store", &Ledger::default()).await
    }

    pub async fn receive(&mut self, count: usize) -> Vec<Delivery> {
        receive(&mut *self.subscription, count).await
    }

    pub async fn settle(&mut self, deliveries: &[Delivery]) {
        let marks = marks(deliveries);
        self.ledger.commit(&marks).expect("nobody else moved the position");
        self.subscription.ack(&marks).await.expect("ack works");
    }

    /// Receives and settles.
    pub async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            let some = tokio::time::timeout(PATIENCE, self.subscription.receive(count - all.len(), usize::MAX)).await;
            let some = some.unwrap_or_else(|_| panic!("{} of {count} messages came in time", all.len()));
            let some = some.expect("receive works");
            self.settle(&some).await;
            all.extend(bare(some));
        }
        all
    }
}

/// Messages in the order of their numbers' ids, for brokers that promise no order.
pub(crate) fn sorted(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by_key(|message| message.id);
    messages
}

impl Harness {
    /// Messages that a reader may have all at once: of one key, unless the broker locks keys.
    pub(crate) fn at_once(&self, numbers: std::ops::Range<u64>) -> Vec<Message> {
        match self.locks {
            true => numbers.map(|number| Message { key: Some(format!("k{number}")), ..message(number) }).collect(),
            false => delivering::in_line(numbers),
        }
    }

    /// Holds what came against what was sent: in order where the broker promises one for all messages without a key or with
    /// one key; the caller sees to it that they are such.
    pub(crate) fn same(&self, got: Vec<Message>, sent: Vec<Message>) {
        match self.ordered {
            true => assert_eq!(got, sent),
            false => assert_eq!(sorted(got), sorted(sent)),
        }
    }
}
