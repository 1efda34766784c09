//! What `caudal.toml` may say, typed. Each section belongs to one component; every field has a default.

use std::collections::BTreeMap;
use std::path::PathBuf;

use caudal_core::schema::UnknownFields;
use serde::{Deserialize, Serialize};

use crate::secret::SecretUrl;

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Where files of the embedded parts go.
    pub(crate) data_dir: PathBuf,
    pub(crate) http: Http,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) log: Log,
    pub(crate) topics: BTreeMap<String, Topic>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: "caudal-data".into(),
            http: Http::default(),
            store: Store::default(),
            broker: Broker::default(),
            log: Log::default(),
            topics: BTreeMap::new(),
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
        }
    }
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Broker {
    /// `embedded:` (a durable log under `data_dir`) or `none:` (store before answering).
    pub(crate) url: SecretUrl,
    pub(crate) segment_bytes: u64,
    pub(crate) retention_hours: u64,
    pub(crate) retention_bytes: u64,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: SecretUrl::new("embedded:"),
            segment_bytes: 64 * 1024 * 1024,
            retention_hours: 24,
            retention_bytes: 1024 * 1024 * 1024,
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
    /// Number the rows in order of storing, in `_row`.
    pub(crate) row_number: bool,
    /// A schema that comes with the program instead of a file.
    #[serde(skip)]
    pub(crate) built_in: Option<&'static str>,
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
