//! Every metric of the engine, named, described and registered in one place. OpenMetrics by `prometheus-client`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use caudal_core::outcome::Tally;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    topic: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;

/// The engine's metric families.
#[derive(Debug, Clone)]
pub struct Metrics {
    accepted: Family<TopicLabels, Count>,
    outcomes: Family<OutcomeLabels, Count>,
    in_flight: Family<TopicLabels, Level>,
    backlog: Family<TopicLabels, Level>,
    unaccounted: Family<TopicLabels, Level>,
    freshness: Family<TopicLabels, Histogram, fn() -> Histogram>,
    batch_rows: Family<TopicLabels, Histogram, fn() -> Histogram>,
    retries: Family<TopicLabels, Count>,
    missing: Family<TopicLabels, Count>,
}

impl Metrics {
    /// Registers every family. Names carry their unit; OpenMetrics adds `_total` to counters.
    pub fn register(registry: &mut Registry) -> Self {
        let freshness: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let rows: fn() -> Histogram = || Histogram::new(exponential_buckets(1.0, 4.0, 8));
        let metrics = Self {
            accepted: Family::default(),
            outcomes: Family::default(),
            in_flight: Family::default(),
            backlog: Family::default(),
            unaccounted: Family::default(),
            freshness: Family::new_with_constructor(freshness),
            batch_rows: Family::new_with_constructor(rows),
            retries: Family::default(),
            missing: Family::default(),
        };
        let m = &metrics;
        registry.register("caudal_accepted", "Envelopes taken in by this process", m.accepted.clone());
        registry.register("caudal_outcomes", "Envelopes by how they ended", m.outcomes.clone());
        registry.register("caudal_in_flight", "Envelopes between accept and outcome", m.in_flight.clone());
        registry.register("caudal_backlog", "Messages in the topic that are not stored yet", m.backlog.clone());
        registry.register(
            "caudal_unaccounted",
            "accepted - stored - duplicate - rejected - dead - in flight; anything but 0 is a loss or a double count",
            m.unaccounted.clone(),
        );
        registry.register("caudal_freshness_seconds", "Publish to queryable", m.freshness.clone());
        registry.register("caudal_append_rows", "Rows of one store transaction", m.batch_rows.clone());
        registry.register("caudal_append_retries", "Appends repeated after a transient failure", m.retries.clone());
        registry.register(
            "caudal_missing",
            "Messages that the broker numbered and dropped before they were read",
            m.missing.clone(),
        );
        metrics
    }

    /// The handles of one topic, looked up once.
    pub fn topic(&self, topic: &str) -> TopicMetrics {
        let labels = TopicLabels { topic: topic.to_owned() };
        let outcome =
            |outcome| self.outcomes.get_or_create(&OutcomeLabels { topic: topic.to_owned(), outcome }).clone();
        TopicMetrics {
            accepted: self.accepted.get_or_create(&labels).clone(),
            stored: outcome("stored"),
            duplicate: outcome("duplicate"),
            rejected: outcome("rejected"),
            dead: outcome("dead"),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            backlog: self.backlog.get_or_create(&labels).clone(),
            unaccounted: self.unaccounted.get_or_create(&labels).clone(),
            freshness: Arc::new(self.freshness.get_or_create(&labels).clone()),
            batch_rows: Arc::new(self.batch_rows.get_or_create(&labels).clone()),
            retries: self.retries.get_or_create(&labels).clone(),
            missing: self.missing.get_or_create(&labels).clone(),
        }
    }
}

/// One topic's handles: clones share the numbers.
#[derive(Debug, Clone)]
pub struct TopicMetrics {
    accepted: Count,
    stored: Count,
    duplicate: Count,
    rejected: Count,
    dead: Count,
    in_flight: Level,
    backlog: Level,
    unaccounted: Level,
    freshness: Arc<Histogram>,
    batch_rows: Arc<Histogram>,
    retries: Count,
    missing: Count,
}

impl TopicMetrics {
    /// Counts `n` envelopes in, until the returned guard is settled.
    pub(crate) fn accept(&self, n: u64) -> InFlight {
        self.accepted.inc_by(n);
        self.in_flight.inc_by(n as i64);
        InFlight { metrics: self.clone(), n }
    }

    /// Counts `n` envelopes that were taken in and rejected at once.
    pub fn rejected(&self, n: u64) {
        self.accept(n).settle(Tally { rejected: n, ..Tally::default() });
    }

    /// Ends `n` envelopes whose guard went with an append that was cut off, as [`InFlight::withdraw`] does.
    pub(crate) fn withdraw(&self, n: u64) {
        InFlight { metrics: self.clone(), n }.withdraw();
    }

    pub(crate) fn missing(&self, messages: u64) {
        self.missing.inc_by(messages);
    }

    pub(crate) fn retried(&self) {
        self.retries.inc();
    }

    pub(crate) fn appended(&self, rows: usize, freshness_seconds: f64) {
        self.batch_rows.observe(rows as f64);
        self.freshness.observe(freshness_seconds);
    }

    pub(crate) fn set_backlog(&self, messages: u64) {
        self.backlog.set(messages as i64);
    }

    /// The process's own tally, and what is between accept and outcome.
    pub fn tally(&self) -> (Tally, u64) {
        let tally = Tally {
            stored: self.stored.get(),
            duplicate: self.duplicate.get(),
            rejected: self.rejected.get(),
            dead: self.dead.get(),
            accepted: self.accepted.get(),
        };
        (tally, self.in_flight.get().max(0) as u64)
    }

    pub(crate) fn set_unaccounted(&self, records: i64) {
        self.unaccounted.set(records);
    }
}

/// Envelopes under way. Must end in [`settle`](Self::settle) or [`withdraw`](Self::withdraw): dropping it otherwise leaves
/// them in flight for good, which is what conservation is there to show.
#[derive(Debug)]
pub(crate) struct InFlight {
    metrics: TopicMetrics,
    n: u64,
}

impl InFlight {
    pub(crate) fn settle(self, tally: Tally) {
        let m = &self.metrics;
        m.stored.inc_by(tally.stored);
        m.duplicate.inc_by(tally.duplicate);
        m.rejected.inc_by(tally.rejected);
        m.dead.inc_by(tally.dead);
        m.in_flight.dec_by(self.n as i64);
    }

    /// Ends envelopes whose fate is unknown to this process: the producer got an error and repeats with the same key.
    /// They count as rejected here; the store's own tally says what it really holds.
    pub(crate) fn withdraw(self) {
        let n = self.n;
        self.settle(Tally { rejected: n, ..Tally::default() });
    }
}
