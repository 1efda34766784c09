//! The worker: what a topic holds becomes rows, and is acknowledged after the commit.
//!
//! The position commits with the rows, so a crash anywhere repeats at most work that left no trace. While one batch
//! commits, the next is received and encoded.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::{BrokerError, StoreError};
use caudal_core::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use caudal_core::message::{Delivery, Position};
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, Appended, Broker, OnBadRow, Subscription};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::building::{Arrived, Building, Record};
use crate::engine::Engine;
use crate::settle;
use crate::topic::Topic;

const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Why one run of the worker ended.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("draining")]
    Draining,
    #[error("the topic went from offset {from} to a batch that ends at {next}: messages in between are missing")]
    Gap { from: u64, next: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Consumes one topic until the process drains; starts again from the committed position after any failure.
pub(crate) async fn run(engine: Arc<Engine>, broker: Arc<dyn Broker>, topic: Arc<Topic>, stopping: CancellationToken) {
    loop {
        let worker = Worker { engine: &engine, broker: &*broker, topic: &topic, stopping: &stopping };
        match worker.consume().await {
            Err(Stop::Draining) => return,
            Err(Stop::Store(StoreError::Fenced)) => {
                tracing::warn!(topic = %topic.name, "another worker is ahead; reading the position again");
            }
            Err(Stop::Broker(error @ BrokerError::Fatal(_))) => {
                tracing::error!(topic = %topic.name, %error, "the worker stops: the topic failed for good");
                return engine.fail(format!("topic {}: {error}", topic.name));
            }
            Err(error) => tracing::error!(topic = %topic.name, %error, "the worker failed and starts again"),
            Ok(()) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(settle::jitter(RESTART_PAUSE)) => {}
            () = stopping.cancelled() => return,
        }
    }
}

struct Worker<'a> {
    engine: &'a Engine,
    broker: &'a dyn Broker,
    topic: &'a Topic,
    stopping: &'a CancellationToken,
}

/// A batch that is ready to be sealed and committed.
struct Ready {
    building: Building,
    position: Position,
    next: u64,
}

impl Worker<'_> {
    async fn consume(&self) -> Result<(), Stop> {
        let subscription_name = &self.engine.config.subscription;
        let mut subscription = self.broker.subscribe(&self.topic.name, subscription_name).await?;
        let mut from = self.start(subscription.incarnation()).await?;
        subscription.seek(from).await?;
        // Tells the broker what was committed before, so that its retention can go on.
        subscription.ack(from).await?;
        let mut ready = self.next(&mut *subscription, from).await?;
        loop {
            from = ready.next;
            let mut batch = ready.building.seal(self.topic, &*self.engine.store).await?.batch;
            batch.position = Some(ready.position);
            let batch = Arc::new(batch);
            let commit = self.commit(batch.clone());
            let prepare = self.next(&mut *subscription, from);
            let (committed, prepared) = self.together(commit, prepare).await;
            let appended = committed?;
            self.tell(&batch, &appended);
            let after = match prepared {
                Some(prepared) => prepared,
                None => self.next(&mut *subscription, from).await,
            };
            subscription.ack(from).await?;
            ready = after?;
        }
    }

    /// Runs a commit and the preparation of the next batch side by side. An idle topic must not hold back the word of a
    /// commit, so preparation is given up when it has nothing yet; receiving is cancel-safe.
    async fn together(
        &self,
        commit: impl Future<Output = Result<Appended, StoreError>>,
        prepare: impl Future<Output = Result<Ready, Stop>>,
    ) -> (Result<Appended, StoreError>, Option<Result<Ready, Stop>>) {
        let mut commit = std::pin::pin!(commit);
        let mut prepare = std::pin::pin!(prepare);
        tokio::select! {
            biased;
            committed = &mut commit => (committed, None),
            prepared = &mut prepare => (commit.await, Some(prepared)),
        }
    }

    async fn start(&self, incarnation: Uuid) -> Result<u64, Stop> {
        let name = &self.engine.config.subscription;
        let committed = self.patiently(|| self.engine.store.position(&self.topic.name, name, incarnation)).await?;
        match committed {
            Some(offset) => Ok(offset),
            None => Ok(self.broker.topic_state(&self.topic.name).await?.first),
        }
    }

    /// Receives and encodes one batch. Cancel-safe: once messages are received there is no further wait.
    async fn next(&self, subscription: &mut dyn Subscription, from: u64) -> Result<Ready, Stop> {
        let incarnation = subscription.incarnation();
        let received = subscription.receive(BATCH_ROWS_MAX, BATCH_BYTES_MAX);
        let deliveries = tokio::select! {
            deliveries = received => deliveries?,
            () = self.stopping.cancelled() => return Err(Stop::Draining),
        };
        let next = deliveries.last().map_or(from, |d| d.next);
        if deliveries.first().is_none_or(|first| first.next != from + 1) {
            return Err(Stop::Gap { from, next });
        }
        let mut building = Building::new(self.topic, OnBadRow::DeadLetter);
        for delivery in deliveries {
            let (record, arrived) = open(delivery);
            // The rejection is in the dead letter.
            let _ = building.push(self.topic, record, Some(arrived));
        }
        let subscription = self.engine.config.subscription.clone();
        Ok(Ready { building, position: Position { subscription, incarnation, from, to: next }, next })
    }

    async fn commit(&self, batch: Arc<AppendBatch>) -> Result<Appended, StoreError> {
        let in_flight = self.topic.metrics.accept(batch.accepted());
        let append = settle::append(&*self.engine.store, self.topic, batch, in_flight, None);
        tokio::select! {
            appended = append => appended,
            // A store that is away must not keep the process from ending: the topic still has the messages.
            () = self.give_up() => Err(StoreError::unavailable("draining")),
        }
    }

    /// Ends some time after draining began.
    async fn give_up(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(self.engine.config.store_patience).await;
    }

    fn tell(&self, batch: &AppendBatch, appended: &Appended) {
        let waiters = &self.engine.waiters;
        if waiters.is_empty() {
            return;
        }
        for ((row, id), sent) in Building::row_ids(batch).enumerate().zip(&batch.bodies) {
            waiters.tell(id, &sent.body, sent.attributes.as_ref(), || settle::outcome(appended, row));
        }
        for dead in &batch.dead {
            let sent = &dead.message;
            waiters.tell(sent.id, &sent.body, sent.attributes.as_ref(), || RowOutcome::Bad(dead.rejection.clone()));
        }
    }

    /// Repeats a read while the store is away.
    async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        mut read: impl FnMut() -> F,
    ) -> Result<T, Stop> {
        loop {
            match read().await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(topic = %self.topic.name, %error, "waiting for the store");
                    tokio::select! {
                        () = tokio::time::sleep(settle::jitter(RESTART_PAUSE)) => {}
                        () = self.stopping.cancelled() => return Err(Stop::Draining),
                    }
                }
                done => return Ok(done?),
            }
        }
    }
}

fn open(delivery: Delivery) -> (Record, Arrived) {
    let message = delivery.message;
    let arrived = Arrived { id: message.id, published_at: message.published_at };
    let record = Record {
        key: message.key,
        source: message.source.into(),
        attributes: message.attributes,
        body: message.body,
        fault: None,
    };
    (record, arrived)
}

/// A topic's place in its broker and in the store, for accounting and receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub published: u64,
    pub position: u64,
    pub incarnation: Uuid,
    pub bytes: u64,
}

impl Progress {
    pub fn backlog(&self) -> u64 {
        self.published.saturating_sub(self.position)
    }
}

impl Engine {
    /// How far the store is behind the topic; `None` without a broker.
    pub async fn progress(&self, topic: &Topic) -> Result<Option<Progress>, crate::AcceptError> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let state = match broker.topic_state(&topic.name).await {
            Ok(state) => state,
            // Nothing was published yet.
            Err(BrokerError::UnknownTopic(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let committed = self.store.position(&topic.name, &self.config.subscription, state.incarnation).await?;
        let position = committed.unwrap_or(state.first);
        let progress = Progress { published: state.next, position, incarnation: state.incarnation, bytes: state.bytes };
        topic.metrics.set_backlog(progress.backlog());
        Ok(Some(progress))
    }
}
