//! Topics in the cluster: looked up, made when they are missing, counted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caudal_core::error::BrokerError;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use tokio::time::Instant;

use super::error::{Deed, code_of};
use super::session::{ASK_WITHIN, Session, blocking};

/// Partitions of a topic that we make: how many workers can share it.
pub(super) const PARTITIONS: i32 = 6;
/// The cluster's own default.
const REPLICATION: i32 = -1;
/// A new topic is known to every broker, with leaders, after this long; usually at once.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// Topics that were found to exist.
#[derive(Debug, Default)]
pub(super) struct Topics {
    known: Mutex<HashSet<String>>,
    /// Held by the one who looks, so that a thousand first publishes ask once.
    looking: tokio::sync::Mutex<()>,
}

impl Topics {
    pub(super) fn is_known(&self, topic: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    fn learn(&self, topic: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned());
    }

    /// Looked up again at the next need.
    pub(super) fn forget(&self, topic: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }
}

/// Sees to it that a topic exists.
pub(super) async fn ensure(session: &Arc<Session>, topic: &str, create: bool) -> Result<(), BrokerError> {
    if session.topics.is_known(topic) {
        return Ok(());
    }
    let _looking = session.topics.looking.lock().await;
    if session.topics.is_known(topic) {
        return Ok(());
    }
    if partitions(session, topic).await?.is_none() {
        match create {
            true => make(session, topic).await?,
            false => return Err(BrokerError::Setup(missing(session, topic))),
        }
    }
    session.topics.learn(topic);
    Ok(())
}

/// The topic's partitions; `None` when there is no such topic.
pub(super) async fn partitions(session: &Arc<Session>, topic: &str) -> Result<Option<Vec<i32>>, BrokerError> {
    let producer = session.producer()?;
    let name = topic.to_owned();
    let found = blocking(move || look_up(producer.client(), &name)).await?;
    match found {
        Ok(found) => {
            session.said.clear();
            Ok(found)
        }
        Err(error) => Err(session.translate(&error, Deed::Describe { topic })),
    }
}

fn look_up<C: rdkafka::ClientContext>(
    client: &rdkafka::client::Client<C>,
    topic: &str,
) -> KafkaResult<Option<Vec<i32>>> {
    let metadata = client.fetch_metadata(Some(topic), ASK_WITHIN)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(KafkaError::MetadataFetch(code)),
    }
    // A topic that is being made has no leaders for a moment.
    match found.partitions().iter().all(|partition| partition.leader() >= 0) {
        true => Ok(Some(found.partitions().iter().map(|partition| partition.id()).collect())),
        false => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable)),
    }
}

async fn make(session: &Arc<Session>, topic: &str) -> Result<(), BrokerError> {
    // The question whether the topic exists was what makes it.
    if !session.settings.leaves_topics_to_the_brokers() {
        let created = create(&session.settings.producer(), topic).await;
        created.map_err(|error| refused(session, topic, &error))?;
        tracing::info!(topic, partitions = PARTITIONS, "made a topic in Kafka");
    }
    settled(session, topic).await
}

async fn create(config: &ClientConfig, topic: &str) -> KafkaResult<()> {
    // One client for one request: nobody reads what it logs.
    let admin: AdminClient<DefaultClientContext> = AdminClient::from_config_and_context(config, DefaultClientContext)?;
    let largest = super::settings::RECORD_BYTES_MAX.to_string();
    // Kafka's default is less than Caudal takes.
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(REPLICATION)).set("max.message.bytes", &largest);
    let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN)).operation_timeout(Some(ASK_WITHIN));
    let results = admin.create_topics([&new], &options).await;
    // Dropping it waits for its thread.
    drop(blocking(move || drop(admin)).await);
    match results?.into_iter().next() {
        Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(KafkaError::MetadataFetch(code)),
        _ => Ok(()),
    }
}

async fn settled(session: &Arc<Session>, topic: &str) -> Result<(), BrokerError> {
    let deadline = Instant::now() + SETTLE_WITHIN;
    loop {
        match partitions(session, topic).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) | Err(BrokerError::Unavailable(_)) if Instant::now() < deadline => {}
            Ok(None) => return Err(BrokerError::UnknownTopic(topic.to_owned())),
            Err(error) => return Err(error),
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

fn refused(session: &Session, topic: &str, error: &KafkaError) -> BrokerError {
    use RDKafkaErrorCode as Code;
    match code_of(error) {
        Some(
            code @ (Code::PolicyViolation
            | Code::InvalidTopic
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor),
        ) => BrokerError::Setup(format!("Kafka refused to make topic {topic} ({code}): {}", missing(session, topic))),
        Some(Code::ClusterAuthorizationFailed) => {
            session.translate(&KafkaError::MetadataFetch(Code::TopicAuthorizationFailed), Deed::Create { topic })
        }
        _ => session.translate(error, Deed::Create { topic }),
    }
}

fn missing(session: &Session, topic: &str) -> String {
    format!(
        "topic {topic} is missing in Kafka; make it with: kafka-topics.sh --bootstrap-server {} --create --topic {topic} \
         --partitions {PARTITIONS} --config max.message.bytes={}",
        session.settings.servers,
        super::settings::RECORD_BYTES_MAX
    )
}
