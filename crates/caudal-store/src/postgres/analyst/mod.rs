//! SQL that analysts wrote, run where it can only read (`docs/adr/0017-sql-for-analysts.md`).
//!
//! A connection of its own for each statement, thrown away afterwards; a read-only transaction under the analysts' role, always
//! rolled back; one statement, by the extended protocol; no function that does more than compute.

mod fault;
mod shape;
mod words;

use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::row::RowBatch;
use caudal_core::schema::ColumnType;
use caudal_core::sql::{SqlAnswer, SqlError, SqlFault, SqlQuery};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{RowStream, Statement};

use super::connect::{Conn, Connector, PostgresConfig};
use super::error::store_error;
use super::sql::quoted;
use super::wire::column_bytes;
use fault::{fault, row_error};
use shape::Shape;

/// A batch goes out when it has this many bytes.
const BATCH_BYTES: usize = 128 * 1024;

/// What a statement may put aside on the server's disk where its database sets no limit. Only a superuser can set one for a
/// session; `docs/sql.md` says how to set it for a user.
const TEMP_FILE_KIB_MAX: u32 = 4 * 1024 * 1024;

/// Who runs analysts' statements, and within what bounds.
#[derive(Debug, Clone)]
pub struct AnalystConfig {
    /// The role that statements run as; the connection's own user when there is none. The user must be a member of it.
    pub role: Option<String>,
    /// Refuse to run as a superuser, who could read every password hash and file.
    pub refuse_superuser: bool,
    /// Statements at the same time.
    pub connections: usize,
    /// From the first byte to the last, however slowly the reader takes them.
    pub statement_timeout: Duration,
}

impl Default for AnalystConfig {
    fn default() -> Self {
        Self { role: None, refuse_superuser: true, connections: 4, statement_timeout: Duration::from_secs(60) }
    }
}

#[derive(Debug)]
pub(super) struct Analysts {
    connector: Connector,
    config: AnalystConfig,
    permits: Arc<Semaphore>,
}

impl Analysts {
    pub(super) fn new(from: &PostgresConfig) -> Result<Self, StoreError> {
        let config = from.analysts.clone();
        let permits = Arc::new(Semaphore::new(config.connections.max(1)));
        Ok(Self { connector: Connector::for_streams(from)?, config, permits })
    }

    pub(super) async fn run(&self, query: SqlQuery) -> Result<SqlAnswer, SqlError> {
        let deadline = Instant::now() + self.config.statement_timeout;
        let busy = |_| StoreError::unavailable("as many statements of analysts run as may");
        let permit = timeout_at(deadline, self.permits.clone().acquire_owned()).await.map_err(busy)?;
        let permit = permit.map_err(StoreError::fatal)?;
        let conn = timeout_at(deadline, self.connector.connect()).await.map_err(|_| StoreError::Timeout)??;
        let mut session = Session { conn: Some(conn), rows: None, deadline, json: Vec::new(), _permit: permit };
        match session.begin(&self.config, &query).await {
            Ok((columns, first)) => Ok(SqlAnswer { columns, rows: rows(session, first).boxed() }),
            Err(error) => {
                // What the server refused does not run any more; anything else is stopped by dropping it.
                if matches!(error, SqlError::Refused(_)) {
                    session.end().await;
                }
                Err(error)
            }
        }
    }
}

/// Batches until the result ends. What fails now fails in the middle of an answer.
fn rows(
    session: Session,
    first: (RowBatch, bool),
) -> impl futures_util::Stream<Item = Result<RowBatch, StoreError>> + Send {
    let ready = (!first.0.is_empty()).then_some(Ok(first.0));
    let session = first.1.then_some(session);
    let rest = futures_util::stream::try_unfold(session, |session| async move {
        let Some(mut session) = session else { return Ok(None) };
        match session.next_batch().await.map_err(Failed::into_store_error)? {
            (batch, true) => Ok(Some((batch, Some(session)))),
            (batch, false) => Ok((!batch.is_empty()).then_some((batch, None))),
        }
    });
    futures_util::stream::iter(ready).chain(rest)
}

/// Why the rows of a statement stopped coming.
enum Failed {
    Late,
    Server(tokio_postgres::Error),
    Fault(SqlFault),
}

impl Failed {
    fn into_sql_error(self, config: &AnalystConfig) -> SqlError {
        match self {
            Self::Late => StoreError::Timeout.into(),
            Self::Server(error) => fault(error, 0, config),
            Self::Fault(fault) => fault.into(),
        }
    }

    fn into_store_error(self) -> StoreError {
        match self {
            Self::Late => StoreError::Timeout,
            Self::Server(error) => store_error(error),
            Self::Fault(fault) => StoreError::Setup(fault.message),
        }
    }
}

type Columns = Vec<(String, ColumnType)>;

/// One statement under way on its own connection. Dropping it stops the statement on the server and closes the connection.
struct Session {
    conn: Option<Conn>,
    rows: Option<std::pin::Pin<Box<RowStream>>>,
    deadline: Instant,
    json: Vec<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Session {
    /// The columns, and the first rows with whether there may be more: a statement that fails at once is an error with all
    /// that the server says.
    async fn begin(
        &mut self,
        config: &AnalystConfig,
        query: &SqlQuery,
    ) -> Result<(Columns, (RowBatch, bool)), SqlError> {
        let columns = timeout_at(self.deadline, self.start(config, query)).await.map_err(|_| StoreError::Timeout)??;
        let first = self.next_batch().await.map_err(|error| error.into_sql_error(config))?;
        Ok((columns, first))
    }

    async fn start(&mut self, config: &AnalystConfig, query: &SqlQuery) -> Result<Columns, SqlError> {
        let Some(conn) = &self.conn else { return Err(StoreError::fatal("a connection vanished").into()) };
        let client = &conn.client;
        client.batch_execute(&opening(config)).await.map_err(|error| fault::of_opening(error, config))?;
        allowed(conn, config, &query.text).await?;
        let text = query.text.trim_end().trim_end_matches(';');
        let asked = client.prepare(text).await.map_err(|error| fault(error, 0, config))?;
        let described = describe(&asked)?;
        let shape = Shape::of(text, &described, query.limit);
        let wrapped = client.prepare(&shape.sql).await;
        let wrapped = wrapped.map_err(|error| fault::of_wrapped(error, shape.before, config))?;
        let rows = client.query_raw(&wrapped, std::iter::empty::<i32>()).await;
        self.rows = Some(Box::pin(rows.map_err(|error| fault::of_wrapped(error, shape.before, config))?));
        self.json = shape.json;
        Ok(shape.columns)
    }

    /// Rows until the batch is full or the result ends; `false` at its end.
    async fn next_batch(&mut self) -> Result<(RowBatch, bool), Failed> {
        let mut batch = RowBatch::default();
        let Some(rows) = &mut self.rows else { return Ok((batch, false)) };
        loop {
            let next = timeout_at(self.deadline, rows.try_next()).await;
            match next.map_err(|_| Failed::Late)?.map_err(Failed::Server)? {
                Some(row) => push(&mut batch, &row, &self.json)?,
                None => {
                    self.end().await;
                    return Ok((batch, false));
                }
            }
            if batch.byte_len() >= BATCH_BYTES {
                return Ok((batch, true));
            }
        }
    }

    /// The server would log a connection that closes inside a transaction.
    async fn end(&mut self) {
        self.rows = None;
        if let Some(conn) = self.conn.take() {
            let _ = timeout_at(self.deadline, conn.client.batch_execute("rollback")).await;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
        let Some(cancel) = self.conn.take().and_then(|conn| conn.cancel()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let (token, tls) = cancel;
                let _ = tokio::time::timeout(CANCEL_PATIENCE, token.cancel_query(tls)).await;
            });
        }
    }
}

/// Bounds of the server's own beside ours: they hold while nobody on our side looks.
fn opening(config: &AnalystConfig) -> String {
    let bound = config.statement_timeout.as_millis().max(1);
    let role = config.role.as_deref().map(|role| format!("; set local role {}", quoted(role))).unwrap_or_default();
    format!(
        "begin read only; set local statement_timeout = {bound}; set local lock_timeout = {bound}; \
         set local idle_in_transaction_session_timeout = {bound}; set local timezone = 'UTC'; \
         set local datestyle = 'ISO'; set local standard_conforming_strings = on; set local bytea_output = 'hex'; \
         select set_config('temp_file_limit', '{TEMP_FILE_KIB_MAX}', true) \
         where current_setting('is_superuser') = 'on' and current_setting('temp_file_limit') = '-1'{role}"
    )
}

/// Functions that are volatile only because their result changes, and that do nothing.
const HARMLESS: &[&str] = &[
    "clock_timestamp",
    "gen_random_uuid",
    "pg_column_compression",
    "pg_database_size",
    "pg_indexes_size",
    "pg_relation_size",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// The names among `$1` that are functions which do more than compute: volatile ones, and what extensions in C promise about
/// themselves (`crosstab` runs any SQL that it is given). Those with an argument of type `internal` cannot be called.
const FORBIDDEN: &str = "select current_setting('is_superuser') = 'on', array(
    select distinct p.proname::text from pg_catalog.pg_proc p join pg_catalog.pg_language l on l.oid = p.prolang
    where p.proname = any($1::text[]) and not p.proname = any($2::text[])
      and not 'pg_catalog.internal'::regtype = any(p.proargtypes)
      and (p.provolatile = 'v'
           or (p.provolatile = 's' and l.lanname = 'c' and p.pronamespace <> 'pg_catalog'::regnamespace)))";

/// Read by nobody but the store: whoever has what is in it can sign cursors.
const OURS: &str = "_secrets";

/// Stable, and they read whatever table a string names, where no identifier says so.
const BY_NAME: &[&str] = &[
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
];

/// Looks at the names that a statement uses. A read-only transaction keeps tables from being written, and nothing else: a
/// function in it can sleep, end other sessions, read files, go over to another role, or run text as SQL.
async fn allowed(conn: &Conn, config: &AnalystConfig, text: &str) -> Result<(), SqlError> {
    let names = words::identifiers(text).map_err(|what| SqlError::forbidden("0A000", what))?;
    if let Some(name) = names.iter().find(|name| *name == OURS || BY_NAME.contains(&name.as_str())) {
        return Err(SqlError::forbidden("42501", format!("{name} is not for statements here to read")).into());
    }
    let names: Vec<String> = names.into_iter().collect();
    let params =
        [(&names as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT_ARRAY), (&HARMLESS, Type::TEXT_ARRAY)];
    let rows = conn.client.query_typed(FORBIDDEN, &params).await.map_err(store_error)?;
    let row = rows.first().ok_or_else(|| StoreError::fatal("the server did not look at a statement's names"))?;
    let superuser: bool = row.try_get(0).map_err(store_error)?;
    let forbidden: Vec<String> = row.try_get(1).map_err(store_error)?;
    if superuser && config.refuse_superuser {
        let hint = "set sql.role (CAUDAL_SQL__ROLE) to a role that may only read, and grant it to the store's user";
        let fault = SqlError::forbidden("42501", "statements of analysts do not run as a superuser");
        return Err(fault.hint(hint).into());
    }
    if let Some(name) = forbidden.first() {
        let message = format!("{name} is a function that does more than compute, and statements here only read");
        let hint = "where it is a column or a table instead, read it through a view that gives it another name";
        return Err(SqlError::forbidden("42501", message).hint(hint).into());
    }
    Ok(())
}

fn describe(asked: &Statement) -> Result<Vec<(String, Type)>, SqlError> {
    if !asked.params().is_empty() {
        return Err(
            SqlError::mistake("42P02", "there are no parameters here: write the values into the statement").into()
        );
    }
    let described: Vec<_> = asked.columns().iter().map(|c| (c.name().to_owned(), c.type_().clone())).collect();
    if described.is_empty() {
        let message = "this statement returns no rows; write one select, values, table or with … select";
        return Err(SqlError::forbidden("0A000", message).into());
    }
    Ok(described)
}

fn push(to: &mut RowBatch, row: &tokio_postgres::Row, json: &[bool]) -> Result<(), Failed> {
    let mut out = to.begin(row.len());
    for (index, is_json) in json.iter().enumerate() {
        match (column_bytes(row, index).map_err(Failed::Server)?, is_json) {
            (None, _) => out.null(),
            (Some(text), true) => out.json(text),
            (Some(bytes), false) => {
                if let Some(fault) = row_error(row.columns()[index].type_(), bytes) {
                    return Err(Failed::Fault(fault));
                }
                out.raw(bytes);
            }
        }
    }
    out.finish();
    Ok(())
}
