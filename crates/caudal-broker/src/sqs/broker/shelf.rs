//! What came from a queue and is not settled: what still lies here, and what was handed out. Pure: it knows neither AWS nor
//! the clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use caudal_core::message::{Delivery, Mark};
use tokio::time::Instant;

use super::settle::BATCH_MAX;

/// What AWS wants to see when a message is settled or given back. Another one at each hand-over.
pub(crate) type Receipt = Arc<str>;

/// A message that came in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) delivery: Delivery,
    pub(crate) receipt: Receipt,
    /// Only of a FIFO queue.
    pub(crate) group: Option<Arc<str>>,
}

#[derive(Debug, Default)]
pub(crate) struct Shelf {
    next: u64,
    held: HashMap<u64, Held>,
    lying: VecDeque<Delivery>,
    lying_bytes: usize,
    /// In the order in which they are to be renewed.
    leases: VecDeque<Lease>,
}

#[derive(Debug)]
struct Held {
    receipt: Receipt,
    group: Option<Arc<str>>,
    /// Which subscription has it; `None` while it lies here.
    by: Option<u64>,
}

/// Messages that came together and are kept hidden together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) renew_at: Instant,
    pub(crate) tags: Range<u64>,
}

impl Shelf {
    pub(crate) fn lying(&self) -> (usize, usize) {
        (self.lying.len(), self.lying_bytes)
    }

    /// Takes in at most a batch, and names each delivery by a number of its own.
    pub(crate) fn put(&mut self, arrivals: Vec<Arrival>, renew_at: Instant) {
        debug_assert!(arrivals.len() <= BATCH_MAX);
        let first = self.next;
        for Arrival { mut delivery, receipt, group } in arrivals {
            delivery.mark = Mark::Tag(self.next);
            self.held.insert(self.next, Held { receipt, group, by: None });
            self.lying_bytes += delivery.message.body.len();
            self.lying.push_back(delivery);
            self.next += 1;
        }
        self.keep(Lease { renew_at, tags: first..self.next });
    }

    /// Hands out what lies here, in order, within both bounds; the first whatever its size.
    pub(crate) fn take(&mut self, by: u64, messages_max: usize, bytes_max: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.lying.front() {
            let size = next.message.body.len();
            if !taken.is_empty() && (taken.len() >= messages_max || bytes + size > bytes_max) {
                break;
            }
            let Some(delivery) = self.lying.pop_front() else { break };
            if let Mark::Tag(tag) = delivery.mark
                && let Some(held) = self.held.get_mut(&tag)
            {
                held.by = Some(by);
            }
            bytes += size;
            self.lying_bytes -= size;
            taken.push(delivery);
        }
        taken
    }

    /// The receipts of those that are not settled.
    pub(crate) fn receipts(&self, tags: &[u64]) -> Vec<Receipt> {
        tags.iter().filter_map(|tag| self.held.get(tag)).map(|held| held.receipt.clone()).collect()
    }

    pub(crate) fn settled(&mut self, tags: &[u64]) {
        tags.iter().for_each(|tag| drop(self.held.remove(tag)));
    }

    /// Lets go of deliveries, and of whatever lies here and must not be handed out before them.
    pub(crate) fn give_back(&mut self, tags: &[u64]) -> Vec<Receipt> {
        let given: Vec<Held> = tags.iter().filter_map(|tag| self.held.remove(tag)).collect();
        let groups: HashSet<Arc<str>> = given.iter().filter_map(|held| held.group.clone()).collect();
        let mut receipts: Vec<Receipt> = given.into_iter().map(|held| held.receipt).collect();
        if !groups.is_empty() {
            receipts.extend(self.remove_lying(|held| held.group.as_ref().is_some_and(|group| groups.contains(group))));
        }
        receipts
    }

    /// Lets go of what a subscription had.
    pub(crate) fn give_back_all_of(&mut self, by: u64) -> Vec<Receipt> {
        let tags: Vec<u64> = self.held.iter().filter(|(_, held)| held.by == Some(by)).map(|(tag, _)| *tag).collect();
        self.give_back(&tags)
    }

    /// Lets go of what nobody has.
    pub(crate) fn give_back_lying(&mut self) -> Vec<Receipt> {
        self.remove_lying(|_| true)
    }

    fn remove_lying(&mut self, which: impl Fn(&Held) -> bool) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        let Self { held, lying, lying_bytes, .. } = self;
        lying.retain(|delivery| {
            let Mark::Tag(tag) = delivery.mark else { return true };
            if !held.get(&tag).is_some_and(&which) {
                return true;
            }
            *lying_bytes -= delivery.message.body.len();
            receipts.extend(held.remove(&tag).map(|held| held.receipt));
            false
        });
        receipts
    }

    /// When the next lease must be renewed, if any is left that still matters.
    pub(crate) fn next_renewal(&mut self) -> Option<Instant> {
        while let Some(lease) = self.leases.front() {
            if lease.tags.clone().any(|tag| self.held.contains_key(&tag)) {
                return Some(lease.renew_at);
            }
            self.leases.pop_front();
        }
        None
    }

    /// A lease that must be renewed now, and what is left of it.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(Lease, Vec<Receipt>)> {
        if self.next_renewal()? > now {
            return None;
        }
        let lease = self.leases.pop_front()?;
        let receipts = lease.tags.clone().filter_map(|tag| self.held.get(&tag)).map(|held| held.receipt.clone());
        let receipts = receipts.collect();
        Some((lease, receipts))
    }

    /// Puts a lease where it belongs in time: nearly always at the end.
    pub(crate) fn keep(&mut self, lease: Lease) {
        let after = self.leases.iter().rev().take_while(|other| other.renew_at > lease.renew_at).count();
        self.leases.insert(self.leases.len() - after, lease);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use caudal_core::message::{Message, Origin};
    use caudal_core::time::Instant as Moment;
    use uuid::Uuid;

    use super::*;

    fn arrivals(receipts: &[&str], group: Option<&str>) -> Vec<Arrival> {
        let message = Message {
            id: Uuid::nil(),
            key: None,
            source: String::new(),
            published_at: Moment::default(),
            attributes: None,
            body: Bytes::from_static(b"0123456789"),
        };
        let arrival = |receipt: &&str| Arrival {
            delivery: Delivery::new(message.clone(), Origin::Accepted, Mark::Tag(0)),
            receipt: (*receipt).into(),
            group: group.map(Into::into),
        };
        receipts.iter().map(arrival).collect()
    }

    fn tags(deliveries: &[Delivery]) -> Vec<u64> {
        let tag = |delivery: &Delivery| match delivery.mark {
            Mark::Tag(tag) => tag,
            Mark::Position { .. } => u64::MAX,
        };
        deliveries.iter().map(tag).collect()
    }

    fn texts(receipts: Vec<Receipt>) -> Vec<String> {
        let mut texts: Vec<String> = receipts.iter().map(|receipt| receipt.to_string()).collect();
        texts.sort();
        texts
    }

    #[test]
    fn hands_out_in_order_within_bounds() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        shelf.put(arrivals(&["a", "b", "c"], None), now);
        shelf.put(arrivals(&["d", "e"], None), now);
        assert_eq!(shelf.lying(), (5, 50));
        assert_eq!(tags(&shelf.take(1, 2, usize::MAX)), [0, 1]);
        assert_eq!(tags(&shelf.take(1, 9, 5)), [2], "the first comes whatever its size");
        assert_eq!(tags(&shelf.take(2, 9, 20)), [3, 4]);
        assert_eq!(shelf.lying(), (0, 0));
        shelf.settled(&[0, 3]);
        assert_eq!(texts(shelf.receipts(&[0, 1, 3, 77])), ["b"]);
        assert_eq!(texts(shelf.give_back_all_of(1)), ["b", "c"]);
        assert_eq!(texts(shelf.give_back_all_of(2)), ["e"]);
        assert_eq!(shelf.give_back_all_of(2).len(), 0);
    }

    #[test]
    fn a_group_that_is_given_back_does_not_overtake_itself() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        shelf.put(arrivals(&["a1", "a2", "a3"], Some("a")), now);
        shelf.put(arrivals(&["b1"], Some("b")), now);
        let taken = tags(&shelf.take(1, 1, usize::MAX));
        assert_eq!(texts(shelf.give_back(&taken)), ["a1", "a2", "a3"]);
        assert_eq!(tags(&shelf.take(1, 9, usize::MAX)), [3]);
        assert_eq!(shelf.lying(), (0, 0));
    }

    #[test]
    fn leases_are_renewed_while_they_matter() {
        let mut shelf = Shelf::default();
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        shelf.put(arrivals(&["a", "b"], None), after(1));
        shelf.put(arrivals(&["c"], None), after(2));
        assert_eq!(shelf.next_renewal(), Some(after(1)));
        assert!(shelf.due(now).is_none());
        shelf.settled(&[0]);
        let (lease, receipts) = shelf.due(after(3)).into_iter().next().unwrap_or_else(|| unreachable!());
        assert_eq!((lease.tags.clone(), texts(receipts)), (0..2, vec!["b".to_owned()]));
        shelf.keep(Lease { renew_at: after(10), ..lease });
        shelf.keep(Lease { renew_at: after(5), tags: 2..3 });
        assert_eq!(shelf.due(after(3)).map(|(lease, _)| lease.tags), Some(2..3));
        assert_eq!(shelf.next_renewal(), Some(after(5)), "kept in the order of time");
        shelf.settled(&[1, 2]);
        assert_eq!(shelf.next_renewal(), None, "what is settled is forgotten");
        assert!(shelf.leases.is_empty());
    }
}
