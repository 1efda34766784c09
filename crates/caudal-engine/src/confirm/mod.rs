//! The confirmation engine: claims pending transactions in batches, confirms each by a call of its own, and marks each once,
//! whatever dies.
//!
//! One task a topic claims ([`target`]); each batch runs in a task of its own ([`batch`]); marks of all batches of a topic are
//! committed together ([`settle`]); one task a process keeps the leases alive ([`keep`]) and one beats ([`beat`]): it counts the
//! worker in, ends what others left behind, makes pending what is due, and finds work that nobody told of.
//!
//! What happens to a transaction is decided in `caudal_core::confirm::machine`, not here.

mod batch;
mod beat;
pub mod drill;
pub mod enqueue;
mod hot;
mod keep;
mod metrics;
mod settle;
mod slots;
mod target;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_core::confirm::answer::Rules;
use caudal_core::confirm::policy::Policy;
use caudal_core::confirm::ports::{Confirm, Confirmer, LaneSpec};
use caudal_core::error::StoreError;
use caudal_core::topic::TopicName;
use futures_util::StreamExt;
use tokio::sync::{Notify, RwLock, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use beat::Pulse;
use keep::Keeper;
pub use metrics::ConfirmMetrics;
use target::Target;

/// How one topic's transactions are confirmed.
#[derive(Clone)]
pub struct TargetConfig {
    pub topic: TopicName,
    /// Part of the idempotency key: tells apart what is done with one transaction.
    pub operation: String,
    /// The most urgent first.
    pub lanes: Vec<LaneSpec>,
    pub policy: Policy,
    pub rules: Rules,
    pub limits: Limits,
    pub confirmer: Arc<dyn Confirmer>,
}

impl std::fmt::Debug for TargetConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetConfig").field("topic", &self.topic).field("target", &self.confirmer.target()).finish()
    }
}

/// How much is asked of an endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Calls at the same time, by all workers together.
    pub concurrency: usize,
    /// Calls a second, by all workers together; `None`: as many as go.
    pub rate: Option<f64>,
    /// Items of one batch at most.
    pub batch_max: usize,
    /// How long a batch's lease lives without being prolonged: what a dead worker's items wait for.
    pub lease: Duration,
    /// Calls in a row that fail before nothing is asked for a while; 0: never.
    pub breaker_failures: u32,
    pub breaker_pause: Duration,
    pub breaker_pause_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrency: 64,
            rate: None,
            batch_max: 1_000,
            lease: Duration::from_secs(30),
            breaker_failures: 20,
            breaker_pause: Duration::from_secs(1),
            breaker_pause_max: Duration::from_secs(60),
        }
    }
}

/// A worker's own settings.
#[derive(Debug, Clone)]
pub struct ConfirmConfig {
    /// Names this process among all that share the store; never used by two at a time, nor again by a later one.
    pub worker: Arc<str>,
    /// Between two beats when there is nothing to do.
    pub idle_beat: Duration,
    /// Tell other workers of new transactions, and listen for theirs. Without it they are found by looking, and a database that
    /// sleeps when nobody is connected can sleep.
    pub wake: bool,
    /// How long a drain waits for the store to take what is still to be written down.
    pub patience: Duration,
}

/// The engine at work.
#[derive(Debug)]
pub struct Confirming {
    shared: Arc<Shared>,
    targets: Vec<Arc<Target>>,
    tasks: TaskTracker,
}

/// What the tasks of one process share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Confirm>,
    pub(crate) config: ConfirmConfig,
    pub(crate) stopping: CancellationToken,
    pub(crate) keeper: Keeper,
    /// Held for writing by a batch that must be alone, for reading by every other.
    pub(crate) alone: Arc<RwLock<()>>,
    pub(crate) pulse: watch::Sender<Pulse>,
    /// Asks for a beat now.
    pub(crate) hurry: Notify,
    /// Beats are to find all there is.
    pub(crate) thorough: AtomicBool,
    /// Goes up when another process says that it has stored something.
    pub(crate) word: watch::Sender<u64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a run to the end of the work did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct OnceReport {
    pub confirmed: u64,
    pub rejected: u64,
    /// Left for later: retry, doubt.
    pub deferred: u64,
    /// Left for a person: held, dead.
    pub aside: u64,
    /// The time was over before the work was.
    pub cut_short: bool,
}

impl Confirming {
    /// Makes the lanes known to the store and starts confirming. `news` of a topic changes when this process has stored
    /// something in it.
    pub async fn start(
        store: Arc<dyn Confirm>,
        targets: Vec<(TargetConfig, Option<watch::Receiver<u64>>)>,
        config: ConfirmConfig,
        metrics: &ConfirmMetrics,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared {
            store: store.clone(),
            config,
            stopping: CancellationToken::new(),
            keeper: Keeper::default(),
            alone: Arc::default(),
            pulse: watch::Sender::new(Pulse::default()),
            hurry: Notify::new(),
            thorough: AtomicBool::new(false),
            word: watch::Sender::new(0),
        });
        let tasks = TaskTracker::new();
        let mut started = Vec::with_capacity(targets.len());
        for (config, news) in targets {
            let lanes = store.ensure_lanes(&config.lanes).await?;
            let metrics = metrics.topic(config.topic.as_str());
            let (target, marks) = Target::new(shared.clone(), config, lanes, metrics);
            let target = Arc::new(target);
            tasks.spawn(settle::run(shared.clone(), target.clone(), marks));
            tasks.spawn(target::run(target.clone(), news, tasks.clone()));
            started.push(target);
        }
        let lanes = started.iter().flat_map(|target| target.lanes.iter().copied()).collect();
        let adopting = started.iter().flat_map(|target| target.adopting()).collect();
        tasks.spawn(beat::run(shared.clone(), lanes, adopting));
        tasks.spawn(keep::run(shared.clone()));
        if shared.config.wake {
            tasks.spawn(listen(shared.clone()));
        }
        Ok(Self { shared, targets: started, tasks })
    }

    /// Stops claiming, ends the calls under way, writes down what became of them, and gives back what was not called for.
    pub async fn drain(&self) {
        self.shared.stopping.cancel();
        self.targets.iter().for_each(|target| target.close());
        self.tasks.close();
        self.tasks.wait().await;
        if let Err(error) = self.shared.store.leave(&self.shared.config.worker).await {
            tracing::debug!(%error, "this worker is still counted until its last beat is old");
        }
    }

    /// Works until nothing is pending or due within `linger`, or `limit` is over; then drains. What is due later is left for the
    /// next run.
    pub async fn finish(&self, limit: Duration, linger: Duration) -> OnceReport {
        let worked = tokio::time::timeout(limit, self.until_idle(linger)).await;
        self.drain().await;
        let mut report = OnceReport { cut_short: worked.is_err(), ..OnceReport::default() };
        for target in &self.targets {
            target.metrics.add_to(&mut report);
        }
        report
    }

    /// Resolves when a beat that began with nothing in hand found nothing either.
    async fn until_idle(&self, linger: Duration) {
        let mut pulse = self.shared.pulse.subscribe();
        loop {
            let idle_before = self.is_idle();
            let beats = pulse.borrow_and_update().beats;
            self.shared.thorough.store(idle_before, Ordering::Release);
            self.shared.hurry.notify_one();
            // Two beats: the first may have begun before the look at what is in hand.
            if pulse.wait_for(|pulse| pulse.beats >= beats + 2 || pulse.beats > beats && !idle_before).await.is_err() {
                return;
            }
            let due = pulse.borrow().next_due.is_some_and(|due| due <= linger);
            let ready = self.targets.iter().any(|target| target.has_ready(&pulse.borrow().ready));
            if idle_before && self.is_idle() && !ready && !due {
                return;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.targets.iter().all(|target| target.is_idle())
    }
}

/// Other processes' word that there is something to do.
async fn listen(shared: Arc<Shared>) {
    let mut woken = shared.store.woken();
    loop {
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            word = woken.next() => match word {
                Some(()) => shared.word.send_modify(|words| *words += 1),
                None => return,
            },
        }
    }
}

/// Tells other processes of new transactions, at most every ten milliseconds: for a process that takes in and does not confirm.
pub async fn tell(store: Arc<dyn Confirm>, mut news: Vec<watch::Receiver<u64>>, stopping: CancellationToken) {
    const PAUSE: Duration = Duration::from_millis(10);
    loop {
        let any = futures_util::future::select_all(news.iter_mut().map(|news| Box::pin(news.changed())));
        tokio::select! {
            () = stopping.cancelled() => return,
            (changed, _, _) = any => if changed.is_err() { return },
        }
        news.iter_mut().for_each(|news| {
            news.borrow_and_update();
        });
        if let Err(error) = store.wake().await {
            tracing::debug!(%error, "nobody was told of new transactions; workers find them by looking");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
