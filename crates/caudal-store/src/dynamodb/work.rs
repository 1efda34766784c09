//! What there is to do in a lane, for whoever hands out work without doing it.

use std::time::Duration;

use caudal_core::confirm::{LaneId, Rank};
use caudal_core::error::StoreError;

use super::DynamoStore;
use super::beat::{FOREVER, until_due};
use super::claim::read_place;
use super::keys::{self, Shard, shard_of};
use super::lanes::Lane;
use super::ledger::Taken;

/// A lane's work as of one moment, as far as the index knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Due by now and under no lease; counted as far as was asked for.
    pub due: u64,
    /// Open leases: somebody is at it, or was when it died.
    pub leases: u64,
    /// Until the first is due of those that are not yet.
    pub next_due: Option<Duration>,
    /// Nothing is claimed.
    pub paused: bool,
}

impl DynamoStore {
    /// What there is to do in a lane; what is due is counted to `due_max`, and a little beyond.
    pub async fn work(&self, lane: LaneId, due_max: u64) -> Result<Work, StoreError> {
        let lane = self.lane(lane).await?;
        let (heads, paused) = self.heads(&lane).await?;
        let leases = heads.iter().map(|head| head.entries.len() as u64).sum();
        let mut work = Work { leases, paused, ..Work::default() };
        let mut all = Vec::with_capacity(heads.len());
        for head in &heads {
            all.push(self.ledger.taken(head).await?);
        }
        let shards = (0..lane.shards).map(|number| (Rank::Usual, number));
        // Suspects of all shards are in one queue.
        for (rank, number) in shards.chain([(Rank::Suspect, 0), (Rank::Alone, 0)]) {
            let queue = keys::queue(Shard { lane: lane.id, number }, rank);
            self.look_at(&lane, &all, &queue, due_max, &mut work).await?;
        }
        Ok(work)
    }

    async fn look_at(
        &self,
        lane: &Lane,
        taken: &[Taken],
        queue: &str,
        due_max: u64,
        work: &mut Work,
    ) -> Result<(), StoreError> {
        const PAGE: usize = 1000;
        let now = self.clock.now();
        let (until, mut after) = (keys::until(now), String::new());
        while work.due < due_max {
            let page = self.aws.places(queue, &after, &until, PAGE).await?;
            for text in &page {
                let place = read_place(text)?;
                let of = taken.get(usize::from(shard_of(place.id, lane.shards)));
                work.due += u64::from(of.is_none_or(|taken| taken.lease_of(place.id, place.fence).is_none()));
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after.clone_from(last),
                _ => break,
            }
        }
        if let Some(next) = self.aws.places(queue, &until, FOREVER, 1).await?.first() {
            let next = until_due(read_place(next)?.due, now);
            work.next_due = Some(work.next_due.map_or(next, |known| known.min(next)));
        }
        Ok(())
    }
}
