//! A function in PostgreSQL that confirms transactions, behind the port of confirmers.
//!
//! It is called as `name(key uuid, attempt integer, record jsonb)` and returns one row: `status text, detail text, retry_after_seconds` (any
//! number). A call is one transaction. Whatever goes wrong before `commit` is sent is known to be rolled back; so is what
//! says `retry`, or nothing that is known. Only a connection that is lost at the commit leaves a doubt.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::confirm::answer::{Answer, Verdict};
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::error::StoreError;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::connect::{Connector, PostgresConfig};
use super::pool::{Lease, Pool};
use super::sql::quoted;

/// What the server has beyond a call's own time to say that it is over.
const GRACE: Duration = Duration::from_secs(1);
const COMMIT_MAX: Duration = Duration::from_secs(10);
const ROLLBACK_MAX: Duration = Duration::from_secs(1);
/// What lies between may have forgotten an older connection without a word.
const IDLE_MAX: Duration = Duration::from_secs(60);
const ARGUMENTS: &str = "uuid, integer, jsonb";

/// A function as configured.
#[derive(Clone)]
pub struct FunctionConfig {
    /// Of the database it is in. PgBouncer in transaction mode may be in front.
    pub url: String,
    /// `schema.name`, or a name on the user's search path.
    pub function: String,
    /// The function that says what became of a transaction. Called in a transaction that may only read.
    pub probe: Option<String>,
    /// Calls at the same time.
    pub connections: usize,
    /// Of one call, enforced by the server (`statement_timeout`).
    pub timeout: Duration,
    pub connect_timeout: Duration,
    /// Names this process in `pg_stat_activity`.
    pub instance: String,
}

impl FunctionConfig {
    pub fn new(url: impl Into<String>, function: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            function: function.into(),
            probe: None,
            connections: 8,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            instance: "confirm".to_owned(),
        }
    }
}

/// Without the URL: it may hold a password.
impl fmt::Debug for FunctionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionConfig").field("function", &self.function).finish_non_exhaustive()
    }
}

/// A function behind the port of confirmers. Connects when it is first called.
#[derive(Debug)]
pub struct FunctionConfirmer {
    pool: Arc<Pool>,
    call: Callee,
    probe: Option<Callee>,
    timeout: Duration,
    connect_timeout: Duration,
    /// What the log has been told to be wrong, until a call is answered again.
    complaint: Mutex<Option<String>>,
}

/// A function by its name, and the statement that calls it once the catalogue has been asked.
#[derive(Debug)]
struct Callee {
    given: String,
    schema: String,
    name: String,
    begin: String,
    statement: Mutex<Option<Arc<str>>>,
}

/// Why there is no answer, when it is known that nothing was kept.
#[derive(Debug)]
enum Undone {
    /// The server is away, out of something, or too slow.
    Down(String),
    /// Somebody must change the function, its rights or the settings.
    Setup(String),
    /// This record, this time: the function raised, a constraint, a deadlock.
    Refused(String),
    /// The function ran, and what it returned cannot be used.
    Useless(String),
}

impl FunctionConfirmer {
    /// # Errors
    /// What is wrong with the configuration. The database is not asked.
    pub fn open(config: &FunctionConfig) -> Result<Self, StoreError> {
        if config.timeout.is_zero() || config.connect_timeout.is_zero() || config.connections == 0 {
            let say = "a call needs time and a connection: timeout, connect_timeout and sql_connections are above 0";
            return Err(StoreError::Setup(say.to_owned()));
        }
        // Unnamed statements and settings of one transaction work everywhere, behind PgBouncer in transaction mode as well. The store's
        // own settings of a session would change how the function's statements are planned.
        let server = PostgresConfig {
            transaction_pooling: true,
            idle_max: Some(IDLE_MAX),
            statement_timeout: config.timeout,
            ..PostgresConfig::new(config.url.clone(), config.instance.clone())
        };
        let pool = Pool::new(Connector::for_streams(&server)?, config.connections, &server);
        Ok(Self {
            pool,
            call: Callee::new(&config.function, "begin", config.timeout)?,
            probe: config
                .probe
                .as_deref()
                .map(|name| Callee::new(name, "begin read only", config.timeout))
                .transpose()?,
            timeout: config.timeout,
            connect_timeout: config.connect_timeout,
            complaint: Mutex::default(),
        })
    }

    async fn ask(&self, callee: &Callee, call: &Call<'_>, probe: bool) -> Answer {
        let Ok(record) = std::str::from_utf8(&call.item.record) else {
            return Answer::Blocked("the record is no text, so a function cannot be given it".to_owned());
        };
        let mut lease = match self.connection().await {
            Ok(lease) => lease,
            Err(undone) => return self.undone(undone),
        };
        lease.begin_work();
        let Ok(conn) = lease.conn_in_use() else { return self.undone(Undone::Down("the connection broke".to_owned())) };
        // Dropped out of time, the connection goes with the lease, and the server rolls back: no commit was sent.
        let asked = timeout(self.timeout + GRACE, callee.answer(&conn.client, call, record, probe)).await;
        let asked = asked.unwrap_or_else(|_| Err(Undone::Down("no answer in time; it was rolled back".to_owned())));
        match asked {
            Ok((verdict, detail)) => {
                *self.complaint.lock().unwrap_or_else(PoisonError::into_inner) = None;
                if probe || matches!(verdict, Verdict::NotDone { .. }) {
                    rolled_back(&mut lease).await;
                    return Answer::Said { verdict, detail };
                }
                self.committed(&mut lease, verdict, detail).await
            }
            Err(undone) => {
                rolled_back(&mut lease).await;
                self.undone(undone)
            }
        }
    }

    async fn connection(&self) -> Result<Lease, Undone> {
        let opened = timeout(self.connect_timeout, async {
            let mut lease = self.pool.lease().await?;
            lease.conn().await?;
            Ok(lease)
        });
        match opened.await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(StoreError::Setup(what))) => Err(Undone::Setup(what)),
            Ok(Err(error)) => Err(Undone::Down(error.to_string())),
            Err(_) => Err(Undone::Down("no connection to the database in time".to_owned())),
        }
    }

    async fn committed(&self, lease: &mut Lease, verdict: Verdict, detail: String) -> Answer {
        let Ok(conn) = lease.conn_in_use() else { return self.undone(Undone::Down("the connection broke".to_owned())) };
        match timeout(COMMIT_MAX, conn.client.batch_execute("commit")).await {
            Ok(Ok(())) => {
                lease.end_work();
                Answer::Said { verdict, detail }
            }
            Ok(Err(error)) if was_refused_at_commit(&error) => self.undone(Undone::Refused(words(&error))),
            Ok(Err(error)) => Answer::Unknown(format!("the connection was lost at the commit: {}", words(&error))),
            Err(_) => Answer::Unknown("the commit was not answered in time".to_owned()),
        }
    }

    fn undone(&self, undone: Undone) -> Answer {
        match undone {
            Undone::Down(detail) => Answer::NotSent(detail),
            Undone::Setup(detail) => {
                self.complain(&detail);
                Answer::NotSent(detail)
            }
            Undone::Refused(detail) => Answer::Said { verdict: Verdict::NotDone { retry_after: None }, detail },
            Undone::Useless(detail) => {
                self.complain(&detail);
                Answer::Blocked(detail)
            }
        }
    }

    /// Says once what somebody must put right.
    fn complain(&self, detail: &str) {
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if complaint.as_deref() != Some(detail) {
            let function = &self.call.given;
            tracing::error!(
                function,
                detail,
                "the SQL function confirms nothing until somebody changes how it is set up"
            );
            *complaint = Some(detail.to_owned());
        }
    }
}

impl Callee {
    fn new(given: &str, begin: &str, timeout: Duration) -> Result<Self, StoreError> {
        let (schema, name) = given.split_once('.').unwrap_or(("", given));
        let is_schemaless = !given.contains('.');
        if name.is_empty() || name.contains('.') || given.contains('\0') || (schema.is_empty() && !is_schemaless) {
            return Err(StoreError::Setup(format!("{given:?} is no function: write name or schema.name")));
        }
        // 24 days: the server's settings hold no more.
        let within = |time: Duration| time.as_millis().min(i32::MAX as u128);
        let millis = within(timeout);
        let begin = format!(
            "{begin}; set local statement_timeout = {millis}; set local lock_timeout = {millis}; \
             set local idle_in_transaction_session_timeout = {}",
            within(timeout.saturating_add(COMMIT_MAX))
        );
        let (given, schema, name) = (given.to_owned(), schema.to_owned(), name.to_owned());
        Ok(Self { given, schema, name, begin, statement: Mutex::default() })
    }

    /// Opens a transaction, calls, and leaves it open. Each step waits for the one before: a call whose `begin` failed would be
    /// a transaction of its own.
    async fn answer(
        &self,
        client: &Client,
        call: &Call<'_>,
        record: &str,
        probe: bool,
    ) -> Result<(Verdict, String), Undone> {
        client.batch_execute(&self.begin).await.map_err(|error| undone(&error))?;
        let statement = self.statement(client).await?;
        let attempt = i32::try_from(call.attempt).unwrap_or(i32::MAX);
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&call.key, Type::UUID), (&attempt, Type::INT4), (&record, Type::TEXT)];
        let rows = client.query_typed(&statement, &params).await.map_err(|error| {
            // It may have been dropped and made anew, elsewhere.
            self.forget();
            match error.code().map(|code| code.code()) {
                Some("25006") if probe => Undone::Setup(format!("a probe may only read: {}", words(&error))),
                _ => undone(&error),
            }
        })?;
        said(&rows, probe)
            .map_err(|what| Undone::Useless(format!("{} {what}; what it did was rolled back", self.given)))
    }

    /// Names only as the catalogue has them.
    async fn statement(&self, client: &Client) -> Result<Arc<str>, Undone> {
        if let Some(known) = self.statement.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(known);
        }
        let found = "select n.nspname::text, p.proname::text
             from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
             where p.proname = $2 and p.prokind = 'f' and pg_catalog.oidvectortypes(p.proargtypes) = $3
               and case when $1 = '' then pg_catalog.pg_function_is_visible(p.oid) else n.nspname = $1 end";
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&self.schema, Type::TEXT), (&self.name, Type::TEXT), (&ARGUMENTS, Type::TEXT)];
        let rows = client.query_typed(found, &params).await.map_err(|error| undone(&error))?;
        let Some(row) = rows.first() else {
            let given = &self.given;
            return Err(Undone::Setup(format!(
                "there is no function {given}({ARGUMENTS}): create it, or correct its name"
            )));
        };
        let name = |column: usize| row.try_get::<_, String>(column).map_err(|error| Undone::Setup(words(&error)));
        let (schema, name) = (name(0)?, name(1)?);
        let statement: Arc<str> = format!(
            "select status::pg_catalog.text, detail::pg_catalog.text, retry_after_seconds::pg_catalog.float8 from {}.{}($1, $2, $3::pg_catalog.jsonb)",
            quoted(&schema),
            quoted(&name)
        )
        .into();
        *self.statement.lock().unwrap_or_else(PoisonError::into_inner) = Some(statement.clone());
        Ok(statement)
    }

    fn forget(&self) {
        *self.statement.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What the one row says.
fn said(rows: &[Row], probe: bool) -> Result<(Verdict, String), String> {
    let [row] = rows else { return Err(format!("returned {} rows instead of one", rows.len())) };
    let unreadable = |error: Error| words(&error);
    let status: Option<String> = row.try_get(0).map_err(unreadable)?;
    let detail: Option<String> = row.try_get(1).map_err(unreadable)?;
    let seconds: Option<f64> = row.try_get(2).map_err(unreadable)?;
    let Some(verdict) = Verdict::of_word(status.as_deref().unwrap_or_default(), seconds, probe) else {
        return Err(match status {
            Some(status) => {
                format!("returned the status {:?}, which means nothing", status.chars().take(40).collect::<String>())
            }
            None => "returned no status".to_owned(),
        });
    };
    Ok((verdict, detail.unwrap_or_default()))
}

/// Ends the transaction without its work; a connection that cannot is thrown away, which ends it, too.
async fn rolled_back(lease: &mut Lease) {
    let Ok(conn) = lease.conn_in_use() else { return };
    if let Ok(Ok(())) = timeout(ROLLBACK_MAX, conn.client.batch_execute("rollback")).await {
        lease.end_work();
    }
}

/// What an error before the commit says.
fn undone(error: &Error) -> Undone {
    let detail = words(error);
    let Some(code) = error.code().map(|code| code.code()) else { return Undone::Down(detail) };
    match &code[..2] {
        // Connection, resources, an operator's hand or a limit of time, input and output, a fault of the server.
        "08" | "53" | "57" | "58" | "F0" | "XX" => Undone::Down(detail),
        // Turned read-only: the old primary after a failover. And transactions that have been ended.
        "25" => Undone::Down(detail),
        // No such function, table, column or schema; no right; nothing this server can do.
        "0A" | "28" | "3D" | "3F" | "42" => Undone::Setup(detail),
        _ => Undone::Refused(detail),
    }
}

/// Whether the server said, of a commit, that it rolled back instead: a deferred constraint, a conflict with another transaction. What
/// ends the connection as well may come after the commit.
fn was_refused_at_commit(error: &Error) -> bool {
    let Some(db) = error.as_db_error() else { return false };
    let code = db.code().code();
    let is_unsure = code.starts_with("57P") || code == "40003" || matches!(&code[..2], "08" | "58" | "XX");
    db.parsed_severity() == Some(Severity::Error) && !is_unsure
}

fn words(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{}: {}", db.code().code(), db.message()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

#[async_trait]
impl Confirmer for FunctionConfirmer {
    async fn call(&self, call: Call<'_>) -> Answer {
        self.ask(&self.call, &call, false).await
    }

    async fn probe(&self, call: Call<'_>) -> Answer {
        match &self.probe {
            Some(probe) => self.ask(probe, &call, true).await,
            None => Answer::Blocked("no probe is configured for this function".to_owned()),
        }
    }

    fn target(&self) -> &str {
        &self.call.given
    }
}
