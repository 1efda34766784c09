//! What the engine and HTTP need from a store and a broker, in small traits grouped by who calls them.
//!
//! A store is anything that passes `caudal_testkit::store`'s conformance suite; a broker, `caudal_testkit::broker`'s.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::Serialize;
use uuid::Uuid;

use crate::confirm::LaneId;
use crate::confirm::ports::Confirmations;
use crate::dead_letter::{DeadLetter, KeptDeadLetter};
use crate::error::{BrokerError, StoreError};
use crate::message::{Delivery, Durability, Marks, Message, Position};
use crate::outcome::{RowOutcome, Tally};
use crate::plan::ReadPlan;
use crate::relations::Relations;
use crate::row::{RowBatch, field};
use crate::schema::{Column, Table};
use crate::sql::{SqlAnswer, SqlError, SqlQuery};
use crate::time::Instant;
use crate::topic::TopicName;

/// What to do with a row that conflicts with a stored one or that the database refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBadRow {
    /// Leave it out and say so; the caller answers its producer.
    Report,
    /// Keep it as a dead letter in the same commit, and say so.
    DeadLetter,
    /// Store nothing at all: [`StoreError::Aborted`].
    Abort,
}

/// One transaction's worth of work: rows, dead letters, position, accounting. All of it commits, or none.
#[derive(Debug, Clone)]
pub struct AppendBatch {
    pub table: Arc<Table>,
    pub topic: TopicName,
    /// Rows of the table's [`written`](Table::written) columns.
    pub rows: RowBatch,
    /// What each row was made from, for the dead letter if it must become one ([`AppendBatch::message`]). Same length as
    /// `rows`, or empty when `on_bad_row` is not `DeadLetter`.
    pub bodies: Vec<Body>,
    pub on_bad_row: OnBadRow,
    /// Messages that are known to be bad before the store sees them.
    pub dead: Vec<DeadLetter>,
    /// At most one a lane.
    pub positions: Vec<Position>,
    /// Envelopes rejected back to their producer with nothing kept; only counted.
    pub rejected: u64,
    /// The dead letter that these rows repair: settled in the same commit unless a row is bad.
    pub redrives: Option<Uuid>,
    pub drift: Vec<DriftNote>,
    /// The lanes in which the rows that are stored become pending confirmations.
    pub lanes: Lanes,
}

/// Where the rows of a batch are to be confirmed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Lanes {
    /// Nowhere.
    #[default]
    None,
    All(LaneId),
    /// One a row.
    Each(Vec<LaneId>),
}

impl Lanes {
    /// Where row `index` is to be confirmed.
    pub fn of(&self, index: usize) -> Option<LaneId> {
        match self {
            Self::None => None,
            Self::All(lane) => Some(*lane),
            Self::Each(lanes) => lanes.get(index).copied(),
        }
    }
}

/// A message's bytes, without what its row already holds.
#[derive(Debug, Clone)]
pub struct Body {
    pub body: Bytes,
    pub attributes: Option<Bytes>,
}

impl AppendBatch {
    pub fn new(table: Arc<Table>, topic: TopicName, on_bad_row: OnBadRow) -> Self {
        Self {
            table,
            topic,
            rows: RowBatch::default(),
            bodies: Vec::new(),
            on_bad_row,
            dead: Vec::new(),
            positions: Vec::new(),
            rejected: 0,
            redrives: None,
            drift: Vec::new(),
            lanes: Lanes::None,
        }
    }

    /// The message that row `index` was made from, put together from the row's leading columns and its body.
    pub fn message(&self, index: usize) -> Message {
        let mut fields = self.rows.row(index);
        let mut next = || fields.next().flatten();
        let id = next().map(field::uuid).unwrap_or_default();
        let key = next().map(|key| field::text(key).to_owned());
        let source = next().map(|source| field::text(source).to_owned()).unwrap_or_default();
        let published_at = next().map(field::timestamp).unwrap_or_default();
        let Body { body, attributes } = self.bodies[index].clone();
        Message { id, key, source, published_at, attributes, body }
    }

    /// Envelopes in this batch.
    pub fn accepted(&self) -> u64 {
        self.rows.len() as u64 + self.dead.len() as u64 + self.rejected
    }
}

/// What an append did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// One outcome a row, in order; `None` means that every row was stored.
    pub rows: Option<Vec<RowOutcome>>,
    /// What was added to the topic's durable accounting. Dead letters that were kept before count as duplicates.
    pub tally: Tally,
}

/// A field that a topic's schema does not name, seen in one batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriftNote {
    pub field: String,
    /// JSON type: `string`, `number`, …
    pub json_type: String,
    pub count: u64,
}

/// A drift note as the store has added it up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriftReport {
    #[serde(flatten)]
    pub note: DriftNote,
    #[serde(serialize_with = "as_text")]
    pub first_seen: Instant,
    #[serde(serialize_with = "as_text")]
    pub last_seen: Instant,
}

fn as_text<S: serde::Serializer>(instant: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(instant)
}

/// Writing: called by ingest and consume.
#[async_trait]
pub trait Append: Send + Sync {
    /// Commits the batch in one transaction and says how each row ended. Returns only after the commit is durable.
    ///
    /// Appending the same batch again is safe: its rows are duplicates then. Rows that repeat an `_id` within the batch
    /// count after the first. Shared, because a caller keeps the batch to repeat it and to tell its producers.
    async fn append(&self, batch: Arc<AppendBatch>) -> Result<Appended, StoreError>;

    /// Where a subscription stands in a lane: the offset to read next, or `None` before its first commit there.
    async fn position(&self, topic: &TopicName, subscription: &str, lane: Uuid) -> Result<Option<u64>, StoreError>;
}

/// Tables: called on start and by schema evolution.
#[async_trait]
pub trait Catalogue: Send + Sync {
    /// Brings Caudal's own tables to this release. One runner at a time; resumable after a kill. Returns the names of the
    /// migrations it applied.
    async fn migrate(&self) -> Result<Vec<String>, StoreError>;

    /// Creates the topic's table, or adds the nullable columns it lacks. Never drops, renames or retypes: a column of another
    /// type is [`StoreError::Setup`]. Returns the columns that exist in the table beyond those asked for.
    async fn ensure_table(&self, table: &Table) -> Result<Vec<Column>, StoreError>;

    /// The tables that these schemas have beside Caudal's own, as far as the store's user may read them, and the foreign keys
    /// between them. A schema that is not there is [`StoreError::Setup`].
    async fn relations(&self, schemas: &[String]) -> Result<Relations, StoreError>;

    /// A value that differs when [`relations`](Self::relations) may answer differently, and is much cheaper to ask for.
    async fn relations_mark(&self, schemas: &[String]) -> Result<String, StoreError>;

    /// Yields when somebody asks, through the store, that the relations be read again, or a read met a table that has changed.
    /// Goes on while the store is away; ends where nobody can ask.
    fn relations_changed(&self) -> BoxStream<'static, ()>;

    /// One round trip to prove that the store answers.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Product and version, for `doctor`.
    async fn describe(&self) -> Result<String, StoreError>;
}

/// Reading: called by HTTP.
#[async_trait]
pub trait Read: Send + Sync {
    /// The record with this id, all columns in table order, as a batch of one row.
    async fn get(&self, table: &Arc<Table>, id: Uuid) -> Result<Option<RowBatch>, StoreError>;

    /// The rows of a plan as a stream of batches, in bounded memory however long it is. Dropping the stream ends the read.
    async fn read(&self, plan: ReadPlan) -> Result<BoxStream<'static, Result<RowBatch, StoreError>>, StoreError>;

    /// What the plan will cost, without running it.
    async fn estimate(&self, plan: &ReadPlan) -> Result<Estimate, StoreError>;

    /// How many rows the plan's filters match, limit and offset ignored.
    async fn count(&self, plan: &ReadPlan) -> Result<u64, StoreError>;

    /// Records that were committed after `from` was given out, all columns, at most `limit`, and where to go on. No record
    /// is skipped or repeated, whatever order transactions commit in. `None` starts at the present.
    async fn tail(
        &self,
        table: &Arc<Table>,
        from: Option<TailMark>,
        limit: usize,
    ) -> Result<(RowBatch, TailMark), StoreError>;

    /// All records that were committed after `from` was given out and before this call, all columns, in no order, as a stream in
    /// bounded memory; and where to go on once the stream has ended well. No record is skipped or repeated, whatever order
    /// transactions commit in. `None` is the beginning: every record that there is.
    ///
    /// The mark is meant to be kept, for months if need be. One that this store did not give, or that it cannot go on from, is
    /// [`StoreError::Setup`].
    async fn changes(
        &self,
        table: &Arc<Table>,
        from: Option<&TailMark>,
    ) -> Result<(BoxStream<'static, Result<RowBatch, StoreError>>, TailMark), StoreError>;

    /// Random bytes that the store has kept since it was migrated: the same for everybody who shares it, and for nobody else.
    async fn secret(&self) -> Result<Vec<u8>, StoreError>;

    /// Keeps `name` for this holder among all processes that share the store, until the guard is dropped or the process ends;
    /// `None` while somebody else has it. A guard can be lost without notice (a broken connection): what it guards must stay
    /// right then, if at the price of doing work twice.
    async fn exclusive(&self, name: &str) -> Result<Option<Exclusive>, StoreError>;
}

/// See [`Read::exclusive`].
pub type Exclusive = Box<dyn std::any::Any + Send + Sync>;

/// SQL that others wrote: called by HTTP for analysts.
#[async_trait]
pub trait Analyse: Send + Sync {
    /// Runs one statement that reads and nothing else, within the store's own bounds on time and on the size of a row. What a
    /// statement does to its session or to the database, if it finds a way, does not outlive it.
    async fn analyse(&self, query: SqlQuery) -> Result<SqlAnswer, SqlError>;

    /// The name of the database.
    fn database(&self) -> &str;
}

/// What a store expects of a read.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// PostgreSQL: the planner's cost. SQLite: the rows that are looked at.
    pub cost: f64,
    /// How many rows the answer has, as the planner guesses; `None` where nobody guesses.
    pub rows: Option<u64>,
    /// The statement that makes an index for this read, in the store's SQL, when one could help.
    pub index: Option<String>,
}

/// A place in a table's order of commits; opaque outside the store that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailMark(pub String);

/// Dead letters and accounting: called by whoever operates Caudal.
#[async_trait]
pub trait Operate: Send + Sync {
    async fn dead_letter(&self, id: Uuid) -> Result<Option<KeptDeadLetter>, StoreError>;

    /// The dead letters that stand for a transaction, newest first, at most ten.
    async fn dead_letters_of(&self, transaction_id: Uuid) -> Result<Vec<KeptDeadLetter>, StoreError>;

    /// Replaces the payload of a dead letter that is still dead; `false` when there is none.
    async fn repair(&self, id: Uuid, payload: Bytes) -> Result<bool, StoreError>;

    /// Notes a redrive that failed again: one more attempt, and why.
    async fn redrive_failed(&self, id: Uuid, reason: &str, detail: &str, pointer: &str) -> Result<(), StoreError>;

    /// The durable tally of a topic, all writers together.
    async fn tally(&self, topic: &TopicName) -> Result<Tally, StoreError>;

    async fn drift(&self, topic: &TopicName) -> Result<Vec<DriftReport>, StoreError>;
}

/// Retention: called by the sweep. Records of tables that [`expire`](Table::expires) leave, and their keys stay behind.
#[async_trait]
pub trait Retain: Send + Sync {
    /// Removes records that were stored before `before`, the oldest first as far as the store knows, at most `rows_max`, in one
    /// short transaction; returns how many. Their keys deduplicate from then on as the records did: an append of one is a
    /// duplicate, whatever its content, which is not there to compare.
    async fn expire(
        &self,
        table: &Arc<Table>,
        topic: &TopicName,
        before: Instant,
        rows_max: usize,
    ) -> Result<u64, StoreError>;

    /// Forgets keys of records that were removed before `before`, at most `keys_max`; returns how many.
    async fn forget(&self, topic: &TopicName, before: Instant, keys_max: usize) -> Result<u64, StoreError>;

    /// How many records of a topic were ever removed.
    async fn expired(&self, topic: &TopicName) -> Result<u64, StoreError>;

    /// When this record was removed; `None` when it was not, or its key is forgotten.
    async fn expired_at(&self, topic: &TopicName, id: Uuid) -> Result<Option<Instant>, StoreError>;
}

/// Everything a store does.
pub trait Store: Append + Catalogue + Read + Analyse + Operate + Retain + Confirmations {}

impl<T: Append + Catalogue + Read + Analyse + Operate + Retain + Confirmations> Store for T {}

/// Publishing to a broker.
#[async_trait]
pub trait Publish: Send + Sync {
    /// Returns only when every message is durable in the broker, by the broker's own strongest word.
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError>;
}

/// A broker that Caudal can subscribe to.
#[async_trait]
pub trait Broker: Publish {
    /// Opens a subscription, making it and the topic if the broker lets us. A broker that numbers its messages goes on where
    /// `positions` says, or at the topic's start; any other goes on with what is not settled.
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError>;

    /// A topic's numbers as one subscription sees them, for accounting and receipts.
    async fn topic_state(&self, topic: &TopicName, subscription: &str) -> Result<TopicState, BrokerError>;

    /// Whether [`find`](Self::find) looks at all: most brokers cannot be searched.
    fn searchable(&self) -> bool {
        false
    }

    /// Looks for a message that is not settled yet: at or after `positions`. Slow: reads the backlog.
    async fn find(
        &self,
        topic: &TopicName,
        positions: &dyn Positions,
        id: Uuid,
    ) -> Result<Option<Message>, BrokerError>;

    /// Asks the broker who it is and what its confirmation of a publish is worth.
    async fn probe(&self, topics: &[TopicName]) -> Result<Probe, BrokerError>;

    /// Finishes what is under way and releases the broker's files or connections. Publishing and receiving fail afterwards.
    async fn close(&self) -> Result<(), BrokerError>;
}

/// Where the store says that a subscription stands.
#[async_trait]
pub trait Positions: Send + Sync {
    /// The offset to read next in a lane; `None` before the first commit there.
    async fn position(&self, lane: Uuid) -> Result<Option<u64>, StoreError>;
}

/// What a broker said about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Product and version.
    pub product: String,
    pub durability: Durability,
    /// Why it is that class, setting by setting, one sentence each; and what would make it better.
    pub reasons: Vec<String>,
}

/// A broker's view of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicState {
    /// For brokers that number their messages: each lane.
    pub lanes: Vec<LaneState>,
    /// For brokers that remember what is settled: how many messages wait or are out for delivery, as far as it tells.
    pub waiting: Option<u64>,
    /// Bytes that the broker keeps, as far as it tells.
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneState {
    /// Names the lane for good: another life of the topic has other lanes.
    pub lane: Uuid,
    /// The oldest offset still kept.
    pub first: u64,
    /// The offset that the next message gets.
    pub next: u64,
}

/// One group's durable interest in a topic. Used by one task at a time. Dropping it gives back, soon, what is not settled.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for at least one message and returns what is there, in order, within both bounds (the first message is returned
    /// whatever its size). Cancel-safe. While deliveries are not settled the adapter keeps them from being handed to others
    /// for as long as the broker allows.
    async fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError>;

    /// Settles deliveries for good. Called after the store's commit. Settling again what is settled changes nothing.
    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError>;

    /// Gives deliveries back; they come again, not before `after` as far as the broker can wait. A broker whose positions the
    /// store holds goes back to the first of them.
    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError>;
}
