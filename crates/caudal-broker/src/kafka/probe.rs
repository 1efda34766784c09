//! What the brokers' confirmation is worth, from the settings that they really have.
//!
//! Kafka answers when enough replicas have a message in memory; it leaves writing to disk to the operating system. So its
//! word rests on how many replicas must have it (`min.insync.replicas`), unless `flush.messages=1` makes each one write first.

use std::collections::HashMap;
use std::sync::Arc;

use caudal_core::error::BrokerError;
use caudal_core::message::Durability;
use caudal_core::ports::Probe;
use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};

use super::error::{Deed, code_of};
use super::session::{ASK_WITHIN, Session, blocking};

type Configs = HashMap<String, String>;

pub(super) async fn probe(session: &Arc<Session>, topics: Vec<String>) -> Result<Probe, BrokerError> {
    let cluster = session.cluster().await?;
    let map = map_of(session, &topics).await?;
    let answers = describe(session, &topics, map.asked).await;
    let (brokers, configs) = match answers {
        Ok(answers) => answers,
        Err(error) => {
            tracing::debug!(%error, "Kafka does not tell its settings");
            let why = untold(code_of(&error));
            return Ok(Probe {
                product: product(&cluster, map.brokers, None),
                durability: Durability::Unknown,
                reasons: vec![why],
            });
        }
    };
    let protocol = brokers.get("inter.broker.protocol.version").map(String::as_str);
    let product = product(&cluster, map.brokers, protocol);
    let verdicts: Vec<(Durability, String)> = topics
        .iter()
        .map(|topic| match (map.replicas.get(topic), configs.get(topic)) {
            (Some(replicas), Some(configs)) => verdict(&format!("topic {topic}"), Some(*replicas), configs),
            (None, _) => new_topic(topic, &brokers),
            (Some(_), None) => (Durability::Unknown, format!("topic {topic}: {}", untold(None))),
        })
        .collect();
    let verdicts = if verdicts.is_empty() { vec![new_topic("new", &brokers)] } else { verdicts };
    let durability = verdicts.iter().map(|(class, _)| *class).min().unwrap_or(Durability::Unknown);
    Ok(Probe { product, durability, reasons: verdicts.into_iter().map(|(_, reason)| reason).collect() })
}

/// How many brokers there are, one to ask, and the least number of replicas that a partition of each topic has.
struct ClusterMap {
    brokers: usize,
    asked: i32,
    replicas: HashMap<String, usize>,
}

async fn map_of(session: &Arc<Session>, topics: &[String]) -> Result<ClusterMap, BrokerError> {
    let producer = session.producer()?;
    let topics = topics.to_vec();
    let look = move || -> KafkaResult<ClusterMap> {
        let all = producer.client().fetch_metadata(None, ASK_WITHIN)?;
        let ours = all.topics().iter().filter(|t| t.error().is_none() && topics.iter().any(|name| name == t.name()));
        let least = ours.filter_map(|topic| {
            let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min()?;
            Some((topic.name().to_owned(), replicas))
        });
        Ok(ClusterMap { brokers: all.brokers().len(), asked: all.orig_broker_id(), replicas: least.collect() })
    };
    let map = blocking(look).await?.map_err(|error| session.translate(&error, Deed::Connect))?;
    session.said.clear();
    Ok(map)
}

/// A broker's settings, and those of the topics that exist.
async fn describe(
    session: &Session,
    topics: &[String],
    broker: i32,
) -> KafkaResult<(Configs, HashMap<String, Configs>)> {
    // One client for one request: nobody reads what it logs.
    let admin: AdminClient<DefaultClientContext> =
        AdminClient::from_config_and_context(&session.settings.producer(), DefaultClientContext)?;
    let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN));
    let mut wanted: Vec<ResourceSpecifier<'_>> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    wanted.push(ResourceSpecifier::Broker(broker));
    let results = admin.describe_configs(&wanted, &options).await;
    // Dropping it waits for its thread.
    drop(blocking(move || drop(admin)).await);
    let mut of_broker = Configs::new();
    let mut of_topics = HashMap::new();
    for resource in results?.into_iter().flatten() {
        match &resource.specifier {
            OwnedResourceSpecifier::Topic(topic) => drop(of_topics.insert(topic.clone(), entries(&resource))),
            _ => of_broker = entries(&resource),
        }
    }
    Ok((of_broker, of_topics))
}

fn entries(resource: &ConfigResource) -> Configs {
    resource.entries.iter().filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect()
}

fn product(cluster: &str, brokers: usize, protocol: Option<&str>) -> String {
    let protocol = protocol.map(|protocol| format!(", protocol {protocol}")).unwrap_or_default();
    format!("Kafka (cluster {cluster}, brokers: {brokers}{protocol})")
}

fn untold(code: Option<RDKafkaErrorCode>) -> String {
    match code {
        Some(RDKafkaErrorCode::UnsupportedFeature) => "these brokers cannot tell their settings".to_owned(),
        Some(code) => format!("the brokers did not tell their settings: {code}"),
        None => "the brokers do not let us read its settings; grant DescribeConfigs on it".to_owned(),
    }
}

/// A topic that Caudal will make gets what the brokers give by default.
fn new_topic(topic: &str, broker: &Configs) -> (Durability, String) {
    let replicas = broker.get("default.replication.factor").and_then(|text| text.parse().ok());
    verdict(&format!("topic {topic}, which is still to be made"), replicas, broker)
}

fn verdict(what: &str, replicas: Option<usize>, configs: &Configs) -> (Durability, String) {
    let number = |name: &str| configs.get(name).and_then(|text| text.parse::<u64>().ok());
    let flushed = number("flush.messages").or_else(|| number("log.flush.interval.messages")) == Some(1);
    let unclean = configs.get("unclean.leader.election.enable").is_some_and(|value| value == "true");
    let Some((replicas, least)) = replicas.zip(number("min.insync.replicas")) else {
        return (
            Durability::Unknown,
            format!("{what}: the brokers do not tell its replication; grant DescribeConfigs on it"),
        );
    };
    let numbers = format!("{what}: {replicas} replicas, min.insync.replicas={least}");
    match (replicas, least) {
        _ if flushed => (
            Durability::Power,
            format!("{numbers}, and flush.messages=1 writes each message to disk before the word is given"),
        ),
        (2.., 2..) if unclean => (
            Durability::Process,
            format!(
                "{numbers}, but unclean.leader.election.enable=true lets a replica lead that lacks confirmed messages"
            ),
        ),
        (3.., 2..) => {
            (Durability::Failover, format!("{numbers}: a confirmed message is in the memory of two machines at least"))
        }
        (2, 2..) => (
            Durability::Failover,
            format!(
                "{numbers}: a confirmed message is in the memory of two machines, but publishing stops when one is lost; use 3 replicas"
            ),
        ),
        (2.., _) => (
            Durability::Process,
            format!(
                "{numbers}: one machine's memory may be all that holds a confirmed message; set min.insync.replicas=2"
            ),
        ),
        _ => (
            Durability::Process,
            format!(
                "{numbers}: one machine's memory is all that holds a confirmed message; use 3 replicas and min.insync.replicas=2"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Configs, Durability, new_topic, verdict};

    fn class(replicas: usize, configs: &[(&str, &str)]) -> Durability {
        let configs = configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        verdict("topic t", Some(replicas), &configs).0
    }

    #[test]
    fn the_class_follows_from_the_settings() {
        let two = ("min.insync.replicas", "2");
        assert_eq!(class(3, &[two]), Durability::Failover);
        assert_eq!(class(2, &[two]), Durability::Failover);
        assert_eq!(class(3, &[("min.insync.replicas", "1")]), Durability::Process);
        assert_eq!(class(1, &[("min.insync.replicas", "1")]), Durability::Process);
        assert_eq!(class(3, &[two, ("unclean.leader.election.enable", "true")]), Durability::Process);
        assert_eq!(class(3, &[two, ("flush.messages", "1")]), Durability::Power);
        assert_eq!(class(3, &[two, ("flush.messages", "9223372036854775807")]), Durability::Failover);
        assert_eq!(class(3, &[]), Durability::Unknown);
    }

    #[test]
    fn a_topic_to_be_made_gets_the_brokers_defaults() {
        let told = [("default.replication.factor", "3"), ("min.insync.replicas", "2")];
        let broker: Configs = told.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        assert_eq!(new_topic("t", &broker).0, Durability::Failover);
        assert_eq!(new_topic("t", &Configs::new()).0, Durability::Unknown);
    }
}
