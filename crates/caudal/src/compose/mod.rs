//! The one place that names adapters: from settings to a running engine.

mod apart;
mod confirm;
pub(crate) mod confirm_store;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_core::confirm::ports::Confirmations;
use caudal_core::ports::{Broker, Store};
use caudal_engine::confirm::ConfirmMetrics;
use caudal_engine::metrics::Metrics;
use caudal_engine::topic::{Topic, TopicConfig, Topics};
use caudal_engine::{Engine, EngineConfig};
use prometheus_client::registry::Registry;

#[cfg(feature = "lambda")]
pub(crate) use caudal_broker::sqs as queued;

pub(crate) use apart::{Apart, refuse_to_store};
pub(crate) use confirm::Confirmings;
pub(crate) use confirm_store::ConfirmStore;
#[cfg(feature = "lambda")]
pub(crate) use confirm_store::Work;

use crate::config::Loaded;
use crate::secret::SecretUrl;

/// The engine and what must be known of its parts to run and end it.
pub(crate) struct Composed {
    pub(crate) engine: Arc<Engine>,
    pub(crate) registry: Registry,
    pub(crate) confirm_metrics: ConfirmMetrics,
    #[cfg_attr(not(feature = "embedded"), allow(dead_code))]
    broker: Brokered,
}

pub(crate) enum Brokered {
    None,
    #[cfg(feature = "embedded")]
    Embedded(Arc<caudal_broker::embedded::EmbeddedBroker>),
    #[cfg(feature = "remote")]
    Remote(Arc<dyn Broker>),
}

/// Opens the adapters that the settings name. The store need not answer yet.
pub(crate) async fn compose(loaded: &Loaded) -> Result<Composed> {
    let broker = broker(loaded).await?;
    let outside = match confirm_store::apart(loaded)? {
        Some(url) => Some(ConfirmStore::open(loaded, url).await?.port()),
        None => None,
    };
    compose_over(loaded, broker, outside)
}

/// The same without the broker, which another process may have open: for commands that work on the store.
pub(crate) fn compose_store(loaded: &Loaded) -> Result<Composed> {
    compose_over(loaded, Brokered::None, None)
}

fn compose_over(loaded: &Loaded, broker: Brokered, outside: Option<Arc<dyn Confirmations>>) -> Result<Composed> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let confirm_metrics = ConfirmMetrics::register(&mut registry);
    let topics = match confirm_store::apart(loaded)? {
        None => topics(loaded, &metrics)?,
        // What this process stores does not become pending.
        Some(_) => topics_of(loaded, &metrics, |config| TopicConfig { lanes: None, ..config })?,
    };
    let store = store(loaded)?;
    let config = EngineConfig {
        store_patience: Duration::from_millis(loaded.settings.store.patience_ms),
        subscription: loaded.settings.broker.subscription.clone(),
        deliveries_max: loaded.settings.broker.deliveries_max,
        schemas: loaded.settings.read.schemas.clone(),
        relations_poll: Duration::from_millis(loaded.settings.read.poll_ms.max(100)),
    };
    let engine = Engine::with_confirmations(topics, store, broker.port(), outside, config);
    Ok(Composed { engine, registry, confirm_metrics, broker })
}

/// The topics as they are configured.
pub(crate) fn topics(loaded: &Loaded, metrics: &Metrics) -> Result<Topics> {
    topics_of(loaded, metrics, |config| config)
}

fn topics_of(loaded: &Loaded, metrics: &Metrics, fit: impl Fn(TopicConfig) -> TopicConfig) -> Result<Topics> {
    let topics = loaded.topics()?.into_iter().map(|config| {
        let name = config.name.clone();
        Topic::new(fit(config), metrics.topic(name.as_str())).with_context(|| format!("topic {name}: its schema"))
    });
    Ok(Topics::new(topics.collect::<Result<Vec<_>>>()?))
}

/// The store that `store.url` names, without asking whether it answers.
pub(crate) fn store(loaded: &Loaded) -> Result<Arc<dyn Store>> {
    store_at(loaded, &loaded.settings.store.url)
}

/// The same at another URL, with the settings of `[store]` otherwise.
pub(crate) fn store_at(loaded: &Loaded, url: &SecretUrl) -> Result<Arc<dyn Store>> {
    let settings = &loaded.settings.store;
    let named = url;
    let url = named.expose();
    let statement_timeout = Duration::from_millis(settings.statement_timeout_ms);
    match url.split_once(':').map_or("", |(scheme, _)| scheme) {
        #[cfg(feature = "sqlite")]
        "sqlite" => {
            let file = url.trim_start_matches("sqlite:").trim_start_matches("//");
            let path = loaded.data_path(file);
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            }
            let mut config = caudal_store::sqlite::SqliteConfig::new(path, instance());
            config.readers = settings.readers;
            config.statement_timeout = statement_timeout;
            config.analysts.connections = loaded.settings.sql.connections;
            config.analysts.statement_timeout = Duration::from_millis(loaded.settings.sql.statement_timeout_ms);
            Ok(Arc::new(caudal_store::sqlite::SqliteStore::open(config)?))
        }
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => {
            let mut config = caudal_store::postgres::PostgresConfig::new(url, instance());
            config.writers = settings.writers;
            config.readers = settings.readers;
            config.statement_timeout = statement_timeout;
            config.transaction_pooling = settings.transaction_pooling;
            config.idle_max = (settings.idle_ms_max > 0).then(|| Duration::from_millis(settings.idle_ms_max));
            config.analysts = analysts(loaded);
            Ok(Arc::new(caudal_store::postgres::PostgresStore::new(config)?))
        }
        "dynamodb" => bail!("{named} keeps confirmations and no messages: name it in confirm.store"),
        _ => bail!("store.url is {named}; it starts with sqlite: or postgres://"),
    }
}

#[cfg(feature = "postgres")]
fn analysts(loaded: &Loaded) -> caudal_store::postgres::AnalystConfig {
    let sql = &loaded.settings.sql;
    caudal_store::postgres::AnalystConfig {
        role: (!sql.role.is_empty()).then(|| sql.role.clone()),
        refuse_superuser: !loaded.is_local(),
        connections: sql.connections,
        statement_timeout: Duration::from_millis(sql.statement_timeout_ms),
    }
}

/// Names this process among those that share a store: two at once never have the same.
pub(crate) fn instance() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}

/// The broker that `broker.url` names. A remote one need not answer yet.
pub(crate) async fn broker(loaded: &Loaded) -> Result<Brokered> {
    let settings = &loaded.settings.broker;
    let url = settings.url.expose();
    match url.split_once(':').map_or(url, |(scheme, _)| scheme) {
        "none" => Ok(Brokered::None),
        #[cfg(feature = "embedded")]
        "embedded" => {
            let config = caudal_broker::embedded::EmbeddedConfig {
                segment_bytes: settings.segment_bytes,
                subscriptions: vec![settings.subscription.clone()],
                retention_age: Duration::from_secs(settings.retention_hours * 3600),
                retention_bytes: settings.retention_bytes,
                ..Default::default()
            };
            let broker = caudal_broker::embedded::EmbeddedBroker::open(loaded.data_path("topics"), config).await?;
            Ok(Brokered::Embedded(Arc::new(broker)))
        }
        #[cfg(feature = "rabbitmq")]
        "amqp" | "amqps" => remote(caudal_broker::rabbitmq::RabbitMqBroker::open(remote_config(loaded)?).await),
        #[cfg(feature = "nats")]
        "nats" | "tls" => remote(caudal_broker::nats::NatsBroker::open(remote_config(loaded)?).await),
        #[cfg(feature = "redis")]
        "redis" | "rediss" => remote(caudal_broker::redis::RedisBroker::open(remote_config(loaded)?).await),
        #[cfg(feature = "sqs")]
        "sqs" => remote(caudal_broker::sqs::SqsBroker::open(remote_config(loaded)?).await),
        #[cfg(feature = "kafka")]
        "kafka" => remote(caudal_broker::kafka::KafkaBroker::open(remote_config(loaded)?).await),
        _ => bail!(
            "broker.url is {}, which this build of Caudal does not speak; it speaks {}",
            settings.url,
            SCHEMES.join(" ")
        ),
    }
}

/// What `broker.url` may begin with in this build.
const SCHEMES: &[&str] = &[
    "none:",
    #[cfg(feature = "embedded")]
    "embedded:",
    #[cfg(feature = "rabbitmq")]
    "amqp://",
    #[cfg(feature = "nats")]
    "nats://",
    #[cfg(feature = "redis")]
    "redis://",
    #[cfg(feature = "sqs")]
    "sqs:",
    #[cfg(feature = "kafka")]
    "kafka://",
];

#[cfg(feature = "remote")]
fn remote<B: Broker + 'static>(opened: Result<B, caudal_core::error::BrokerError>) -> Result<Brokered> {
    Ok(Brokered::Remote(Arc::new(opened?)))
}

#[cfg(feature = "remote")]
fn remote_config(loaded: &Loaded) -> Result<caudal_broker::RemoteConfig> {
    let settings = &loaded.settings.broker;
    let mut config = caudal_broker::RemoteConfig::new(settings.url.expose());
    config.create = settings.create;
    config.subscriptions = vec![settings.subscription.clone()];
    for (name, topic) in &loaded.settings.topics {
        let place = caudal_broker::Place { publish: topic.publish_to.clone(), consume: topic.consume_from.clone() };
        config.places.insert(caudal_core::topic::TopicName::parse(name)?, place);
    }
    Ok(config)
}

impl Brokered {
    pub(crate) fn port(&self) -> Option<Arc<dyn Broker>> {
        match self {
            Self::None => None,
            #[cfg(feature = "embedded")]
            Self::Embedded(broker) => Some(broker.clone()),
            #[cfg(feature = "remote")]
            Self::Remote(broker) => Some(broker.clone()),
        }
    }
}

impl Composed {
    /// Resolves when a part failed in a way that the process must not survive (promise 8).
    pub(crate) fn failed(&self) -> impl Future<Output = String> + use<> {
        #[cfg(feature = "embedded")]
        let broker = match &self.broker {
            Brokered::Embedded(broker) => Some(broker.clone()),
            _ => None,
        };
        async move {
            #[cfg(feature = "embedded")]
            if let Some(broker) = broker {
                return broker.failed().await.to_string();
            }
            std::future::pending().await
        }
    }
}
