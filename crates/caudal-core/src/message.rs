//! A message as a broker carries it.

use bytes::Bytes;
use uuid::Uuid;

use crate::rejection::Rejection;
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
    pub origin: Origin,
    pub mark: Mark,
    /// Which hand-over of this message this is, as far as the broker counts; the first is 1.
    pub attempt: u32,
    /// Messages that the broker numbered and no longer has, right before this one.
    pub missing: u64,
    /// Set when the adapter could not make a message of what it got; `message.body` then holds those bytes.
    pub fault: Option<Rejection>,
}

impl Delivery {
    /// A first hand-over with nothing amiss.
    pub fn new(message: Message, origin: Origin, mark: Mark) -> Self {
        Self { message, origin, mark, attempt: 1, missing: 0, fault: None }
    }
}

/// Who gave a delivered message its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Caudal accepted and published it: `id` and `published_at` stand.
    Accepted,
    /// A producer wrote to the broker itself. `id` means nothing: the topic's key decides it, or the message's `key`, which
    /// the adapter takes from what the broker calls the message, or else it is new.
    Foreign,
}

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The broker numbers the messages of a lane; the store commits the position `to` with the rows if it holds `from`.
    /// Deliveries of one lane join without a gap: each `from` is the `to` before it.
    Position { lane: Uuid, from: u64, to: u64 },
    /// The broker remembers what is settled, and knows this delivery by a number of the subscription's own.
    Tag(u64),
}

/// A stretch of one lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub lane: Uuid,
    pub from: u64,
    pub to: u64,
}

/// The marks of deliveries that are settled together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// One step a lane.
    pub steps: Vec<Step>,
    pub tags: Vec<u64>,
}

/// A lane's deliveries do not join: messages in between are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the topic went from offset {at} to {to}: messages in between are missing")]
pub struct Gap {
    pub at: u64,
    pub to: u64,
}

impl Marks {
    pub fn add(&mut self, mark: Mark) -> Result<(), Gap> {
        let (lane, from, to) = match mark {
            Mark::Tag(tag) => {
                self.tags.push(tag);
                return Ok(());
            }
            Mark::Position { lane, from, to } => (lane, from, to),
        };
        match self.steps.iter_mut().rev().find(|step| step.lane == lane) {
            Some(step) if step.to == from => step.to = to,
            Some(step) => return Err(Gap { at: step.to, to: from }),
            None => self.steps.push(Step { lane, from, to }),
        }
        Ok(())
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.tags.is_empty()
    }
}

/// How far one subscription has read one lane of a topic, committed with the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub subscription: String,
    /// Which life of the topic, and which part of it, the offset belongs to; a log that was deleted and made anew has another.
    pub lane: Uuid,
    /// What the store must hold now. Another value means another worker got ahead: the append is fenced.
    pub from: u64,
    /// What it holds after the commit.
    pub to: u64,
}

/// What a broker's word is worth: what a message that it confirmed survives. Ordered from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Nothing is known about it.
    Unknown,
    /// A crash of the broker's process, but not always of its machine.
    Process,
    /// Loss of one machine: other machines hold it too.
    Failover,
    /// Loss of power everywhere: it is on disk before the word is given.
    Power,
}

impl Durability {
    pub fn name(self) -> &'static str {
        match self {
            Durability::Unknown => "unknown",
            Durability::Process => "process",
            Durability::Failover => "failover",
            Durability::Power => "power",
        }
    }
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
