//! The embedded durable topic: a segment log of our own, one directory a topic.
//!
//! ```text
//! <dir>/LOCK                       held by the process that uses the directory
//! <dir>/<topic>/META               which life of the topic this is
//! <dir>/<topic>/SYNCED             how far it is durable
//! <dir>/<topic>/{base_offset}.log  segments
//! ```
//!
//! Where to read: [`frame`] the bytes, [`writer`] how a publish becomes durable, [`recover`] what happens after a crash,
//! [`reader`] how messages are read, [`retention`] when they go.

mod error;
mod failpoint;
mod frame;
mod lock;
mod marks;
#[cfg(feature = "failpoints")]
pub mod power_loss;
mod reader;
mod recover;
mod retention;
mod segment;
mod topic_log;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::{Durability, Message};
use caudal_core::ports::{Broker, Positions, Probe, Publish, Subscription, TopicState};
use caudal_core::topic::TopicName;
use tokio::sync::watch;
use uuid::Uuid;

pub use error::{Damage, Gap, OpenError};
use lock::Lock;
pub use reader::LogSubscription;
use reader::blocking;
pub use segment::Verify;
pub use topic_log::LogState;
use topic_log::{Failure, TopicLog};

/// Bytes of records in one group commit.
const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages in one group commit.
const FRAME_MESSAGES_MAX: usize = 8192;
/// Bytes of one message in the log. Far above what Caudal accepts; it keeps a frame's length in 32 bits.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Where damaged topics are set aside. Not a topic's name.
const QUARANTINE: &str = "_quarantine";

/// What a deployment may tune.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Bytes of one file of the log, allocated when it begins.
    pub segment_bytes: u64,
    /// Bytes and messages of one topic that may wait to be written; beyond them, publishing waits.
    pub queue_bytes: usize,
    pub queue_messages: usize,
    /// Subscriptions that hold back retention even while nobody reads for them. After a restart they count as having
    /// acked nothing until they ack.
    pub subscriptions: Vec<String>,
    /// Segments that all subscriptions have acked go when they are this old,
    pub retention_age: Duration,
    /// or when the topic has more bytes than this.
    pub retention_bytes: u64,
    pub retention_every: Duration,
    /// How closely earlier segments are looked at on open; the last one always is to the record.
    pub verify: Verify,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            queue_bytes: 64 * 1024 * 1024,
            queue_messages: 65_536,
            subscriptions: vec!["store".to_owned()],
            retention_age: Duration::from_secs(24 * 60 * 60),
            retention_bytes: 1024 * 1024 * 1024,
            retention_every: Duration::from_secs(30),
            verify: Verify::Headers,
        }
    }
}

/// A directory of topics, and the process's lock on it.
#[derive(Debug)]
pub struct EmbeddedBroker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    config: EmbeddedConfig,
    topics: RwLock<HashMap<TopicName, Arc<TopicLog>>>,
    failure: Arc<Failure>,
    /// Taken out by `close`, which also keeps topics from being made after it. Held while one is.
    lock: Mutex<Option<Arc<Lock>>>,
}

impl EmbeddedBroker {
    /// Takes the directory and recovers every topic in it. A damaged topic is refused, and with it the directory:
    /// [`quarantine`](Self::quarantine) sets it aside.
    pub async fn open(dir: impl Into<PathBuf>, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let dir = dir.into();
        let at = dir.clone();
        let opened = tokio::task::spawn_blocking(move || Inner::open(dir, config)).await;
        let opened = opened.map_err(|panic| OpenError::Io { path: at, cause: std::io::Error::other(panic) })?;
        Ok(Self { inner: Arc::new(opened?) })
    }

    /// Resolves, with the reason, when a topic's log failed for good: the process must then end with a failure.
    pub async fn failed(&self) -> Arc<str> {
        let mut failure = self.inner.failure.subscribe();
        let reason = failure.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }

    /// Sets a topic's files aside under `_quarantine`, deleting nothing; says where. The next open starts the topic anew,
    /// as another incarnation. Blocks, and needs the directory to be free.
    pub fn quarantine(dir: &Path, topic: &TopicName) -> Result<PathBuf, OpenError> {
        let _lock = Lock::take(dir)?;
        let aside = dir.join(QUARANTINE);
        std::fs::create_dir_all(&aside).map_err(OpenError::io(&aside))?;
        let to = aside.join(format!("{topic}-{}", Uuid::now_v7()));
        let from = dir.join(topic.as_str());
        std::fs::rename(&from, &to).map_err(OpenError::io(&from))?;
        marks::sync_dir(&aside).and_then(|()| marks::sync_dir(dir)).map_err(OpenError::io(dir))?;
        Ok(to)
    }

    /// The topic's log, made if it is new.
    async fn topic(&self, topic: &TopicName) -> Result<Arc<TopicLog>, BrokerError> {
        if let Some(log) = self.inner.opened(topic) {
            return Ok(log);
        }
        let (inner, topic) = (self.inner.clone(), topic.clone());
        blocking(move || Ok(inner.open_topic(&topic)?)).await
    }

    /// Opens a subscription at the topic's start, making the topic if it is new.
    pub async fn open_subscription(
        &self,
        topic: &TopicName,
        subscription: &str,
    ) -> Result<LogSubscription, BrokerError> {
        let log = self.topic(topic).await?;
        Ok(LogSubscription::new(log.shared.clone(), subscription))
    }

    /// The numbers of a topic that exists.
    pub fn log_state(&self, topic: &TopicName) -> Result<LogState, BrokerError> {
        Ok(self.known(topic)?.shared.state())
    }

    /// Looks for a message at or after an offset. Reads the log from there.
    pub async fn find_from(&self, topic: &TopicName, from: u64, id: Uuid) -> Result<Option<Message>, BrokerError> {
        let log = self.known(topic)?;
        blocking(move || reader::find(&log.shared, from, id)).await
    }

    fn known(&self, topic: &TopicName) -> Result<Arc<TopicLog>, BrokerError> {
        self.inner.opened(topic).ok_or_else(|| BrokerError::UnknownTopic(topic.to_string()))
    }
}

impl Inner {
    fn open(dir: PathBuf, mut config: EmbeddedConfig) -> Result<Self, OpenError> {
        // Room is counted in 32 bits.
        config.queue_bytes = config.queue_bytes.clamp(1, u32::MAX as usize);
        std::fs::create_dir_all(&dir).map_err(OpenError::io(&dir))?;
        let lock = Arc::new(Lock::take(&dir)?);
        let failure = Arc::new(watch::Sender::new(None));
        let inner = Self { dir, config, topics: RwLock::default(), failure, lock: Mutex::new(Some(lock)) };
        match inner.open_existing() {
            Ok(()) => Ok(inner),
            Err(error) => {
                // The directory is free again when the caller hears of it.
                inner.close();
                Err(error)
            }
        }
    }

    fn open_existing(&self) -> Result<(), OpenError> {
        for entry in std::fs::read_dir(&self.dir).map_err(OpenError::io(&self.dir))? {
            let entry = entry.map_err(OpenError::io(&self.dir))?;
            let Some(topic) = entry.file_name().to_str().and_then(|name| TopicName::parse(name).ok()) else { continue };
            if entry.path().is_dir() {
                self.open_topic(&topic)?;
            }
        }
        Ok(())
    }

    fn opened(&self, topic: &TopicName) -> Option<Arc<TopicLog>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    /// Blocks.
    fn open_topic(&self, topic: &TopicName) -> Result<Arc<TopicLog>, OpenError> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lock) = lock.as_ref() else { return Err(OpenError::Closed) };
        if let Some(log) = self.opened(topic) {
            return Ok(log);
        }
        let log = TopicLog::open(topic, self.dir.join(topic.as_str()), &self.config, &self.failure, lock)?;
        let log = Arc::new(log);
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), log.clone());
        Ok(log)
    }

    /// Blocks.
    fn close(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        let topics: Vec<_> = self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        topics.iter().for_each(|topic| topic.close());
        drop(lock);
    }
}

#[async_trait]
impl Publish for EmbeddedBroker {
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        self.topic(topic).await?.publish(messages).await
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let mut opened = self.open_subscription(topic, subscription).await?;
        if let Some(offset) = positions.position(opened.incarnation()).await? {
            opened.seek(offset).await?;
            // Tells retention what was committed before.
            opened.ack_to(offset)?;
        }
        Ok(Box::new(opened))
    }

    async fn topic_state(&self, topic: &TopicName, _subscription: &str) -> Result<TopicState, BrokerError> {
        Ok(self.log_state(topic)?.into())
    }

    fn searchable(&self) -> bool {
        true
    }

    async fn find(
        &self,
        topic: &TopicName,
        positions: &dyn Positions,
        id: Uuid,
    ) -> Result<Option<Message>, BrokerError> {
        let state = self.log_state(topic)?;
        let from = positions.position(state.incarnation).await?.unwrap_or(state.first);
        self.find_from(topic, from, id).await
    }

    async fn probe(&self, _topics: &[TopicName]) -> Result<Probe, BrokerError> {
        Ok(Probe {
            product: "embedded log".to_owned(),
            durability: Durability::Power,
            reasons: vec!["every message is fsynced before it is acknowledged".to_owned()],
        })
    }

    /// Writes what is queued, ends the writers and gives the directory back. Subscriptions read on to the end.
    async fn close(&self) -> Result<(), BrokerError> {
        let inner = self.inner.clone();
        blocking(move || {
            inner.close();
            Ok(())
        })
        .await
    }
}
