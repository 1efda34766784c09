//! The beat: a sign of life, and the housekeeping that every worker does for all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Beat, Beaten, Ready};
use caudal_core::error::StoreError;

use super::Shared;
use crate::settle::jitter;

/// What the last beat found.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse {
    /// Beats so far.
    pub(crate) beats: u64,
    pub(crate) workers: u32,
    pub(crate) ready: Vec<Ready>,
    pub(crate) next_due: Option<Duration>,
}

/// Between two beats when there was something to do.
const BUSY: Duration = Duration::from_millis(50);
/// While workers are busy their beats need not find work for them.
const SOONEST: Duration = Duration::from_millis(10);
/// Items made pending, or adopted, by one beat.
const PROMOTE_MAX: usize = 5_000;
/// Beats that a worker may miss before it is not counted any more.
const MISSES: u32 = 5;

pub(crate) async fn run(shared: Arc<Shared>, lanes: Vec<LaneId>, adopting: Vec<LaneId>) {
    let mut pause = BUSY;
    loop {
        pause = match beat(&shared, &lanes, &adopting).await {
            Ok(busy) if busy => BUSY,
            // Slower and slower while nothing happens.
            Ok(_) => (pause * 2).min(shared.config.idle_beat),
            Err(error) => {
                tracing::warn!(%error, "the confirmation engine cannot reach its store; trying again");
                (pause * 2).clamp(Duration::from_millis(200), Duration::from_secs(5))
            }
        };
        let due = shared.pulse.borrow().next_due.unwrap_or(pause);
        tokio::select! {
            () = shared.stopping.cancelled() => return,
            () = tokio::time::sleep(jitter(pause.min(due)).max(SOONEST)) => {}
            () = shared.hurry.notified() => {}
        }
    }
}

/// Whether it found something to do.
async fn beat(shared: &Shared, lanes: &[LaneId], adopting: &[LaneId]) -> Result<bool, StoreError> {
    let mut adopted = 0;
    for lane in adopting {
        adopted += shared.store.adopt(*lane, PROMOTE_MAX).await?;
    }
    let beat = Beat {
        worker: shared.config.worker.clone(),
        ttl: (shared.config.idle_beat * MISSES).max(Duration::from_secs(5)),
        lanes: lanes.to_vec(),
        promote_max: PROMOTE_MAX,
        thorough: shared.thorough.load(Ordering::Acquire),
    };
    let Beaten { workers, lapsed, promoted, ready, next_due, .. } = shared.store.beat(&beat).await?;
    if lapsed > 0 {
        tracing::warn!(lapsed, "leases had lapsed: a worker died or was too slow; what it was calling for is in doubt");
    }
    let busy = adopted > 0 || lapsed > 0 || promoted > 0 || !ready.is_empty();
    shared.pulse.send_modify(|pulse| {
        *pulse = Pulse { beats: pulse.beats + 1, workers: workers.max(1), ready, next_due };
    });
    Ok(busy)
}
