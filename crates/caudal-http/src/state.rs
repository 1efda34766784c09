//! What every handler can reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use caudal_engine::Engine;
use prometheus_client::registry::Registry;

use crate::aws;
use crate::fetch::Fetch;
use crate::health::RequestMetrics;
use crate::read::bounds::ReadBounds;
use crate::read::cache::RecordCache;
use crate::read::cursor::CursorKey;
use crate::sns::{AllowedTopics, Certificates};
use crate::sql::SqlConfig;
use crate::webhook::Webhook;

/// What a deployment may tune over HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Decompressed bytes of a body that must be read whole: one JSON document, a JSON array, an event.
    pub body_bytes_max: usize,
    /// How long a POST waits for its row before it answers 202.
    pub wait_default: Duration,
    /// The longest wait that `Prefer: wait=N` can ask for.
    pub wait_max: Duration,
    /// Bytes of the record cache; 0 turns it off.
    pub record_cache_bytes: u64,
    /// Rows that a table read without `limit` answers before it gives a cursor.
    pub rows_default: u64,
    /// The topic that `/data/{id}` reads and `/ingresar-datos` falls back to.
    pub compat_topic: String,
    /// Topics that take deliveries of SNS, and of which of its topics.
    pub sns: HashMap<String, AllowedTopics>,
    /// Topics that take webhooks, and how those are signed.
    pub webhooks: HashMap<String, Webhook>,
    /// Who may publish with an AWS SDK.
    pub aws_keys: aws::Keys,
    pub fetch: Fetch,
    pub sql: SqlConfig,
    pub read: ReadBounds,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 16 * 1024 * 1024,
            wait_default: Duration::from_secs(2),
            wait_max: Duration::from_secs(60),
            record_cache_bytes: 32 * 1024 * 1024,
            rows_default: u64::MAX,
            compat_topic: "data-ingestion-topic".to_owned(),
            sns: HashMap::new(),
            webhooks: HashMap::new(),
            aws_keys: aws::Keys::default(),
            fetch: Fetch::default(),
            sql: SqlConfig::default(),
            read: ReadBounds::default(),
        }
    }
}

/// The state behind the router.
#[derive(Debug)]
pub struct App {
    pub engine: Arc<Engine>,
    pub config: HttpConfig,
    pub registry: Registry,
    pub(crate) requests: RequestMetrics,
    pub(crate) cache: RecordCache,
    pub(crate) certificates: Certificates,
    pub(crate) cursor_key: CursorKey,
}

impl App {
    pub fn new(engine: Arc<Engine>, config: HttpConfig, mut registry: Registry) -> Arc<Self> {
        let requests = RequestMetrics::register(&mut registry);
        let cache = RecordCache::new(config.record_cache_bytes);
        Arc::new(Self {
            engine,
            config,
            registry,
            requests,
            cache,
            certificates: Certificates::default(),
            cursor_key: CursorKey::default(),
        })
    }
}
