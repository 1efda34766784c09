//! What things are called in the table. Stable for ever: written down by tests.

use std::fmt;

use caudal_core::confirm::{LaneId, Rank};
use caudal_core::time::Instant;
use uuid::Uuid;

/// The table's keys, and the index's. The index has only items that are to be called for at some time.
pub(super) const PK: &str = "pk";
pub(super) const SK: &str = "sk";
pub(super) const GPK: &str = "gpk";
pub(super) const GSK: &str = "gsk";
pub(super) const INDEX: &str = "due";

pub(super) const TX: &str = "TX";
pub(super) const HEAD: &str = "HEAD";
pub(super) const LANES: &str = "LANES";
pub(super) const WORKERS: &str = "WORKERS";

const SHARD_BITS: u32 = 10;

pub(super) fn tx(id: Uuid) -> String {
    format!("TX#{id}")
}

pub(super) fn tx_id(pk: &str) -> Option<Uuid> {
    pk.strip_prefix("TX#").and_then(|id| Uuid::try_parse(id).ok())
}

/// The shard of its lane that a transaction belongs to: for ever, which is why a lane keeps its number of shards.
pub(super) fn shard_of(id: Uuid, shards: u16) -> u16 {
    let (high, low) = id.as_u64_pair();
    let mixed = (high ^ low.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed >> 32) % u64::from(shards.max(1))) as u16
}

/// A lane's shard: what its leases are kept under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Shard {
    pub(super) lane: LaneId,
    pub(super) number: u16,
}

impl Shard {
    /// The shard's lease with the sequence number `rvn`.
    pub(super) fn lease(self, rvn: i64) -> i64 {
        rvn << SHARD_BITS | i64::from(self.number)
    }

    pub(super) fn of_lease(lane: LaneId, lease: i64) -> Self {
        Self { lane, number: (lease & ((1 << SHARD_BITS) - 1)) as u16 }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LEASE#{}#{}", self.lane, self.number)
    }
}

pub(super) fn batch(token: &str) -> String {
    format!("B#{token}")
}

/// Where an item waits in the index. Suspects of a lane are few, and are kept in one place whatever their shard.
pub(super) fn queue(shard: Shard, rank: Rank) -> String {
    match rank {
        Rank::Usual => format!("D#{}#{}", shard.lane, shard.number),
        Rank::Suspect => format!("D#{}#suspect", shard.lane),
        Rank::Alone => format!("D#{}#alone", shard.lane),
    }
}

/// An item's place in its queue: when it is due, which it is, and the fence it was put there under, which tells whether a lease
/// that names the item has moved it already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) due: Instant,
    pub(super) id: Uuid,
    pub(super) fence: i64,
}

impl Place {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('#');
        let (due, id, fence) = (parts.next()?, parts.next()?, parts.next()?);
        let due = Instant::from_unix_micros(due.parse().ok()?);
        Some(Self { due, id: Uuid::try_parse(id).ok()?, fence: fence.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}#{}", moment(self.due), self.id, self.fence)
    }
}

/// Sorts as text as it does in time. What is before 1970 is due since then.
fn moment(at: Instant) -> String {
    format!("{:018}", at.within_calendar().unix_micros().max(0))
}

/// After every place that is due at `now`, and before all later ones.
pub(super) fn until(now: Instant) -> String {
    format!("{}#~", moment(now))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_as_they_are() {
        let id = Uuid::try_parse("0198c0de-0000-7000-8000-00000000002a").unwrap();
        let shard = Shard { lane: LaneId(7), number: 3 };
        assert_eq!(shard.to_string(), "LEASE#7#3");
        assert_eq!(Rank::ALL.map(|rank| queue(shard, rank)), ["D#7#3", "D#7#suspect", "D#7#alone"]);
        assert_eq!([1, 16, 1024].map(|shards| shard_of(id, shards)), [0, 15, 447]);
        let place = Place { due: Instant::from_unix_micros(1_700_000_000_000_000), id, fence: 9 };
        assert_eq!(place.to_string(), "001700000000000000#0198c0de-0000-7000-8000-00000000002a#9");
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        assert_eq!(tx_id(&tx(id)), Some(id));
    }

    #[test]
    fn leases_name_their_shard_and_grow() {
        for number in [0, 1, 1023] {
            let shard = Shard { lane: LaneId(1), number };
            assert!(shard.lease(2) > shard.lease(1));
            assert_eq!(Shard::of_lease(LaneId(1), shard.lease(12_345)), shard);
        }
    }

    #[test]
    fn places_sort_by_time() {
        let at = |micros| Place { due: Instant::from_unix_micros(micros), id: Uuid::max(), fence: 1 }.to_string();
        assert!(at(9) < at(10) && at(10) < at(i64::MAX));
        assert!(at(10) < until(Instant::from_unix_micros(10)) && until(Instant::from_unix_micros(10)) < at(11));
    }

    #[test]
    fn shards_are_used_alike() {
        let mut counts = [0; 16];
        for n in 0..16_000u128 {
            // Ids that follow one another in time, as UUIDv7 do, with chance in their last bits only.
            counts[usize::from(shard_of(Uuid::from_u128(0x0198_c0de << 96 | n.wrapping_mul(0x9E37_79B9)), 16))] += 1;
        }
        assert!(counts.iter().all(|count| (500..2000).contains(count)), "{counts:?}");
    }
}
