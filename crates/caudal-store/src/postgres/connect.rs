//! Configuration, and one connection with the statements prepared on it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CancelToken, Client, Config, Connection, Error, Row, Socket, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::analyst::AnalystConfig;
use super::error::store_error;
use super::tls::{self, Verify};

/// How to reach and use a PostgreSQL server (or Aurora, Citus, PgBouncer in front of one).
#[derive(Clone)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database?sslmode=…`, or libpq's `key=value` form.
    pub url: String,
    /// Connections that append; so many transactions commit side by side.
    pub writers: usize,
    /// Connections that claim and settle confirmations. Opened when they are used.
    pub confirmers: usize,
    /// Connections that stream reads.
    pub readers: usize,
    pub statement_timeout: Duration,
    /// Connections that waited longer for work are opened anew: what lies between may have forgotten them without a word, and
    /// finding that out takes [`UNACKNOWLEDGED_MAX`].
    pub idle_max: Option<Duration>,
    /// The URL leads to PgBouncer in transaction mode: nothing may outlive a transaction on a server connection.
    pub transaction_pooling: bool,
    /// Names this process in the ledger and in `pg_stat_activity`; no two that run at once may share it.
    pub instance: String,
    pub analysts: AnalystConfig,
}

impl PostgresConfig {
    pub fn new(url: impl Into<String>, instance: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            writers: 4,
            confirmers: 4,
            readers: 4,
            statement_timeout: Duration::from_secs(30),
            idle_max: None,
            transaction_pooling: false,
            instance: instance.into(),
            analysts: AnalystConfig::default(),
        }
    }
}

/// Without the URL: it may hold a password.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("writers", &self.writers)
            .field("readers", &self.readers)
            .field("transaction_pooling", &self.transaction_pooling)
            .field("instance", &self.instance)
            .finish_non_exhaustive()
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long sent bytes may stay unacknowledged before the connection counts as dead.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// A transaction of ours that waits this long for its client has lost it.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// What moves a connection's bytes, and says what the server says unasked.
pub(super) type Driven = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Opens connections.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: MakeRustlsConnect,
    /// Statements stay prepared on a connection; not behind a transaction pool.
    named: bool,
}

impl Connector {
    /// Reads the URL. No connection yet.
    pub(super) fn new(from: &PostgresConfig) -> Result<Self, StoreError> {
        let (url, mode, root_certificates) = split_tls(&from.url);
        let unreadable = |e: Error| StoreError::Setup(format!("the store's URL cannot be read: {}", source_text(&e)));
        let mut config = Config::from_str(&url).map_err(unreadable)?;
        let verify = match (mode.as_deref(), &root_certificates) {
            (Some("verify-full"), _) => Verify::Full,
            (Some("verify-ca"), _) | (_, Some(_)) => Verify::Authority,
            _ => Verify::Nothing,
        };
        if verify != Verify::Nothing {
            config.ssl_mode(SslMode::Require);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        config.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(3);
        config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
        if config.get_application_name().is_none() {
            config.application_name(format!("caudal {}", from.instance));
        }
        if !from.transaction_pooling {
            config.options(options(config.get_options(), from.statement_timeout));
        }
        let tls = tls::connector(verify, root_certificates.as_deref())?;
        Ok(Self { config, tls, named: !from.transaction_pooling })
    }

    /// For connections that stream: the server's bound on a whole statement would cut long answers and slow readers, so there
    /// each wait for a row is bounded instead, by the client.
    pub(super) fn for_streams(from: &PostgresConfig) -> Result<Self, StoreError> {
        Self::new(&PostgresConfig { statement_timeout: Duration::ZERO, ..from.clone() })
    }

    /// A client, and the connection that its caller must drive.
    pub(super) async fn open(&self) -> Result<(Client, Driven), StoreError> {
        self.config.connect(self.tls.clone()).await.map_err(store_error)
    }

    /// As the server chooses: the user's name where the URL names none.
    pub(super) fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or_default()
    }

    pub(super) async fn connect(&self) -> Result<Conn, StoreError> {
        let (client, connection) = self.open().await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
        Ok(Conn { client, task, prepared: HashMap::new(), named: self.named, tls: self.tls.clone() })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Appends and point reads find rows by key, by statements that stay planned. Planned over an empty table they would scan it
/// whole, and go on doing so while it grows: measured, eight seconds for a load of one and a half. Streams plan each time.
const PLANS: &str = " -c enable_seqscan=off";

/// Session settings as startup options: they hold from the first statement and cost no round trip. The URL's own come last
/// and win.
fn options(own: Option<&str>, statement_timeout: Duration) -> String {
    let millis = [
        ("statement_timeout", statement_timeout),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
        ("lock_timeout", if statement_timeout.is_zero() { LOCK_TIMEOUT } else { LOCK_TIMEOUT.min(statement_timeout) }),
    ];
    let mut out = String::from("-c timezone=UTC -c client_min_messages=error");
    if !statement_timeout.is_zero() {
        out.push_str(PLANS);
    }
    for (name, value) in millis {
        out.push_str(&format!(" -c {name}={}", value.as_millis()));
    }
    if let Some(own) = own {
        out.push(' ');
        out.push_str(own);
    }
    out
}

/// What opens a transaction that writes; one message, so its settings cost nothing.
pub(super) fn begin(config: &PostgresConfig) -> String {
    let bound = config.statement_timeout;
    match config.transaction_pooling {
        false => "begin".into(),
        true => format!(
            "begin; set local enable_seqscan = off; set local statement_timeout = {}; set local lock_timeout = {}",
            bound.as_millis(),
            LOCK_TIMEOUT.min(bound).as_millis()
        ),
    }
}

/// Takes `sslmode=verify-…` and `sslrootcert` out of a URL: the driver knows neither.
fn split_tls(url: &str) -> (String, Option<String>, Option<String>) {
    let Some((base, query)) = url.split_once('?').filter(|_| url.contains("://")) else {
        return (url.to_owned(), None, None);
    };
    let (mut mode, mut roots, mut kept) = (None, None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => {
                mode = Some(value.to_owned());
                if !value.starts_with("verify-") {
                    kept.push(pair);
                }
            }
            Some(("sslrootcert", value)) => roots = Some(value.replace("%2F", "/").replace("%2f", "/")),
            _ => kept.push(pair),
        }
    }
    let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (url, mode, roots)
}

/// The innermost words of an error; the outer ones only repeat that something went wrong.
fn source_text(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// One connection. Dropping it closes the socket at once, whatever is under way.
pub(super) struct Conn {
    pub(super) client: Client,
    task: JoinHandle<()>,
    prepared: HashMap<String, Arc<Query>>,
    named: bool,
    tls: MakeRustlsConnect,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("prepared", &self.prepared.len()).finish_non_exhaustive()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A statement ready to run: prepared on its connection, or (behind a transaction pool) sent as text with its types, in one
/// unnamed round trip.
#[derive(Debug)]
pub(super) struct Query {
    sql: String,
    types: Vec<Type>,
    statement: Option<Statement>,
}

pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Statements kept prepared on one connection; over it all are forgotten, which only costs preparing them again.
const PREPARED_MAX: usize = 256;

impl Conn {
    /// The statement for this text; prepared on first use. Get all statements of a pipeline before it starts: a round trip
    /// between its parts would break their order.
    pub(super) async fn prepare(&mut self, sql: &str, types: &[Type]) -> Result<Arc<Query>, Error> {
        if let Some(query) = self.prepared.get(sql) {
            return Ok(query.clone());
        }
        let statement = match self.named {
            true => Some(self.client.prepare_typed(sql, types).await?),
            false => None,
        };
        let query = Arc::new(Query { sql: sql.to_owned(), types: types.to_vec(), statement });
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sql.to_owned(), query.clone());
        Ok(query)
    }

    /// A `COPY` statement, kept prepared. Only where statements may be named.
    pub(super) async fn prepare_copy(&mut self, sql: &str) -> Result<Statement, Error> {
        let query = self.prepare(sql, &[]).await?;
        match &query.statement {
            Some(statement) => Ok(statement.clone()),
            None => self.client.prepare(sql).await,
        }
    }

    pub(super) async fn execute(&self, query: &Query, params: Params<'_>) -> Result<u64, Error> {
        match &query.statement {
            Some(statement) => self.client.execute(statement, params).await,
            None => self.client.execute_typed(&query.sql, &typed(query, params)).await,
        }
    }

    pub(super) async fn query(&self, query: &Query, params: Params<'_>) -> Result<Vec<Row>, Error> {
        match &query.statement {
            Some(statement) => self.client.query(statement, params).await,
            None => self.client.query_typed(&query.sql, &typed(query, params)).await,
        }
    }

    /// What asks the server to stop what this connection runs. Not behind PgBouncer: 1.18 dies of a cancel whose client has
    /// gone, and closes the server's connection by itself when a client leaves in the middle of a query.
    pub(super) fn cancel(&self) -> Option<(CancelToken, MakeRustlsConnect)> {
        self.named.then(|| (self.client.cancel_token(), self.tls.clone()))
    }
}

fn typed<'a>(query: &Query, params: Params<'a>) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    params.iter().copied().zip(query.types.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_words_are_taken_out_of_the_url() {
        let split = |url| split_tls(url);
        assert_eq!(split("postgres://h/d"), ("postgres://h/d".into(), None, None));
        assert_eq!(
            split("postgres://h/d?sslmode=verify-full&sslrootcert=%2Fetc/ca.pem&connect_timeout=3"),
            ("postgres://h/d?connect_timeout=3".into(), Some("verify-full".into()), Some("/etc/ca.pem".into()))
        );
        assert_eq!(
            split("postgres://h/d?sslmode=require"),
            ("postgres://h/d?sslmode=require".into(), Some("require".into()), None)
        );
        assert_eq!(split("host=h dbname=d"), ("host=h dbname=d".into(), None, None));
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = PostgresConfig::new("postgres://u:secret@h/d", "i");
        let connector = Connector::new(&config).expect("a connector");
        assert!(!format!("{config:?} {connector:?}").contains("secret"));
    }
}
