//! The deliveries that a subscription has out: tag by tag, in order, each with its entry.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::entry::EntryId;

/// Tags count up from 1 in the order of delivery, so finding one is arithmetic.
#[derive(Debug)]
pub(super) struct Out {
    first: u64,
    held: VecDeque<Option<Held>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) id: EntryId,
    pub(super) attempt: u32,
    /// When the server last heard that it is being worked on.
    pub(super) touched: Instant,
}

impl Held {
    /// Whether the server heard nothing of it for so long; it will now.
    pub(super) fn touch(&mut self, since: Duration, now: Instant) -> Option<EntryId> {
        let stale = now.duration_since(self.touched) >= since;
        stale.then(|| {
            self.touched = now;
            self.id
        })
    }
}

impl Out {
    pub(super) fn new() -> Self {
        Self { first: 1, held: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn add(&mut self, held: Held) -> u64 {
        self.held.push_back(Some(held));
        self.first + self.held.len() as u64 - 1
    }

    /// Takes one out, if it is still there.
    pub(super) fn take(&mut self, tag: u64) -> Option<Held> {
        let index = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        let held = self.held.get_mut(index)?.take();
        while self.held.front().is_some_and(Option::is_none) {
            self.held.pop_front();
            self.first += 1;
        }
        held
    }

    pub(super) fn untouched(&mut self, since: Duration, now: Instant) -> impl Iterator<Item = EntryId> {
        self.held.iter_mut().flatten().filter_map(move |held| held.touch(since, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once() {
        let touched = Instant::now();
        let held = |ms| Held { id: EntryId { ms, seq: 0 }, attempt: 1, touched };
        let mut out = Out::new();
        assert_eq!([1, 2, 3].map(|ms| out.add(held(ms))), [1, 2, 3]);
        assert_eq!((out.take(2), out.take(2)), (Some(held(2)), None));
        assert_eq!((out.take(0), out.take(4)), (None, None));
        assert_eq!((out.take(1), out.len()), (Some(held(1)), 1));
        assert_eq!(out.add(held(4)), 4);
        let second = Duration::from_secs(1);
        assert_eq!(out.untouched(second, touched).count(), 0);
        assert_eq!(out.untouched(second, touched + second).count(), 2);
        assert_eq!(out.untouched(second, touched + second).count(), 0);
    }
}
