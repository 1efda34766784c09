//! One topic's endpoint: its lanes, what may be asked of it, and the task that claims.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use caudal_core::confirm::answer::Answer;
use caudal_core::confirm::budget::{BatchSize, Breaker, BreakerState, Rate};
use caudal_core::confirm::ports::{Batch, Claim, Ready, Records};
use caudal_core::confirm::{Keys, LaneId, Rank};
use caudal_core::error::StoreError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::beat::Pulse;
use super::hot::{Hot, Place};
use super::keep::Held;
use super::metrics::TargetMetrics;
use super::settle::Done;
use super::slots::{Slot, Slots};
use super::{Shared, TargetConfig, batch};
use crate::settle::jitter;

/// Batches under way at once: while one calls, the next is claimed and the one before is written down.
const BATCHES_MAX: usize = 16;
/// Marks that wait for the store before calls wait for it, too.
const MARKS_WAITING: usize = 8_192;
const STORE_PAUSE: Duration = Duration::from_millis(200);

pub(crate) struct Target {
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: TargetConfig,
    pub(crate) lanes: Vec<LaneId>,
    pub(crate) keys: Keys,
    pub(crate) metrics: TargetMetrics,
    asking: Mutex<Asking>,
    slots: Slots,
    /// Claimed and not begun.
    waiting: AtomicUsize,
    /// Batches under way.
    open: AtomicUsize,
    /// A batch has got smaller, or ended.
    room: Notify,
    marks: Mutex<Option<mpsc::Sender<Done>>>,
}

/// What may be asked, behind one lock that is never held across a wait.
struct Asking {
    rate: Option<Rate>,
    breaker: Breaker,
    size: BatchSize,
    epoch: Instant,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Target {
    pub(crate) fn new(
        shared: Arc<Shared>,
        config: TargetConfig,
        lanes: Vec<LaneId>,
        metrics: TargetMetrics,
    ) -> (Self, mpsc::Receiver<Done>) {
        let limits = &config.limits;
        let (marks, settling) = mpsc::channel(MARKS_WAITING);
        let concurrency = limits.concurrency.max(1);
        let asking = Asking {
            rate: limits.rate.map(|rate| Rate::new(rate, Duration::ZERO)),
            breaker: Breaker::new(limits.breaker_failures, limits.breaker_pause, limits.breaker_pause_max),
            size: BatchSize::new(1, limits.batch_max),
            epoch: Instant::now(),
        };
        let target = Self {
            keys: Keys::of(&config.topic, &config.operation),
            asking: Mutex::new(asking),
            slots: Slots::new(concurrency),
            waiting: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            room: Notify::new(),
            marks: Mutex::new(Some(marks)),
            shared,
            config,
            lanes,
            metrics,
        };
        (target, settling)
    }

    /// The lanes whose rows somebody else writes.
    pub(crate) fn adopting(&self) -> Vec<LaneId> {
        let lanes = self.lanes.iter().zip(&self.config.lanes);
        lanes.filter(|(_, spec)| matches!(spec.records, Records::Adopted(_))).map(|(lane, _)| *lane).collect()
    }

    pub(crate) fn has_ready(&self, ready: &[Ready]) -> bool {
        ready.iter().any(|ready| self.lanes.contains(&ready.lane))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// No more batches: the settler ends when those under way have.
    pub(crate) fn close(&self) {
        self.room.notify_waiters();
    }

    /// Waits until a call may go out; `None`: it must not, and its item is given back.
    pub(crate) async fn admit(&self, held: &Held) -> Option<Admitted<'_>> {
        loop {
            let slot = self.slots.take().await?;
            if self.shared.stopping.is_cancelled() || !held.is_safe() {
                return None;
            }
            let wait = {
                let mut asking = self.asking();
                let now = asking.epoch.elapsed();
                if asking.breaker.admit(now).is_err() {
                    return None;
                }
                match asking.rate.as_mut().map_or(Ok(()), |rate| rate.take(now)) {
                    Ok(()) => None,
                    Err(wait) => {
                        asking.breaker.undecided(now);
                        Some(wait)
                    }
                }
            };
            let Some(wait) = wait else {
                self.metrics.calling.inc();
                return Some(Admitted { target: self, _slot: slot, told: false });
            };
            drop(slot);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shared.stopping.cancelled() => return None,
            }
        }
    }

    /// Notes that items of a batch do not wait for their call any more.
    pub(crate) fn started(&self, items: usize) {
        self.waiting.fetch_sub(items, Ordering::AcqRel);
        self.room.notify_one();
    }

    pub(crate) fn learn(&self, items: usize, elapsed: Duration) {
        self.asking().size.done(items, elapsed, self.config.limits.lease);
    }

    pub(crate) async fn settle(&self, done: Done) {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(marks) = marks {
            // The settler outlives every batch.
            let _ = marks.send(done).await;
        }
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Divides what the endpoint takes among the workers that are alive.
    fn share(&self, workers: u32) {
        let workers = workers.max(1) as usize;
        let mut asking = self.asking();
        let now = asking.epoch.elapsed();
        if let (Some(total), Some(rate)) = (self.config.limits.rate, &mut asking.rate) {
            rate.set(total / workers as f64, now);
        }
        drop(asking);
        self.slots.set((self.config.limits.concurrency / workers).max(1));
    }

    /// How long until the endpoint may be asked at all; `None`: now.
    fn closed_for(&self) -> Option<Duration> {
        let asking = self.asking();
        let now = asking.epoch.elapsed();
        match asking.breaker.state() {
            BreakerState::Closed => None,
            BreakerState::Open { until } => until.checked_sub(now).filter(|wait| !wait.is_zero()),
            BreakerState::HalfOpen => Some(Duration::from_millis(20)),
        }
    }

    fn batch_size(&self, rank: Rank) -> usize {
        let asking = self.asking();
        let usual = match asking.breaker.state() {
            BreakerState::Closed => asking.size.get(),
            _ => 1,
        };
        match rank {
            Rank::Usual => usual,
            Rank::Suspect => usual.isqrt().max(1),
            Rank::Alone => 1,
        }
    }
}

/// Leave for one call. Dropped without an answer, the call was cut off.
pub(crate) struct Admitted<'a> {
    target: &'a Target,
    _slot: Slot<'a>,
    told: bool,
}

impl Admitted<'_> {
    /// What the call's answer says about the endpoint's health.
    pub(crate) fn answered(mut self, answer: &Answer) {
        self.told = true;
        let failed = match answer {
            Answer::NotSent(_) | Answer::Unknown(_) => true,
            Answer::Status { code, .. } => (500..=599).contains(code),
            Answer::Blocked(_) | Answer::Said { .. } => false,
        };
        let target = self.target;
        let mut asking = target.asking();
        let now = asking.epoch.elapsed();
        if !failed {
            asking.breaker.answered();
            target.metrics.breaker.set(0);
        } else if asking.breaker.failed(now) {
            asking.size.shrink();
            target.metrics.breaker.set(1);
            let (topic, endpoint) = (&target.config.topic, target.config.confirmer.target());
            tracing::warn!(%topic, endpoint, "the endpoint fails: nothing is asked of it for a while");
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.target.metrics.calling.dec();
        if !self.told {
            let mut asking = self.target.asking();
            let now = asking.epoch.elapsed();
            asking.breaker.undecided(now);
        }
    }
}

/// Claims until the process drains.
pub(crate) async fn run(target: Arc<Target>, mut news: Option<watch::Receiver<u64>>, tasks: TaskTracker) {
    let mut pulse = target.shared.pulse.subscribe();
    let mut word = target.shared.word.subscribe();
    let mut hot = Hot::default();
    hot.all(target.lanes.len());
    // Nobody's share of the endpoint is known before the first beat.
    tokio::select! {
        () = target.shared.stopping.cancelled() => {}
        _ = pulse.wait_for(|pulse| pulse.beats > 0) => {}
    }
    take_pulse(&target, &mut hot, &pulse.borrow());
    while !target.shared.stopping.is_cancelled() {
        if pulse.has_changed().unwrap_or(false) {
            take_pulse(&target, &mut hot, &pulse.borrow_and_update());
        }
        if let Some(wait) = target.closed_for() {
            rest(&target, jitter(wait)).await;
            continue;
        }
        let Some(place) = hot.next() else {
            wait_for_news(&target, &mut hot, &mut pulse, &mut news, &mut word).await;
            continue;
        };
        wait_for_room(&target, place.1).await;
        if let Err(error) = claim(&target, &mut hot, place, &tasks).await {
            tracing::warn!(%error, topic = %target.config.topic, "nothing can be claimed; trying again");
            rest(&target, jitter(STORE_PAUSE)).await;
        }
    }
    // The settler ends with the last sender.
    while !target.is_idle() {
        target.room.notified().await;
    }
    target.marks.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn take_pulse(target: &Target, hot: &mut Hot, pulse: &Pulse) {
    target.share(pulse.workers);
    for ready in &pulse.ready {
        if let Some(at) = target.lanes.iter().position(|known| *known == ready.lane) {
            hot.seen((at, ready.rank), ready.missed);
        }
    }
}

async fn rest(target: &Target, wait: Duration) {
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        () = target.shared.stopping.cancelled() => {}
    }
}

async fn wait_for_news(
    target: &Target,
    hot: &mut Hot,
    pulse: &mut watch::Receiver<Pulse>,
    news: &mut Option<watch::Receiver<u64>>,
    word: &mut watch::Receiver<u64>,
) {
    let stored = async {
        if let Some(news) = news
            && news.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = target.shared.stopping.cancelled() => {}
        changed = pulse.changed() => if changed.is_ok() {
            take_pulse(target, hot, &pulse.borrow_and_update());
        },
        () = stored => hot.all(target.lanes.len()),
        Ok(()) = word.changed() => hot.all(target.lanes.len()),
    }
}

/// Waits until another batch would not only wait.
async fn wait_for_room(target: &Target, rank: Rank) {
    loop {
        let waiting = target.waiting.load(Ordering::Acquire);
        let few = waiting <= target.config.limits.concurrency.max(target.batch_size(rank) / 2);
        let open = target.open.load(Ordering::Acquire);
        if target.shared.stopping.is_cancelled() || (few && open < BATCHES_MAX) {
            return;
        }
        tokio::select! {
            () = target.room.notified() => {}
            () = target.shared.stopping.cancelled() => return,
        }
    }
}

async fn claim(target: &Arc<Target>, hot: &mut Hot, place: Place, tasks: &TaskTracker) -> Result<(), StoreError> {
    let (lane, rank) = place;
    let (from, to) = hot.range(place);
    let claim = Claim {
        lane: target.lanes[lane],
        rank,
        from,
        to,
        items_max: target.batch_size(rank),
        ttl: target.config.limits.lease,
        worker: target.shared.config.worker.clone(),
    };
    let asked_at = Instant::now();
    let Some(batch) = target.shared.store.claim(&claim).await? else {
        hot.empty(place, Instant::now());
        return Ok(());
    };
    hot.claimed(place, &batch, Instant::now());
    if batch.items.is_empty() {
        return Ok(());
    }
    let held = target.shared.keeper.hold(batch.lease.clone(), claim.ttl, asked_at);
    target.waiting.fetch_add(batch.items.len(), Ordering::AcqRel);
    target.open.fetch_add(1, Ordering::AcqRel);
    tasks.spawn(work(target.clone(), batch, held, asked_at, rank));
    Ok(())
}

async fn work(target: Arc<Target>, batch: Batch, held: Arc<Held>, asked_at: Instant, rank: Rank) {
    let _open = Open(&target);
    let alone = target.shared.alone.clone();
    if rank == Rank::Alone {
        let _nothing_else = alone.write_owned().await;
        // Until its mark is written down: if the next one kills this process, this one must not be blamed.
        if batch::run(target.clone(), batch, held.clone(), asked_at).await {
            held.settled.notified().await;
        }
    } else {
        let _beside_others = alone.read_owned().await;
        batch::run(target.clone(), batch, held, asked_at).await;
    }
}

/// A batch under way, also when it panics.
struct Open<'a>(&'a Target);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.room.notify_one();
    }
}
