//! Topic names, and the identity of a message within its topic.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::limits::TOPIC_NAME_BYTES_MAX;

/// Where producers write: 1–63 bytes of `[a-z0-9._-]`, starting with a letter or digit. Also the name of its table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub fn parse(name: &str) -> Result<Self, TopicNameError> {
        let bytes = name.as_bytes();
        if bytes.is_empty() || bytes.len() > TOPIC_NAME_BYTES_MAX {
            return Err(TopicNameError::Length);
        }
        if !bytes[0].is_ascii_lowercase() && !bytes[0].is_ascii_digit() {
            return Err(TopicNameError::Start);
        }
        if !bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
            return Err(TopicNameError::Characters);
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    #[error("a topic name has 1 to {TOPIC_NAME_BYTES_MAX} characters (it is also the table's name)")]
    Length,
    #[error("a topic name starts with a lower-case letter or a digit")]
    Start,
    #[error("a topic name holds only a-z, 0-9, '.', '_' and '-'")]
    Characters,
}

/// Derives the `transaction_id` of keyed messages: UUIDv5 of topic and dedup key, so that the primary key *is* the
/// deduplication.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    namespace: Uuid,
}

impl Identity {
    pub fn of(topic: &TopicName) -> Self {
        let name = format!("caudal:topic:{topic}");
        Self { namespace: Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()) }
    }

    pub fn transaction_id(&self, key: &str) -> Uuid {
        Uuid::new_v5(&self.namespace, key.as_bytes())
    }

    /// A dead letter's own id: the same bad message under the same key gives the same dead letter however often it comes.
    pub fn dead_letter_id(&self, transaction_id: Uuid, payload: &[u8]) -> Uuid {
        let content = Uuid::new_v5(&transaction_id, payload);
        Uuid::new_v5(&self.namespace, content.as_bytes())
    }
}
