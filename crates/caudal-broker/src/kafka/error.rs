//! The client library's errors in the ports' words.

use caudal_core::error::BrokerError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::said::{Said, is_refusal};
use super::settings::Settings;

/// What was being done, for the sentence that says which permission it takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Deed<'a> {
    Connect,
    Describe { topic: &'a str },
    Create { topic: &'a str },
    Publish { topic: &'a str },
    Consume { topic: &'a str, group: &'a str },
}

impl Deed<'_> {
    fn topic(&self) -> Option<&str> {
        match self {
            Deed::Connect => None,
            Deed::Describe { topic } | Deed::Create { topic } | Deed::Publish { topic } => Some(topic),
            Deed::Consume { topic, .. } => Some(topic),
        }
    }
}

/// The code that an error carries. The library's own question forgets administrative requests.
pub(super) fn code_of(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

/// Who speaks to whom: what every sentence about a refusal needs.
pub(super) struct Translator<'a> {
    pub(super) settings: &'a Settings,
    pub(super) said: &'a Said,
}

impl Translator<'_> {
    pub(super) fn error(&self, error: &KafkaError, deed: Deed<'_>) -> BrokerError {
        match code_of(error) {
            Some(code) => self.code(code, deed),
            None => self.configuration(error),
        }
    }

    fn code(&self, code: Code, deed: Deed<'_>) -> BrokerError {
        match code {
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                BrokerError::Setup(self.permission(code, deed))
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicId => {
                BrokerError::UnknownTopic(deed.topic().unwrap_or("?").to_owned())
            }
            Code::MessageSizeTooLarge | Code::InvalidMessageSize | Code::MessageBatchTooLarge => {
                BrokerError::Refused(too_large(deed.topic().unwrap_or("?")))
            }
            Code::InvalidRecord | Code::InvalidTimestamp => BrokerError::Refused(format!(
                "topic {} of Kafka is set up so that it does not take this record ({code}); a compacted topic takes only \
                 messages with a key",
                deed.topic().unwrap_or("?")
            )),
            code if is_refusal(code) => self.refusal(&code.to_string()),
            // Calls that cannot get through only time out: the reason came another way.
            _ => match self.said.refusal() {
                Some(reason) => self.refusal(&reason),
                None => {
                    let reason = self.said.reason().map(|reason| format!("; {reason}")).unwrap_or_default();
                    BrokerError::unavailable(format!("Kafka at {}: {code}{reason}", self.settings.servers))
                }
            },
        }
    }

    fn refusal(&self, reason: &str) -> BrokerError {
        let servers = &self.settings.servers;
        BrokerError::Setup(match &self.settings.user {
            Some(user) => format!("Kafka at {servers} does not let user {user} in: {reason}"),
            None => format!("Kafka at {servers} does not let us in: {reason}"),
        })
    }

    /// One sentence with the rule that would permit it.
    fn permission(&self, code: Code, deed: Deed<'_>) -> String {
        let user = self.settings.user.as_deref().unwrap_or("ANONYMOUS");
        let (operation, resource) = match (code, deed) {
            (Code::GroupAuthorizationFailed, Deed::Consume { group, .. }) => ("Read", format!("--group {group}")),
            (Code::ClusterAuthorizationFailed, Deed::Publish { .. }) => ("IdempotentWrite", "--cluster".to_owned()),
            (Code::ClusterAuthorizationFailed, _) => ("Describe", "--cluster".to_owned()),
            (_, Deed::Create { topic }) => ("Create", format!("--topic {topic}")),
            (_, Deed::Publish { topic }) => ("Write", format!("--topic {topic}")),
            (_, Deed::Consume { topic, .. }) => ("Read", format!("--topic {topic}")),
            (_, Deed::Describe { topic }) => ("Describe", format!("--topic {topic}")),
            (_, Deed::Connect) => ("Describe", "--cluster".to_owned()),
        };
        format!(
            "Kafka user {user} lacks the permission {operation}; grant it with: kafka-acls.sh --bootstrap-server {} --add \
             --allow-principal User:{user} --operation {operation} {resource}",
            self.settings.servers
        )
    }

    /// The library did not take a setting. Its value may be a secret.
    fn configuration(&self, error: &KafkaError) -> BrokerError {
        match error {
            KafkaError::ClientConfig(_, why, name, _) => BrokerError::Setup(format!(
                "the option {name} of the Kafka URL is not accepted: {}",
                without_value(why)
            )),
            KafkaError::ClientCreation(why) => {
                BrokerError::Setup(format!("the Kafka URL's options do not fit together: {why}"))
            }
            other => BrokerError::unavailable(other.clone()),
        }
    }
}

/// The library quotes the value that it refuses first.
fn without_value(why: &str) -> &str {
    match why.starts_with("Invalid value") {
        true => "its value is not one that librdkafka takes",
        false => why,
    }
}

fn too_large(topic: &str) -> String {
    format!(
        "it is larger than topic {topic} of Kafka takes; raise it with: kafka-configs.sh --alter --entity-type topics \
         --entity-name {topic} --add-config max.message.bytes={}",
        super::settings::RECORD_BYTES_MAX
    )
}
