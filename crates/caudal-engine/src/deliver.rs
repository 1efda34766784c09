//! Deliveries that are pushed to this process a batch at a time (AWS Lambda does so), where [`consume`](crate::consume) fetches
//! them itself: stored in the same way, and each answered for on its own.
//!
//! Also here is what both have in common: how a delivery becomes part of a batch.

use std::collections::HashSet;
use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::message::{Delivery, Origin};
use caudal_core::outcome::Tally;
use caudal_core::ports::OnBadRow;
use caudal_core::rejection::{Code, Rejection};
use tokio::time::{Instant, timeout_at};

use crate::building::{Arrived, Building, Record};
use crate::engine::Engine;
use crate::settle;
use crate::topic::Topic;

/// Hand-overs after which a message is no longer taken together with others, so that only the one at fault is blamed.
pub(crate) const ALONE_AFTER: u32 = 3;

const POISON: &str =
    "the broker handed this message over again and again and it was never settled; repair it or send it back";

/// One of a batch that was pushed to us.
#[derive(Debug)]
pub struct Pushed {
    pub delivery: Delivery,
    /// What has to stay in order, where the broker keeps order: once one of a sequence is not settled, nothing after it is
    /// stored.
    pub sequence: Option<Arc<str>>,
}

/// What became of a batch that was pushed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// What was committed for those that are settled: rows, duplicates, dead letters.
    pub tally: Tally,
    /// The others, by their place in the batch: they must come again.
    pub unsettled: Vec<usize>,
}

impl Engine {
    /// Stores what was pushed and says which deliveries are settled: stored, a duplicate, or a dead letter, in a commit that
    /// is durable. Whatever else happened, the delivery is unsettled; taking it again is harmless. Ends by `until`.
    pub async fn deliver(&self, topic: &Topic, pushed: Vec<Pushed>, until: Instant) -> Delivered {
        let building = Building::new(topic, OnBadRow::DeadLetter);
        let mut push = Push {
            engine: self,
            topic,
            until,
            building,
            held: Vec::new(),
            broken: HashSet::new(),
            away: false,
            delivered: Delivered::default(),
        };
        for (index, Pushed { delivery, sequence }) in pushed.into_iter().enumerate() {
            let suspect = delivery.attempt > ALONE_AFTER;
            if suspect || push.building.is_full() {
                push.commit().await;
            }
            push.add(index, delivery, sequence);
            if suspect {
                push.commit().await;
            }
        }
        push.commit().await;
        push.delivered.unsettled.sort_unstable();
        push.delivered
    }
}

/// A pushed batch on its way into the store.
struct Push<'a> {
    engine: &'a Engine,
    topic: &'a Topic,
    until: Instant,
    building: Building,
    /// What `building` holds: places in the pushed batch, and the sequences they belong to.
    held: Vec<(usize, Option<Arc<str>>)>,
    /// Sequences with a delivery that is not settled.
    broken: HashSet<Arc<str>>,
    /// The store is away or the time is over: the rest need not be tried.
    away: bool,
    delivered: Delivered,
}

impl Push<'_> {
    fn add(&mut self, index: usize, delivery: Delivery, sequence: Option<Arc<str>>) {
        if self.away || sequence.as_ref().is_some_and(|sequence| self.broken.contains(sequence)) {
            self.delivered.unsettled.push(index);
            return;
        }
        take(self.engine, self.topic, &mut self.building, delivery);
        self.held.push((index, sequence));
    }

    async fn commit(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let building = std::mem::replace(&mut self.building, Building::new(self.topic, OnBadRow::DeadLetter));
        let held = std::mem::take(&mut self.held);
        match self.append(building).await {
            Ok(tally) => self.delivered.tally += tally,
            Err(error) => {
                tracing::error!(topic = %self.topic.name, messages = held.len(), %error, "could not store; they must come again");
                self.away = error.is_transient();
                for (index, sequence) in held {
                    self.delivered.unsettled.push(index);
                    self.broken.extend(sequence);
                }
            }
        }
    }

    async fn append(&self, building: Building) -> Result<Tally, StoreError> {
        let (topic, store) = (self.topic, &*self.engine.store);
        let sealed = timeout_at(self.until, building.seal(topic, store)).await.map_err(|_| StoreError::Timeout)??;
        let batch = Arc::new(sealed.batch);
        let accepted = batch.accepted();
        let in_flight = topic.metrics.accept(accepted);
        let patience = self.engine.config.store_patience.min(self.until.saturating_duration_since(Instant::now()));
        let append = settle::append(store, topic, batch, in_flight, Some(patience));
        match timeout_at(self.until, append).await {
            Ok(appended) => appended.map(|appended| appended.tally),
            Err(_) => {
                topic.metrics.withdraw(accepted);
                Err(StoreError::Timeout)
            }
        }
    }
}

/// Puts a delivery into a batch, as a row or a dead letter.
pub(crate) fn take(engine: &Engine, topic: &Topic, building: &mut Building, delivery: Delivery) {
    if delivery.missing > 0 {
        let missing = delivery.missing;
        tracing::error!(topic = %topic.name, missing, "the broker dropped messages before they were read");
        topic.metrics.missing(missing);
    }
    let poison = delivery.attempt > engine.config.deliveries_max;
    let (mut record, arrived) = open(delivery);
    if poison && record.fault.is_none() {
        record.fault = Some(Rejection::whole(Code::Poison, POISON));
    }
    // The rejection is in the dead letter.
    let _ = building.push(topic, record, Some(arrived));
}

/// What a delivery holds, and who it says it is.
pub(crate) fn open(delivery: Delivery) -> (Record, Arrived) {
    let id = match delivery.origin {
        Origin::Accepted => Some(delivery.message.id),
        Origin::Foreign => None,
    };
    // It may be what somebody wrote into a header.
    let arrived = Arrived { id, published_at: delivery.message.published_at.within_calendar() };
    (Record { fault: delivery.fault, ..delivery.message.into() }, arrived)
}
