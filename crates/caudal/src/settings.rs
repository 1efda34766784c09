//! What `caudal.toml` may say, typed. Each section belongs to one component; every field has a default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use caudal_core::message::Durability;
use caudal_core::schema::UnknownFields;
use serde::{Deserialize, Serialize};

use crate::confirming::{Adopt, Confirm, Worker};
use crate::doors::Webhook;
use crate::secret::{Secret, SecretUrl};

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Where files of the embedded parts go.
    pub(crate) data_dir: PathBuf,
    pub(crate) http: Http,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) read: Read,
    pub(crate) sql: Sql,
    pub(crate) confirm: Worker,
    pub(crate) log: Log,
    pub(crate) topics: BTreeMap<String, Topic>,
    /// Tables of pending transactions that others write.
    pub(crate) adopt: BTreeMap<String, Adopt>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "caudal-data".into(),
            http: Http::default(),
            store: Store::default(),
            broker: Broker::default(),
            read: Read::default(),
            sql: Sql::default(),
            confirm: Worker::default(),
            log: Log::default(),
            topics: BTreeMap::new(),
            adopt: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Http {
    pub(crate) listen: String,
    /// SHA-256 hashes of the API keys that are let in; `caudal keys new` makes one.
    pub(crate) keys: Vec<String>,
    /// Serve an address other than loopback to anybody. Long on purpose.
    pub(crate) allow_anyone_without_a_key: bool,
    pub(crate) body_bytes_max: usize,
    pub(crate) wait_ms: u64,
    pub(crate) record_cache_bytes: u64,
    pub(crate) connections_max: usize,
    /// The topic behind `/data/{id}`.
    pub(crate) compat_topic: String,
    /// Access key ids and secrets with which AWS SDKs sign what they publish at `POST /`.
    pub(crate) aws_keys: BTreeMap<String, Secret>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            keys: Vec::new(),
            allow_anyone_without_a_key: false,
            body_bytes_max: 16 * 1024 * 1024,
            wait_ms: 2_000,
            record_cache_bytes: 32 * 1024 * 1024,
            connections_max: 10_000,
            compat_topic: COMPAT_TOPIC.to_owned(),
            aws_keys: BTreeMap::new(),
        }
    }
}

pub(crate) const COMPAT_TOPIC: &str = "data-ingestion-topic";

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// `sqlite:<file>` (under `data_dir` unless absolute) or `postgres://…`.
    pub(crate) url: SecretUrl,
    /// Connections that write; PostgreSQL only.
    pub(crate) writers: usize,
    /// Connections that stream reads.
    pub(crate) readers: usize,
    pub(crate) statement_timeout_ms: u64,
    /// The URL leads to PgBouncer in transaction mode.
    pub(crate) transaction_pooling: bool,
    /// How long a request's append is repeated while the store is away.
    pub(crate) patience_ms: u64,
    /// Connections that waited longer for work are opened anew, for networks that forget idle ones without a word; 0 keeps
    /// them. PostgreSQL only.
    pub(crate) idle_ms_max: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: SecretUrl::new("sqlite:caudal.db"),
            writers: 4,
            readers: 4,
            statement_timeout_ms: 30_000,
            transaction_pooling: false,
            patience_ms: 3_000,
            idle_ms_max: 0,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Broker {
    /// `embedded:` (a durable log under `data_dir`), `none:` (store before answering), or a broker of your own: `amqp://`,
    /// `nats://`, `redis://`, `kafka://`, `sqs:`.
    pub(crate) url: SecretUrl,
    /// The least that a confirmed message must survive: `unknown`, `process`, `failover` or `power`. Caudal refuses to start
    /// over a broker that gives less.
    pub(crate) durability: Durable,
    /// Make what is missing in a broker of your own: topics, queues, groups.
    pub(crate) create: bool,
    /// The name under which this deployment reads. Deployments that share it share the work.
    pub(crate) subscription: String,
    /// Hand-overs of one message after which it becomes a dead letter.
    pub(crate) deliveries_max: u32,
    pub(crate) segment_bytes: u64,
    pub(crate) retention_hours: u64,
    pub(crate) retention_bytes: u64,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: SecretUrl::new("embedded:"),
            durability: Durable::Unknown,
            create: true,
            subscription: "store".to_owned(),
            deliveries_max: 20,
            segment_bytes: 64 * 1024 * 1024,
            retention_hours: 24,
            retention_bytes: 1024 * 1024 * 1024,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Read {
    /// Schemas of the store's database whose tables are served read-only, though Caudal did not make them; the first is where
    /// names are looked up when a request names no schema. SQLite has one: `main`.
    pub(crate) schemas: Vec<String>,
    /// How often those tables are looked at for changes.
    pub(crate) poll_ms: u64,
    /// Bounds on one read of a table; 0 is none. `store.statement_timeout_ms` bounds its time.
    ///
    /// Rows of one answer.
    pub(crate) rows_max: u64,
    /// Bytes of one answer's rows in binary.
    pub(crate) bytes_max: u64,
    /// PostgreSQL: of the planner's cost. SQLite: of the rows that are looked at.
    pub(crate) cost_max: f64,
}

impl Default for Read {
    fn default() -> Self {
        Self { schemas: Vec::new(), poll_ms: 5_000, rows_max: 0, bytes_max: 0, cost_max: 0.0 }
    }
}

/// SQL of analysts: `/v1/sql` and `/{db}/q=`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sql {
    /// `"local"`: where nobody but this machine can reach the server. `true`, `false`.
    pub(crate) enabled: SqlEnabled,
    /// The role that statements run as, which may do nothing but read; PostgreSQL only. Empty: the store's own user.
    pub(crate) role: String,
    /// Statements at the same time.
    pub(crate) connections: usize,
    /// From the beginning of a statement to the last byte of its answer.
    pub(crate) statement_timeout_ms: u64,
    /// Rows of one answer; 0 is no cap.
    pub(crate) rows_max: u64,
    /// Bytes of one answer's rows in binary; 0 is no cap.
    pub(crate) bytes_max: u64,
}

impl Default for Sql {
    fn default() -> Self {
        Self {
            enabled: SqlEnabled::When(Local::Local),
            role: String::new(),
            connections: 4,
            statement_timeout_ms: 60_000,
            rows_max: 0,
            bytes_max: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum SqlEnabled {
    Always(bool),
    When(Local),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Local {
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durable {
    Unknown,
    Process,
    Failover,
    Power,
}

impl From<Durable> for Durability {
    fn from(durable: Durable) -> Self {
        match durable {
            Durable::Unknown => Self::Unknown,
            Durable::Process => Self::Process,
            Durable::Failover => Self::Failover,
            Durable::Power => Self::Power,
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `error`, `warn`, `info`, `debug`, or a filter such as `caudal_engine=debug,info`.
    pub(crate) level: String,
    /// `text` or `json`.
    pub(crate) format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Topic {
    /// A JSON Schema 2020-12 file, relative to the configuration file. Without one every message is kept whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) schema: Option<PathBuf>,
    pub(crate) unknown_fields: Unknown,
    /// Properties whose values together are the dedup key.
    pub(crate) key: Vec<String>,
    /// Where the topic lives in a broker of your own, if not under its own name: an exchange, a subject, a stream, a topic's ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) publish_to: Option<String>,
    /// What is consumed from, if not what follows from the topic's name: a queue, its URL, a durable consumer, a group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) consume_from: Option<String>,
    /// Number the rows in order of storing, in `_row`.
    pub(crate) row_number: bool,
    /// Remove records this long after they were stored: a number and `s`, `m`, `h`, `d` or `w`. Without it they stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retention: Option<String>,
    /// How long the keys of removed records go on deduplicating; 30 days if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_retention: Option<String>,
    /// ARNs of SNS topics whose deliveries `POST /sns/{topic}` takes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sns_topic_arns: Vec<String>,
    /// How deliveries to `POST /webhooks/{topic}` are signed; without it there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook: Option<Webhook>,
    /// How its records are confirmed; without it they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) confirm: Option<Confirm>,
    /// Where the topic's records go as files, by the clock.
    #[cfg(feature = "export")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) export: Option<Export>,
    /// A schema that comes with the program instead of a file.
    #[serde(skip)]
    pub(crate) built_in: Option<&'static str>,
}

#[cfg(feature = "export")]
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Export {
    /// A directory, or `s3://bucket/prefix`.
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) format: crate::cli::FileFormat,
    /// The column whose days are the partitions.
    #[serde(default = "stored_at")]
    pub(crate) day_of: String,
    /// How long after one export the next is due. Workers look that often; 0 leaves it to `caudal export`.
    #[serde(default = "an_hour")]
    pub(crate) every_seconds: u64,
}

#[cfg(feature = "export")]
fn stored_at() -> String {
    caudal_core::schema::STORED_AT.to_owned()
}

#[cfg(feature = "export")]
fn an_hour() -> u64 {
    3600
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unknown {
    #[default]
    Keep,
    Reject,
    Add,
}

impl From<Unknown> for UnknownFields {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Keep => Self::Keep,
            Unknown::Reject => Self::Reject,
            Unknown::Add => Self::Add,
        }
    }
}
