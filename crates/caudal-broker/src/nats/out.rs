//! The deliveries that a subscription has out: tag by tag, in order, with the subject that settles each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::Subject;

/// Tags count up from 1 in the order of delivery, so finding one is arithmetic.
#[derive(Debug)]
pub(super) struct Out {
    first: u64,
    held: VecDeque<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    reply: Subject,
    /// When the server last heard that it is being worked on.
    touched: Instant,
}

impl Out {
    pub(super) fn new() -> Self {
        Self { first: 1, held: VecDeque::new() }
    }

    pub(super) fn add(&mut self, reply: Subject, now: Instant) -> u64 {
        self.held.push_back(Some(Held { reply, touched: now }));
        self.first + self.held.len() as u64 - 1
    }

    /// Takes one out, if it is still there.
    pub(super) fn take(&mut self, tag: u64) -> Option<Subject> {
        let index = usize::try_from(tag.checked_sub(self.first)?).ok()?;
        let held = self.held.get_mut(index)?.take();
        while self.held.front().is_some_and(Option::is_none) {
            self.held.pop_front();
            self.first += 1;
        }
        held.map(|held| held.reply)
    }

    /// Those of whom the server heard nothing for so long; it will now.
    pub(super) fn untouched(&mut self, since: Duration, now: Instant) -> Vec<Subject> {
        let stale = self.held.iter_mut().flatten().filter(|held| now.duration_since(held.touched) >= since);
        stale
            .map(|held| {
                held.touched = now;
                held.reply.clone()
            })
            .collect()
    }

    /// Everything, in order; nothing is left.
    pub(super) fn drain(&mut self) -> Vec<Subject> {
        self.first += self.held.len() as u64;
        self.held.drain(..).flatten().map(|held| held.reply).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once() {
        let now = Instant::now();
        let mut out = Out::new();
        let tags: Vec<u64> = ["a", "b", "c"].map(|reply| out.add(Subject::from(reply), now)).into();
        assert_eq!(tags, [1, 2, 3]);
        assert_eq!(out.take(2), Some(Subject::from("b")));
        assert_eq!(out.take(2), None);
        assert_eq!((out.take(0), out.take(4)), (None, None));
        assert_eq!(out.take(1), Some(Subject::from("a")));
        assert_eq!((out.first, out.held.len()), (3, 1));
        assert_eq!(out.add(Subject::from("d"), now), 4);
        assert_eq!(out.drain(), [Subject::from("c"), Subject::from("d")]);
        assert_eq!(out.take(3), None);
        assert_eq!(out.add(Subject::from("e"), now), 5);
    }

    #[test]
    fn what_is_touched_rests() {
        let start = Instant::now();
        let mut out = Out::new();
        out.add(Subject::from("a"), start);
        let second = Duration::from_secs(1);
        out.add(Subject::from("b"), start + second);
        assert_eq!(out.untouched(second, start + second), [Subject::from("a")]);
        assert_eq!(out.untouched(second, start + second), []);
        assert_eq!(out.untouched(second, start + 2 * second).len(), 2);
    }
}
