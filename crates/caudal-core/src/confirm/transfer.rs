//! Moving a lane from one store to another, and knowing that nothing was lost on the way.
//!
//! The idempotency keys are derived from topic and transaction, so they are the same in both stores: an endpoint does not notice.

use std::collections::HashMap;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use super::ports::Tried;
use super::{Fact, LaneId, State};
use crate::error::StoreError;
use crate::json::same_record;
use crate::time::Instant;

/// Transactions under way at once, in memory.
const PAGE: usize = 1000;
/// Differences that are listed.
const LISTED_MAX: usize = 100;
/// Attempts that a store tells of a transaction, at most.
pub const TRIED_MAX: usize = 50;

/// All that a store knows about one transaction, without leases: nothing is under way while a lane moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub id: Uuid,
    /// Never [`State::Leased`] or [`State::Calling`].
    pub state: State,
    pub attempts: u32,
    pub crashes: u32,
    pub maybe_done: bool,
    pub since: Instant,
    pub first_sent: Option<Instant>,
    /// `None` in a state that waits: due since it became pending.
    pub due: Option<Instant>,
    pub at: Option<Instant>,
    pub code: Option<u16>,
    pub detail: String,
    /// Newest first, at most [`TRIED_MAX`].
    pub tried: Vec<Tried>,
    pub contradictions: Vec<Contradiction>,
    /// The record as a JSON object; `None` where it is gone: retention removes what has its outcome.
    pub record: Option<Bytes>,
}

/// What an endpoint said after the outcome stood, and against it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    pub got: Fact,
    pub at: Instant,
    pub code: Option<u16>,
    pub detail: String,
}

impl Carried {
    /// What is not the same in another store's word on this transaction. Not compared: when it came to its state and is due, which a
    /// store may keep only in some states, and how it came there.
    pub fn differs_from(&self, other: &Self) -> Option<&'static str> {
        self.stands_other_than(other).or((!self.has_record_of(other)).then_some("record"))
    }

    fn stands_other_than(&self, other: &Self) -> Option<&'static str> {
        let aside = matches!(self.state, State::Held | State::Dead);
        let pairs = [
            ("state", self.waits() == other.waits()),
            ("attempts", self.attempts == other.attempts),
            ("crashes", self.crashes == other.crashes || self.state.is_outcome()),
            ("maybe_done", self.maybe_done == other.maybe_done || !aside),
            ("since", self.since == other.since),
            ("first_sent", self.first_sent == other.first_sent || self.state.is_outcome()),
            ("code", self.code == other.code || !(aside || self.state.is_outcome())),
            ("contradictions", self.contradictions.len() == other.contradictions.len()),
        ];
        pairs.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
    }

    /// A retry that is due is pending: a beat makes it so even in a lane that is paused, and not every store has beats for that.
    fn waits(&self) -> State {
        if self.state == State::Retry { State::Pending } else { self.state }
    }

    fn has_record_of(&self, other: &Self) -> bool {
        match (&self.record, &other.record) {
            (Some(a), Some(b)) => same_record(a, b),
            (Some(_), None) => self.state.is_outcome(),
            (None, _) => true,
        }
    }

    /// Whether this is what became of `older`, a copy of the same transaction, and not the other way round. Facts beat whatever is open;
    /// else what was tried by then must be part of what was tried by now: every way from one state into another is noted there, but
    /// for calling off, which ends it.
    pub fn continues(&self, older: &Self) -> bool {
        if older.state.is_outcome() {
            return self.state == older.state && self.contradictions.len() > older.contradictions.len();
        }
        if matches!(self.state, State::Confirmed | State::Rejected) {
            return true;
        }
        let same = |a: &Tried, b: &Tried| (a.attempt, a.at, a.state) == (b.attempt, b.at, b.state);
        let Some(last) = older.tried.first() else { return true };
        let cut_off = || self.tried.len() >= TRIED_MAX && self.tried.iter().all(|tried| tried.at > last.at);
        self.tried.iter().any(|tried| same(tried, last)) || cut_off()
    }
}

/// How a lane stands, to whoever wants to move it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub topic: String,
    pub paused: bool,
    /// Leases that are open.
    pub leases: u64,
}

/// Part of a lane, and where the next part begins.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// May be empty although there is more.
    pub rows: Vec<Carried>,
    /// `None`: this was the last. Means something to the store that made it, and only while nobody writes.
    pub next: Option<String>,
}

/// A store whose lanes can be moved elsewhere.
#[async_trait]
pub trait ExportTransactions: Send + Sync {
    async fn standing(&self, lane: LaneId) -> Result<Standing, StoreError>;

    /// A part of the lane, in any order, each transaction once in all parts together.
    async fn page(&self, lane: LaneId, after: Option<&str>, rows_max: usize) -> Result<Page, StoreError>;

    /// Those of the transactions that are in the lane.
    async fn find(&self, lane: LaneId, ids: &[Uuid]) -> Result<Vec<Carried>, StoreError>;
}

/// A store to which lanes can be moved.
#[async_trait]
pub trait ImportTransactions: ExportTransactions {
    /// Writes transactions as they are, each with its record where that is not there, and returns how many of them were not there.
    /// Those that are there already are left as they are: comparing is [`transfer`]'s. Repeating after a failure goes on.
    ///
    /// # Errors
    /// [`StoreError::Asked`] where the lane is not paused or takes nothing in, or a record cannot be one of the lane's topic.
    async fn import(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError>;

    /// Brings transactions that are there to where they have come since in another store ([`Carried::continues`]); returns how many
    /// of them. An outcome that is there stays.
    async fn renew(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError>;
}

/// What moving a lane came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Transactions of the lane.
    pub rows: u64,
    /// Of them, those that were not in the other store before.
    pub copied: u64,
    /// Of them, those that were there as they had been before, and had gone on since: a lane that comes back.
    pub renewed: u64,
    /// Of them, those with an outcome.
    pub outcomes: u64,
    /// What is not the same in both stores, and in what. Empty: all of it arrived.
    pub differences: Vec<(Uuid, &'static str)>,
}

/// Copies a lane into another store's lane of the same topic, then reads both and compares every transaction. The lane that it came
/// from stays as it is, and stays paused; whoever finds no differences goes on in the other one. When that lane comes back one day,
/// what is still here is brought to where it has come meanwhile.
///
/// # Errors
/// [`StoreError::Asked`] where the lanes are not paused, have open leases, or are of different topics. Whatever else went wrong, it
/// can be repeated.
pub async fn transfer(
    from: (&dyn ExportTransactions, LaneId),
    to: (&dyn ImportTransactions, LaneId),
    mut progress: impl FnMut(u64) + Send,
) -> Result<Transferred, StoreError> {
    may_move(from, to).await?;
    let mut done = Transferred::default();
    let mut next: Option<String> = None;
    loop {
        let page = from.0.page(from.1, next.as_deref(), PAGE).await?;
        done.rows += page.rows.len() as u64;
        done.outcomes += page.rows.iter().filter(|row| row.state.is_outcome()).count() as u64;
        let there = by_id(to.0.find(to.1, &ids(&page.rows)).await?);
        let (known, new): (Vec<_>, Vec<_>) = page.rows.into_iter().partition(|row| there.contains_key(&row.id));
        let goes_on = |row: &Carried| {
            let older = &there[&row.id];
            row.continues(older) && row.stands_other_than(older).is_some()
        };
        let further: Vec<_> = known.into_iter().filter(goes_on).collect();
        if !new.is_empty() {
            done.copied += to.0.import(to.1, &new).await?;
        }
        if !further.is_empty() {
            done.renewed += to.0.renew(to.1, &further).await?;
        }
        progress(done.rows);
        match page.next {
            Some(after) => next = Some(after),
            None => break,
        }
    }
    compare(from, to, &mut done.differences).await?;
    // Whoever resumed a lane meanwhile may have changed what was copied.
    may_move(from, to).await?;
    Ok(done)
}

async fn may_move(
    from: (&dyn ExportTransactions, LaneId),
    to: (&dyn ImportTransactions, LaneId),
) -> Result<(), StoreError> {
    let (here, there) = (from.0.standing(from.1).await?, to.0.standing(to.1).await?);
    if here.topic != there.topic {
        // Another topic would mean other idempotency keys.
        return Err(StoreError::Asked(format!(
            "a lane of topic {} cannot become one of {}: the endpoint would know its transactions by other keys",
            here.topic, there.topic
        )));
    }
    for (which, lane) in [("comes from", &here), ("goes to", &there)] {
        if !lane.paused {
            return Err(StoreError::Asked(format!(
                "the lane that it {which} is not paused: caudal confirm pause {}, and stop whoever enqueues",
                lane.topic
            )));
        }
        if lane.leases > 0 {
            return Err(StoreError::Asked(format!(
                "the lane that it {which} has {} open leases: wait until they have ended or lapsed",
                lane.leases
            )));
        }
    }
    Ok(())
}

/// Row for row in both directions: what is here must be there, the same; and what is there must be here.
async fn compare(
    from: (&dyn ExportTransactions, LaneId),
    to: (&dyn ImportTransactions, LaneId),
    differences: &mut Vec<(Uuid, &'static str)>,
) -> Result<(), StoreError> {
    let mut next: Option<String> = None;
    loop {
        let page = from.0.page(from.1, next.as_deref(), PAGE).await?;
        let found = by_id(to.0.find(to.1, &ids(&page.rows)).await?);
        for row in &page.rows {
            let what = found.get(&row.id).map_or(Some("missing there"), |other| row.differs_from(other));
            note(differences, row.id, what);
        }
        match page.next {
            Some(after) => next = Some(after),
            None => break,
        }
    }
    let mut next: Option<String> = None;
    loop {
        let page = to.0.page(to.1, next.as_deref(), PAGE).await?;
        let found = by_id(from.0.find(from.1, &ids(&page.rows)).await?);
        for row in &page.rows {
            note(differences, row.id, (!found.contains_key(&row.id)).then_some("only there"));
        }
        match page.next {
            Some(after) => next = Some(after),
            None => return Ok(()),
        }
    }
}

fn by_id(rows: Vec<Carried>) -> HashMap<Uuid, Carried> {
    rows.into_iter().map(|row| (row.id, row)).collect()
}

fn ids(rows: &[Carried]) -> Vec<Uuid> {
    rows.iter().map(|row| row.id).collect()
}

fn note(differences: &mut Vec<(Uuid, &'static str)>, id: Uuid, what: Option<&'static str>) {
    if let Some(what) = what.filter(|_| differences.len() < LISTED_MAX) {
        differences.push((id, what));
    }
}
