//! A function with `confirm.store`: the steps of a state machine, and queues whose messages become pending. There is no SQL store,
//! and nothing is served over HTTP.

use std::time::Duration;

use anyhow::Result;
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::Beat;
use caudal_core::error::StoreError;
use caudal_engine::clock;
use caudal_engine::confirm::enqueue::{NotPending, Pending, delivered, pending};
use caudal_engine::ingest::Record;
use caudal_engine::topic::Topic;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use super::event::{Event, Op, Step};
use super::queue::{self, Message, Queues};
use super::{Failure, internal};
use crate::compose::{Apart, Work};
use crate::config::Loaded;
use crate::confirming::time;

/// Functions that are at one topic at the same time, unless a step says otherwise.
const PARALLEL_MAX: u64 = 10;
/// Longer than this a state machine does not wait: another execution will find it.
const WAIT_SECONDS_MAX: u64 = 300;
/// Of one execution, whose history has an end (25,000 events).
const ROUNDS_MAX: u64 = 150;
/// Between two looks at leases of others.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// What the last writes of a run are given, beside `store.patience_ms`.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Steps {
    loaded: Loaded,
    queues: Queues,
    apart: OnceCell<Apart>,
}

impl Steps {
    /// # Errors
    /// What no event could make good.
    pub(super) fn new(mut loaded: Loaded) -> Result<Self> {
        // Nobody has to be told by, or of, a function that is about to end.
        loaded.settings.confirm.wake = false;
        loaded.settings.confirm.idle_beat_ms = loaded.settings.confirm.idle_beat_ms.min(200);
        Ok(Self { queues: Queues::of(&loaded)?, loaded, apart: OnceCell::new() })
    }

    /// The store, opened; tried anew by each event until it succeeds.
    pub(super) async fn ready(&self) -> Result<&Apart, Failure> {
        let open = async {
            match Apart::open(&self.loaded).await {
                Ok(Some(apart)) => apart.prepare().await.map(|()| apart).map_err(failed),
                Ok(None) => Err(setup("confirm.store is empty".to_owned())),
                Err(error) => Err(of_any(&error)),
            }
        };
        self.apart.get_or_try_init(|| open).await
    }

    pub(super) async fn invoke(&self, payload: &RawValue, within: Duration) -> Result<Box<RawValue>, Failure> {
        let until = Instant::now() + within;
        let event = Event::read(payload.get()).map_err(|message| Failure { kind: "UnknownEvent", message })?;
        match event {
            Event::Step(step) => to_raw_value(&self.step(&step, until).await?).map_err(internal),
            Event::Queue(records) => {
                let answer = queue::settle(&records, async |arn, messages| self.take(arn, messages, until).await).await;
                to_raw_value(&answer?).map_err(internal)
            }
            Event::Http(_) => Err(setup(
                "this function has confirm.store, and so takes steps of a state machine and queues, and no HTTP requests: send \
                 them to a function without confirm.store"
                    .to_owned(),
            )),
        }
    }

    async fn step(&self, step: &Step<'_>, until: Instant) -> Result<Value, Failure> {
        let begun = Instant::now();
        let apart = self.ready().await?;
        let topics = topics(apart, step.topic.as_deref())?;
        let answer = match step.op {
            Op::Enqueue => enqueue(apart, step).await,
            Op::Plan => self.plan(apart, &topics, step).await,
            Op::Confirm => self.confirm(apart, step, until).await,
            Op::Reconcile => self.reconcile(apart, &topics, step, until).await,
        };
        let answer = answer?;
        tracing::info!(op = ?step.op, topic = step.topic.as_deref(), %answer, ms = begun.elapsed().as_millis() as u64, "made a step");
        Ok(answer)
    }

    /// How many functions are worth starting, and what to hand to each. Which transactions each gets, the leases decide: so two
    /// executions at once do not get in each other's way.
    async fn plan(&self, apart: &Apart, topics: &[&Topic], step: &Step<'_>) -> Result<Value, Failure> {
        let parallel_max = step.parallel_max.unwrap_or(PARALLEL_MAX).max(1);
        let (mut inputs, mut total) = (Vec::new(), 0);
        for topic in topics {
            let batch_max = self.section(topic)?.batch_max.max(1) as u64;
            let work = work(apart, topic, parallel_max * batch_max).await?;
            total += work.due;
            let functions = work.due.div_ceil(batch_max).min(parallel_max);
            inputs.extend((0..functions).map(|_| json!({ "op": "confirm", "topic": topic.name.as_str() })));
        }
        Ok(json!({ "due": total, "count": inputs.len(), "inputs": inputs }))
    }

    /// Confirms until nothing is due, or so near to the end of the invocation that calls under way can still end and be
    /// written down.
    async fn confirm(&self, apart: &Apart, step: &Step<'_>, until: Instant) -> Result<Value, Failure> {
        let mut call = Duration::ZERO;
        for topic in topics(apart, step.topic.as_deref())? {
            call = call.max(time("timeout", &self.section(topic)?.timeout).map_err(|error| of_any(&error))?);
        }
        let kept_back = call + Duration::from_millis(self.loaded.settings.store.patience_ms) + LAST_WRITES;
        let limit = until.saturating_duration_since(Instant::now()).saturating_sub(kept_back);
        if limit < LAST_WRITES {
            return Err(setup(format!(
                "the function has too little time: {} s are kept back for the last calls to end and be written down. Give it a \
                 longer timeout, or topics.<name>.confirm.timeout a shorter one",
                kept_back.as_secs()
            )));
        }
        let confirming = apart.start(&self.loaded, step.topic.as_deref()).await.map_err(|error| of_any(&error))?;
        let report = confirming.finish(limit, Duration::ZERO).await;
        Ok(json!({
            "ok": report.confirmed,
            "rejected": report.rejected,
            "deferred": report.deferred,
            "aside": report.aside,
            "cut_short": report.cut_short,
        }))
    }

    /// What is still to be done, and how long to wait before that. Leases of others are watched until they end or lapse: the
    /// next invocation may be another process, which would have to begin watching anew.
    async fn reconcile(
        &self,
        apart: &Apart,
        topics: &[&Topic],
        step: &Step<'_>,
        until: Instant,
    ) -> Result<Value, Failure> {
        let wait_max = step.wait_seconds_max.unwrap_or(WAIT_SECONDS_MAX).max(1);
        let mut term = Duration::ZERO;
        for topic in topics {
            term = term.max(time("lease", &self.section(topic)?.lease).map_err(|error| of_any(&error))?);
        }
        if until.saturating_duration_since(Instant::now()) < term {
            tracing::warn!("the function's timeout is shorter than a lease: what a dead function had may stay with it");
        }
        let worker = format!("reconcile:{}", clock::fresh_id(clock::now()).simple());
        let (left, deserted) = self.watch(apart, topics, &worker, term, until).await?;
        // Counted until its last beat is old, if this fails.
        let _ = apart.store.port().leave(&worker).await;
        let later = left.next_due.map(|next| next.as_secs() + 1);
        let soon = later.filter(|later| *later <= wait_max);
        let wait = if left.due + deserted > 0 { 1 } else { soon.unwrap_or(1) };
        let round = step.round.unwrap_or_default() + 1;
        let again = (left.due + deserted > 0 || soon.is_some()) && round < ROUNDS_MAX;
        Ok(json!({
            "again": again,
            "wait": wait,
            "round": round,
            "due": left.due,
            "leases": left.leases,
            "later": later,
        }))
    }

    /// Looks until something is due, no lease is left, or those that are left have been watched for their term. Returns what is left,
    /// and how many leases may be a dead function's.
    async fn watch(
        &self,
        apart: &Apart,
        topics: &[&Topic],
        worker: &str,
        term: Duration,
        until: Instant,
    ) -> Result<(Work, u64), Failure> {
        let mut seen_since = None;
        loop {
            let begun = Instant::now();
            let left = self.look(apart, topics, worker, term).await?;
            // A lease is watched from the end of the first look: a look may take longer than a term.
            let watched_for = begun.saturating_duration_since(*seen_since.get_or_insert_with(Instant::now));
            if left.leases == 0 || left.due > 0 || watched_for >= term {
                // What has not lapsed by now is prolonged by somebody who lives, and theirs.
                return Ok((left, 0));
            }
            if Instant::now() + LOOK_EVERY >= until {
                let deserted = left.leases;
                return Ok((left, deserted));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Ends what has lapsed, and says what is left, all topics together. What is paused waits for people, and does not count.
    async fn look(&self, apart: &Apart, topics: &[&Topic], worker: &str, term: Duration) -> Result<Work, Failure> {
        let store = apart.store.port();
        let mut left = Work::default();
        for topic in topics {
            let lanes = topic.known_lanes().to_vec();
            let beat = Beat { worker: worker.into(), ttl: term, lanes, promote_max: 1000, thorough: true };
            store.beat(&beat).await.map_err(failed)?;
            let work = work(apart, topic, 1).await?;
            left.due += work.due;
            left.leases += work.leases;
            left.next_due = [left.next_due, work.next_due].into_iter().flatten().min();
        }
        Ok(left)
    }

    fn section(&self, topic: &Topic) -> Result<&crate::confirming::Confirm, Failure> {
        let section = self.loaded.settings.topics.get(topic.name.as_str()).and_then(|topic| topic.confirm.as_ref());
        section.ok_or_else(|| setup(format!("topic {} has no confirm section", topic.name)))
    }

    /// Makes messages of one queue pending, and returns the ids of those that are not. There are no dead letters without an SQL
    /// store: what is bad comes again until the queue's own dead-letter queue takes it. A FIFO queue's order means nothing here,
    /// where calls are made at the same time.
    async fn take(&self, queue_arn: &str, messages: Vec<Message>, until: Instant) -> Vec<String> {
        let ids: Vec<String> = messages.iter().map(|message| message.message_id.clone()).collect();
        match timeout_at(until, self.take_in_time(queue_arn, messages)).await {
            Ok(Ok(unsettled)) => unsettled.into_iter().filter_map(|at| ids.get(at).cloned()).collect(),
            Ok(Err(failure)) => {
                tracing::error!(
                    queue = queue_arn,
                    messages = ids.len(),
                    error = failure.message,
                    "they must come again"
                );
                ids
            }
            Err(_) => {
                tracing::error!(queue = queue_arn, messages = ids.len(), "the time is over; they must come again");
                ids
            }
        }
    }

    async fn take_in_time(&self, queue_arn: &str, messages: Vec<Message>) -> Result<Vec<usize>, Failure> {
        let total = messages.len();
        let apart = self.ready().await?;
        let Some(name) = self.queues.topic(queue_arn) else {
            return Err(setup(format!(
                "no topic is consumed from this queue: name it in topics.<topic>.consume_from, or call it caudal-<topic>-{}",
                self.queues.subscription
            )));
        };
        let topic = apart.topic(name.as_str()).map_err(|error| of_any(&error))?;
        let (mut items, mut places, mut unsettled) = (Vec::<Pending>::new(), Vec::new(), Vec::new());
        for (at, message) in messages.into_iter().enumerate() {
            match delivered(topic, message.pushed(at as u64, false).delivery) {
                Ok(item) => {
                    items.push(item);
                    places.push(at);
                }
                Err(NotPending::Rejected(why)) => {
                    tracing::error!(topic = %topic.name, %why, "a message cannot become pending");
                    unsettled.push(at);
                }
                Err(NotPending::Store(error)) => return Err(failed(error)),
            }
        }
        let done = apart.store.enqueue(&items).await.map_err(failed)?;
        for (at, why) in done.refused {
            tracing::error!(topic = %topic.name, why, "a message cannot become pending");
            unsettled.push(places[at]);
        }
        tracing::info!(topic = %topic.name, messages = total, new = done.new, repeats = done.repeats, unsettled = unsettled.len(), "took a batch");
        unsettled.sort_unstable();
        Ok(unsettled)
    }
}

/// The topic that a step names, or all that are confirmed.
fn topics<'a>(apart: &'a Apart, named: Option<&str>) -> Result<Vec<&'a Topic>, Failure> {
    match named {
        Some(name) => Ok(vec![apart.topic(name).map_err(|error| of_any(&error))?]),
        None => Ok(apart.topics.iter().filter(|topic| topic.config.lanes.is_some()).map(|topic| &**topic).collect()),
    }
}

/// All lanes of a topic together. A paused lane has nothing to do but for what is still under way in it.
async fn work(apart: &Apart, topic: &Topic, due_max: u64) -> Result<Work, Failure> {
    let mut all = Work::default();
    for lane in topic.known_lanes() {
        let work = of_lane(apart, *lane, due_max).await?;
        all.leases += work.leases;
        if !work.paused {
            all.due += work.due;
            all.next_due = [all.next_due, work.next_due].into_iter().flatten().min();
        }
    }
    Ok(all)
}

async fn of_lane(apart: &Apart, lane: LaneId, due_max: u64) -> Result<Work, Failure> {
    apart.store.work(lane, due_max).await.map_err(failed)
}

/// Makes the records of a step pending, as `caudal confirm enqueue` does.
async fn enqueue(apart: &Apart, step: &Step<'_>) -> Result<Value, Failure> {
    let Some(name) = step.topic.as_deref() else { return Err(setup("enqueue needs a topic".to_owned())) };
    let topic = apart.topic(name).map_err(|error| of_any(&error))?;
    let Some(records) = &step.records else { return Err(setup("enqueue needs records: a list of objects".to_owned())) };
    let (mut items, mut places, mut refused) = (Vec::<Pending>::new(), Vec::new(), Vec::new());
    for (at, record) in records.iter().enumerate() {
        let body = record.get().as_bytes().to_vec().into();
        let record = Record { key: None, source: "enqueue".into(), attributes: None, body, fault: None };
        match pending(topic, &record) {
            Ok(item) => {
                items.push(item);
                places.push(at);
            }
            Err(NotPending::Rejected(why)) => refused.push((at, why.to_string())),
            Err(NotPending::Store(error)) => return Err(failed(error)),
        }
    }
    let done = apart.store.enqueue(&items).await.map_err(failed)?;
    refused.extend(done.refused.into_iter().map(|(at, why)| (places[at], why)));
    refused.sort_unstable();
    let refused: Vec<_> = refused.into_iter().map(|(index, why)| json!({ "index": index, "why": why })).collect();
    Ok(json!({ "new": done.new, "repeats": done.repeats, "refused": refused }))
}

/// `StoreUnavailable` is worth another try, which a state machine makes by this name.
fn failed(error: StoreError) -> Failure {
    let kind = if error.is_transient() { "StoreUnavailable" } else { "StoreFailed" };
    Failure { kind, message: error.to_string() }
}

fn setup(message: String) -> Failure {
    Failure { kind: "NotAsItMustBe", message }
}

fn of_any(error: &anyhow::Error) -> Failure {
    let transient = error.chain().filter_map(|cause| cause.downcast_ref::<StoreError>()).any(StoreError::is_transient);
    let kind = if transient { "StoreUnavailable" } else { "NotAsItMustBe" };
    Failure { kind, message: format!("{error:#}") }
}
