//! Writing down what became of items: whatever waits when a commit ends shares the next one.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::Mark;
use caudal_core::confirm::ports::{Finish, Marked, Settled};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::keep::Held;
use super::target::Target;
use crate::plant;
use crate::settle::jitter;

/// Marks of one commit.
const MARKS_MAX: usize = 4_096;
/// How often other tasks run before a commit takes what waits.
const GATHER_YIELDS: usize = 4;
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// One mark on its way.
#[derive(Debug)]
pub(crate) struct Done {
    /// Kept alive until the mark is written down.
    pub(crate) held: Arc<Held>,
    pub(crate) marked: Marked,
    /// It is the last of its lease.
    pub(crate) ends: bool,
    /// When its item was claimed, by this process's clock.
    pub(crate) claimed_at: Instant,
}

/// Settles a target's marks until everybody who makes some is gone. In order: a lease's end is committed after its marks.
pub(crate) async fn run(shared: Arc<Shared>, target: Arc<Target>, mut marks: mpsc::Receiver<Done>) {
    let mut group = Vec::with_capacity(MARKS_MAX);
    while marks.recv_many(&mut group, MARKS_MAX).await > 0 {
        gather(&mut marks, &mut group).await;
        let done = std::mem::take(&mut group);
        let finishes = finishes(&done);
        let settled = write_down(&shared, &finishes).await;
        done.iter().filter(|done| done.ends).for_each(|done| done.held.settled.notify_one());
        if let Some(settled) = settled {
            target.metrics.settled(&done, &settled);
            warn(&target, &settled);
        }
    }
}

async fn gather(marks: &mut mpsc::Receiver<Done>, group: &mut Vec<Done>) {
    for _ in 0..GATHER_YIELDS {
        let before = group.len();
        tokio::task::yield_now().await;
        while group.len() < MARKS_MAX
            && let Ok(done) = marks.try_recv()
        {
            group.push(done);
        }
        if group.len() == before {
            return;
        }
    }
}

fn finishes(done: &[Done]) -> Vec<Finish> {
    let mut finishes: Vec<Finish> = Vec::new();
    for done in done {
        let at = finishes.iter().position(|finish| finish.lease == done.held.lease).unwrap_or_else(|| {
            finishes.push(Finish { lease: done.held.lease.clone(), marks: Vec::new(), ends: false });
            finishes.len() - 1
        });
        finishes[at].marks.push(done.marked.clone());
        finishes[at].ends |= done.ends;
    }
    finishes
}

/// Repeats until the store has it: a fact is worth more than the lease it came from. Only a drain, and marks that the store
/// refuses for what they are, are given up after a while; then the lease lapses and the transaction is in doubt, which is what is
/// known of it.
async fn write_down(shared: &Shared, finishes: &[Finish]) -> Option<Settled> {
    let mut pause = RETRY_FIRST;
    let mut giving_up: Option<Instant> = None;
    loop {
        plant::hit("confirm.settling");
        let error = match shared.store.settle(finishes).await {
            Ok(settled) => {
                plant::hit("confirm.settled");
                return Some(settled);
            }
            Err(error) => error,
        };
        let marks: usize = finishes.iter().map(|finish| finish.marks.len()).sum();
        if !error.is_transient() && finishes.len() > 1 {
            return one_by_one(shared, finishes).await;
        }
        if shared.stopping.is_cancelled() || !error.is_transient() {
            let until = *giving_up.get_or_insert(Instant::now() + shared.config.patience);
            if Instant::now() > until {
                tracing::error!(%error, marks, "answers could not be written down: when their lease has lapsed they are in doubt");
                return None;
            }
        }
        tracing::warn!(%error, marks, "answers could not be written down; trying again");
        tokio::time::sleep(jitter(pause)).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Where the store refuses a group for good, as when an adopted table's trigger refuses a write-back: one lease's marks must not keep
/// those of the others from being written down.
async fn one_by_one(shared: &Shared, finishes: &[Finish]) -> Option<Settled> {
    let mut all = Settled::default();
    for finish in finishes {
        let one = Box::pin(write_down(shared, std::slice::from_ref(finish))).await.unwrap_or_default();
        all.facts += one.facts;
        all.repeats += one.repeats;
        all.contradictions += one.contradictions;
        all.moved += one.moved;
        all.fenced += one.fenced;
    }
    Some(all)
}

fn warn(target: &Target, settled: &Settled) {
    let topic = &target.config.topic;
    if settled.contradictions > 0 {
        let contradictions = settled.contradictions;
        tracing::error!(%topic, contradictions, "the endpoint contradicts what it said before; the first answer stands");
    }
    if settled.fenced > 0 {
        tracing::warn!(%topic, fenced = settled.fenced, "answers came after their lease had lapsed; only facts were taken");
    }
}

/// What a mark adds to a run's report.
pub(crate) fn kind(mark: &Mark) -> &'static str {
    match mark {
        Mark::Release => "released",
        mark => mark.state().name(),
    }
}
