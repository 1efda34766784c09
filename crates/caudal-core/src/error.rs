//! What can go wrong behind a port, in words that say what to do next. Adapters translate their driver's errors once and
//! keep the cause.

use std::error::Error;

type Cause = Box<dyn Error + Send + Sync>;

/// A store's failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not reachable, overloaded, failing over, or a transient conflict. Whether a commit happened is unknown: repeat the
    /// same append, its ids make it idempotent.
    #[error("the store is not available: {0}")]
    Unavailable(#[source] Cause),
    /// Another worker committed a position first. Read the position again and go on from there.
    #[error("another worker moved this subscription's position")]
    Fenced,
    /// An [`OnBadRow::Abort`](crate::ports::OnBadRow::Abort) batch had a bad row; nothing of it was stored.
    #[error("row {row} was refused, so nothing of the batch was stored: {rejection}")]
    Aborted { row: usize, rejection: crate::rejection::Rejection },
    /// No space left. Reads still work.
    #[error("the store's disk is full")]
    Full(#[source] Cause),
    /// The read took longer than its bound.
    #[error("the read took longer than its time limit")]
    Timeout,
    /// What was asked cannot be done with this table: a value that is none of the column's type, an operator that the type
    /// does not have. The caller's to change.
    #[error("{0}")]
    Asked(String),
    /// The table is not what the configuration says, or the account may not do this. Somebody must act.
    #[error("{0}")]
    Setup(String),
    /// A fault in Caudal or damage in the store.
    #[error("the store failed: {0}")]
    Fatal(#[source] Cause),
}

impl StoreError {
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    pub fn fatal(cause: impl Into<Cause>) -> Self {
        Self::Fatal(cause.into())
    }

    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_) | Self::Timeout)
    }
}

/// A broker's failure.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Not reachable or overloaded; whether the publish happened is unknown.
    #[error("the broker is not available: {0}")]
    Unavailable(#[source] Cause),
    #[error("the broker's disk is full")]
    Full(#[source] Cause),
    #[error("topic {0} does not exist in the broker")]
    UnknownTopic(String),
    /// The broker refuses: credentials, a permission, a queue of another make. Somebody must act; the text says how.
    #[error("{0}")]
    Setup(String),
    /// The message is larger than the broker takes, or is refused for what it is. The same message fails again.
    #[error("the broker does not take this message: {0}")]
    Refused(String),
    /// The store could not say where the subscription stands.
    #[error("the subscription's position is not known: {0}")]
    Position(#[from] StoreError),
    /// Damage, or a failed fsync: nothing may be acknowledged any more and the process must end (`ARCHITECTURE.md`, Promises).
    #[error("the broker failed for good: {0}")]
    Fatal(#[source] Cause),
}

impl BrokerError {
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        Self::Unavailable(cause.into())
    }

    pub fn fatal(cause: impl Into<Cause>) -> Self {
        Self::Fatal(cause.into())
    }
}
