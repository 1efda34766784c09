//! Where something may be to claim, and among which positions.
//!
//! Claims go forward. What they leave behind stays in a store's way for as long as somebody holds an old snapshot, so that nothing
//! here begins at the start once something has been claimed. But transactions do not commit in the order of their positions: what
//! was passed over is asked for again among those of the last seconds, as soon as there is nothing new; and whatever comes later than
//! that, where the store's beat has seen it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use caudal_core::confirm::Rank;
use caudal_core::confirm::ports::Batch;
use tokio::time::Instant;

/// Of so many claims one goes to the least urgent lane that has something, so that no lane starves.
const AGING: u64 = 16;
/// What commits so much later than its neighbours is asked for without having been seen.
const LATE: Duration = Duration::from_secs(5);
/// Positions asked for at a time where something was seen: between two that are late there may be millions that are taken.
const SPAN: i64 = 10_000;

/// A lane, by its place among the target's own, and a rank in it. The most urgent first.
pub(super) type Place = (usize, Rank);

#[derive(Debug, Default)]
pub(super) struct Hot {
    places: BTreeSet<Place>,
    progress: HashMap<Place, Progress>,
    claims: u64,
}

/// How far a place was claimed.
#[derive(Debug, Default)]
struct Progress {
    taken: i64,
    /// `taken` as it became, about once a second.
    past: VecDeque<(Instant, i64)>,
    late: Option<Late>,
    /// Where the beat last saw something, and how many positions were asked for there.
    seen: Option<(i64, i64)>,
}

/// Positions to be asked for once more.
#[derive(Debug, Clone, Copy)]
struct Late {
    from: i64,
    to: i64,
    why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Why {
    /// The beat has seen something there. `found`: so have claims, and what follows is worth a look.
    Seen { found: bool },
    /// There is nothing new, and if there is nothing here either, there is nothing.
    NothingNew,
}

impl Hot {
    /// The next place to claim from.
    pub(super) fn next(&mut self) -> Option<Place> {
        self.claims += 1;
        match self.claims % AGING {
            0 => self.places.last().copied(),
            _ => self.places.first().copied(),
        }
    }

    /// Something may be new in every lane.
    pub(super) fn all(&mut self, lanes: usize) {
        self.places.extend((0..lanes).map(|lane| (lane, Rank::Usual)));
    }

    /// The store has seen something there, perhaps behind a position that was passed.
    pub(super) fn seen(&mut self, place: Place, missed: Option<i64>) {
        self.places.insert(place);
        let Some(progress) = self.progress.get_mut(&place) else { return };
        progress.late = match (missed, progress.late) {
            (Some(from), _) if from < progress.taken => Some(progress.missed(from)),
            // It is new, and would be forgotten when there is nothing here.
            (_, Some(Late { why: Why::NothingNew, .. })) => None,
            (_, late) => late,
        };
    }

    /// What to claim there: positions behind the first, up to the second.
    pub(super) fn range(&self, place: Place) -> (i64, i64) {
        match self.progress.get(&place) {
            None => (0, i64::MAX),
            Some(Progress { late: Some(late), .. }) => (late.from, late.to),
            Some(progress) => (progress.taken, i64::MAX),
        }
    }

    pub(super) fn claimed(&mut self, place: Place, batch: &Batch, now: Instant) {
        let progress = self.progress.entry(place).or_default();
        if let Some(late) = &mut progress.late {
            late.from = batch.watermark;
            if let Why::Seen { found } = &mut late.why {
                *found = true;
            }
        }
        progress.take(batch.watermark, now);
    }

    /// Nothing was found.
    pub(super) fn empty(&mut self, place: Place, now: Instant) {
        let Some(progress) = self.progress.get_mut(&place) else {
            self.places.remove(&place);
            return;
        };
        let taken = progress.taken;
        progress.late = match progress.late {
            Some(Late { why: Why::NothingNew, .. }) => {
                self.places.remove(&place);
                None
            }
            Some(Late { why: Why::Seen { found: true }, to, .. }) if to < taken => Some(Late::seen(to, SPAN, taken)),
            Some(Late { why: Why::Seen { .. }, .. }) => None,
            None => {
                let from = progress.lately(now);
                if from >= taken {
                    self.places.remove(&place);
                }
                (from < taken).then_some(Late { from, to: taken, why: Why::NothingNew })
            }
        };
    }
}

impl Late {
    fn seen(from: i64, span: i64, taken: i64) -> Self {
        Self { from, to: from.saturating_add(span).min(taken), why: Why::Seen { found: false } }
    }
}

impl Progress {
    /// What is still at the same place is somebody else's, who does not let go of it: what lies far behind it must not wait for that.
    fn missed(&mut self, from: i64) -> Late {
        let span = match self.seen {
            Some((same, span)) if same == from => span.saturating_mul(10),
            _ => SPAN,
        };
        self.seen = Some((from, span));
        Late::seen(from, span, self.taken)
    }

    fn take(&mut self, to: i64, now: Instant) {
        self.taken = self.taken.max(to);
        if self.past.back().is_none_or(|(at, _)| *at + LATE / 5 <= now) {
            self.past.push_back((now, self.taken));
            self.forget(now);
        }
    }

    /// All but the last of what is that old.
    fn forget(&mut self, now: Instant) {
        while self.past.get(1).is_some_and(|(at, _)| *at + LATE <= now) {
            self.past.pop_front();
        }
    }

    /// How far it was claimed as long ago as something may be late.
    fn lately(&mut self, now: Instant) -> i64 {
        self.forget(now);
        self.past.front().filter(|(at, _)| *at + LATE <= now).map_or(0, |(_, taken)| *taken)
    }
}

#[cfg(test)]
mod tests {
    use caudal_core::confirm::LaneId;
    use caudal_core::confirm::ports::Lease;

    use super::*;

    const PLACE: Place = (0, Rank::Usual);
    const SECOND: Duration = Duration::from_secs(1);

    fn to(watermark: i64) -> Batch {
        let lease = Lease { lane: LaneId(1), number: 1, worker: "a".into() };
        Batch { lease, items: Vec::new(), watermark }
    }

    /// Claimed up to each of these, one a second, and long enough ago that nothing of it is late any more.
    fn after(watermarks: &[i64]) -> (Hot, Instant) {
        let (mut hot, mut now) = (Hot::default(), Instant::now());
        hot.all(1);
        for watermark in watermarks {
            hot.claimed(PLACE, &to(*watermark), now);
            now += SECOND;
        }
        (hot, now + LATE)
    }

    #[test]
    fn a_place_is_claimed_from_the_start_once_and_then_onward() {
        let mut hot = Hot::default();
        hot.all(1);
        assert_eq!((hot.next(), hot.range(PLACE)), (Some(PLACE), (0, i64::MAX)));
        hot.claimed(PLACE, &to(100), Instant::now());
        assert_eq!(hot.range(PLACE), (100, i64::MAX));
    }

    #[test]
    fn when_nothing_is_new_only_the_last_seconds_are_asked_for_again() {
        let (mut hot, _) = after(&[]);
        let start = Instant::now();
        for second in 0..20u32 {
            hot.claimed(PLACE, &to(1_000 * i64::from(second + 1)), start + second * SECOND);
        }
        let now = start + 20 * SECOND;
        assert_eq!(hot.progress[&PLACE].past.len(), 6, "what is older is forgotten, however long this goes on");
        hot.empty(PLACE, now);
        assert_eq!(hot.range(PLACE), (16_000, 20_000), "what was taken five seconds ago and before is left alone");
        hot.claimed(PLACE, &to(17_500), now);
        assert_eq!(hot.range(PLACE), (17_500, 20_000), "something was late: there may be more");
        hot.empty(PLACE, now);
        assert_eq!(hot.next(), None);
        assert_eq!(hot.range(PLACE), (20_000, i64::MAX));
    }

    #[test]
    fn in_the_first_seconds_everything_is_asked_for_again() {
        let mut hot = Hot::default();
        hot.all(1);
        let start = Instant::now();
        hot.claimed(PLACE, &to(30), start);
        hot.empty(PLACE, start + SECOND);
        assert_eq!(hot.range(PLACE), (0, 30));
    }

    #[test]
    fn what_was_taken_long_ago_is_not_asked_for_when_nothing_is_new() {
        let (mut hot, now) = after(&[100]);
        hot.empty(PLACE, now);
        assert_eq!(hot.next(), None);
    }

    #[test]
    fn what_the_beat_has_seen_is_asked_for_there_and_not_a_step_further_than_it_is_found() {
        let (mut hot, now) = after(&[1_000_000]);
        hot.seen(PLACE, Some(400));
        assert_eq!(hot.range(PLACE), (400, 10_400));
        hot.claimed(PLACE, &to(9_000), now);
        assert_eq!(hot.range(PLACE), (9_000, 10_400));
        hot.empty(PLACE, now);
        assert_eq!(hot.range(PLACE), (10_400, 20_400), "there was something: perhaps it goes on");
        hot.empty(PLACE, now);
        assert_eq!((hot.next(), hot.range(PLACE)), (Some(PLACE), (1_000_000, i64::MAX)), "and on with what is new");
    }

    #[test]
    fn what_cannot_be_had_does_not_hide_what_is_late_far_behind_it() {
        let (mut hot, now) = after(&[1_000_000]);
        for to in [10_400, 100_400, 1_000_000, 1_000_000] {
            hot.seen(PLACE, Some(400));
            assert_eq!(hot.range(PLACE), (400, to));
            hot.empty(PLACE, now);
        }
        hot.seen(PLACE, Some(500));
        assert_eq!(hot.range(PLACE), (500, 10_500), "that was had after all");
    }

    #[test]
    fn a_claim_of_what_was_seen_ends_where_claims_have_been() {
        let (mut hot, now) = after(&[1_000]);
        hot.seen(PLACE, Some(10));
        assert_eq!(hot.range(PLACE), (10, 1_000));
        hot.claimed(PLACE, &to(11), now);
        hot.empty(PLACE, now);
        assert_eq!(hot.range(PLACE), (1_000, i64::MAX));
    }

    #[test]
    fn what_the_beat_has_seen_ahead_is_claimed_onward() {
        let (mut hot, now) = after(&[500, 600]);
        hot.seen(PLACE, None);
        assert_eq!(hot.range(PLACE), (600, i64::MAX));
        // Also while the last seconds are asked for again.
        hot.claimed(PLACE, &to(900), now);
        hot.empty(PLACE, now);
        assert_eq!(hot.range(PLACE), (600, 900));
        hot.seen(PLACE, None);
        assert_eq!(hot.range(PLACE), (900, i64::MAX));
        hot.empty(PLACE, now);
        hot.empty(PLACE, now);
        assert_eq!(hot.next(), None);
    }

    #[test]
    fn where_nothing_ever_was_nothing_is_asked_for_again() {
        let mut hot = Hot::default();
        hot.seen((0, Rank::Suspect), None);
        assert_eq!(hot.range((0, Rank::Suspect)), (0, i64::MAX));
        hot.empty((0, Rank::Suspect), Instant::now());
        assert_eq!(hot.next(), None);
    }

    #[test]
    fn the_least_urgent_lane_has_its_turn() {
        let mut hot = Hot::default();
        hot.all(3);
        let turns: Vec<usize> = (0..32).filter_map(|_| hot.next()).map(|(lane, _)| lane).collect();
        assert_eq!(turns.iter().filter(|lane| **lane == 2).count(), 2);
        assert_eq!(turns.iter().filter(|lane| **lane == 0).count(), 30);
    }
}
