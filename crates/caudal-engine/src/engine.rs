//! The engine: topics, a store, perhaps a broker, and the tasks between them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use caudal_core::confirm::ports::Confirmations;
use caudal_core::error::{BrokerError, StoreError};
use caudal_core::message::Durability;
use caudal_core::ports::{Broker, Probe, Store};
use caudal_core::schema::Table;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::confirm::{self, ConfirmConfig, ConfirmMetrics, Confirming, OnceReport, TargetConfig};
use crate::consume;
use crate::error::AcceptError;
use crate::found::{self, Found};
use crate::group::Group;
use crate::look;
use crate::retain;
use crate::topic::{Topic, Topics};
use crate::waiters::Waiters;

/// What a deployment may tune.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// How long an append is repeated while the store is away, before the producer is told so.
    pub store_patience: Duration,
    /// The name under which workers keep their position in each topic.
    pub subscription: String,
    /// Hand-overs of one message after which it becomes a dead letter, where the broker counts them. Crashes count too, so
    /// it is well above what an unlucky message meets.
    pub deliveries_max: u32,
    /// Schemas of the store's database of which tables that Caudal did not make are served too, read-only.
    pub schemas: Vec<String>,
    /// How often the store is asked whether those tables have changed.
    pub relations_poll: Duration,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            store_patience: Duration::from_secs(3),
            subscription: "store".to_owned(),
            deliveries_max: 20,
            schemas: Vec::new(),
            relations_poll: Duration::from_secs(5),
        }
    }
}

/// Everything that one process needs to take messages in, store them and answer for them.
pub struct Engine {
    pub topics: Topics,
    pub store: Arc<dyn Store>,
    /// `None`: messages are stored before they are answered (`broker = "none:"`).
    pub broker: Option<Arc<dyn Broker>>,
    pub(crate) config: EngineConfig,
    pub(crate) waiters: Waiters,
    pub(crate) keys: KeysInFlight,
    /// Dead letters as a table that readers see.
    pub dead_letters: Arc<Table>,
    /// Where confirmations are kept: the store, or a place of their own.
    pub confirmations: Arc<dyn Confirmations>,
    /// Confirmations as a table that readers see; `None` where they are kept outside the store, which has no such table.
    pub confirmation_table: Option<Arc<Table>>,
    pub(crate) found: Found,
    confirming: OnceCell<Confirming>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    /// What the broker said of itself, once it was asked.
    probe: RwLock<Option<Probe>>,
    /// Why a worker stopped for good, once one has.
    failure: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    pub fn new(
        topics: Topics,
        store: Arc<dyn Store>,
        broker: Option<Arc<dyn Broker>>,
        config: EngineConfig,
    ) -> Arc<Self> {
        Self::with_confirmations(topics, store, broker, None, config)
    }

    /// The same with confirmations kept outside the store. No topic may have lanes then: what is stored and what becomes pending
    /// would not be one transaction.
    pub fn with_confirmations(
        topics: Topics,
        store: Arc<dyn Store>,
        broker: Option<Arc<dyn Broker>>,
        outside: Option<Arc<dyn Confirmations>>,
        config: EngineConfig,
    ) -> Arc<Self> {
        let confirmation_table = outside.is_none().then(|| Arc::new(Table::confirmations()));
        Arc::new(Self {
            confirmations: outside.unwrap_or_else(|| store.clone()),
            confirmation_table,
            topics,
            store,
            broker,
            config,
            waiters: Waiters::default(),
            keys: KeysInFlight::default(),
            dead_letters: Arc::new(Table::dead_letters()),
            found: Found::default(),
            confirming: OnceCell::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            probe: RwLock::default(),
            failure: watch::Sender::new(None),
        })
    }

    /// Brings the store to this release and every topic's table to its schema. Idempotent.
    pub async fn prepare(&self) -> Result<Vec<String>, StoreError> {
        let applied = self.store.migrate().await?;
        for topic in self.topics.iter() {
            topic.know_table(&*self.store).await?;
            topic.know_lanes(&*self.confirmations).await?;
        }
        self.read_relations().await?;
        Ok(applied)
    }

    /// Asks the broker what its word is worth, and remembers the answer for receipts. `None` without a broker.
    pub async fn probe_broker(&self) -> Result<Option<Probe>, BrokerError> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let topics: Vec<_> = self.topics.iter().map(|topic| topic.name.clone()).collect();
        let probe = broker.probe(&topics).await?;
        *self.probe.write().unwrap_or_else(PoisonError::into_inner) = Some(probe.clone());
        Ok(Some(probe))
    }

    /// What a message that the broker confirmed survives; `None` without a broker or before it was asked.
    pub fn durability(&self) -> Option<Durability> {
        self.probe.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|probe| probe.durability)
    }

    /// Tells producers that wait here of what other processes stored. Not needed over a broker of this process's own.
    pub fn start_looking(self: &Arc<Self>) {
        if self.broker.as_ref().is_some_and(|broker| !broker.searchable()) {
            self.tasks.spawn(look::run(self.clone()));
        }
    }

    /// Keeps up with changes of the tables that Caudal did not make. Not needed where none are served.
    pub fn start_reloading(self: &Arc<Self>) {
        if !self.config.schemas.is_empty() {
            self.tasks.spawn(found::run(self.clone()));
        }
    }

    /// Removes records that are older than their topics keep them. For processes with the worker's role; several do not get in
    /// each other's way.
    pub fn start_retention(self: &Arc<Self>) {
        for topic in self.topics.iter() {
            if let Some(retention) = topic.config.retention {
                self.tasks.spawn(retain::run(self.clone(), topic.clone(), retention));
            }
        }
    }

    /// Starts a worker for each topic: what the broker holds goes into the store. Needs a broker.
    pub fn start_workers(self: &Arc<Self>) {
        let Some(broker) = &self.broker else { return };
        for topic in self.topics.iter() {
            let worker = consume::run(self.clone(), broker.clone(), topic.clone(), self.stopping.clone());
            self.tasks.spawn(worker);
        }
    }

    /// Starts confirming transactions. For processes with the confirm role, once the store is prepared.
    pub async fn start_confirming(
        &self,
        targets: Vec<TargetConfig>,
        config: ConfirmConfig,
        metrics: &ConfirmMetrics,
    ) -> Result<(), StoreError> {
        let news = |target: &TargetConfig| self.topics.get(target.topic.as_str()).map(|topic| topic.news());
        let targets = targets.into_iter().map(|target| {
            let news = news(&target);
            (target, news)
        });
        let store = self.confirmations.clone();
        let start = || Confirming::start(store, targets.collect(), config, metrics);
        self.confirming.get_or_try_init(start).await.map(drop)
    }

    /// Confirms until nothing is left to do now or within `linger`, or `limit` is over, and stops. See [`Confirming::finish`].
    pub async fn finish_confirming(&self, limit: Duration, linger: Duration) -> OnceReport {
        match self.confirming.get() {
            Some(confirming) => confirming.finish(limit, linger).await,
            None => OnceReport::default(),
        }
    }

    /// Tells workers of other processes when this one has stored something to confirm.
    pub fn start_telling(&self) {
        let lanes = self.topics.iter().filter(|topic| topic.config.lanes.is_some());
        let news: Vec<_> = lanes.map(|topic| topic.news()).collect();
        if !news.is_empty() {
            self.tasks.spawn(confirm::tell(self.confirmations.clone(), news, self.stopping.clone()));
        }
    }

    /// Resolves, with the reason, when a worker stopped for good: its topic would go on acknowledging what nobody stores, so
    /// the process must end with a failure.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            _ => std::future::pending().await,
        }
    }

    pub(crate) fn fail(&self, reason: String) {
        self.failure.send_replace(Some(reason));
    }

    /// The name under which this process's workers read.
    pub fn subscription(&self) -> &str {
        &self.config.subscription
    }

    /// Cancelled when the engine drains.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Ends the workers after the batch each has in hand. Single messages under way finish with their requests.
    pub async fn drain(&self) {
        self.stopping.cancel();
        self.tasks.close();
        let confirming = async {
            if let Some(confirming) = self.confirming.get() {
                confirming.drain().await;
            }
        };
        tokio::join!(self.tasks.wait(), confirming);
    }

    /// The tables that readers may ask for by name: Caudal's own first, then the first of the other schemas that are served.
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.own_table(name).or_else(|| self.relations().table(None, name).cloned())
    }

    /// A table in one schema; Caudal's own are in the one where the store keeps them.
    pub fn table_in(&self, schema: &str, name: &str) -> Option<Arc<Table>> {
        let relations = self.relations();
        let own = if schema == relations.home() { self.own_table(name) } else { None };
        own.or_else(|| relations.table(Some(schema), name).cloned())
    }

    fn own_table(&self, name: &str) -> Option<Arc<Table>> {
        let mut own = std::iter::once(&self.dead_letters).chain(&self.confirmation_table);
        if let Some(table) = own.find(|table| table.name == name) {
            return Some(table.clone());
        }
        self.topics.get(name).map(|topic| topic.table())
    }

    /// The topic's door for single messages; its lanes start with the first.
    pub(crate) fn group<'a>(&self, topic: &'a Arc<Topic>) -> Result<&'a Group, AcceptError> {
        if self.stopping.is_cancelled() {
            return Err(AcceptError::Overloaded);
        }
        Ok(topic.group.get_or_init(|| Group::start(topic.clone(), self.store.clone(), self.config.store_patience)))
    }
}

/// Keys of requests that are running now.
#[derive(Debug, Default, Clone)]
pub(crate) struct KeysInFlight {
    ids: Arc<Mutex<HashSet<Uuid>>>,
}

impl KeysInFlight {
    /// Claims a key until the guard is dropped; `None` while another request has it.
    pub(crate) fn enter(&self, id: Uuid) -> Option<KeyGuard> {
        let fresh = self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        fresh.then(|| KeyGuard { keys: self.clone(), id })
    }
}

#[derive(Debug)]
pub(crate) struct KeyGuard {
    keys: KeysInFlight,
    id: Uuid,
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        self.keys.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}
