//! What all publishes, subscriptions and questions of one broker share: the settings, one producer, what is known of topics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caudal_core::error::BrokerError;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};

use super::error::{Deed, Translator};
use super::numbers::{self, Kept};
use super::publish::Producer;
use super::said::Said;
use super::settings::Settings;
use super::topics::Topics;

/// How long a question to the cluster may take.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(4);

pub(super) struct Session {
    pub(super) settings: Settings,
    pub(super) topics: Topics,
    pub(super) said: Said,
    /// Made at the first need, and again when it cannot go on.
    producer: Mutex<Maker>,
    /// Asks for offsets.
    reader: Mutex<Option<BaseConsumer<Said>>>,
    cluster: Mutex<Option<Arc<str>>>,
}

enum Maker {
    Open(Option<Arc<Producer>>),
    Closed,
}

impl Session {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            topics: Topics::default(),
            said: Said::default(),
            producer: Mutex::new(Maker::Open(None)),
            reader: Mutex::default(),
            cluster: Mutex::default(),
        }
    }

    pub(super) fn translate(&self, error: &KafkaError, deed: Deed<'_>) -> BrokerError {
        Translator { settings: &self.settings, said: &self.said }.error(error, deed)
    }

    pub(super) fn producer(&self) -> Result<Arc<Producer>, BrokerError> {
        let mut maker = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let Maker::Open(made) = &mut *maker else { return Err(closed()) };
        if let Some(producer) = made {
            return Ok(producer.clone());
        }
        let producer = Producer::new(&self.settings, self.said.clone());
        let producer = Arc::new(producer.map_err(|error| self.translate(&error, Deed::Connect))?);
        *made = Some(producer.clone());
        Ok(producer)
    }

    /// The next publish makes another producer.
    pub(super) fn replace(&self, broken: &Arc<Producer>) {
        let mut maker = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Maker::Open(made) = &mut *maker
            && made.as_ref().is_some_and(|made| Arc::ptr_eq(made, broken))
        {
            tracing::warn!("the Kafka producer cannot go on; making another");
            *made = None;
        }
    }

    /// No producer from here on; gives what there was.
    pub(super) fn close(&self) -> Option<Arc<Producer>> {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut maker = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *maker, Maker::Closed) {
            Maker::Open(made) => made,
            Maker::Closed => None,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.producer.lock().unwrap_or_else(PoisonError::into_inner), Maker::Closed)
    }

    /// The cluster's own name, which lanes are named after.
    pub(super) async fn cluster(self: &Arc<Self>) -> Result<Arc<str>, BrokerError> {
        let known = self.cluster.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let producer = self.producer()?;
        let told = blocking(move || producer.client().fetch_cluster_id(ASK_WITHIN)).await?;
        let Some(told) = told else {
            let untold = KafkaError::MetadataFetch(rdkafka::error::RDKafkaErrorCode::OperationTimedOut);
            return Err(self.translate(&untold, Deed::Connect));
        };
        let told: Arc<str> = told.into();
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = Some(told.clone());
        Ok(told)
    }

    /// The offsets that partitions keep, without any group.
    pub(super) async fn kept(self: &Arc<Self>, topic: &str, partitions: Vec<i32>) -> Result<Vec<Kept>, BrokerError> {
        let (session, name) = (self.clone(), topic.to_owned());
        let kept = blocking(move || session.ask_kept(&name, &partitions)).await?;
        kept.map_err(|error| self.translate(&error, Deed::Describe { topic }))
    }

    fn ask_kept(&self, topic: &str, partitions: &[i32]) -> KafkaResult<Vec<Kept>> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.is_none() {
            *reader = Some(self.settings.reader().create_with_context(self.said.clone())?);
        }
        let Some(reader) = &*reader else { return Ok(Vec::new()) };
        let kept = numbers::kept(reader, topic, partitions, ASK_WITHIN);
        // What it logged is let go of only by polling.
        while reader.poll(Duration::ZERO).is_some() {}
        kept
    }
}

pub(super) fn closed() -> BrokerError {
    BrokerError::unavailable("the connection to Kafka is closed")
}

/// Runs what the client library only does while it blocks.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        // The runtime is going down.
        Err(error) if error.is_cancelled() => Err(BrokerError::unavailable(error)),
        Err(error) => Err(BrokerError::fatal(error)),
    }
}
