//! The confirmation engine's metrics, named, described and registered in one place.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};

use caudal_core::confirm::Mark;
use caudal_core::confirm::ports::Settled;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::OnceReport;
use super::settle::{Done, kind};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MarkLabels {
    topic: String,
    state: &'static str,
}

type Count = Counter<u64, AtomicU64>;
type Level = Gauge<i64, AtomicI64>;
type Times = Family<TopicLabels, Histogram, fn() -> Histogram>;

/// The metric families.
#[derive(Debug, Clone)]
pub struct ConfirmMetrics {
    marks: Family<MarkLabels, Count>,
    contradictions: Family<TopicLabels, Count>,
    fenced: Family<TopicLabels, Count>,
    calling: Family<TopicLabels, Level>,
    breaker: Family<TopicLabels, Level>,
    time_to_confirm: Times,
    call_seconds: Times,
}

impl ConfirmMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 20));
        let metrics = Self {
            marks: Family::default(),
            contradictions: Family::default(),
            fenced: Family::default(),
            calling: Family::default(),
            breaker: Family::default(),
            time_to_confirm: Family::new_with_constructor(seconds),
            call_seconds: Family::new_with_constructor(seconds),
        };
        let m = &metrics;
        registry.register(
            "caudal_confirmation_marks",
            "What became of claimed transactions, by state",
            m.marks.clone(),
        );
        registry.register(
            "caudal_confirmation_contradictions",
            "Answers that contradict the outcome that stands",
            m.contradictions.clone(),
        );
        registry.register(
            "caudal_confirmation_fenced",
            "Answers, other than facts, that came after their lease had lapsed",
            m.fenced.clone(),
        );
        registry.register("caudal_confirmation_calls", "Calls under way", m.calling.clone());
        registry.register(
            "caudal_confirmation_breaker_open",
            "1 while nothing is asked of the endpoint",
            m.breaker.clone(),
        );
        registry.register("caudal_time_to_confirm_seconds", "Pending to outcome", m.time_to_confirm.clone());
        registry.register("caudal_confirmation_call_seconds", "One call or probe", m.call_seconds.clone());
        metrics
    }

    pub(crate) fn topic(&self, topic: &str) -> TargetMetrics {
        let labels = TopicLabels { topic: topic.to_owned() };
        TargetMetrics {
            topic: topic.to_owned(),
            marks: self.marks.clone(),
            contradictions: self.contradictions.get_or_create(&labels).clone(),
            fenced: self.fenced.get_or_create(&labels).clone(),
            calling: self.calling.get_or_create(&labels).clone(),
            breaker: self.breaker.get_or_create(&labels).clone(),
            time_to_confirm: Arc::new(self.time_to_confirm.get_or_create(&labels).clone()),
            call_seconds: Arc::new(self.call_seconds.get_or_create(&labels).clone()),
        }
    }
}

/// One topic's handles.
#[derive(Debug, Clone)]
pub(crate) struct TargetMetrics {
    topic: String,
    marks: Family<MarkLabels, Count>,
    contradictions: Count,
    fenced: Count,
    pub(crate) calling: Level,
    pub(crate) breaker: Level,
    time_to_confirm: Arc<Histogram>,
    pub(crate) call_seconds: Arc<Histogram>,
}

impl TargetMetrics {
    pub(crate) fn settled(&self, done: &[Done], settled: &Settled) {
        self.contradictions.inc_by(settled.contradictions);
        self.fenced.inc_by(settled.fenced);
        for done in done {
            self.mark(kind(&done.marked.mark)).inc();
            if matches!(done.marked.mark, Mark::Fact { .. }) {
                let waited = done.marked.item.age() + done.claimed_at.elapsed();
                self.time_to_confirm.observe(waited.as_secs_f64());
            }
        }
    }

    fn mark(&self, state: &'static str) -> Count {
        self.marks.get_or_create(&MarkLabels { topic: self.topic.clone(), state }).clone()
    }

    /// Everything so far, for a run that ends.
    pub(crate) fn add_to(&self, report: &mut OnceReport) {
        report.confirmed += self.mark("confirmed").get();
        report.rejected += self.mark("rejected").get();
        report.deferred += self.mark("retry").get() + self.mark("doubt").get();
        report.aside += self.mark("held").get() + self.mark("dead").get();
    }
}
