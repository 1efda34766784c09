//! Beats: who is alive, which leases have lapsed, and what can be claimed.
//!
//! No two machines need agree on the time. A lease or a worker that shows no sign of life for its whole term, by the clock of whoever
//! watches, which cannot be set, has lapsed; and the write that says so holds only if there was no sign meanwhile.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use caudal_core::confirm::ports::{Beat, Beaten, Ready, Tried};
use caudal_core::confirm::{LaneId, Rank, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use futures_util::FutureExt;

use super::claim::read_place;
use super::error::failed;
use super::keys::{self, HEAD, LANES, PK, SK, Shard, TX, WORKERS, shard_of};
use super::lanes::Lane;
use super::ledger::{Entry, Head, Phase, Taken};
use super::settle::put_back;
use super::tx::{self, Move, Tx};
use super::values::{n, number, s, text};
use super::{DynamoStore, all_of};

const BEATS: &str = "beats";
const TTL_MS: &str = "ttlms";
/// Terms after which a worker that shows no sign of life is struck off the list.
const FORGOTTEN_AFTER: u32 = 10;
/// The last character that a place can begin with, and more.
pub(super) const FOREVER: &str = "~";

/// Signs of life as this process saw them: the count, and since when it is so.
#[derive(Debug, Default)]
pub(super) struct Watched {
    leases: HashMap<(LaneId, i64), (u64, std::time::Instant)>,
    workers: HashMap<String, (u64, std::time::Instant)>,
}

impl Watched {
    /// How long the count has stood where it stands.
    fn lease_silent_for(&mut self, lane: LaneId, entry: &Entry) -> Duration {
        silent_for(
            self.leases.entry((lane, entry.number)).or_insert((entry.beats, std::time::Instant::now())),
            entry.beats,
        )
    }

    fn worker_silent_for(&mut self, worker: &str, beats: u64) -> Duration {
        silent_for(self.workers.entry(worker.to_owned()).or_insert((beats, std::time::Instant::now())), beats)
    }

    fn forget_ended(&mut self, lane: LaneId, heads: &[Head]) {
        let open = |number: i64| heads.iter().any(|head| head.entry(number).is_some());
        self.leases.retain(|(of, number), _| *of != lane || open(*number));
    }
}

fn silent_for(seen: &mut (u64, std::time::Instant), beats: u64) -> Duration {
    if seen.0 != beats {
        *seen = (beats, std::time::Instant::now());
    }
    seen.1.elapsed()
}

impl DynamoStore {
    pub(super) async fn beat_once(&self, beat: &Beat) -> Result<Beaten, StoreError> {
        let mut beaten = Beaten { workers: self.count_in(&beat.worker, beat.ttl).await?, ..Beaten::default() };
        for id in &beat.lanes {
            let lane = self.lane(*id).await?;
            let (heads, paused) = self.heads(&lane).await?;
            let lapsed = self.reap(&lane, &heads).await?;
            beaten.lapsed += lapsed;
            let heads = if lapsed > 0 { self.heads(&lane).await?.0 } else { heads };
            let (ready, next) = self.look_ahead(&lane, &heads).await?;
            match paused {
                true => beaten.paused.push(*id),
                false => beaten.ready.extend(ready.into_iter().map(|rank| Ready { lane: *id, rank, missed: None })),
            }
            beaten.next_due = [beaten.next_due, next].into_iter().flatten().min();
        }
        Ok(beaten)
    }

    /// Counts the worker in, and everybody who is alive.
    async fn count_in(&self, worker: &str, ttl: Duration) -> Result<u32, StoreError> {
        let update = self.aws.client.update_item().table_name(&self.aws.table).key(PK, s(WORKERS)).key(SK, s(worker));
        let update = update
            .update_expression(format!("SET {TTL_MS} = :ttl ADD {BEATS} :one"))
            .expression_attribute_values(":ttl", n(ttl.as_millis()))
            .expression_attribute_values(":one", n(1));
        update.send().await.map_err(|error| failed(&error, self.aws.call("UpdateItem")))?;
        let (mut alive, mut gone) = (0, Vec::new());
        for row in self.aws.partition(WORKERS).await? {
            let (Some(name), Some(beats), Some(ttl)) = (text(&row, SK), number(&row, BEATS), number(&row, TTL_MS))
            else {
                continue;
            };
            let (ttl, mut watched) =
                (Duration::from_millis(ttl), self.watched.lock().unwrap_or_else(PoisonError::into_inner));
            let silent = watched.worker_silent_for(name, beats);
            alive += u32::from(silent < ttl || name == worker);
            if silent > ttl * FORGOTTEN_AFTER && name != worker {
                watched.workers.remove(name);
                gone.push(name.to_owned());
            }
        }
        for name in gone {
            // One that comes back counts itself in again.
            self.aws.delete(WORKERS.to_owned(), name).await?;
        }
        Ok(alive)
    }

    /// The lane's heads, in order, and whether it is paused.
    pub(super) async fn heads(&self, lane: &Lane) -> Result<(Vec<Head>, bool), StoreError> {
        let shards = (0..lane.shards).map(|number| Shard { lane: lane.id, number });
        let of: HashMap<String, Shard> = shards.map(|shard| (shard.to_string(), shard)).collect();
        let keys = of.keys().map(|shard| (shard.clone(), HEAD.to_owned()));
        let keys = keys.chain([(LANES.to_owned(), lane.key())]).collect();
        let (mut heads, mut paused) = (Vec::with_capacity(of.len()), false);
        for row in self.aws.get_all(keys).await? {
            match text(&row, PK).and_then(|pk| of.get(pk)) {
                Some(shard) => heads.push(Head::of(*shard, &row)?),
                None => paused = Lane::of(&row)?.paused.is_some(),
            }
        }
        heads.sort_by_key(|head| head.shard);
        Ok((heads, paused))
    }

    /// Ends what has lapsed; returns how many leases that were.
    async fn reap(&self, lane: &Lane, heads: &[Head]) -> Result<u64, StoreError> {
        let mut silent = Vec::new();
        {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.forget_ended(lane.id, heads);
            for head in heads {
                for entry in &head.entries {
                    if entry.phase.has_lapsed() || watched.lease_silent_for(lane.id, entry) >= entry.ttl {
                        silent.push((head.shard, entry));
                    }
                }
            }
        }
        let mut lapsed = 0;
        for (shard, entry) in silent {
            if let Some(phase) = self.ledger.lapse(shard, entry).await? {
                self.put_all_back(shard, entry, phase).await?;
                lapsed += u64::from(self.ledger.end(shard, entry).await?);
            }
        }
        Ok(lapsed)
    }

    /// Puts back what a lapsed lease has still. Whoever dies here leaves the rest to the next beat of anybody: no item is moved twice
    /// under one lease.
    async fn put_all_back(&self, shard: Shard, entry: &Entry, phase: Phase) -> Result<(), StoreError> {
        let ids = self.ledger.ids(shard, entry).await?;
        let rows = self.aws.get_all(ids.iter().map(|id| (keys::tx(*id), TX.to_owned())).collect()).await?;
        let left = rows.iter().map(Tx::of).collect::<Result<Vec<_>, _>>()?;
        let now = self.clock.now();
        let mut moves = Vec::with_capacity(left.len());
        for tx in left.into_iter().filter(|tx| tx.is_under(entry.number)) {
            let to = match phase.is_calling() {
                true => in_doubt(&tx, entry.called_at, now),
                false => put_back(tx.id, tx.attempts, tx.crashes, tx.doubt, tx.since, now),
            };
            moves.push(async move { tx::move_under(&self.aws, shard, entry.number, &to).await }.boxed());
        }
        all_of(moves).await.map(drop)
    }

    /// What can be claimed by rank, and when the next item is due.
    async fn look_ahead(&self, lane: &Lane, heads: &[Head]) -> Result<(Vec<Rank>, Option<Duration>), StoreError> {
        let mut taken = HashMap::with_capacity(heads.len());
        for head in heads {
            taken.insert(head.shard.number, self.ledger.taken(head).await?);
        }
        let mut looks = Vec::with_capacity(heads.len() + 2);
        for head in heads {
            looks.push(self.look_into(lane, &taken, Rank::Usual, head.shard).boxed());
        }
        // Suspects of all shards are in one queue.
        for rank in [Rank::Suspect, Rank::Alone] {
            looks.push(self.look_into(lane, &taken, rank, Shard { lane: lane.id, number: 0 }).boxed());
        }
        let found = all_of(looks).await?;
        let is_ready = |rank| found.iter().any(|(of, ready, _)| *of == rank && *ready);
        let ready = Rank::ALL.into_iter().filter(|rank| is_ready(*rank)).collect();
        Ok((ready, found.iter().filter_map(|(_, _, next)| *next).min()))
    }

    async fn look_into(
        &self,
        lane: &Lane,
        taken: &HashMap<u16, Taken>,
        rank: Rank,
        shard: Shard,
    ) -> Result<(Rank, bool, Option<Duration>), StoreError> {
        let (queue, now) = (keys::queue(shard, rank), self.clock.now());
        let is_free = |text: &String| -> Result<bool, StoreError> {
            let place = read_place(text)?;
            let of = taken.get(&shard_of(place.id, lane.shards));
            Ok(of.is_none_or(|taken| taken.lease_of(place.id, place.fence).is_none()))
        };
        let under_lease: usize = match rank {
            Rank::Usual => taken.get(&shard.number).map_or(0, Taken::len),
            _ => taken.values().map(Taken::len).sum(),
        };
        // One more than can be taken shows one that is not; what is due later is under no lease.
        let (until, mut after, mut ready) = (keys::until(now), String::new(), false);
        loop {
            let page = self.aws.places(&queue, &after, FOREVER, under_lease + 1).await?;
            for text in &page {
                if *text > until {
                    return Ok((rank, ready, Some(until_due(read_place(text)?.due, now))));
                }
                ready = ready || is_free(text)?;
            }
            match page.last() {
                Some(last) if page.len() > under_lease.min(999) && !ready => after.clone_from(last),
                Some(_) if page.len() > under_lease.min(999) => after.clone_from(&until),
                _ => return Ok((rank, ready, None)),
            }
        }
    }
}

pub(super) fn until_due(due: Instant, now: Instant) -> Duration {
    Duration::from_micros(due.0.saturating_sub(now.0).max(0) as u64)
}

/// Its worker died while it was being called: nobody knows whether it was done.
fn in_doubt(tx: &Tx, called_at: Option<Instant>, now: Instant) -> Move {
    let detail = "its worker was lost while it was being called".to_owned();
    let attempts = tx.attempts + 1;
    Move {
        id: tx.id,
        to: State::Doubt,
        attempts,
        crashes: tx.crashes + 1,
        doubt: true,
        maybe_done: false,
        sent: Some(called_at.unwrap_or(now)),
        due: Some(now),
        at: now,
        code: None,
        detail: detail.clone(),
        tried: Some(Tried { attempt: attempts, at: now, state: State::Doubt, code: None, detail }),
    }
}
