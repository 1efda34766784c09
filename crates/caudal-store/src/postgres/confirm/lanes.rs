//! What a process knows of lanes, and from which position on it looks for what is pending in them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_core::confirm::ports::{Adopt, LaneSpec, Records};
use caudal_core::confirm::{LaneId, Rank};
use caudal_core::error::StoreError;
use caudal_core::topic::TopicName;
use foldhash::HashMap;

use super::pace::Pace;

/// What a process knows of lanes: only what it was told by [`ensure_lanes`](caudal_core::confirm::ports::Confirm::ensure_lanes).
#[derive(Debug, Default)]
pub(in super::super) struct Lanes {
    known: Mutex<HashMap<LaneId, Arc<Lane>>>,
    heads: Mutex<HashMap<LaneId, Head>>,
    lapses: Mutex<Pace>,
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) topic: TopicName,
    pub(super) records: Records,
}

/// How far a lane was claimed, rank by rank, and when it is looked at from the start again: entries before that are mostly dead, and
/// as long as an old snapshot is open somewhere they stay. To walk past a million of them took 40 ms to 100 ms.
#[derive(Debug, Default)]
struct Head {
    taken: [i64; Rank::ALL.len()],
    from_start: Pace,
}

/// A look at a lane, rank by rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// It begins behind these.
    pub(super) from: [i64; Rank::ALL.len()],
    /// Up to here all was taken, as far as claims knew when it began.
    pub(super) taken: [i64; Rank::ALL.len()],
}

impl Lanes {
    pub(super) fn learn(&self, lane: LaneId, spec: &LaneSpec) {
        let known = Lane { topic: spec.topic.clone(), records: spec.records.clone() };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, Arc::new(known));
    }

    pub(super) fn get(&self, lane: LaneId) -> Result<Arc<Lane>, StoreError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&lane).cloned().ok_or_else(|| {
            StoreError::Setup(format!("lane {lane} is not configured here: its topic's configuration must have it"))
        })
    }

    pub(super) fn adopts(&self, lane: LaneId) -> Option<Arc<Adopt>> {
        match &self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&lane)?.records {
            Records::Adopted(adopt) => Some(adopt.clone()),
            Records::Topic(_) => None,
        }
    }

    pub(super) fn taken(&self, lane: LaneId, rank: Rank, to: i64) {
        let mut heads = self.heads();
        let taken = &mut heads.entry(lane).or_default().taken[rank.number() as usize];
        *taken = to.max(*taken);
    }

    /// A look at `now`: from the start when that is due, else from behind what was taken.
    pub(super) fn look(&self, lane: LaneId, thorough: bool, now: Instant) -> Look {
        let mut heads = self.heads();
        let head = heads.entry(lane).or_default();
        let taken = head.taken;
        match head.from_start.is_due(thorough, now) {
            true => Look { from: Default::default(), taken },
            false => Look { from: taken, taken },
        }
    }

    /// A look took so long, and each of so many workers has its own.
    pub(super) fn looked(&self, lane: LaneId, look: &Look, took: Duration, workers: u32, now: Instant) {
        if look.from == [0; Rank::ALL.len()] {
            self.heads().entry(lane).or_default().from_start.took(took, workers, now);
        }
    }

    /// When to look for leases that have lapsed: all that there ever were are passed, as far as they still lie there.
    pub(super) fn lapses(&self) -> MutexGuard<'_, Pace> {
        self.lapses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heads(&self) -> MutexGuard<'_, HashMap<LaneId, Head>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(1);

    #[test]
    fn a_look_begins_at_the_start_at_first_and_when_it_is_due() {
        let (lanes, now) = (Lanes::default(), Instant::now());
        lanes.taken(LANE, Rank::Usual, 50);
        lanes.taken(LANE, Rank::Suspect, 7);
        lanes.taken(LANE, Rank::Usual, 40);
        let taken = [50, 7, 0];
        assert_eq!(lanes.look(LANE, false, now), Look { from: [0; 3], taken });
        assert_eq!(lanes.look(LANE, false, now), Look { from: taken, taken });
        assert_eq!(lanes.look(LaneId(2), false, now), Look { from: [0; 3], taken: [0; 3] }, "another lane's own");
        assert_eq!(lanes.look(LANE, false, now + Duration::from_secs(1)).from, [0; 3]);
        assert_eq!(lanes.look(LANE, true, now + Duration::from_secs(1)).from, [0; 3], "whoever must know all");
    }

    #[test]
    fn a_look_that_began_further_on_says_nothing_of_one_from_the_start() {
        let (lanes, now) = (Lanes::default(), Instant::now());
        let took = |look: &Look, ms| lanes.looked(LANE, look, Duration::from_millis(ms), 1, now);
        took(&lanes.look(LANE, true, now), 4_000);
        lanes.taken(LANE, Rank::Usual, 9);
        took(&lanes.look(LANE, false, now), 1);
        assert_eq!(lanes.look(LANE, false, now + Duration::from_secs(79)).from, [9, 0, 0]);
        assert_eq!(lanes.look(LANE, false, now + Duration::from_secs(80)).from, [0; 3]);
    }
}
