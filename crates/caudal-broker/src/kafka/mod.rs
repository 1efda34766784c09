//! Kafka, through librdkafka.
//!
//! A topic is a Kafka topic, a subscription a consumer group, a lane a partition. Kafka numbers its messages, so the store
//! holds the positions and commits them with the rows; the offsets that the group commits are for tools that show lag, and
//! nothing here reads them.
//!
//! Where to read: [`publish`] how a publish becomes durable, [`pump`] and [`assignment`] how messages arrive, [`buffer`] how
//! they wait and how far they are, [`numbers`] where a subscription begins, [`topics`] and [`probe`] what is asked of the
//! cluster.
//!
//! - A worker that is killed gives its partitions back when its session ends (`session.timeout.ms`, 10 s here); one that ends
//!   by itself gives them back at once.
//! - Kafka does not count hand-overs: `attempt` is always 1.
//! - The client library does not tell a topic's id. A topic that is made anew under its old name is noticed only when it is
//!   shorter than what was read of the old one: give it a new name.
//! - Where a transaction of another producer ends a partition, the position stays before its closing record until the next
//!   message, and the lane looks as if that one waited.

mod assignment;
mod buffer;
mod error;
mod find;
mod numbers;
mod probe;
mod publish;
mod pump;
mod record;
mod said;
mod session;
mod settings;
mod subscription;
mod topics;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, LaneState, Positions, Probe, Publish, Subscription, TopicState};
use caudal_core::topic::TopicName;
use rdkafka::consumer::BaseConsumer;
use tokio::runtime::Handle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::remote::RemoteConfig;
use assignment::Assignment;
use buffer::Buffer;
use error::Deed;
use find::Stretch;
use publish::{Failure, Producer};
use pump::Pump;
use record::Origin;
use session::{Session, blocking, closed};
use settings::Settings;
use subscription::KafkaSubscription;

/// How long closing waits for members to leave their groups.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
const LEAVE_CHECK: Duration = Duration::from_millis(20);

/// A Kafka cluster.
///
/// [`Place::publish`](crate::Place) is the Kafka topic, where it has another name than ours. [`Place::consume`](crate::Place)
/// is `topic`, `@group` or `topic@group`, where reading is from another topic or as another consumer group than
/// `caudal-<subscription>-<topic>`. The group is a topic's own, because a member that comes or goes makes all members of its
/// group share the partitions anew.
pub struct KafkaBroker {
    session: Arc<Session>,
    config: RemoteConfig,
    /// Each subscription's thread.
    pumps: Mutex<Vec<(Weak<Buffer>, JoinHandle<()>)>>,
}

impl std::fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaBroker").field("servers", &self.session.settings.servers).finish_non_exhaustive()
    }
}

/// What is read, and as whom.
struct Source {
    topic: Arc<str>,
    group: Arc<str>,
}

impl KafkaBroker {
    /// Reads the URL; Kafka need not answer yet.
    ///
    /// # Errors
    /// [`BrokerError::Setup`] when the URL is not one, or asks for what this build cannot do.
    pub async fn open(config: RemoteConfig) -> Result<Self, BrokerError> {
        let session = Arc::new(Session::new(Settings::parse(&config.url)?));
        Ok(Self { session, config, pumps: Mutex::default() })
    }

    fn publish_to(&self, topic: &TopicName) -> String {
        self.config.place(topic).publish.unwrap_or_else(|| topic.to_string())
    }

    fn source(&self, topic: &TopicName, subscription: &str) -> Source {
        let place = self.config.place(topic).consume.unwrap_or_default();
        // No topic of Kafka has an at sign in its name.
        let (name, group) = place.split_once('@').unwrap_or((&place, ""));
        let name = if name.is_empty() { self.publish_to(topic) } else { name.to_owned() };
        let group = if group.is_empty() { format!("caudal-{subscription}-{topic}") } else { group.to_owned() };
        Source { topic: name.into(), group: group.into() }
    }

    /// What a failed publish means, now and for the next one.
    fn unpublished(&self, topic: &str, producer: &Arc<Producer>, failure: Failure) -> BrokerError {
        if self.session.is_closed() {
            return closed();
        }
        let broken = producer.broken();
        if broken.is_some() {
            self.session.replace(producer);
        }
        let error = match (broken, failure) {
            (Some(error), _) | (None, Failure::Kafka(error)) => error,
            (None, Failure::Unconfirmed) => {
                return BrokerError::unavailable("Kafka did not confirm the messages in time");
            }
        };
        let error = self.session.translate(&error, Deed::Publish { topic });
        if matches!(error, BrokerError::UnknownTopic(_)) {
            self.session.topics.forget(topic);
        }
        error
    }

    /// The offsets that a topic keeps, partition by partition.
    async fn kept(&self, topic: &str) -> Result<Vec<numbers::Kept>, BrokerError> {
        let partitions = topics::partitions(&self.session, topic).await?;
        let partitions = partitions.ok_or_else(|| BrokerError::UnknownTopic(topic.to_owned()))?;
        self.session.kept(topic, partitions).await
    }

    fn remember(&self, buffer: &Arc<Buffer>, thread: JoinHandle<()>) {
        let mut pumps = self.pumps.lock().unwrap_or_else(PoisonError::into_inner);
        pumps.retain(|(_, thread)| !thread.is_finished());
        pumps.push((Arc::downgrade(buffer), thread));
        // Closed meanwhile: nobody else would end it.
        if self.session.is_closed() {
            buffer.end(closed());
        }
    }
}

#[async_trait]
impl Publish for KafkaBroker {
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError> {
        let name = self.publish_to(topic);
        let producer = self.session.producer()?;
        if messages.is_empty() {
            return Ok(());
        }
        topics::ensure(&self.session, &name, self.config.create).await?;
        let published = producer.publish(&name, &messages).await;
        published.map_err(|failure| self.unpublished(&name, &producer, failure))
    }
}

#[async_trait]
impl Broker for KafkaBroker {
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let Source { topic, group } = self.source(topic, subscription);
        // Asked even if it is known: a cluster that is away is told here and not by silence.
        self.session.topics.forget(&topic);
        topics::ensure(&self.session, &topic, self.config.create).await?;
        let cluster = self.session.cluster().await?;
        let buffer = Arc::new(Buffer::default());
        let origin = Origin::new(&cluster, &topic);
        let assignment = Assignment {
            session: self.session.clone(),
            buffer: buffer.clone(),
            positions,
            cluster,
            topic: topic.clone(),
            group: group.clone(),
            said: self.session.said.clone(),
            runtime: Handle::current(),
        };
        let pump = Pump { session: self.session.clone(), buffer: buffer.clone(), origin, topic, group };
        let thread = pump.start(assignment)?;
        self.remember(&buffer, thread);
        Ok(Box::new(KafkaSubscription::new(buffer)))
    }

    async fn topic_state(&self, topic: &TopicName, subscription: &str) -> Result<TopicState, BrokerError> {
        let source = self.source(topic, subscription);
        let kept = self.kept(&source.topic).await?;
        let cluster = self.session.cluster().await?;
        let lane = |kept: numbers::Kept| LaneState {
            lane: numbers::lane(&cluster, &source.topic, kept.partition),
            first: kept.first,
            next: kept.next,
        };
        Ok(TopicState { lanes: kept.into_iter().map(lane).collect(), waiting: None, bytes: None })
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
        let subscription = self.config.subscriptions.first().map_or("store", String::as_str);
        let Source { topic, group } = self.source(topic, subscription);
        let kept = self.kept(&topic).await?;
        let cluster = self.session.cluster().await?;
        let mut stretches = Vec::with_capacity(kept.len());
        for kept in kept {
            let position = positions.position(numbers::lane(&cluster, &topic, kept.partition)).await?;
            let begin = numbers::begin(position, kept);
            stretches.push(Stretch { partition: kept.partition, from: begin.at, to: kept.next });
        }
        // It is no member: it takes its partitions itself.
        let (config, said) = (self.session.settings.consumer(&group), self.session.said.clone());
        let (origin, name) = (Origin::new(&cluster, &topic), topic.clone());
        let search = move || {
            let consumer: BaseConsumer<said::Said> = config.create_with_context(said)?;
            find::find(&consumer, &name, &origin, stretches, id)
        };
        let found = blocking(search).await?;
        found.map_err(|error| self.session.translate(&error, Deed::Consume { topic: &topic, group: &group }))
    }

    async fn probe(&self, topics: &[TopicName]) -> Result<Probe, BrokerError> {
        let names = topics.iter().map(|topic| self.publish_to(topic)).collect();
        probe::probe(&self.session, names).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let session = self.session.clone();
        let pumps = std::mem::take(&mut *self.pumps.lock().unwrap_or_else(PoisonError::into_inner));
        for buffer in pumps.iter().filter_map(|(buffer, _)| buffer.upgrade()) {
            buffer.end(closed());
        }
        blocking(move || {
            if let Some(producer) = session.close() {
                producer.finish();
            }
        })
        .await?;
        let deadline = Instant::now() + LEAVE_WITHIN;
        while pumps.iter().any(|(_, thread)| !thread.is_finished()) && Instant::now() < deadline {
            tokio::time::sleep(LEAVE_CHECK).await;
        }
        Ok(())
    }
}
