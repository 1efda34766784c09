//! Why a request to take messages in did not succeed.

use caudal_core::error::{BrokerError, StoreError};
use caudal_core::rejection::Rejection;
use uuid::Uuid;

/// What [`ingest`](crate::ingest) and [`redrive`](crate::redrive) answer when nothing was taken, or when that is unknown.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("topic {0:?} does not exist")]
    UnknownTopic(String),
    /// No effect. The index is the record's place in a batch that was to be taken whole or not at all.
    #[error("record {index} was refused: {rejection}")]
    Rejected {
        index: usize,
        rejection: Rejection,
        transaction_id: Option<Uuid>,
        /// The message had been durable in the topic before its fault showed, so it was set aside rather than dropped.
        dead_letter: Option<Uuid>,
    },
    /// Another request with the same key is still running. No effect.
    #[error("a request with the same key is still running")]
    KeyInFlight,
    /// More work waits than the configuration allows. No effect.
    #[error("too much work is waiting")]
    Overloaded,
    /// A batch that must be taken whole is larger than one transaction may be. No effect.
    #[error("a strict batch has at most {max} records and {bytes_max} bytes")]
    TooLarge { max: usize, bytes_max: usize },
    /// Unknown: repeat with the same key.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Unknown: repeat with the same key.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl AcceptError {
    pub fn rejected(rejection: Rejection) -> Self {
        Self::Rejected { index: 0, rejection, transaction_id: None, dead_letter: None }
    }
}
