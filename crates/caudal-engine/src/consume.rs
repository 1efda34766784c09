//! The worker: what a topic holds becomes rows, and is acknowledged after the commit.
//!
//! The position commits with the rows, so a crash anywhere repeats at most work that left no trace. While one batch
//! commits, the next is received and encoded, for as long as the commit takes.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::{BrokerError, StoreError};
use caudal_core::message::{Delivery, Gap, Marks, Position, Step};
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, Appended, Broker, OnBadRow, Positions, Store, Subscription};
use caudal_core::topic::TopicName;
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::building::Building;
use crate::deliver::{self, ALONE_AFTER};
use crate::engine::Engine;
use crate::settle;
use crate::topic::Topic;

const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Why one run of the worker ended.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("draining")]
    Draining,
    #[error("it panicked, which is a fault in Caudal; the panic is in the log")]
    Panicked,
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// Consumes one topic until the process drains; starts again from what is not settled after any failure.
pub(crate) async fn run(engine: Arc<Engine>, broker: Arc<dyn Broker>, topic: Arc<Topic>, stopping: CancellationToken) {
    loop {
        let worker = Worker { engine: &engine, broker: &*broker, topic: &topic, stopping: &stopping };
        // A panic must not leave a topic that goes on acknowledging and is never stored.
        let consumed = AssertUnwindSafe(worker.consume()).catch_unwind().await;
        match consumed.unwrap_or(Err(Stop::Panicked)) {
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

/// A batch that can be sealed and committed, and the deliveries that it settles.
struct Ready {
    building: Building,
    marks: Marks,
    /// Nothing more goes in.
    closed: bool,
}

impl Ready {
    fn new(topic: &Topic) -> Self {
        Self { building: Building::new(topic, OnBadRow::DeadLetter), marks: Marks::default(), closed: false }
    }

    fn is_empty(&self) -> bool {
        self.building.len() == 0
    }
}

/// A subscription and what came from it that no batch holds yet.
struct Inbox {
    subscription: Box<dyn Subscription>,
    waiting: VecDeque<Delivery>,
}

impl Worker<'_> {
    async fn consume(&self) -> Result<(), Stop> {
        let positions = Arc::new(Committed::of(self.engine, self.topic, self.stopping));
        let name = &self.engine.config.subscription;
        let subscription = self.broker.subscribe(&self.topic.name, name, positions).await?;
        self.store_all(&mut Inbox { subscription, waiting: VecDeque::new() }).await
    }

    async fn store_all(&self, inbox: &mut Inbox) -> Result<(), Stop> {
        let mut ready = Ready::new(self.topic);
        loop {
            while ready.is_empty() {
                self.receive(inbox, &ready).await?;
                // The topic may have got columns while it was idle.
                ready = Ready::new(self.topic);
                self.fill(inbox, &mut ready)?;
            }
            let Ready { building, marks, .. } = ready;
            let mut batch = building.seal(self.topic, &*self.engine.store).await?.batch;
            batch.positions = self.positions(&marks);
            let batch = Arc::new(batch);
            ready = Ready::new(self.topic);
            let commit = self.commit(batch.clone());
            let (committed, prepared) = self.together(commit, inbox, &mut ready).await;
            let appended = match committed {
                Ok(appended) => appended,
                Err(error) => {
                    // Dropping the subscription gives them back too, but without the pause.
                    let _ = inbox.subscription.nack(&marks, RESTART_PAUSE).await;
                    return Err(error.into());
                }
            };
            self.tell(&batch, &appended);
            inbox.subscription.ack(&marks).await?;
            prepared?;
        }
    }

    fn positions(&self, marks: &Marks) -> Vec<Position> {
        let subscription = &self.engine.config.subscription;
        let position = |s: &Step| Position { subscription: subscription.clone(), lane: s.lane, from: s.from, to: s.to };
        marks.steps.iter().map(position).collect()
    }

    /// Runs a commit and fills the next batch meanwhile: the longer a commit takes, the more the next one holds, and an
    /// idle topic holds back nothing.
    async fn together(
        &self,
        commit: impl Future<Output = Result<Appended, StoreError>>,
        inbox: &mut Inbox,
        ready: &mut Ready,
    ) -> (Result<Appended, StoreError>, Result<(), Stop>) {
        let mut commit = std::pin::pin!(commit);
        let mut prepared = self.fill(inbox, ready);
        while prepared.is_ok() && !ready.closed {
            tokio::select! {
                biased;
                committed = &mut commit => return (committed, prepared),
                received = self.receive(inbox, ready) => prepared = received,
            }
            prepared = prepared.and_then(|()| self.fill(inbox, ready));
        }
        (commit.await, prepared)
    }

    /// Waits for messages that the batch has room for. Cancel-safe: what was received is in the inbox.
    async fn receive(&self, inbox: &mut Inbox, ready: &Ready) -> Result<(), Stop> {
        if !inbox.waiting.is_empty() {
            return Ok(());
        }
        let (rows, bytes) = ready.building.room();
        tokio::select! {
            deliveries = inbox.subscription.receive(rows, bytes) => inbox.waiting = deliveries?.into(),
            () = self.stopping.cancelled() => return Err(Stop::Draining),
        }
        Ok(())
    }

    /// Moves what was received into the batch, until it is closed: full, or holding a suspect, which goes alone.
    fn fill(&self, inbox: &mut Inbox, ready: &mut Ready) -> Result<(), Stop> {
        while !ready.closed
            && let Some(delivery) = inbox.waiting.pop_front()
        {
            let suspect = delivery.attempt > ALONE_AFTER;
            if suspect && !ready.is_empty() {
                inbox.waiting.push_front(delivery);
                ready.closed = true;
                break;
            }
            ready.marks.add(delivery.mark)?;
            deliver::take(self.engine, self.topic, &mut ready.building, delivery);
            ready.closed = suspect || ready.building.is_full();
        }
        Ok(())
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
}

/// Where the store says that this worker's subscription stands; waits while the store is away.
struct Committed {
    store: Arc<dyn Store>,
    topic: TopicName,
    subscription: String,
    stopping: CancellationToken,
}

impl Committed {
    fn of(engine: &Engine, topic: &Topic, stopping: &CancellationToken) -> Self {
        let (store, subscription) = (engine.store.clone(), engine.config.subscription.clone());
        Self { store, topic: topic.name.clone(), subscription, stopping: stopping.clone() }
    }
}

#[async_trait]
impl Positions for Committed {
    async fn position(&self, lane: Uuid) -> Result<Option<u64>, StoreError> {
        loop {
            match self.store.position(&self.topic, &self.subscription, lane).await {
                Err(error) if error.is_transient() => {
                    tracing::warn!(topic = %self.topic, %error, "waiting for the store");
                    tokio::select! {
                        () = tokio::time::sleep(settle::jitter(RESTART_PAUSE)) => {}
                        () = self.stopping.cancelled() => return Err(error),
                    }
                }
                done => return done,
            }
        }
    }
}
