//! Exports by the clock. Every worker looks; a lock of the store lets one at a time export a topic, and the manifests say when the
//! last export was, whoever made it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use caudal_core::time::Instant;
use caudal_engine::Engine;
use caudal_export::{ExportError, Outcome};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::by_clock;
use crate::config::Loaded;
use crate::settings;

/// The longest pause between two looks whether an export is due.
const PAUSE_MAX: Duration = Duration::from_secs(60);
const PAUSE_MIN: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

#[derive(Debug, Clone, Default)]
struct Metrics {
    rows: Family<TopicLabels, Counter<u64, AtomicU64>>,
    failures: Family<TopicLabels, Counter<u64, AtomicU64>>,
    last_success: Family<TopicLabels, Gauge<i64, AtomicI64>>,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let m = Self::default();
        registry.register("caudal_export_rows", "Rows that this process has exported", m.rows.clone());
        registry.register("caudal_export_failures", "Exports of this process that failed", m.failures.clone());
        registry.register(
            "caudal_export_last_success_timestamp_seconds",
            "When this topic was last exported, by whichever process",
            m.last_success.clone(),
        );
        m
    }
}

/// Starts a task for each topic whose configuration wants exports. They end when `stop` is cancelled, in the middle of a file if need
/// be: an export that was cut is as if it had not begun.
pub(crate) fn start(loaded: &Loaded, engine: &Arc<Engine>, registry: &mut Registry, stop: &CancellationToken) {
    let wanted = |topic: &settings::Topic| topic.export.clone().filter(|export| export.every_seconds > 0);
    let exports: Vec<_> =
        loaded.settings.topics.iter().filter_map(|(name, topic)| Some((name.clone(), wanted(topic)?))).collect();
    if exports.is_empty() {
        return;
    }
    let metrics = Metrics::register(registry);
    for (topic, settings) in exports {
        let url = loaded.export_url(&settings);
        let settings = settings::Export { url, ..settings };
        let schedule = Schedule { topic, settings, engine: engine.clone(), metrics: metrics.clone() };
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(schedule.run()).await });
    }
}

struct Schedule {
    topic: String,
    settings: settings::Export,
    engine: Arc<Engine>,
    metrics: Metrics,
}

impl Schedule {
    async fn run(self) {
        let labels = TopicLabels { topic: self.topic.clone() };
        let pause = (Duration::from_secs(self.settings.every_seconds) / 4).clamp(PAUSE_MIN, PAUSE_MAX);
        loop {
            if let Some(table) = self.engine.table(&self.topic) {
                let export = by_clock(&self.settings, table);
                self.note(&labels, export.run(&*self.engine.store, &mut |_| {}).await);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, labels: &TopicLabels, outcome: Result<Outcome, ExportError>) {
        let finished_at = match outcome {
            Ok(Outcome::Exported(manifest)) => {
                tracing::info!(topic = self.topic, rows = manifest.rows, files = manifest.files.len(), "exported");
                self.metrics.rows.get_or_create(labels).inc_by(manifest.rows);
                manifest.finished_at
            }
            Ok(Outcome::NotDue { finished_at }) => finished_at,
            Ok(Outcome::NothingNew { looked_at }) => looked_at,
            Err(ExportError::Busy | ExportError::Overtaken) => return,
            Err(error) => {
                tracing::warn!(topic = self.topic, %error, "an export failed; it is tried again");
                self.metrics.failures.get_or_create(labels).inc();
                return;
            }
        };
        if let Some(at) = Instant::parse(&finished_at) {
            self.metrics.last_success.get_or_create(labels).set(at.unix_millis() / 1000);
        }
    }
}
