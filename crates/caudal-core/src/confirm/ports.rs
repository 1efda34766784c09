//! What the confirmation engine needs: a store that keeps where each transaction stands, and a confirmer that asks the endpoint.
//!
//! The conformance suite is `caudal_testkit::confirm`; a store is anything that passes it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::Serialize;
use uuid::Uuid;

use super::answer::Answer;
use super::transfer::ImportTransactions;
use super::{Fact, Item, LaneId, Mark, Rank, State};
use crate::error::StoreError;
use crate::schema::Table;
use crate::time::Instant;
use crate::topic::TopicName;

/// A lane as configured.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    pub topic: TopicName,
    /// `default` where the topic has one lane only.
    pub name: String,
    /// Where its transactions' records are.
    pub records: Records,
}

/// Where the records of a lane's transactions come from.
#[derive(Debug, Clone)]
pub enum Records {
    /// The topic's own table; `_id` is the transaction.
    Topic(Arc<Table>),
    /// A table that somebody else writes.
    Adopted(Arc<Adopt>),
}

/// A table of pending transactions that Caudal did not make and whose owner's writes do not change. Rows that are pending are
/// found by looking; when one is settled, the same database transaction writes its state back.
#[derive(Debug, Clone)]
pub struct Adopt {
    pub table: Arc<Table>,
    /// The column that names a row: unique, not null.
    pub key: String,
    /// The column that says where a row stands, text.
    pub state: String,
    /// Its value in rows to be confirmed. Rows that have another value are left alone, also when they are settled.
    pub pending: String,
    /// What it becomes; `None` leaves it.
    pub confirmed: Option<String>,
    pub rejected: Option<String>,
}

/// A batch of items under one lease.
#[derive(Debug, Clone)]
pub struct Batch {
    pub lease: Lease,
    pub items: Vec<Item>,
    /// Where the next claim of the same lane and rank may begin: everything before is taken, as far as this store's
    /// transactions had committed. See [`Claim::from`].
    pub watermark: i64,
}

/// A timed claim on a batch. Whoever has it may settle; once it has lapsed another may have the items, and only facts are still
/// taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    pub lane: LaneId,
    /// Never used twice: the fence.
    pub number: i64,
    pub worker: Arc<str>,
}

/// What a worker asks for.
#[derive(Debug, Clone)]
pub struct Claim {
    pub lane: LaneId,
    pub rank: Rank,
    /// Positions up to here are not looked at. Transactions do not commit in the order of their positions: what was passed over
    /// must be asked for again, and [`Beaten::ready`] says where.
    pub from: i64,
    /// Nor need those behind this one be: a store that keeps what was taken in its way, as PostgreSQL does while an old snapshot is
    /// open somewhere, must not walk past more of it than was asked for.
    pub to: i64,
    pub items_max: usize,
    pub ttl: Duration,
    pub worker: Arc<str>,
}

/// Marks for one lease.
#[derive(Debug, Clone)]
pub struct Finish {
    pub lease: Lease,
    pub marks: Vec<Marked>,
    /// Every item of the lease has been marked: it ends.
    pub ends: bool,
}

/// A mark, and the item it is for.
#[derive(Debug, Clone)]
pub struct Marked {
    pub item: Item,
    pub mark: Mark,
}

/// What settling did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Facts written down for the first time.
    pub facts: u64,
    /// Facts that were there already and say the same.
    pub repeats: u64,
    /// Facts that say something else than the one that stands. Kept, and alarming: the endpoint contradicts itself.
    pub contradictions: u64,
    /// Marks that moved an item under a live lease: retry, doubt, held, dead, release.
    pub moved: u64,
    /// Marks that were not taken because their lease had lapsed.
    pub fenced: u64,
}

/// A worker's sign of life, and the store's housekeeping that comes with it.
#[derive(Debug, Clone)]
pub struct Beat {
    pub worker: Arc<str>,
    /// How long the worker counts as alive without another beat.
    pub ttl: Duration,
    pub lanes: Vec<LaneId>,
    /// Due items made pending by one beat at most.
    pub promote_max: usize,
    /// Looks at everything, whatever it costs: what was committed before this beat and is not in [`Beaten::ready`] is not there.
    /// Otherwise what committed late may be left for a later beat.
    pub thorough: bool,
}

/// Something can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    pub lane: LaneId,
    pub rank: Rank,
    /// Some of it was passed over by this process's claims before the beat began: it is behind this position. See
    /// [`Claim::from`].
    pub missed: Option<i64>,
}

/// What a beat found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beaten {
    /// Workers that are alive, this one included; budgets of a target are shared by so many.
    pub workers: u32,
    /// Leases that had lapsed: their items are pending again, or in doubt when they were being called.
    pub lapsed: u64,
    /// Items made pending because they were due.
    pub promoted: u64,
    /// Where something can be claimed. A lane that is paused is not among them.
    pub ready: Vec<Ready>,
    pub paused: Vec<LaneId>,
    /// Until the next item is due; `None`: none waits.
    pub next_due: Option<Duration>,
}

impl Beaten {
    /// Lanes and ranks in which something can be claimed.
    pub fn places(&self) -> Vec<(LaneId, Rank)> {
        self.ready.iter().map(|ready| (ready.lane, ready.rank)).collect()
    }
}

/// Claiming and settling: called by the confirmation engine.
///
/// All times are the store's own clock's. Every method is one transaction, durable when it returns.
#[async_trait]
pub trait Confirm: Send + Sync {
    /// Makes the lanes known and returns their numbers, in order. A topic's records are made pending in their own transaction from
    /// then on ([`AppendBatch::lanes`](crate::ports::AppendBatch::lanes)).
    async fn ensure_lanes(&self, lanes: &[LaneSpec]) -> Result<Vec<LaneId>, StoreError>;

    /// Takes pending items, the oldest first, under a new lease. `None`: nothing is to be had between [`Claim::from`] and
    /// [`Claim::to`], or the lane is paused. Nobody else gets the same items while the lease lives. Items that have an outcome already are dropped.
    async fn claim(&self, claim: &Claim) -> Result<Option<Batch>, StoreError>;

    /// Notes, durably, that calls begin: from here on the lease's items are in doubt if it lapses. `false`: it has lapsed, and
    /// nobody may be called.
    async fn begin_calls(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError>;

    /// Prolongs leases; returns for each whether it still lives.
    async fn extend(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError>;

    /// Writes down what became of items, all of it or nothing. Facts are taken from anybody; the first one for a transaction
    /// stands. Everything else needs the live lease. Settling the same marks again changes nothing.
    async fn settle(&self, finishes: &[Finish]) -> Result<Settled, StoreError>;

    /// Counts the worker in, ends what has lapsed, and makes pending what is due.
    async fn beat(&self, beat: &Beat) -> Result<Beaten, StoreError>;

    /// Counts the worker out. Its leases stay until they lapse.
    async fn leave(&self, worker: &str) -> Result<(), StoreError>;

    /// Looks for rows to adopt in a lane of [`Records::Adopted`], at most `rows_max`; returns how many were new.
    async fn adopt(&self, lane: LaneId, rows_max: usize) -> Result<u64, StoreError>;

    /// Tells other processes, cheaply and outside all transactions, that something was made pending. Best effort.
    async fn wake(&self) -> Result<(), StoreError>;

    /// Yields when another process has called [`wake`](Self::wake). Best effort: polling must do without. Ends where nobody can be
    /// told.
    fn woken(&self) -> BoxStream<'static, ()>;
}

/// Looking at confirmations and acting on them: called by whoever operates Caudal.
#[async_trait]
pub trait OperateConfirmations: Send + Sync {
    /// Every lane with its numbers.
    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError>;

    /// Where one transaction stands, with its attempts that failed.
    async fn confirmation(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError>;

    /// Stops claims of a topic's lane, or of all its lanes; calls under way end as they do. Returns how many lanes changed.
    async fn pause(&self, topic: &TopicName, lane: Option<&str>, reason: &str) -> Result<u64, StoreError>;

    async fn resume(&self, topic: &TopicName, lane: Option<&str>) -> Result<u64, StoreError>;

    /// Calls a transaction off, if nothing can have been done for it.
    async fn void(&self, id: Uuid, reason: &str) -> Result<Acted, StoreError>;

    /// Makes a dead or held transaction pending again, attempts at nought, under the same key. One that may have been done comes back
    /// in doubt, so that it is asked for before it is sent; where that cannot be it is refused by the engine's rules later, and held
    /// again.
    async fn redrive(&self, id: Uuid) -> Result<Acted, StoreError>;

    /// Records what a person found out about a transaction that has no outcome.
    async fn resolve(&self, id: Uuid, fact: Fact, reason: &str) -> Result<Acted, StoreError>;

    /// What became pending in each hour, in their order, from so many hours before the one that is running on, and that included; hours
    /// without any are left out. Slow: looks at everything.
    async fn arrivals(&self, hours: u32) -> Result<Vec<Arrivals>, StoreError>;

    /// Checks that every transaction has one outcome or is open in one place, and lists what does not fit, at most a hundred a
    /// kind. Slow: looks at everything.
    async fn verify(&self) -> Result<Vec<LaneAudit>, StoreError>;
}

/// Everything that is asked of where confirmations are kept.
pub trait Confirmations: Confirm + OperateConfirmations + ImportTransactions {}

impl<T: Confirm + OperateConfirmations + ImportTransactions> Confirmations for T {}

/// One hour's transactions, as they stand now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrivals {
    /// Its beginning, UTC.
    pub hour: Instant,
    /// That became pending in it.
    pub transactions: u64,
    /// Of those, the ones that the endpoint has confirmed or rejected, and the calls and probes which that took.
    pub settled: u64,
    pub calls: u64,
}

/// What came of an operator's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acted {
    Done,
    /// No such transaction.
    Unknown,
    /// Not in its state; the text says why and what to do.
    Refused(String),
}

/// A lane's numbers, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    pub topic: String,
    pub lane: String,
    /// Why it is paused, while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Transactions that ever became pending.
    pub enqueued: u64,
    pub pending: u64,
    pub leased: u64,
    pub calling: u64,
    pub retry: u64,
    pub doubt: u64,
    pub held: u64,
    pub dead: u64,
    pub confirmed: u64,
    pub rejected: u64,
    pub void: u64,
    /// Outcomes that another answer contradicted.
    pub contradictions: u64,
    /// Age of the oldest transaction that waits to be called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_pending_seconds: Option<u64>,
}

/// One transaction, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmation {
    pub id: Uuid,
    pub topic: String,
    pub lane: String,
    pub state: State,
    pub attempts: u32,
    pub crashes: u32,
    /// In [`State::Held`] and [`State::Dead`]: it may have been done.
    pub maybe_done: bool,
    pub since: Instant,
    pub first_sent: Option<Instant>,
    /// When it is due again, in [`State::Retry`] and [`State::Doubt`].
    pub due: Option<Instant>,
    /// When it came to its state, where that is kept.
    pub at: Option<Instant>,
    pub code: Option<u16>,
    pub detail: String,
    /// What did not lead to a fact, newest first, at most fifty.
    pub history: Vec<Tried>,
}

/// One call, probe or operator's act that is not the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    pub attempt: u32,
    #[serde(serialize_with = "as_text")]
    pub at: Instant,
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    pub detail: String,
}

fn as_text<S: serde::Serializer>(instant: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(instant)
}

/// What an audit of one lane found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LaneAudit {
    pub topic: String,
    pub lane: String,
    /// Transactions that ever became pending, by the count kept beside them.
    pub enqueued: u64,
    pub outcomes: u64,
    pub open: u64,
    /// Records of the topic that are pending nowhere and have no outcome.
    pub lost: Vec<Uuid>,
    /// Transactions that stand in two places at once.
    pub twice: Vec<Uuid>,
    /// Outcomes of transactions that have no record.
    pub stray: Vec<Uuid>,
    /// Outcomes that another answer contradicted.
    pub contradicted: Vec<Uuid>,
}

impl LaneAudit {
    /// Whether everything is accounted for. Contradictions are the endpoint's doing, and do not count here.
    pub fn is_sound(&self) -> bool {
        let complete = self.enqueued == self.outcomes + self.open;
        complete && self.lost.is_empty() && self.twice.is_empty() && self.stray.is_empty()
    }
}

/// One call to an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub topic: &'a TopicName,
    pub item: &'a Item,
    /// The idempotency key.
    pub key: Uuid,
    /// 1 is the first.
    pub attempt: u32,
}

/// Asks an endpoint to confirm one transaction. Never fails: what went wrong is an answer, too.
#[async_trait]
pub trait Confirmer: Send + Sync {
    /// Asks it to do it. Ends within the confirmer's own time limit. When the future is dropped something may have been sent.
    async fn call(&self, call: Call<'_>) -> Answer;

    /// Asks whether it was done, without doing it. Called only where [`Repeat::probe`](super::policy::Repeat::probe) says that this
    /// is possible.
    async fn probe(&self, call: Call<'_>) -> Answer;

    /// What is called, for people and metrics: a host, a program, a function. No secrets.
    fn target(&self) -> &str;
}
