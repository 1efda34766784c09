//! The answer to "where is my message".

use serde::Serialize;

/// Where a message is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiptState {
    /// Durable in the topic, not stored yet.
    Queued,
    /// A row in the topic's table.
    Stored,
    /// It was stored, and its topic's retention has removed it since.
    Expired,
    /// The key was stored before; this hand-over changed nothing.
    Duplicate,
    /// Set aside with a reason.
    Dead,
}

impl ReceiptState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Stored => "stored",
            Self::Expired => "expired",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
        }
    }
}
