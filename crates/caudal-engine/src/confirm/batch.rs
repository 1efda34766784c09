//! One batch, from its claim to its last mark.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caudal_core::confirm::answer::Answer;
use caudal_core::confirm::machine::{self, Step};
use caudal_core::confirm::ports::{Batch, Call, Marked};
use caudal_core::confirm::{Fact, Item, Mark};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::Instant;

use super::keep::Held;
use super::settle::Done;
use super::target::Target;
use crate::clock::chance;
use crate::plant;

/// Between two tries to note that calls begin.
const BEGIN_PAUSE: Duration = Duration::from_millis(50);

/// Works through a batch. `asked_at`: before it was claimed. Returns whether all its marks are on their way: else it was lost.
pub(crate) async fn run(target: Arc<Target>, batch: Batch, held: Arc<Held>, asked_at: Instant) -> bool {
    let left = batch.items.len();
    let work = Work { target: &target, held: &held, asked_at, left: AtomicUsize::new(left) };
    let mut calls = Vec::with_capacity(left);
    for item in batch.items {
        match step(&target, &item) {
            Step::Call => calls.push((item, false)),
            Step::Probe => calls.push((item, true)),
            Step::Mark(mark) => {
                target.started(1);
                work.done(uncalled(item), mark).await;
            }
        }
    }
    if calls.is_empty() {
        return true;
    }
    plant::hit("confirm.claimed");
    if !work.begin().await && !plant::is_planted("fence-off") {
        // Nobody was called, and the lease is somebody else's or will be: its items are not ours to mark.
        target.started(calls.len());
        return false;
    }
    plant::hit("confirm.begun");
    let concurrency = target.config.limits.concurrency.max(1);
    stream::iter(calls).for_each_concurrent(concurrency, |(item, probe)| work.one(item, probe)).await;
    target.learn(left, asked_at.elapsed());
    true
}

fn step(target: &Target, item: &Item) -> Step {
    match machine::step(&target.config.policy, item) {
        Step::Mark(Mark::Held { .. }) if plant::is_planted("resend-after-retention") => Step::Call,
        step => step,
    }
}

/// The store counts every mark but a release as an attempt; this one was none.
fn uncalled(item: Item) -> Item {
    Item { attempts: item.attempts.saturating_sub(1), ..item }
}

struct Work<'a> {
    target: &'a Target,
    held: &'a Arc<Held>,
    asked_at: Instant,
    /// Items without a mark.
    left: AtomicUsize,
}

impl Work<'_> {
    /// Notes, durably, that calls begin. `false`: they must not.
    async fn begin(&self) -> bool {
        let shared = &self.target.shared;
        while self.held.is_safe() {
            let asked_at = Instant::now();
            match shared.store.begin_calls(&self.held.lease, self.target.config.limits.lease).await {
                Ok(true) => {
                    self.held.prolonged(asked_at);
                    return true;
                }
                Ok(false) => return false,
                Err(error) => {
                    tracing::warn!(%error, "it could not be noted that calls begin; trying again");
                    tokio::time::sleep(BEGIN_PAUSE).await;
                }
            }
        }
        false
    }

    async fn one(&self, item: Item, probe: bool) {
        let target = self.target;
        let admitted = target.admit(self.held).await;
        target.started(1);
        let Some(admitted) = admitted else { return self.done(item, Mark::Release).await };
        // It may have waited for its turn, and its key or its deadline may have run out meanwhile.
        if let Step::Mark(mark) = step(target, &item.clone().later(self.asked_at.elapsed())) {
            return self.done(uncalled(item), mark).await;
        }
        let config = &target.config;
        let call =
            Call { topic: &config.topic, key: target.keys.key(item.id), attempt: item.attempts + 1, item: &item };
        plant::hit("confirm.call");
        plant::poison(item.id);
        if plant::is_planted("mark-before-answer") {
            let early = Mark::Fact { fact: Fact::Confirmed, code: None, detail: String::new() };
            self.done(item.clone(), early).await;
        }
        let begun = Instant::now();
        let asked = match probe {
            true => config.confirmer.probe(call),
            false => config.confirmer.call(call),
        };
        let answer = AssertUnwindSafe(asked).catch_unwind().await;
        let answer = answer.unwrap_or_else(|_| Answer::Unknown("the confirmer panicked".into()));
        plant::hit("confirm.answered");
        target.metrics.call_seconds.observe(begun.elapsed().as_secs_f64());
        admitted.answered(&answer);
        let mark = match probe {
            true => {
                let verdict = config.rules.judge_probe(&answer);
                machine::after_probe(&config.policy, &item, &answer, verdict, chance())
            }
            false => {
                let verdict = config.rules.judge(&answer);
                machine::after_call(&config.policy, &item, &answer, verdict, chance())
            }
        };
        self.done(item, mark).await;
    }

    async fn done(&self, item: Item, mark: Mark) {
        let ends = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        let held = self.held.clone();
        self.target.settle(Done { held, marked: Marked { item, mark }, ends, claimed_at: self.asked_at }).await;
    }
}
