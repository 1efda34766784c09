//! A message as a broker carries it.

use bytes::Bytes;
use uuid::Uuid;

use crate::time::Instant;

/// What a producer sent, with the identity it got on accept. The body is one JSON document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The `transaction_id`, fixed on accept: UUIDv7, or UUIDv5 of topic and dedup key.
    pub id: Uuid,
    /// The dedup key, when the producer or the topic's `key` gave one.
    pub key: Option<String>,
    /// Who or what it came through: `http`, `cloudevents:<source>`, `sns:<arn>`.
    pub source: String,
    pub published_at: Instant,
    /// Attributes that travel beside the body (CloudEvents context, broker attributes) as one JSON object.
    pub attributes: Option<Bytes>,
    pub body: Bytes,
}

/// One hand-over of a message by a broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub message: Message,
    /// The offset that follows this message: what to commit once it is settled.
    pub next: u64,
}

/// How far one subscription has read one topic, committed with the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub subscription: String,
    /// Which life of the topic the offset belongs to; a log that was deleted and made anew has another.
    pub incarnation: Uuid,
    /// What the store must hold now. Another value means another worker got ahead: the append is fenced.
    pub from: u64,
    /// What it holds after the commit.
    pub to: u64,
}
