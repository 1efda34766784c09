//! Looking at one transaction, and what an operator may do to it.

use std::time::Duration;

use caudal_core::confirm::machine::void_refusal;
use caudal_core::confirm::ports::{Acted, Confirmation, Tried};
use caudal_core::confirm::{Fact, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use uuid::Uuid;

use super::DynamoStore;
use super::keys::{self, Shard, TX, shard_of};
use super::ledger::{Head, Phase};
use super::tx::{self, Move, Tx, Written};

/// How often an operator's word begins anew when the transaction changes under it.
const RACES_MAX: usize = 8;
/// A lease that keeps workers away while a transaction is called off.
const LOCK_TTL: Duration = Duration::from_secs(10);

/// A transaction and its leases as of about one moment.
struct Seen {
    tx: Tx,
    shard: Shard,
    head: Head,
    phase: Option<Phase>,
}

impl Seen {
    /// Where it stands, to people.
    fn state(&self, now: Instant) -> State {
        state(&self.tx, self.phase, now)
    }
}

/// Where a transaction stands: what its item says, its lease, and whether it is due.
pub(super) fn state(tx: &Tx, phase: Option<Phase>, now: Instant) -> State {
    match (tx.state, phase) {
        (State::Pending | State::Retry | State::Doubt, Some(Phase::Leased)) => State::Leased,
        (State::Pending | State::Retry | State::Doubt, Some(Phase::Calling)) => State::Calling,
        (State::Retry, _) if tx.due.is_some_and(|due| due <= now) => State::Pending,
        (state, _) => state,
    }
}

impl DynamoStore {
    async fn see(&self, id: Uuid) -> Result<Option<Seen>, StoreError> {
        let Some(row) = self.aws.get(keys::tx(id), TX).await? else { return Ok(None) };
        let lane = self.lane(Tx::of(&row)?.lane).await?;
        let shard = Shard { lane: lane.id, number: shard_of(id, lane.shards) };
        let head = self.ledger.head(shard).await?;
        let taken = self.ledger.taken(&head).await?;
        // Again, after its leases: a lease that was entered in between is then noticed by whoever enters another.
        let Some(row) = self.aws.get(keys::tx(id), TX).await? else { return Ok(None) };
        let tx = Tx::of(&row)?;
        let phase = taken.lease_of(id, tx.fence).filter(|(lease, _)| tx.is_under(*lease)).map(|(_, phase)| phase);
        Ok(Some(Seen { tx, shard, head, phase }))
    }

    pub(super) async fn look(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError> {
        let Some(seen) = self.see(id).await? else { return Ok(None) };
        let state = seen.state(self.clock.now());
        let (lane, tx) = (self.lane(seen.tx.lane).await?, seen.tx);
        let is_due_later = matches!(state, State::Retry | State::Doubt);
        Ok(Some(Confirmation {
            id,
            topic: lane.topic,
            lane: lane.name,
            state,
            attempts: tx.attempts,
            crashes: tx.crashes,
            maybe_done: tx.maybe_done,
            since: tx.since,
            first_sent: tx.first_sent,
            due: tx.due.filter(|_| is_due_later),
            at: tx.at,
            code: tx.code,
            detail: tx.detail,
            history: tx.tried,
        }))
    }

    pub(super) async fn call_off(&self, id: Uuid, reason: &str) -> Result<Acted, StoreError> {
        for _ in 0..RACES_MAX {
            let Some(seen) = self.see(id).await? else { return Ok(Acted::Unknown) };
            let now = self.clock.now();
            let maybe_done = seen.tx.maybe_done || seen.tx.doubt;
            if let Some(why) = void_refusal(seen.state(now), maybe_done && !seen.tx.state.is_outcome()) {
                return Ok(Acted::Refused(why.to_owned()));
            }
            if seen.phase.is_some() {
                return Ok(Acted::Refused("its lease has just lapsed: try again in a moment".to_owned()));
            }
            let to = Move { detail: called_off(reason), ..ended(&seen.tx, State::Void, now) };
            let done = match seen.tx.state {
                State::Held | State::Dead => tx::move_from(&self.aws, seen.shard, &seen.tx, &to).await?,
                _ => match self.void_waiting(&seen, &to).await? {
                    Some(written) => written,
                    None => continue,
                },
            };
            if matches!(done, Written::Done) {
                return Ok(Acted::Done);
            }
        }
        Err(StoreError::unavailable(format!("transaction {id} changes all the time: try again")))
    }

    /// Under a lease of its own, so that no worker is about to call for it. `None`: somebody was quicker.
    async fn void_waiting(&self, seen: &Seen, to: &Move) -> Result<Option<Written>, StoreError> {
        let worker = format!("void {}", to.id);
        let Some(lease) = self.ledger.enter(&seen.head, &worker, LOCK_TTL, &[to.id]).await? else { return Ok(None) };
        let written = tx::move_under(&self.aws, seen.shard, lease, to).await?;
        if let Some(entry) = self.ledger.head(seen.shard).await?.entry(lease) {
            self.ledger.end(seen.shard, entry).await?;
        }
        Ok(Some(written))
    }

    pub(super) async fn try_again(&self, id: Uuid) -> Result<Acted, StoreError> {
        for _ in 0..RACES_MAX {
            let Some(seen) = self.see(id).await? else { return Ok(Acted::Unknown) };
            let now = self.clock.now();
            if !matches!(seen.tx.state, State::Held | State::Dead) {
                let state = seen.state(now).name();
                return Ok(Acted::Refused(format!("it is {state}: only what is held or dead can be redriven")));
            }
            let doubt = seen.tx.maybe_done;
            let tried = Tried {
                attempt: seen.tx.attempts,
                at: now,
                state: seen.tx.state,
                code: None,
                detail: "redriven".to_owned(),
            };
            let to = Move {
                to: if doubt { State::Doubt } else { State::Pending },
                attempts: 0,
                crashes: 0,
                doubt,
                due: Some(now),
                tried: Some(tried),
                detail: "redriven".to_owned(),
                ..ended(&seen.tx, State::Pending, now)
            };
            if matches!(tx::move_from(&self.aws, seen.shard, &seen.tx, &to).await?, Written::Done) {
                tx::trim(&self.aws, id).await?;
                return Ok(Acted::Done);
            }
        }
        Err(StoreError::unavailable(format!("transaction {id} changes all the time: try again")))
    }

    pub(super) async fn find_out(&self, id: Uuid, fact: Fact, reason: &str) -> Result<Acted, StoreError> {
        let (outcome, now) = (fact.state(), self.clock.now());
        let detail = match reason {
            "" => "resolved by hand".to_owned(),
            reason => format!("resolved by hand: {reason}"),
        };
        match tx::end(&self.aws, id, outcome, None, now, (None, &detail)).await? {
            Written::Done => Ok(Acted::Done),
            Written::Refused(None) => Ok(Acted::Unknown),
            Written::Refused(Some(row)) => {
                let has = Tx::of(&row)?.state.name();
                Ok(Acted::Refused(format!("it is {has} already, and an outcome stands: the first one counts")))
            }
        }
    }
}

fn called_off(reason: &str) -> String {
    match reason {
        "" => "called off".to_owned(),
        reason => format!("called off: {reason}"),
    }
}

fn ended(tx: &Tx, to: State, now: Instant) -> Move {
    Move {
        id: tx.id,
        to,
        attempts: tx.attempts,
        crashes: tx.crashes,
        doubt: false,
        maybe_done: false,
        sent: None,
        due: None,
        at: now,
        code: None,
        detail: String::new(),
        tried: None,
    }
}
