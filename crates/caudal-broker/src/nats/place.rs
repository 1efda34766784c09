//! Where a topic lives in JetStream: its stream, and a durable pull consumer for each subscription.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use caudal_core::error::BrokerError;
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use serde_json::{Value, json};

use super::error::{CONSUMER_NOT_FOUND, STREAM_EXISTS, STREAM_NOT_FOUND, SUBJECT_OVERLAP};
use super::link::Link;
use crate::remote::{Place, RemoteConfig};

/// How long a delivery stays ours without a sign of life. So long it takes until another process gets what a killed one had.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Deliveries that all workers of a subscription together may have out.
const ACK_PENDING_MAX: u64 = 100_000;
/// How the description of a stream begins that we made, and therefore may trim.
const OURS: &str = "Caudal topic";

/// A topic's stream.
#[derive(Debug)]
pub(super) struct TopicStream {
    pub(super) stream: Arc<str>,
    pub(super) subject: Subject,
    /// Names this life of the stream: a stream made anew counts from one again.
    pub(super) life: String,
    /// Whether a number that is never delivered belongs to a message that is lost.
    numbered: bool,
    /// Set when the stream takes other subjects too.
    filter: Option<String>,
    /// We made it, so we remove from it what everybody acked.
    pub(super) ours: bool,
}

/// A subscription's consumer, as far as reading from it needs to know.
#[derive(Debug, Clone)]
pub(super) struct Consumer {
    pub(super) name: String,
    pub(super) ack_wait: Duration,
    /// Bounds on one pull, where the consumer sets them.
    pub(super) batch_max: Option<u64>,
    pub(super) bytes_max: Option<u64>,
    pub(super) expires_max: Option<Duration>,
    /// The last delivery's number in the consumer and in the stream.
    pub(super) delivered: (u64, u64),
    /// The number in the stream up to which all is acked.
    pub(super) acked: u64,
    pub(super) numbered: bool,
    /// Deliveries that wait or are out.
    pub(super) waiting: u64,
}

impl Link {
    /// The topic's stream with the consumers of all subscriptions that are known beforehand, made if they are missing. What
    /// is published later is then kept for each of them.
    pub(super) async fn topic(
        &self,
        topic: &TopicName,
        config: &RemoteConfig,
    ) -> Result<Arc<TopicStream>, BrokerError> {
        if let Some(known) = self.known(topic) {
            return Ok(known);
        }
        let _alone = self.making.lock().await;
        if let Some(known) = self.known(topic) {
            return Ok(known);
        }
        let place = config.place(topic);
        let stream = Arc::new(self.stream(topic, &place, config.create).await?);
        for subscription in &config.subscriptions {
            self.consumer(&stream, &place, subscription, config.create).await?;
        }
        self.learn(topic, stream.clone());
        Ok(stream)
    }

    async fn stream(&self, topic: &TopicName, place: &Place, create: bool) -> Result<TopicStream, BrokerError> {
        let default = format!("caudal-{}", token(topic.as_str()));
        let Some(named) = place.publish.as_deref() else {
            let subject = subject(topic);
            return match self.stream_info(&default).await? {
                Some(info) => TopicStream::of(&info, subject),
                None => self.make(&default, &subject, topic, create).await,
            };
        };
        if named.is_empty() || named.contains(['*', '>', ' ']) {
            return Err(BrokerError::Setup(format!(
                "publish_to of topic {topic} is {named:?}, which is no subject or stream"
            )));
        }
        let found = self.ask("STREAM.NAMES", &json!({ "subject": named })).await?;
        let found = found.map_err(|refusal| refusal.explain("tell which stream takes a subject"))?;
        if let Some(stream) = found["streams"][0].as_str()
            && let Some(info) = self.stream_info(stream).await?
        {
            return TopicStream::of(&info, named.to_owned());
        }
        match self.stream_info(named).await? {
            Some(info) => {
                let subject = only_subject(&info).ok_or_else(|| {
                    BrokerError::Setup(format!(
                        "stream {named} takes {} and Caudal cannot tell which subject topic {topic} is published to; name \
                         the subject in publish_to",
                        info["config"]["subjects"]
                    ))
                })?;
                TopicStream::of(&info, subject)
            }
            None => self.make(&default, named, topic, create).await,
        }
    }

    pub(super) async fn stream_info(&self, stream: &str) -> Result<Option<Value>, BrokerError> {
        if stream.contains('.') {
            return Ok(None);
        }
        match self.ask(&format!("STREAM.INFO.{stream}"), &Value::Null).await? {
            Ok(info) => Ok(Some(info)),
            Err(refusal) if refusal.code == STREAM_NOT_FOUND => Ok(None),
            Err(refusal) => Err(refusal.explain(&format!("describe stream {stream}"))),
        }
    }

    async fn make(
        &self,
        stream: &str,
        subject: &str,
        topic: &TopicName,
        create: bool,
    ) -> Result<TopicStream, BrokerError> {
        if !create {
            return Err(BrokerError::Setup(format!(
                "NATS has no stream for topic {topic}, which is published to {subject}; make it with: nats stream add \
                 {stream} --subjects={subject} --storage=file --retention=limits --discard=new --defaults"
            )));
        }
        let config = json!({
            "name": stream,
            "description": format!("{OURS} {topic}"),
            "subjects": [subject],
            // Not `interest`: that one confirms and throws away what is published while a consumer is missing.
            "retention": "limits",
            "discard": "new",
            "storage": "file",
            "num_replicas": self.address.replicas,
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_msgs_per_subject": -1, "max_msg_size": -1,
        });
        match self.ask(&format!("STREAM.CREATE.{stream}"), &config).await? {
            Ok(info) => TopicStream::of(&info, subject.to_owned()),
            Err(refusal) if refusal.code == STREAM_EXISTS => {
                let info = self.stream_info(stream).await?;
                info.map_or_else(|| Err(refusal.explain("make a stream")), |i| TopicStream::of(&i, subject.to_owned()))
            }
            Err(refusal) if refusal.code == SUBJECT_OVERLAP => Err(BrokerError::Setup(format!(
                "another NATS stream already takes subject {subject} of topic {topic}; name that subject in the topic's \
                 publish_to, and Caudal uses the stream that is there"
            ))),
            Err(refusal) => Err(refusal.explain(&format!("make stream {stream}"))),
        }
    }

    /// A subscription's consumer, made if it is missing.
    pub(super) async fn consumer(
        &self,
        stream: &TopicStream,
        place: &Place,
        subscription: &str,
        create: bool,
    ) -> Result<Consumer, BrokerError> {
        let name = place.consume.clone().unwrap_or_else(|| token(subscription));
        if name.is_empty() || name.contains(['.', '*', '>', ' ', '/', '\\']) {
            return Err(BrokerError::Setup(format!("consume_from is {name:?}, which is no name of a NATS consumer")));
        }
        let named = &stream.stream;
        match self.ask(&format!("CONSUMER.INFO.{named}.{name}"), &Value::Null).await? {
            Ok(info) => return Consumer::of(&info, stream),
            Err(refusal) if refusal.code == CONSUMER_NOT_FOUND => {}
            Err(refusal) => return Err(refusal.explain(&format!("describe consumer {name} of stream {named}"))),
        }
        if !create {
            let filter = stream.filter.as_ref().map(|subject| format!(" --filter={subject}")).unwrap_or_default();
            return Err(BrokerError::Setup(format!(
                "stream {named} in NATS has no consumer {name}; make it with: nats consumer add {named} {name} --pull \
                 --ack=explicit --deliver=all{filter} --wait={}s --max-pending={ACK_PENDING_MAX} --defaults",
                ACK_WAIT.as_secs()
            )));
        }
        let mut config = json!({
            "durable_name": name,
            "description": format!("{OURS} subscription {subscription}"),
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": nanos(ACK_WAIT),
            "max_deliver": -1,
            "max_ack_pending": ACK_PENDING_MAX,
        });
        if let Some(subject) = &stream.filter {
            config["filter_subject"] = json!(subject);
        }
        let request = json!({ "stream_name": &**named, "config": config });
        match self.ask(&format!("CONSUMER.DURABLE.CREATE.{named}.{name}"), &request).await? {
            Ok(info) => Consumer::of(&info, stream),
            Err(refusal) => Err(refusal.explain(&format!("make consumer {name} of stream {named}"))),
        }
    }
}

impl TopicStream {
    fn of(info: &Value, subject: String) -> Result<Self, BrokerError> {
        let config = &info["config"];
        let stream: Arc<str> = text(config, "name").into();
        let subjects: Vec<&str> = list(&config["subjects"]);
        if !subjects.iter().any(|pattern| covers(pattern, &subject)) {
            return Err(BrokerError::Setup(format!(
                "stream {stream} in NATS does not take subject {subject}; add it with: nats stream edit {stream} \
                 --subjects={}",
                [&subjects[..], &[&subject]].concat().join(",")
            )));
        }
        if config["no_ack"] == true {
            return Err(BrokerError::Setup(format!(
                "stream {stream} in NATS confirms nothing (no_ack), so Caudal cannot promise anything over it; use another \
                 stream"
            )));
        }
        let created = text(info, "created");
        let created = Instant::parse(created).map_or_else(|| created.to_owned(), |at| at.unix_micros().to_string());
        Ok(Self {
            life: format!("nats:{stream}:{created}"),
            numbered: text(config, "retention") == "limits",
            filter: (subjects != [subject.as_str()]).then(|| subject.clone()),
            ours: text(config, "description").starts_with(OURS),
            subject: Subject::from(subject),
            stream,
        })
    }
}

impl Consumer {
    fn of(info: &Value, stream: &TopicStream) -> Result<Self, BrokerError> {
        let config = &info["config"];
        let name = text(info, "name").to_owned();
        let mut filters = [text(config, "filter_subject")].into_iter().chain(list(&config["filter_subjects"]));
        let lets_all_through =
            |filter: &str| matches!(filter, "" | ">") || (stream.filter.is_none() && filter == stream.subject.as_str());
        if !text(config, "deliver_subject").is_empty() || text(config, "ack_policy") != "explicit" {
            return Err(BrokerError::Setup(format!(
                "consumer {name} of stream {} in NATS is not a pull consumer with explicit acks; name one in the topic's \
                 consume_from",
                stream.stream
            )));
        }
        let number = |value: &Value| value.as_u64().filter(|n| *n > 0);
        let time = |value: &Value| number(value).map(Duration::from_nanos);
        let sequence = |of: &str, name: &str| info[of][name].as_u64().unwrap_or_default();
        Ok(Self {
            name,
            ack_wait: time(&config["ack_wait"]).unwrap_or(Duration::from_secs(30)),
            batch_max: number(&config["max_batch"]),
            bytes_max: number(&config["max_bytes"]),
            expires_max: time(&config["max_expires"]),
            delivered: (sequence("delivered", "consumer_seq"), sequence("delivered", "stream_seq")),
            acked: sequence("ack_floor", "stream_seq"),
            // A filter skips numbers.
            numbered: stream.numbered && filters.all(lets_all_through),
            waiting: info["num_pending"].as_u64().unwrap_or_default()
                + info["num_ack_pending"].as_u64().unwrap_or_default(),
        })
    }
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().map(|all| all.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn only_subject(info: &Value) -> Option<String> {
    match list(&info["config"]["subjects"])[..] {
        [only] if !only.contains(['*', '>']) => Some(only.to_owned()),
        _ => None,
    }
}

/// Stream and consumer names have no dots. A topic's name has no `=`, so that two topics never share a stream.
fn token(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_'), "=")
}

fn subject(topic: &TopicName) -> String {
    match topic.as_str() {
        // A subject has no empty parts.
        name if name.ends_with('.') || name.contains("..") => format!("caudal.{}", token(name)),
        name => format!("caudal.{name}"),
    }
}

/// Whether a subject falls under a pattern with `*` and `>`.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut parts = subject.split('.');
    for pattern in pattern.split('.') {
        match (pattern, parts.next()) {
            (">", part) => return part.is_some(),
            ("*", Some(_)) => {}
            (pattern, Some(part)) if pattern == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let topic = |name| TopicName::parse(name).expect("a topic name");
        assert_eq!(token("orders.eu"), "orders=eu");
        assert_eq!(subject(&topic("orders.eu")), "caudal.orders.eu");
        assert_eq!(subject(&topic("a..b")), "caudal.a==b");
        assert_eq!(subject(&topic("a.")), "caudal.a=");
    }

    #[test]
    fn wildcards() {
        for (pattern, subject, covered) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            (">", "a", true),
            ("*.b", "a.c", false),
        ] {
            assert_eq!(covers(pattern, subject), covered, "{pattern} {subject}");
        }
    }
}
