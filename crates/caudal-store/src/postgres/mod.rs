//! PostgreSQL 14 or later, and what speaks its protocol: Aurora, Citus, PgBouncer in front of one.

mod analyst;
mod append;
mod catalogue;
mod changes;
mod citus;
mod closing;
mod confirm;
mod connect;
mod copy;
mod cost;
mod error;
mod existing;
mod function;
mod get;
mod listen;
mod operate;
mod pool;
mod read;
mod relations;
mod retain;
mod sql;
mod tail;
mod tls;
mod views;
mod wire;

use std::sync::{Arc, Mutex};
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
use foldhash::HashMap;
use futures_util::stream::BoxStream;
use uuid::Uuid;

pub use analyst::AnalystConfig;
use analyst::Analysts;
use connect::Connector;
pub use connect::PostgresConfig;
pub use function::{FunctionConfig, FunctionConfirmer};
use get::PointReads;
use pool::Pool;
use tokio::sync::Notify;

/// Connections for short statements.
const ASKERS: usize = 2;

/// A PostgreSQL database. Holds no connection that it does not need; every call reconnects what broke.
#[derive(Debug)]
pub struct PostgresStore {
    connector: Connector,
    writers: Arc<Pool>,
    /// Streams hold these as long as their consumers take.
    readers: Arc<Pool>,
    /// Short statements: accounting, dead letters, tails, pings. Never held by a consumer.
    askers: Arc<Pool>,
    /// Confirmation's: claims and settling do not wait for appends.
    confirmers: Arc<Pool>,
    lanes: confirm::Lanes,
    points: PointReads,
    analysts: Analysts,
    costs: cost::Costs,
    /// Tables in which duplicates were seen lately: how many batches still go the careful way first.
    careful: Mutex<HashMap<String, u32>>,
    /// Told by reads that met a table which is not what its catalogue says.
    changed: Arc<Notify>,
    instance: String,
    pooled: bool,
    statement_timeout: Duration,
    /// Opens an append's transaction. Behind a transaction pool it carries the bounds that startup options set elsewhere.
    begin: String,
}

impl PostgresStore {
    /// Reads the configuration and connects nowhere: a worker can start before its database does.
    pub fn new(config: PostgresConfig) -> Result<Self, StoreError> {
        let connector = Connector::new(&config)?;
        Ok(Self {
            writers: Pool::new(connector.clone(), config.writers, &config),
            readers: Pool::new(Connector::for_streams(&config)?, config.readers, &config),
            askers: Pool::new(connector.clone(), ASKERS, &config),
            confirmers: Pool::new(connector.clone(), config.confirmers, &config),
            lanes: confirm::Lanes::default(),
            points: PointReads::new(connector.clone(), config.idle_max),
            analysts: Analysts::new(&config)?,
            costs: cost::Costs::default(),
            connector,
            careful: Mutex::default(),
            changed: Arc::default(),
            begin: connect::begin(&config),
            instance: config.instance,
            pooled: config.transaction_pooling,
            statement_timeout: config.statement_timeout,
        })
    }

    /// Like [`new`](Self::new), and proves that the database can be reached.
    pub async fn connect(config: PostgresConfig) -> Result<Self, StoreError> {
        let store = Self::new(config)?;
        store.ping().await?;
        Ok(store)
    }
}

#[async_trait]
impl Append for PostgresStore {
    async fn append(&self, batch: Arc<AppendBatch>) -> Result<Appended, StoreError> {
        append::append(self, batch).await
    }

    async fn position(&self, topic: &TopicName, subscription: &str, lane: Uuid) -> Result<Option<u64>, StoreError> {
        self.position_of(topic, subscription, lane).await
    }
}

#[async_trait]
impl Catalogue for PostgresStore {
    async fn migrate(&self) -> Result<Vec<String>, StoreError> {
        catalogue::migrate(self).await
    }

    async fn ensure_table(&self, table: &Table) -> Result<Vec<Column>, StoreError> {
        catalogue::ensure_table(self, table).await
    }

    async fn relations(&self, schemas: &[String]) -> Result<Relations, StoreError> {
        relations::relations(self, schemas).await
    }

    async fn relations_mark(&self, schemas: &[String]) -> Result<String, StoreError> {
        relations::mark(self, schemas).await
    }

    fn relations_changed(&self) -> BoxStream<'static, ()> {
        listen::changes(self.connector.clone(), self.changed.clone(), !self.pooled)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask("select 1", &[], true).await.map(drop)
    }

    async fn describe(&self) -> Result<String, StoreError> {
        let rows = self.ask("select current_setting('server_version')", &[], true).await?;
        let version: Option<&str> = rows.first().and_then(|row| row.try_get(0).ok());
        // Debian appends its package's version.
        let version = version.and_then(|v| v.split_whitespace().next()).unwrap_or("of unknown version");
        Ok(format!("PostgreSQL {version}"))
    }
}

#[async_trait]
impl Read for PostgresStore {
    async fn get(&self, table: &Arc<Table>, id: Uuid) -> Result<Option<RowBatch>, StoreError> {
        self.points.get(table, id).await
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
        tail::tail(self, table, from, limit).await
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
        changes::exclusive(self, name).await
    }
}

#[async_trait]
impl Analyse for PostgresStore {
    async fn analyse(&self, query: SqlQuery) -> Result<SqlAnswer, SqlError> {
        self.analysts.run(query).await
    }

    fn database(&self) -> &str {
        self.connector.database()
    }
}

#[async_trait]
impl Operate for PostgresStore {
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
impl Retain for PostgresStore {
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
