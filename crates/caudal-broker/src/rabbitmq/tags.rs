//! Which deliveries of a channel are out, and the fewest acks that settle them.

use std::collections::VecDeque;

/// A channel's delivery tags count up without a gap.
#[derive(Debug)]
pub(super) struct Tags {
    /// The oldest that is out.
    first: u64,
    /// The size in bytes of each from `first` on that is out; the front always is.
    out: VecDeque<Option<u32>>,
    /// Counted apart: those from this tag on.
    since: u64,
    count_since: u64,
}

/// An ack to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) tag: u64,
    /// Settles everything before it too.
    pub(super) multiple: bool,
}

/// What was taken from what is out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) tags: Vec<u64>,
    pub(super) bytes: u64,
}

impl Tags {
    pub(super) fn new() -> Self {
        Self { first: 1, out: VecDeque::new(), since: 0, count_since: 0 }
    }

    /// How many are out that came since [`count_anew`](Self::count_anew).
    pub(super) fn count(&self) -> u64 {
        self.count_since
    }

    pub(super) fn count_anew(&mut self) {
        self.since = self.first + self.out.len() as u64;
        self.count_since = 0;
    }

    /// The next one came.
    pub(super) fn came(&mut self, tag: u64, bytes: usize) {
        if self.out.is_empty() {
            self.first = tag;
        }
        let index = (tag - self.first) as usize;
        if self.out.len() <= index {
            self.out.resize(index + 1, None);
        }
        self.out[index] = Some(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.count_since += 1;
    }

    /// Takes those of `tags` that are out.
    pub(super) fn take(&mut self, tags: &[u64]) -> Taken {
        let mut taken = Taken::default();
        for tag in tags {
            let index = tag.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
            if let Some(bytes) = index.and_then(|index| self.out.get_mut(index)).and_then(Option::take) {
                taken.tags.push(*tag);
                taken.bytes += u64::from(bytes);
                self.count_since -= u64::from(*tag >= self.since);
            }
        }
        while self.out.front() == Some(&None) {
            self.out.pop_front();
            self.first += 1;
        }
        taken
    }

    /// The acks for what was just taken. Everything up to the oldest that stays out is one ack.
    pub(super) fn acks(&self, taken: &Taken) -> Vec<Ack> {
        let prefix = taken.tags.iter().copied().filter(|tag| *tag < self.first).max();
        let rest = taken.tags.iter().copied().filter(|tag| *tag > self.first);
        let prefix = prefix.into_iter().map(|tag| Ack { tag, multiple: true });
        prefix.chain(rest.map(|tag| Ack { tag, multiple: false })).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn single(tag: u64) -> Ack {
        Ack { tag, multiple: false }
    }

    fn upto(tag: u64) -> Ack {
        Ack { tag, multiple: true }
    }

    fn settle(tags: &mut Tags, settled: &[u64]) -> Vec<Ack> {
        let taken = tags.take(settled);
        tags.acks(&taken)
    }

    #[test]
    fn a_prefix_is_one_ack() {
        let mut tags = Tags::new();
        (1..=10).for_each(|tag| tags.came(tag, 7));
        assert_eq!(settle(&mut tags, &[1, 2, 3, 4]), [upto(4)]);
        assert_eq!(settle(&mut tags, &[1, 2, 3, 4]), [], "settling again changes nothing");
        assert_eq!(settle(&mut tags, &[6, 8]), [single(6), single(8)]);
        assert_eq!(settle(&mut tags, &[5, 7]), [upto(7)]);
        assert_eq!(tags.take(&[9, 9, 99]), Taken { tags: vec![9], bytes: 7 });
        tags.count_anew();
        assert_eq!(settle(&mut tags, &[10]), [upto(10)]);
        assert_eq!(tags.count(), 0);
        tags.came(11, 7);
        assert_eq!(tags.count(), 1);
        assert_eq!(settle(&mut tags, &[11, 12]), [upto(11)]);
        assert_eq!(tags.count(), 0);
    }

    proptest! {
        /// The server's side of it: an ack of what is not out would end the channel.
        #[test]
        fn acks_settle_what_is_asked_and_nothing_else(
            steps in proptest::collection::vec((0..20_u64, proptest::collection::vec(0..60_u64, 0..20), any::<bool>()), 1..20)
        ) {
            let (mut tags, mut out, mut next) = (Tags::new(), std::collections::BTreeSet::new(), 1);
            for (come, chosen, give_back) in steps {
                for _ in 0..come {
                    tags.came(next, 1);
                    out.insert(next);
                    next += 1;
                }
                let chosen: Vec<u64> = chosen.iter().map(|tag| (next + 5).saturating_sub(*tag)).collect();
                let mut wanted = out.clone();
                wanted.retain(|tag| !chosen.contains(tag));
                let taken = tags.take(&chosen);
                prop_assert_eq!(taken.bytes as usize, out.len() - wanted.len());
                if give_back {
                    taken.tags.iter().for_each(|tag| assert!(out.remove(tag)));
                } else {
                    for Ack { tag, multiple } in tags.acks(&taken) {
                        prop_assert!(out.contains(&tag), "{} is not out", tag);
                        match multiple {
                            true => out.retain(|other| *other > tag),
                            false => assert!(out.remove(&tag)),
                        }
                    }
                }
                prop_assert_eq!(&out, &wanted);
                prop_assert_eq!(tags.count(), out.len() as u64);
            }
        }
    }
}
