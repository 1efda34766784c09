//! Claiming: what the index says is due, if its item says so too and no open lease names it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use caudal_core::confirm::ports::{Batch, Claim, Lease};
use caudal_core::confirm::{Item, Rank, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use uuid::Uuid;

use super::DynamoStore;
use super::keys::{self, HEAD, LANES, Place, Shard, TX, shard_of};
use super::lanes::Lane;
use super::ledger::{Head, Taken};
use super::tx::{Move, Tx, move_from};
use super::values::text;

/// Items under one lease: their ids must fit into one item.
const ITEMS_MAX: usize = 10_000;
/// How often a claim that others were quicker than begins anew in one shard.
const RACES_MAX: u32 = 8;
const RACE_PAUSE: Duration = Duration::from_millis(5);

/// What a try to claim in one shard came to.
enum Tried {
    Claimed(Batch),
    Nothing,
    Paused,
    Outrun,
}

impl DynamoStore {
    /// Looks through the lane's shards, from another one each time, until one has something.
    pub(super) async fn claim_somewhere(&self, claim: &Claim) -> Result<Option<Batch>, StoreError> {
        let lane = self.lane(claim.lane).await?;
        let (shards, turn) = (usize::from(lane.shards), self.next_turn());
        for step in 0..shards {
            let number = ((turn + step) % shards) as u16;
            let shard = Shard { lane: claim.lane, number };
            let mut tried = Tried::Outrun;
            for race in 0..RACES_MAX {
                tried = self.claim_in(claim, &lane, shard).await?;
                match tried {
                    Tried::Outrun => tokio::time::sleep(self.pause(race)).await,
                    _ => break,
                }
            }
            match tried {
                Tried::Claimed(batch) => return Ok(Some(batch)),
                Tried::Paused => return Ok(None),
                Tried::Nothing | Tried::Outrun => {}
            }
        }
        Ok(None)
    }

    /// Spread by where this store stands among its own claims, so that those that met do not meet again.
    fn pause(&self, race: u32) -> Duration {
        RACE_PAUSE * (race + 1) * (1 + self.next_turn() as u32 % 4) / 4
    }

    async fn claim_in(&self, claim: &Claim, lane: &Lane, shard: Shard) -> Result<Tried, StoreError> {
        let queue = keys::queue(shard, claim.rank);
        let until = keys::until(self.clock.now());
        let wanted = claim.items_max.clamp(1, ITEMS_MAX);
        let first = self.aws.places(&queue, "", &until, wanted).await?;
        if first.is_empty() {
            return Ok(Tried::Nothing);
        }
        // Read before the items are: what is entered after this is noticed when this claim is entered.
        let (head, paused) = self.head_and_pause(lane, shard).await?;
        if paused {
            return Ok(Tried::Paused);
        }
        let taken = self.ledger.taken(&head).await?;
        let due = self.free_places(claim, lane, shard, &taken, first, &until).await?;
        let txs = self.still_due(due).await?;
        if txs.is_empty() {
            return Ok(Tried::Nothing);
        }
        let ids: Vec<Uuid> = txs.iter().map(|(tx, _)| tx.id).collect();
        let Some(number) = self.ledger.enter(&head, &claim.worker, claim.ttl, &ids).await? else {
            return Ok(Tried::Outrun);
        };
        let claimed = self.clock.now();
        let lease = Lease { lane: claim.lane, number, worker: claim.worker.clone() };
        let items = txs.into_iter().map(|(tx, record)| item(tx, record, claimed)).collect();
        // Positions mean nothing across shards, and each claim looks at all of one.
        Ok(Tried::Claimed(Batch { lease, items, watermark: 0 }))
    }

    async fn head_and_pause(&self, lane: &Lane, shard: Shard) -> Result<(Head, bool), StoreError> {
        let keys = vec![(LANES.to_owned(), lane.key()), (shard.to_string(), HEAD.to_owned())];
        let (mut head, mut paused) = (None, false);
        for row in self.aws.get_all(keys).await? {
            match text(&row, keys::SK) {
                Some(HEAD) => head = Some(Head::of(shard, &row)?),
                _ => paused = Lane::of(&row)?.paused.is_some(),
            }
        }
        let head = head.ok_or_else(|| super::error::damaged(format!("no item {shard}")))?;
        Ok((head, paused))
    }

    /// Places in order of what is due in this shard and under no lease, from the pages that it takes to find enough.
    async fn free_places(
        &self,
        claim: &Claim,
        lane: &Lane,
        shard: Shard,
        taken: &Taken,
        first: Vec<String>,
        until: &str,
    ) -> Result<Vec<(Place, String)>, StoreError> {
        let queue = keys::queue(shard, claim.rank);
        let wanted = claim.items_max.clamp(1, ITEMS_MAX);
        let (mut page, mut free, mut asked) = (first, Vec::new(), wanted);
        loop {
            let last = page.last().cloned();
            let is_full = page.len() >= asked.min(1000);
            for text in page {
                let place = read_place(&text)?;
                let here = claim.rank == Rank::Usual || shard_of(place.id, lane.shards) == shard.number;
                if here && taken.lease_of(place.id, place.fence).is_none() {
                    free.push((place, text));
                }
            }
            let Some(last) = last.filter(|_| is_full && free.len() < wanted) else { break };
            asked = wanted + taken.len();
            page = self.aws.places(&queue, &last, until, asked).await?;
        }
        free.truncate(wanted);
        Ok(free)
    }

    /// Of what the index says, what the items say, too: the index runs behind them. With the records.
    async fn still_due(&self, due: Vec<(Place, String)>) -> Result<Vec<(Tx, Bytes)>, StoreError> {
        let keys = due.iter().map(|(place, _)| (keys::tx(place.id), TX.to_owned())).collect();
        let mut found = HashMap::with_capacity(due.len());
        for row in self.aws.get_all(keys).await? {
            let tx = Tx::of(&row)?;
            found.insert(tx.id, tx);
        }
        let mut txs = Vec::with_capacity(due.len());
        for (place, text) in due {
            let Some(mut tx) = found.remove(&place.id).filter(|tx| agrees(tx, &text)) else { continue };
            match tx.record.take() {
                Some(record) => txs.push((tx, record)),
                None => self.hold_without_record(&tx).await?,
            }
        }
        Ok(txs)
    }

    async fn hold_without_record(&self, tx: &Tx) -> Result<(), StoreError> {
        let shard = Shard { lane: tx.lane, number: shard_of(tx.id, self.lane(tx.lane).await?.shards) };
        let to = Move {
            id: tx.id,
            to: State::Held,
            attempts: tx.attempts,
            crashes: tx.crashes,
            doubt: false,
            maybe_done: tx.doubt,
            sent: None,
            due: None,
            at: self.clock.now(),
            code: None,
            detail: "its record is gone, so nothing can be sent: somebody has changed the item".to_owned(),
            tried: None,
        };
        move_from(&self.aws, shard, tx, &to).await.map(drop)
    }
}

/// The index agrees with the item: it waits, and in this very place.
fn agrees(tx: &Tx, place: &str) -> bool {
    matches!(tx.state, State::Pending | State::Retry | State::Doubt) && tx.place.as_deref() == Some(place)
}

pub(super) fn read_place(text: &str) -> Result<Place, StoreError> {
    Place::parse(text).ok_or_else(|| super::error::damaged(format!("the place {text:?} in the index")))
}

fn item(tx: Tx, record: Bytes, claimed: Instant) -> Item {
    Item {
        id: tx.id,
        attempts: tx.attempts,
        crashes: tx.crashes,
        doubt: tx.doubt,
        since: tx.since,
        first_sent: tx.first_sent,
        claimed: claimed.max(tx.since),
        record,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use caudal_core::confirm::LaneId;

    use super::*;
    use crate::dynamodb::values::Row;

    /// No emulator has an index that runs behind, so what it may say is made up here.
    #[test]
    fn an_index_that_runs_behind_is_not_believed() {
        let id = Uuid::from_u128(7);
        let shard = Shard { lane: LaneId(1), number: 0 };
        let place = |due, fence| Place { due: Instant::from_unix_micros(due), id, fence };
        let row = |state: &str, place: Place| -> Row {
            let mut row = Tx { due: Some(place.due), fence: place.fence, ..blank(id) }.row(shard);
            row.insert("st".to_owned(), crate::dynamodb::values::s(state));
            row
        };
        let tx = |state: &str, at: Place| Tx::of(&row(state, at)).unwrap();
        let here = place(10, 0).to_string();
        assert!(agrees(&tx("pending", place(10, 0)), &here));
        assert!(!agrees(&tx("retry", place(99, 1)), &here), "it is due later by now");
        assert!(!agrees(&tx("pending", place(10, 1)), &here), "a lease has moved it since");
        for state in ["confirmed", "rejected", "void", "held", "dead"] {
            assert!(!agrees(&tx(state, place(10, 0)), &here), "{state}");
        }
    }

    fn blank(id: Uuid) -> Tx {
        Tx {
            id,
            lane: LaneId(1),
            state: State::Pending,
            attempts: 0,
            crashes: 0,
            doubt: false,
            maybe_done: false,
            since: Instant::from_unix_micros(0),
            first_sent: None,
            due: None,
            at: None,
            code: None,
            detail: String::new(),
            fence: 0,
            queue: None,
            place: None,
            record: None,
            tried: Vec::new(),
            contradictions: Vec::new(),
        }
    }
}
