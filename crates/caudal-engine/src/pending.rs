//! Messages that this process published and has not seen stored: what a receipt says of them where the broker itself cannot
//! be searched.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use caudal_core::time::Instant;
use uuid::Uuid;

/// Messages remembered; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 65_536;

#[derive(Debug, Default)]
pub(crate) struct Pending {
    sent: Mutex<(HashMap<Uuid, Instant>, VecDeque<Uuid>)>,
}

impl Pending {
    pub(crate) fn remember(&self, ids: impl IntoIterator<Item = Uuid>, published_at: Instant) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, order) = &mut *sent;
        for id in ids {
            if known.insert(id, published_at).is_none() {
                order.push_back(id);
            }
        }
        while order.len() > REMEMBERED_MAX {
            if let Some(oldest) = order.pop_front() {
                known.remove(&oldest);
            }
        }
    }

    /// When it was published.
    pub(crate) fn find(&self, id: Uuid) -> Option<Instant> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).0.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_first() {
        let pending = Pending::default();
        let ids: Vec<Uuid> = (0..=REMEMBERED_MAX as u128).map(Uuid::from_u128).collect();
        pending.remember(ids.iter().copied(), Instant(7));
        pending.remember([ids[1]], Instant(8));
        assert_eq!(pending.find(ids[0]), None);
        assert_eq!(pending.find(ids[1]), Some(Instant(8)));
        assert_eq!(pending.find(ids[REMEMBERED_MAX]), Some(Instant(7)));
    }
}
