//! Confirmation: each stored transaction is told to an endpoint, and ends with one outcome, whatever dies in between.
//!
//! The words, the decisions and the ports. [`machine`] holds the state machine, [`answer`] reads what an endpoint said,
//! [`budget`] says how much may be asked of it; all three are pure. [`ports`] is what a store and a confirmer must do.

pub mod answer;
pub mod budget;
pub mod cost;
pub mod machine;
pub mod policy;
pub mod ports;
pub mod template;
pub mod transfer;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use crate::time::Instant;
use crate::topic::TopicName;

/// Where a transaction stands (DESIGN, "confirmation").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for a worker.
    Pending,
    /// A worker has it and has not called anybody for it.
    Leased,
    /// A worker may be calling for it right now.
    Calling,
    /// The endpoint did it. Never changes.
    Confirmed,
    /// The endpoint will not do it. Never changes.
    Rejected,
    /// It was not done, and is due again later.
    Retry,
    /// Nobody here knows whether it was done. It is asked for, or sent again under the same key, while that is safe.
    Doubt,
    /// Only a person can go on from here.
    Held,
    /// Given up: attempts, deadline or crashes are spent. Can be redriven.
    Dead,
    /// Called off before anything was sent. Never changes.
    Void,
}

impl State {
    pub const ALL: [State; 10] = [
        Self::Pending,
        Self::Leased,
        Self::Calling,
        Self::Confirmed,
        Self::Rejected,
        Self::Retry,
        Self::Doubt,
        Self::Held,
        Self::Dead,
        Self::Void,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Leased => "leased",
            Self::Calling => "calling",
            Self::Confirmed => "confirmed",
            Self::Rejected => "rejected",
            Self::Retry => "retry",
            Self::Doubt => "doubt",
            Self::Held => "held",
            Self::Dead => "dead",
            Self::Void => "void",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether this is how the transaction ended, for good.
    pub fn is_outcome(self) -> bool {
        matches!(self, Self::Confirmed | Self::Rejected | Self::Void)
    }
}

/// What an endpoint did, once it is known: the two outcomes that stand whoever reports them, however late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    Confirmed,
    Rejected,
}

impl Fact {
    pub fn state(self) -> State {
        match self {
            Self::Confirmed => State::Confirmed,
            Self::Rejected => State::Rejected,
        }
    }
}

/// The number that a store gave to a lane: a topic's queue of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct LaneId(pub i32);

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How carefully items are taken together. Those that were being called when their worker died are suspects: one of them may
/// be what killed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    Usual,
    /// One crash: in small batches, so that the guilty one's neighbours are few.
    Suspect,
    /// More than one crash: one at a time, with nothing else under way.
    Alone,
}

impl Rank {
    pub const ALL: [Rank; 3] = [Self::Usual, Self::Suspect, Self::Alone];

    pub fn of(crashes: u32) -> Self {
        match crashes {
            0 => Self::Usual,
            1 => Self::Suspect,
            _ => Self::Alone,
        }
    }

    pub fn number(self) -> i16 {
        match self {
            Self::Usual => 0,
            Self::Suspect => 1,
            Self::Alone => 2,
        }
    }
}

/// One transaction as a worker claimed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The record's `_id`, or what stands for an adopted row.
    pub id: Uuid,
    /// Calls and probes that were made for it so far.
    pub attempts: u32,
    /// Times a worker died while it was being called.
    pub crashes: u32,
    /// It may have been done already: see [`State::Doubt`].
    pub doubt: bool,
    /// When it became pending, by the store's clock.
    pub since: Instant,
    /// When it was first sent, by the store's clock; `None`: provably never.
    pub first_sent: Option<Instant>,
    /// The store's clock when the item was claimed: what `since` and `first_sent` are compared with. A worker's own clock is not.
    pub claimed: Instant,
    /// The record as a JSON object.
    pub record: Bytes,
}

impl Item {
    /// How long it has waited, as of its claim.
    pub fn age(&self) -> Duration {
        between(self.since, self.claimed)
    }

    /// The same item as it is this long after its claim, for whoever made it wait.
    pub fn later(self, by: Duration) -> Self {
        let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        Self { claimed: Instant(self.claimed.0.saturating_add(by)), ..self }
    }

    /// How long ago it was first sent, as of its claim.
    pub fn sent_ago(&self) -> Option<Duration> {
        self.first_sent.map(|sent| between(sent, self.claimed))
    }
}

fn between(earlier: Instant, later: Instant) -> Duration {
    Duration::from_micros(later.0.saturating_sub(earlier.0).max(0) as u64)
}

/// What is to be written down for one item of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// The endpoint's word. Recorded even when the lease is lost; the first one stands.
    Fact { fact: Fact, code: Option<u16>, detail: String },
    /// Not done; due again `after`. `sent`: a request left for the endpoint.
    Retry { after: Duration, sent: bool, code: Option<u16>, detail: String },
    /// Unknown; asked for or sent again `after`.
    Doubt { after: Duration, code: Option<u16>, detail: String },
    /// For a person to decide.
    Held { maybe_done: bool, code: Option<u16>, detail: String },
    /// Given up.
    Dead { maybe_done: bool, code: Option<u16>, detail: String },
    /// Nothing was called for it: pending again, no attempt spent.
    Release,
}

impl Mark {
    /// Where it leaves the transaction.
    pub fn state(&self) -> State {
        match self {
            Self::Fact { fact, .. } => fact.state(),
            Self::Retry { .. } => State::Retry,
            Self::Doubt { .. } => State::Doubt,
            Self::Held { .. } => State::Held,
            Self::Dead { .. } => State::Dead,
            Self::Release => State::Pending,
        }
    }
}

/// The key under which an endpoint knows a transaction: derived, so that it survives a restore, a move to another store, and a
/// worker that lost all it knew. UUIDv5 (RFC 9562) of topic, operation and transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    namespace: Uuid,
}

impl Keys {
    /// `operation` tells apart what is done with one transaction: `confirm` unless said otherwise.
    pub fn of(topic: &TopicName, operation: &str) -> Self {
        let name = format!("caudal:confirm:{topic}:{operation}");
        Self { namespace: Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()) }
    }

    pub fn key(&self, transaction: Uuid) -> Uuid {
        Uuid::new_v5(&self.namespace, transaction.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_same_everywhere_and_differ_by_topic_operation_and_transaction() {
        let topic = |name: &str| TopicName::parse(name).expect("a name");
        let id = Uuid::from_u128(7);
        let key = Keys::of(&topic("payments"), "confirm").key(id);
        // Written down: a release that derives another key would charge everybody twice.
        assert_eq!(key.to_string(), "027d8c94-6872-5311-bab7-b62cccea2226");
        for other in [
            Keys::of(&topic("refunds"), "confirm").key(id),
            Keys::of(&topic("payments"), "reverse").key(id),
            Keys::of(&topic("payments"), "confirm").key(Uuid::from_u128(8)),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn states_are_read_as_they_are_written() {
        for state in State::ALL {
            assert_eq!(State::parse(state.name()), Some(state));
        }
        assert_eq!(State::parse("lost"), None);
    }
}
