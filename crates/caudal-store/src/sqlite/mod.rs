//! SQLite in one file beside the process: one thread writes, several read.

mod analyst;
mod append;
mod catalogue;
mod changes;
mod confirm;
mod cost;
mod error;
mod functions;
mod numbers;
mod operate;
mod read;
mod readers;
mod relations;
mod retain;
mod sql;
mod values;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::dead_letter::KeptDeadLetter;
use caudal_core::error::StoreError;
use caudal_core::outcome::Tally;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::{
    Analyse, Append, AppendBatch, Appended, Catalogue, DriftReport, Estimate, Exclusive, Operate, Read, Retain,
    TailMark,
};
use caudal_core::relations::Relations;
use caudal_core::row::RowBatch;
use caudal_core::schema::{Column, Table};
use caudal_core::sql::{SqlAnswer, SqlError, SqlQuery};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rusqlite::Connection;
use uuid::Uuid;

pub use analyst::AnalystConfig;
use analyst::Analysts;
use confirm::Told;
use error::store_error;
use readers::Readers;
use writer::Writer;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Threads for single records; streams have others, so that slow readers cannot keep these waiting.
const POINT_READERS: usize = 2;

/// Where the database is and how it is used.
#[derive(Debug, Clone)]
pub struct SqliteConfig {
    /// The database file; made when it is not there.
    pub path: PathBuf,
    /// Streams that are read at the same time.
    pub readers: usize,
    /// Time bound of one step of a read.
    pub statement_timeout: Duration,
    /// Names this process in the ledger.
    pub instance: String,
    pub analysts: AnalystConfig,
}

impl SqliteConfig {
    pub fn new(path: impl Into<PathBuf>, instance: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            readers: 4,
            statement_timeout: Duration::from_secs(30),
            instance: instance.into(),
            analysts: AnalystConfig::default(),
        }
    }
}

/// An SQLite database.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    writer: Writer,
    points: Readers,
    streams: Readers,
    analysts: Analysts,
    told: Arc<Told>,
}

impl SqliteStore {
    /// Opens or makes the file and proves that it can be written.
    pub fn open(config: SqliteConfig) -> Result<Self, StoreError> {
        let conn = open_for_writing(&config.path).map_err(store_error)?;
        let points = Readers::start(&config.path, POINT_READERS, config.statement_timeout)?;
        let streams = Readers::start(&config.path, config.readers, config.statement_timeout)?;
        let analysts = Analysts::new(&config.path, &config.analysts);
        let writer = Writer::start(conn, config.instance)?;
        Ok(Self { path: config.path, writer, points, streams, analysts, told: Arc::default() })
    }
}

/// Large pages: rows of a kilobyte would overflow small ones. `synchronous = full`: a commit is on the disk when it returns.
fn open_for_writing(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.execute_batch(
        "pragma page_size = 16384;
         pragma journal_mode = wal;
         pragma synchronous = full;
         pragma foreign_keys = on;",
    )?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}

#[async_trait]
impl Append for SqliteStore {
    async fn append(&self, batch: Arc<AppendBatch>) -> Result<Appended, StoreError> {
        self.writer.share(batch.rows.len(), move |commit| append::append(commit, &batch)).await
    }

    async fn position(&self, topic: &TopicName, subscription: &str, lane: Uuid) -> Result<Option<u64>, StoreError> {
        self.position_of(topic, subscription, lane).await
    }
}

#[async_trait]
impl Catalogue for SqliteStore {
    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        self.writer.run(catalogue::migrate).await
    }

    async fn ensure_table(&self, table: &Table) -> Result<Vec<Column>, StoreError> {
        let table = table.clone();
        self.writer.run(move |conn| catalogue::ensure_table(conn, &table)).await
    }

    async fn relations(&self, schemas: &[String]) -> Result<Relations, StoreError> {
        let schemas = schemas.to_vec();
        self.points.ask(move |reader| relations::relations(&reader.conn, &schemas)).await
    }

    async fn relations_mark(&self, _: &[String]) -> Result<String, StoreError> {
        self.points.ask(|reader| relations::mark(&reader.conn)).await
    }

    /// SQLite tells nobody: a poll finds out.
    fn relations_changed(&self) -> BoxStream<'static, ()> {
        futures_util::stream::empty().boxed()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let work = |reader: &readers::Reader| reader.conn.query_row("select 1", [], |_| Ok(())).map_err(store_error);
        self.points.ask(work).await
    }

    async fn describe(&self) -> Result<String, StoreError> {
        Ok(format!("SQLite {}", rusqlite::version()))
    }
}

#[async_trait]
impl Read for SqliteStore {
    async fn get(&self, table: &Arc<Table>, id: Uuid) -> Result<Option<RowBatch>, StoreError> {
        read::get(self, table, id).await
    }

    async fn read(&self, plan: ReadPlan) -> Result<BoxStream<'static, Result<RowBatch, StoreError>>, StoreError> {
        read::read(self, plan).await
    }

    async fn estimate(&self, plan: &ReadPlan) -> Result<Estimate, StoreError> {
        cost::estimate(self, plan).await
    }

    async fn count(&self, plan: &ReadPlan) -> Result<u64, StoreError> {
        read::count(self, plan).await
    }

    async fn tail(
        &self,
        table: &Arc<Table>,
        from: Option<TailMark>,
        limit: usize,
    ) -> Result<(RowBatch, TailMark), StoreError> {
        read::tail(self, table, from, limit).await
    }

    async fn changes(
        &self,
        table: &Arc<Table>,
        from: Option<&TailMark>,
    ) -> Result<(BoxStream<'static, Result<RowBatch, StoreError>>, TailMark), StoreError> {
        changes::changes(self, table, from).await
    }

    async fn secret(&self) -> Result<Vec<u8>, StoreError> {
        self.kept_secret().await
    }

    async fn exclusive(&self, name: &str) -> Result<Option<Exclusive>, StoreError> {
        changes::exclusive(&self.path, name)
    }
}

#[async_trait]
impl Analyse for SqliteStore {
    async fn analyse(&self, query: SqlQuery) -> Result<SqlAnswer, SqlError> {
        self.analysts.run(query).await
    }

    fn database(&self) -> &str {
        self.analysts.database()
    }
}

#[async_trait]
impl Operate for SqliteStore {
    async fn dead_letter(&self, id: Uuid) -> Result<Option<KeptDeadLetter>, StoreError> {
        self.dead_letter_by(id).await
    }

    async fn dead_letters_of(&self, transaction_id: Uuid) -> Result<Vec<KeptDeadLetter>, StoreError> {
        self.dead_letters_for(transaction_id).await
    }

    async fn repair(&self, id: Uuid, payload: Bytes) -> Result<bool, StoreError> {
        self.repair_payload(id, payload).await
    }

    async fn redrive_failed(&self, id: Uuid, reason: &str, detail: &str, pointer: &str) -> Result<(), StoreError> {
        self.note_failed_redrive(id, reason, detail, pointer).await
    }

    async fn tally(&self, topic: &TopicName) -> Result<Tally, StoreError> {
        self.tally_of(topic).await
    }

    async fn drift(&self, topic: &TopicName) -> Result<Vec<DriftReport>, StoreError> {
        self.drift_of(topic).await
    }
}

#[async_trait]
impl Retain for SqliteStore {
    async fn expire(
        &self,
        table: &Arc<Table>,
        topic: &TopicName,
        before: Instant,
        rows_max: usize,
    ) -> Result<u64, StoreError> {
        self.expire_rows(table, topic, before, rows_max).await
    }

    async fn forget(&self, topic: &TopicName, before: Instant, keys_max: usize) -> Result<u64, StoreError> {
        self.forget_keys(topic, before, keys_max).await
    }

    async fn expired(&self, topic: &TopicName) -> Result<u64, StoreError> {
        self.expired_of(topic).await
    }

    async fn expired_at(&self, topic: &TopicName, id: Uuid) -> Result<Option<Instant>, StoreError> {
        self.expired_when(topic, id).await
    }
}
