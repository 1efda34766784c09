//! How records end, and the arithmetic that proves that none was lost on the way.

use serde::{Deserialize, Serialize};

use crate::rejection::Rejection;

/// How one row of an append ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOutcome {
    /// A new row, committed.
    Stored,
    /// The key was there with the same content; the first outcome stands.
    Duplicate,
    /// Not stored: the key was there with other content (`conflict`), or the database refused the row (`refused`).
    /// Whether it was dead-lettered is the batch's [`OnBadRow`](crate::ports::OnBadRow).
    Bad(Rejection),
}

/// Counts of envelopes, for one batch, one topic or one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    pub accepted: u64,
    pub stored: u64,
    pub duplicate: u64,
    pub rejected: u64,
    pub dead: u64,
}

impl Tally {
    /// accepted − (stored + duplicate + rejected + dead + in flight): zero, or something was lost or counted twice
    /// (`ARCHITECTURE.md`, Promises).
    pub fn unaccounted(&self, in_flight: u64) -> i64 {
        let ended = self.stored + self.duplicate + self.rejected + self.dead + in_flight;
        self.accepted as i64 - ended as i64
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        self.rejected += other.rejected;
        self.dead += other.dead;
    }
}
