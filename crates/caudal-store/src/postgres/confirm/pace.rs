//! How often a process does what costs the more the more dead rows lie in its way.

use std::time::{Duration, Instant};

/// Twice is so far apart at least.
const APART: Duration = Duration::from_secs(1);
/// All workers together may spend a part of the time on it in so many.
const SHARE: u32 = 20;

#[derive(Debug, Default)]
pub(super) struct Pace {
    due: Option<Instant>,
}

impl Pace {
    /// Whether it is to be done now, which is `now` or what must be done whatever it costs. Whoever is told so does it.
    pub(super) fn is_due(&mut self, thorough: bool, now: Instant) -> bool {
        if !thorough && self.due.is_some_and(|due| now < due) {
            return false;
        }
        self.due = Some(now + APART);
        true
    }

    /// It took so long, and each of so many workers does it.
    pub(super) fn took(&mut self, took: Duration, workers: u32, now: Instant) {
        let pause = took.saturating_mul(SHARE.saturating_mul(workers.max(1)));
        self.due = now.checked_add(pause.max(APART));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_first_and_then_a_second_apart() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.is_due(false, now));
        assert!(!pace.is_due(false, now + APART / 2));
        assert!(pace.is_due(true, now + APART / 2), "whatever it costs");
        assert!(!pace.is_due(false, now + APART));
        assert!(pace.is_due(false, now + 2 * APART));
    }

    #[test]
    fn what_takes_long_is_done_the_more_seldom_the_more_workers_there_are() {
        let now = Instant::now();
        for (took_ms, workers, seconds) in [(2, 1, 1), (500, 1, 10), (500, 8, 80), (500, 0, 10)] {
            let mut pace = Pace::default();
            pace.took(Duration::from_millis(took_ms), workers, now);
            let due = Duration::from_secs(seconds);
            assert!(!pace.is_due(false, now + due - Duration::from_millis(1)) && pace.is_due(false, now + due));
        }
    }
}
