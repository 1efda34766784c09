//! SQL that analysts wrote, run where it can only read (`docs/adr/0017-sql-for-analysts.md`).
//!
//! A thread and a connection of its own for each statement, opened for reading and thrown away afterwards. SQLite asks
//! [`guard`] about every table, column and function while it prepares the statement.

mod guard;
mod values;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use caudal_core::error::StoreError;
use caudal_core::limits::{SQL_BYTES_MAX, SQL_ROW_BYTES_MAX};
use caudal_core::row::RowBatch;
use caudal_core::schema::ColumnType;
use caudal_core::sql::{SqlAnswer, SqlError, SqlFault, SqlQuery};
use futures_util::StreamExt;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Statement};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::error::store_error;
use guard::Refused;
use values::{Classes, declared};

/// A batch goes out when it has this many bytes.
const BATCH_BYTES: usize = 128 * 1024;
/// Batches read ahead of a slow consumer.
const BATCHES_AHEAD: usize = 2;

/// Within what bounds analysts' statements run.
#[derive(Debug, Clone)]
pub struct AnalystConfig {
    /// Statements at the same time; a thread each.
    pub connections: usize,
    /// From the first byte to the last, however slowly the reader takes them.
    pub statement_timeout: Duration,
}

impl Default for AnalystConfig {
    fn default() -> Self {
        Self { connections: 4, statement_timeout: Duration::from_secs(60) }
    }
}

#[derive(Debug)]
pub(super) struct Analysts {
    path: PathBuf,
    bound: Duration,
    permits: Arc<Semaphore>,
}

type Columns = Vec<(String, ColumnType)>;
type Begun = Result<Columns, SqlError>;
type Batches = mpsc::Sender<Result<RowBatch, StoreError>>;

impl Analysts {
    pub(super) fn new(path: &Path, config: &AnalystConfig) -> Self {
        let permits = Arc::new(Semaphore::new(config.connections.max(1)));
        Self { path: path.to_owned(), bound: config.statement_timeout, permits }
    }

    /// The file's name without its ending.
    pub(super) fn database(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    pub(super) async fn run(&self, query: SqlQuery) -> Result<SqlAnswer, SqlError> {
        let deadline = Instant::now() + self.bound;
        let busy = |_| StoreError::unavailable("as many statements of analysts run as may");
        let permit = tokio::time::timeout(self.bound, self.permits.clone().acquire_owned()).await.map_err(busy)?;
        let permit = permit.map_err(StoreError::fatal)?;
        let (begun, beginning) = oneshot::channel();
        let (batches, arriving) = mpsc::channel(BATCHES_AHEAD);
        let path = self.path.clone();
        let work = move || serve(&path, &query, deadline, begun, &batches, permit);
        thread::Builder::new().name("sqlite-analyst".into()).spawn(work).map_err(StoreError::fatal)?;
        let columns = beginning.await.map_err(|_| StoreError::fatal("an analyst's thread ended"))??;
        // The end is said in words (an empty batch): a channel that merely closes is a thread that died.
        let rows = futures_util::stream::try_unfold(arriving, |mut arriving| async move {
            match arriving.recv().await {
                Some(batch) => batch.map(|batch| (!batch.is_empty()).then_some((batch, arriving))),
                None => Err(StoreError::fatal("an analyst's thread ended in the middle of a statement")),
            }
        });
        Ok(SqlAnswer { columns, rows: rows.boxed() })
    }
}

/// The whole life of a statement. `begun` hears the columns, or why there are none, once the first rows are there.
fn serve(
    path: &Path,
    query: &SqlQuery,
    deadline: Instant,
    begun: oneshot::Sender<Begun>,
    batches: &Batches,
    _permit: OwnedSemaphorePermit,
) {
    let mut begun = Some(begun);
    let end = match answer(path, query, deadline, &mut begun, batches) {
        Ok(()) => Ok(RowBatch::default()),
        Err(error) => match begun.take() {
            Some(begun) => return drop(begun.send(Err(error))),
            None => Err(in_the_middle(error)),
        },
    };
    let _ = batches.blocking_send(end);
}

fn in_the_middle(error: SqlError) -> StoreError {
    match error {
        SqlError::Refused(fault) => StoreError::Setup(fault.message),
        SqlError::Store(error) => error,
    }
}

fn answer(
    path: &Path,
    query: &SqlQuery,
    deadline: Instant,
    begun: &mut Option<oneshot::Sender<Begun>>,
    batches: &Batches,
) -> Result<(), SqlError> {
    let refused = Refused::default();
    let conn = open(path, deadline, &refused).map_err(store_error)?;
    let mut statement = conn.prepare(&query.text).map_err(|error| fault(error, &refused))?;
    check(&statement)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut classes = Classes::new(declared(&statement, &query.tables));
    let mut rows = statement.raw_query();
    let (mut batch, mut left) = (RowBatch::default(), query.limit.unwrap_or(u64::MAX));
    while left > 0
        && let Some(row) = rows.next().map_err(|error| fault(error, &refused))?
    {
        left -= 1;
        classes.push(&mut batch, row)?;
        if classes.byte_len() + batch.byte_len() >= BATCH_BYTES {
            classes.settle(&mut batch)?;
            tell(begun, &names, &classes);
            if batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return Ok(());
            }
        }
    }
    classes.settle(&mut batch)?;
    tell(begun, &names, &classes);
    if !batch.is_empty() {
        let _ = batches.blocking_send(Ok(batch));
    }
    Ok(())
}

/// What the columns hold is known once the first rows were seen.
fn tell(begun: &mut Option<oneshot::Sender<Begun>>, names: &[String], classes: &Classes) {
    if let Some(begun) = begun.take() {
        let _ = begun.send(Ok(names.iter().cloned().zip(classes.types()).collect()));
    }
}

fn open(path: &Path, deadline: Instant, refused: &Refused) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(super::BUSY_TIMEOUT)?;
    conn.execute_batch("pragma query_only = on; pragma case_sensitive_like = on;")?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, SQL_ROW_BYTES_MAX as i32),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX as i32),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 100),
        (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        conn.set_limit(limit, value)?;
    }
    conn.progress_handler(10_000, Some(move || Instant::now() > deadline))?;
    // Last: from here on nothing but reading is allowed.
    conn.authorizer(Some(refused.authorizer()))?;
    Ok(conn)
}

fn check(statement: &Statement<'_>) -> Result<(), SqlError> {
    if statement.column_count() == 0 || !statement.readonly() || statement.is_explain() != 0 {
        let message = "statements here only read: write one select, values or with … select";
        return Err(SqlError::forbidden("SQLITE_AUTH", message).into());
    }
    if statement.parameter_count() > 0 {
        let message = "there are no parameters here: write the values into the statement";
        return Err(SqlError::mistake("SQLITE_ERROR", message).into());
    }
    Ok(())
}

fn fault(error: Error, refused: &Refused) -> SqlError {
    if let Some(what) = refused.take() {
        return SqlError::forbidden("SQLITE_AUTH", what).into();
    }
    let mistake = |message: &str| SqlError::mistake("SQLITE_ERROR", message);
    match error {
        Error::MultipleStatement => mistake("there are several statements: send one").into(),
        Error::NulError(_) => mistake("a statement has no NUL in it").into(),
        Error::SqlInputError { msg, sql, offset, .. } => mistake(&msg).at(position(&sql, offset)).into(),
        error => match error.sqlite_error_code() {
            Some(ErrorCode::TooBig) => {
                let message =
                    format!("a value or the statement is too long; a row has at most {SQL_ROW_BYTES_MAX} bytes");
                SqlError::mistake("SQLITE_TOOBIG", message).into()
            }
            Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::ConstraintViolation) => {
                of_message(&error).into()
            }
            _ => store_error(error).into(),
        },
    }
}

fn of_message(error: &Error) -> SqlFault {
    let text = match error {
        Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    };
    SqlError::mistake("SQLITE_ERROR", text)
}

/// Characters from 1, of an offset in bytes.
fn position(sql: &str, offset: i32) -> Option<u32> {
    let offset = usize::try_from(offset).ok()?;
    Some(sql.get(..offset)?.chars().count() as u32 + 1)
}

/// What the authorizer refused last; shared with the connection that holds it.
type Shared = Arc<Mutex<Option<String>>>;
