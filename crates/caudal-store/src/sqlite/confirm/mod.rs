//! Confirmations. Everything that changes them is done by the writer, several calls to a commit, so that none sees another's half
//! and no row needs a lock.
//!
//! The items of a lease are rows of a table of their own: a mark that moves one takes one row away, where a list within the lease's
//! row would be written anew, and a whole batch comes and goes with one statement each all the same.

mod adopt;
mod beat;
mod claim;
mod export;
mod import;
mod operate;
mod places;
mod ready;
mod records;
mod settle;
mod verify;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::confirm::ports::{
    Acted, Arrivals, Batch, Beat, Beaten, Claim, Confirm, Confirmation, Finish, LaneAudit, LaneSpec, LaneStatus, Lease,
    OperateConfirmations, Records, Settled,
};
use caudal_core::confirm::{Fact, LaneId};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rusqlite::params;
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::writer::Commit;

pub(super) use ready::enqueue;

/// Beats, and other work of a few statements, as rows of a commit.
const SOME_ROWS: usize = 50;

/// A lane that this process was told of.
#[derive(Debug, Clone)]
struct Lane {
    id: LaneId,
    topic: TopicName,
    records: Arc<Records>,
}

/// The lanes that this process was told of: where their records are is not in the database.
#[derive(Debug, Default)]
pub(super) struct Told(RwLock<HashMap<LaneId, Lane>>);

impl Told {
    fn lane(&self, id: LaneId) -> Option<Lane> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn known(&self, id: LaneId) -> Result<Lane, StoreError> {
        self.lane(id).ok_or_else(|| {
            StoreError::Setup(format!(
                "this process was not told where lane {id} has its records: ensure_lanes comes first"
            ))
        })
    }

    fn records(&self, id: LaneId) -> Option<Arc<Records>> {
        self.lane(id).map(|lane| lane.records)
    }

    fn tell(&self, specs: &[LaneSpec], ids: &[LaneId]) {
        let mut lanes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (spec, id) in specs.iter().zip(ids) {
            let records = Arc::new(spec.records.clone());
            lanes.insert(*id, Lane { id: *id, topic: spec.topic.clone(), records });
        }
    }
}

fn ensure(commit: &Commit<'_>, specs: &[LaneSpec]) -> rusqlite::Result<Vec<LaneId>> {
    let (insert, select) = (
        "insert into _confirm_lanes (topic, name, since) values (?1, ?2, ?3) on conflict (topic, name) do nothing",
        "select lane from _confirm_lanes where topic = ?1 and name = ?2",
    );
    let one = |spec: &LaneSpec| {
        let topic = spec.topic.as_str();
        commit.conn.prepare_cached(insert)?.execute(params![topic, spec.name, commit.now.to_string()])?;
        commit.conn.prepare_cached(select)?.query_row(params![topic, spec.name], |row| row.get(0).map(LaneId))
    };
    specs.iter().map(one).collect()
}

/// As late as a column can say, at most.
fn later(now: Instant, after: Duration) -> Instant {
    Instant(now.0.saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX))).within_calendar()
}

/// How far it is from one instant to the next; nothing when that is past.
fn between(now: Instant, then: Instant) -> Duration {
    Duration::from_micros(then.0.saturating_sub(now.0).max(0) as u64)
}

#[async_trait]
impl Confirm for SqliteStore {
    async fn ensure_lanes(&self, lanes: &[LaneSpec]) -> Result<Vec<LaneId>, StoreError> {
        let specs = lanes.to_vec();
        let ids = self.writer.share(SOME_ROWS, move |commit| ensure(commit, &specs).map_err(store_error)).await?;
        self.told.tell(lanes, &ids);
        Ok(ids)
    }

    async fn claim(&self, claim: &Claim) -> Result<Option<Batch>, StoreError> {
        let (lane, asked) = (self.told.known(claim.lane)?, claim.clone());
        self.writer.share(claim.items_max, move |commit| claim::claim(commit, &asked, &lane.records)).await
    }

    async fn begin_calls(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let lease = lease.clone();
        let work = move |commit: &Commit<'_>| claim::begin_calls(commit, &lease, ttl).map_err(store_error);
        self.writer.share(1, work).await
    }

    async fn extend(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError> {
        let leases = leases.to_vec();
        let work = move |commit: &Commit<'_>| claim::extend(commit, &leases, ttl).map_err(store_error);
        self.writer.share(SOME_ROWS, work).await
    }

    async fn settle(&self, finishes: &[Finish]) -> Result<Settled, StoreError> {
        let records: Vec<_> = finishes.iter().map(|finish| self.told.records(finish.lease.lane)).collect();
        let finishes = finishes.to_vec();
        let rows = finishes.iter().map(|finish| finish.marks.len()).sum();
        self.writer.share(rows, move |commit| settle::settle(commit, &finishes, &records)).await
    }

    async fn beat(&self, beat: &Beat) -> Result<Beaten, StoreError> {
        let beat = beat.clone();
        self.writer.share(SOME_ROWS, move |commit| beat::beat(commit, &beat).map_err(store_error)).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        let worker = worker.to_owned();
        let work = move |commit: &Commit<'_>| {
            let sql = "delete from _confirm_workers where worker = ?1";
            commit.conn.execute(sql, [worker]).map(drop).map_err(store_error)
        };
        self.writer.share(1, work).await
    }

    async fn adopt(&self, lane: LaneId, rows_max: usize) -> Result<u64, StoreError> {
        let lane = self.told.known(lane)?;
        let Records::Adopted(adopt) = &*lane.records else { return Ok(0) };
        let (adopt, looking) = (adopt.clone(), adopt.clone());
        let id = lane.id;
        let keys = self.points.ask(move |reader| adopt::found(reader, &looking, id, rows_max)).await?;
        match keys.is_empty() {
            true => Ok(0),
            false => self.writer.share(keys.len(), move |commit| adopt::adopt(commit, &lane, &adopt, &keys)).await,
        }
    }

    /// SQLite tells no other process anything; within one the engine knows itself.
    async fn wake(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn woken(&self) -> BoxStream<'static, ()> {
        futures_util::stream::empty().boxed()
    }
}

#[async_trait]
impl OperateConfirmations for SqliteStore {
    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError> {
        self.points.ask(|reader| operate::lanes(&reader.conn).map_err(store_error)).await
    }

    async fn confirmation(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError> {
        self.points.ask(move |reader| operate::confirmation(&reader.conn, id).map_err(store_error)).await
    }

    async fn pause(&self, topic: &TopicName, lane: Option<&str>, reason: &str) -> Result<u64, StoreError> {
        self.switch(topic, lane, Some(reason)).await
    }

    async fn resume(&self, topic: &TopicName, lane: Option<&str>) -> Result<u64, StoreError> {
        self.switch(topic, lane, None).await
    }

    async fn void(&self, id: Uuid, reason: &str) -> Result<Acted, StoreError> {
        let reason = reason.to_owned();
        let work = move |commit: &Commit<'_>| operate::void(commit, id, &reason).map_err(store_error);
        self.writer.share(1, work).await
    }

    async fn redrive(&self, id: Uuid) -> Result<Acted, StoreError> {
        self.writer.share(1, move |commit| operate::redrive(commit, id).map_err(store_error)).await
    }

    async fn resolve(&self, id: Uuid, fact: Fact, reason: &str) -> Result<Acted, StoreError> {
        let (reason, told) = (reason.to_owned(), self.told.clone());
        self.writer.share(1, move |commit| operate::resolve(commit, &told, id, fact, &reason)).await
    }

    async fn arrivals(&self, hours: u32) -> Result<Vec<Arrivals>, StoreError> {
        // As for the audit.
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || verify::arrivals(&path, hours)).await.map_err(StoreError::fatal)?
    }

    async fn verify(&self) -> Result<Vec<LaneAudit>, StoreError> {
        // On a connection of its own: the readers' have a bound on the time of a statement.
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || verify::verify(&path)).await.map_err(StoreError::fatal)?
    }
}

impl SqliteStore {
    /// Pauses lanes for a reason, or lets them go on.
    async fn switch(&self, topic: &TopicName, lane: Option<&str>, reason: Option<&str>) -> Result<u64, StoreError> {
        let (topic, lane, reason) = (topic.to_string(), lane.map(str::to_owned), reason.map(str::to_owned));
        let work = move |commit: &Commit<'_>| {
            let sql = "update _confirm_lanes set paused_at = ?3, paused_reason = ?4
                        where topic = ?1 and (?2 is null or name = ?2) and (paused_at is null) = (?3 is not null)";
            let at = reason.as_ref().map(|_| commit.now.to_string());
            let changed = commit.conn.execute(sql, params![topic, lane, at, reason]).map_err(store_error)?;
            Ok(changed as u64)
        };
        self.writer.share(1, work).await
    }
}
