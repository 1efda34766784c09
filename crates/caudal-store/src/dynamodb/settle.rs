//! Settling: one conditional write a mark. Facts are taken from anybody; what moves an item must come from the lease that has it.

use std::collections::{HashMap, HashSet};

use caudal_core::confirm::ports::{Finish, Lease, Marked, Settled, Tried};
use caudal_core::confirm::transfer::Contradiction;
use caudal_core::confirm::{Fact, Item, Mark, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use futures_util::FutureExt;
use uuid::Uuid;

use super::error::damaged;
use super::keys::{self, Shard, TX};
use super::ledger::{Entry, Head};
use super::tx::{self, Move, STATE, Tx, Written};
use super::values::text;
use super::{DynamoStore, all_of};

/// How a lease stood when its marks came.
#[derive(Debug, Clone)]
enum Standing {
    /// Nothing but facts was to be written, so nobody looked.
    Unasked,
    /// Live, and calling since.
    Live(Option<Instant>),
    Lost,
}

impl DynamoStore {
    pub(super) async fn settle_all(&self, finishes: &[Finish]) -> Result<Settled, StoreError> {
        let mut heads = HashMap::new();
        for finish in finishes.iter().filter(|finish| finish.ends || finish.marks.iter().any(moves)) {
            let shard = Shard::of_lease(finish.lease.lane, finish.lease.number);
            if let std::collections::hash_map::Entry::Vacant(place) = heads.entry(shard) {
                place.insert(self.ledger.head(shard).await?);
            }
        }
        let standings: Vec<Standing> = finishes.iter().map(|finish| standing(finish, &heads)).collect();
        // Marks for one transaction keep their order; those for others are written at the same time.
        let mut of: HashMap<Uuid, Vec<(&Finish, &Standing, &Marked)>> = HashMap::new();
        for (finish, standing) in finishes.iter().zip(&standings) {
            for marked in &finish.marks {
                of.entry(marked.item.id).or_default().push((finish, standing, marked));
            }
        }
        let mut each = Vec::with_capacity(of.len());
        for marks in of.into_values() {
            each.push(self.settle_one(marks).boxed());
        }
        let settled = all_of(each).await?.into_iter().fold(Settled::default(), sum);
        for finish in finishes.iter().filter(|finish| finish.ends) {
            self.end(finish, &heads).await?;
        }
        Ok(settled)
    }

    /// The marks of one transaction, in order.
    async fn settle_one(&self, marks: Vec<(&Finish, &Standing, &Marked)>) -> Result<Settled, StoreError> {
        let mut settled = Settled::default();
        for (finish, standing, Marked { item, mark }) in marks {
            let one = match (mark, standing) {
                (Mark::Fact { fact, code, detail }, _) => self.settle_fact(item, *fact, (*code, detail)).await?,
                (_, Standing::Live(called_at)) => self.settle_move(&finish.lease, item, mark, *called_at).await?,
                (_, Standing::Lost | Standing::Unasked) => Settled { fenced: 1, ..Settled::default() },
            };
            settled = sum(settled, one);
        }
        Ok(settled)
    }

    async fn settle_fact(
        &self,
        item: &Item,
        got: Fact,
        (code, detail): (Option<u16>, &str),
    ) -> Result<Settled, StoreError> {
        let at = self.clock.now();
        let attempts = Some(item.attempts + 1);
        let stands = match tx::end(&self.aws, item.id, got.state(), attempts, at, (code, detail)).await? {
            Written::Done => return Ok(Settled { facts: 1, ..Settled::default() }),
            Written::Refused(Some(row)) => text(&row, STATE).and_then(State::parse),
            Written::Refused(None) => None,
        };
        match stands {
            Some(stands) if stands == got.state() => Ok(Settled { repeats: 1, ..Settled::default() }),
            Some(_) => {
                let said = Contradiction { got, at, code, detail: detail.to_owned() };
                tx::contradict(&self.aws, item.id, &said).await?;
                Ok(Settled { contradictions: 1, ..Settled::default() })
            }
            None => Err(damaged(format!("no transaction {}, of which it was said: {}", item.id, got.state().name()))),
        }
    }

    async fn settle_move(
        &self,
        lease: &Lease,
        item: &Item,
        mark: &Mark,
        called_at: Option<Instant>,
    ) -> Result<Settled, StoreError> {
        let shard = Shard::of_lease(lease.lane, lease.number);
        let to = moved(item, mark, called_at, self.clock.now());
        let none = Settled::default();
        match tx::move_under(&self.aws, shard, lease.number, &to).await? {
            Written::Done => Ok(Settled { moved: 1, ..none }),
            // This very lease has moved it already: the same mark again, or the second try of its write.
            Written::Refused(Some(row)) if Tx::of(&row)?.fence == lease.number => Ok(none),
            Written::Refused(_) => Ok(Settled { fenced: 1, ..none }),
        }
    }

    /// Ends the lease if nothing of it is left. What its worker forgot comes back when it lapses.
    async fn end(&self, finish: &Finish, heads: &HashMap<Shard, Head>) -> Result<(), StoreError> {
        let Some((shard, entry)) = live(finish, heads) else { return Ok(()) };
        let marked: HashSet<Uuid> = finish.marks.iter().map(|marked| marked.item.id).collect();
        let ids = self.ledger.ids(shard, entry).await?;
        let rest = ids.iter().filter(|id| !marked.contains(id)).map(|id| (keys::tx(*id), TX.to_owned()));
        for row in self.aws.get_all(rest.collect()).await? {
            if Tx::of(&row)?.is_under(entry.number) {
                return Ok(());
            }
        }
        self.ledger.end(shard, entry).await.map(drop)
    }
}

fn moves(marked: &Marked) -> bool {
    !matches!(marked.mark, Mark::Fact { .. })
}

fn live<'h>(finish: &Finish, heads: &'h HashMap<Shard, Head>) -> Option<(Shard, &'h Entry)> {
    let shard = Shard::of_lease(finish.lease.lane, finish.lease.number);
    let entry = heads.get(&shard)?.entry(finish.lease.number)?;
    (entry.worker == *finish.lease.worker && !entry.phase.has_lapsed()).then_some((shard, entry))
}

fn standing(finish: &Finish, heads: &HashMap<Shard, Head>) -> Standing {
    if !finish.marks.iter().any(moves) {
        return Standing::Unasked;
    }
    match live(finish, heads) {
        Some((_, entry)) => Standing::Live(entry.called_at),
        None => Standing::Lost,
    }
}

fn sum(one: Settled, other: Settled) -> Settled {
    Settled {
        facts: one.facts + other.facts,
        repeats: one.repeats + other.repeats,
        contradictions: one.contradictions + other.contradictions,
        moved: one.moved + other.moved,
        fenced: one.fenced + other.fenced,
    }
}

/// Where a mark that is no fact leaves an item.
fn moved(item: &Item, mark: &Mark, called_at: Option<Instant>, now: Instant) -> Move {
    let sent = called_at.unwrap_or(now);
    let due = |after: std::time::Duration| {
        let micros = i64::try_from(after.as_micros()).unwrap_or(i64::MAX);
        Some(Instant(now.0.saturating_add(micros)).within_calendar())
    };
    let (code, detail) = match mark {
        Mark::Fact { code, detail, .. }
        | Mark::Retry { code, detail, .. }
        | Mark::Doubt { code, detail, .. }
        | Mark::Held { code, detail, .. }
        | Mark::Dead { code, detail, .. } => (*code, detail.clone()),
        Mark::Release => (None, String::new()),
    };
    let attempts = item.attempts + u32::from(*mark != Mark::Release);
    let tried = Tried { attempt: attempts, at: now, state: mark.state(), code, detail: detail.clone() };
    let base = Move {
        id: item.id,
        to: mark.state(),
        attempts,
        crashes: item.crashes,
        doubt: false,
        maybe_done: false,
        sent: None,
        due: None,
        at: now,
        code,
        detail,
        tried: Some(tried),
    };
    match mark {
        Mark::Retry { after, sent: was_sent, .. } => Move { sent: was_sent.then_some(sent), due: due(*after), ..base },
        Mark::Doubt { after, .. } => Move { doubt: true, sent: Some(sent), due: due(*after), ..base },
        Mark::Held { maybe_done, .. } | Mark::Dead { maybe_done, .. } => {
            Move { maybe_done: *maybe_done, sent: maybe_done.then_some(sent), ..base }
        }
        Mark::Release | Mark::Fact { .. } => {
            put_back(item.id, item.attempts, item.crashes, item.doubt, item.since, now)
        }
    }
}

/// Nothing was called for it: it waits again, and where it waited at first.
pub(super) fn put_back(id: Uuid, attempts: u32, crashes: u32, doubt: bool, since: Instant, now: Instant) -> Move {
    Move {
        id,
        to: if doubt { State::Doubt } else { State::Pending },
        attempts,
        crashes,
        doubt,
        maybe_done: false,
        sent: None,
        due: Some(since),
        at: now,
        code: None,
        detail: String::new(),
        tried: None,
    }
}
