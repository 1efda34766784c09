//! Confirmations: where each transaction stands.
//!
//! A pending transaction is a row of `_confirm_ready`; a claim moves a batch of them into one row of `_confirm_leases`; facts go
//! into `_confirm_outcomes`, whose key lets each in once; whatever else becomes of an item is a row of `_confirm_deferred` or
//! `_confirm_aside`, and takes it out of its lease. An outcome may arrive while its transaction is somewhere else: it wins, every
//! look says so, and the place is emptied when its turn comes.
//!
//! Whether a transaction has its outcome is asked as a value, with a limit: as `exists` the planner may turn it into a hash of all
//! outcomes, and a plan that was made while there were few of them stays.
//!
//! All at READ COMMITTED and without anything that outlives a transaction. Where a statement must see what those before it waited
//! for, it is one of its own: each has a snapshot of its own.

mod adopt;
mod beat;
mod claim;
mod enqueue;
mod export;
#[cfg(test)]
mod find_test;
mod import;
mod lanes;
mod operate;
mod pace;
mod records;
mod settle;
mod settling;
mod verify;

use std::time::Duration;

use async_trait::async_trait;
use caudal_core::confirm::ports::{
    Acted, Arrivals, Batch, Beat, Beaten, Claim, Confirm, Confirmation, Finish, LaneAudit, LaneSpec, LaneStatus,
    OperateConfirmations, Records, Settled,
};
use caudal_core::confirm::{Fact, LaneId};
use caudal_core::error::StoreError;
use caudal_core::topic::TopicName;
use futures_util::future::{BoxFuture, join};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::PostgresStore;
use super::connect::Conn;
use super::error::{keeps_connection, store_error};
use super::listen;
use super::operate::Typed;

pub(super) use enqueue::Enqueue;
use lanes::Lane;
pub(super) use lanes::Lanes;

/// Whoever made something pending says so here, to those that sleep.
const CHANNEL: &str = "caudal_confirm";

/// A duration as a parameter: microseconds, at most a thousand years, which a date can still hold.
fn micros(duration: Duration) -> i64 {
    const MAX: u128 = 1000 * 366 * 86_400 * 1_000_000;
    duration.as_micros().min(MAX) as i64
}

/// A count as the database's own kind of number.
fn int(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or_default()
}

impl PostgresStore {
    /// The name of the row in which what one connection ended is counted: nobody waits for another to count.
    fn counts_as(&self, lease: &super::pool::Lease) -> String {
        format!("{}/confirm/{}", self.instance, lease.number)
    }

    /// One short statement that changes something. What it did is unknown when the connection breaks.
    async fn confirm(&self, sql: &str, params: &[Typed<'_>]) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        self.ask_over(&self.confirmers, sql, params, false).await
    }

    /// What opens a transaction in which the first of what waits is looked for. PostgreSQL knows nothing of a table that was just
    /// filled: it takes the rows of a lane for few, and would collect and sort them all (measured with three million: 700 ms a
    /// claim, until the table is analysed).
    fn begin_in_order(&self) -> String {
        format!("{}; set local enable_bitmapscan = off", self.begin)
    }

    /// A transaction of one statement, begun as it says, in one round trip.
    async fn within(
        &self,
        begin: &str,
        sql: &str,
        params: &[Typed<'_>],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let params: Vec<Typed<'_>> = params.to_vec();
        let mut lease = self.confirmers.lease().await?;
        lease.begin_work();
        let conn = lease.conn().await?;
        let asked = async {
            let work = join(conn.client.batch_execute(begin), conn.client.query_typed(sql, &params));
            let ((begun, rows), ended) = join(work, conn.client.batch_execute("commit")).await;
            begun.map_err(store_error)?;
            let rows = rows.map_err(store_error)?;
            ended.map_err(store_error)?;
            Ok(rows)
        };
        let result: Result<_, StoreError> = asked.await;
        match &result {
            Ok(_) => lease.end_work(),
            Err(_) => lease.discard(),
        }
        result
    }

    /// Runs the parts of a transaction over one connection; `work` sends its commit. When it fails, all of it is undone.
    async fn transact<T: Send>(
        &self,
        work: impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let mut lease = self.confirmers.lease().await?;
        lease.begin_work();
        let conn = lease.conn().await?;
        let result = work(conn).await;
        match &result {
            Ok(_) => lease.end_work(),
            Err(error) if keeps_connection(error) => {
                let conn = lease.conn().await?;
                if conn.client.batch_execute("rollback").await.is_ok() {
                    lease.end_work();
                }
            }
            Err(_) => lease.discard(),
        }
        result
    }

    async fn ensure(&self, lanes: &[LaneSpec]) -> Result<Vec<LaneId>, StoreError> {
        let topics: Vec<&str> = lanes.iter().map(|lane| lane.topic.as_str()).collect();
        let names: Vec<&str> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        let adopts: Vec<bool> = lanes.iter().map(|lane| matches!(lane.records, Records::Adopted(_))).collect();
        // In one order, so that processes which start together do not wait for each other in a circle. Those that are known are
        // not written: a lane's number must not be spent on every start.
        let make = "insert into _confirm_lanes (topic, name, adopts)
                    select distinct on (u.topic, u.name) u.topic, u.name, u.adopts
                    from unnest($1::text[], $2::text[], $3::bool[]) as u(topic, name, adopts)
                    where not exists (select from _confirm_lanes l where l.topic = u.topic and l.name = u.name)
                    order by 1, 2 on conflict (topic, name) do nothing";
        let params: [Typed<'_>; 3] =
            [(&topics, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY), (&adopts, Type::BOOL_ARRAY)];
        self.confirm(make, &params).await?;
        let numbers = "select l.lane from unnest($1::text[], $2::text[]) with ordinality as u(topic, name, n)
                       join _confirm_lanes l on l.topic = u.topic and l.name = u.name order by u.n";
        let rows = self.ask_over(&self.confirmers, numbers, &params[..2], true).await?;
        let numbers = rows.iter().map(|row| Ok(LaneId(row.try_get(0)?))).collect::<Result<Vec<_>, _>>();
        let numbers = numbers.map_err(store_error)?;
        if numbers.len() != lanes.len() {
            return Err(StoreError::unavailable("a lane was removed while it was made known"));
        }
        for (lane, spec) in numbers.iter().zip(lanes) {
            self.lanes.learn(*lane, spec);
        }
        Ok(numbers)
    }
}

/// What a statement says that counts.
fn number(rows: &[tokio_postgres::Row]) -> Result<u64, tokio_postgres::Error> {
    rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0)).map(|n| n as u64)
}

/// The end of a transaction together with what goes before it: one round trip.
async fn committed<T>(
    conn: &Conn,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    let (done, ended) = join(work, conn.client.batch_execute("commit")).await;
    // When a part failed the commit has undone the rest, and says so only in words.
    let done = done.map_err(store_error)?;
    ended.map_err(store_error)?;
    Ok(done)
}

#[async_trait]
impl Confirm for PostgresStore {
    async fn ensure_lanes(&self, lanes: &[LaneSpec]) -> Result<Vec<LaneId>, StoreError> {
        self.ensure(lanes).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Option<Batch>, StoreError> {
        self.claim_items(claim).await
    }

    async fn begin_calls(&self, lease: &caudal_core::confirm::ports::Lease, ttl: Duration) -> Result<bool, StoreError> {
        self.flip_to_calling(lease, ttl).await
    }

    async fn extend(
        &self,
        leases: &[caudal_core::confirm::ports::Lease],
        ttl: Duration,
    ) -> Result<Vec<bool>, StoreError> {
        self.prolong(leases, ttl).await
    }

    async fn settle(&self, finishes: &[Finish]) -> Result<Settled, StoreError> {
        self.settle_all(finishes).await
    }

    async fn beat(&self, beat: &Beat) -> Result<Beaten, StoreError> {
        self.beat_once(beat).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        let sql = "delete from _confirm_workers where worker = $1";
        self.confirm(sql, &[(&worker, Type::TEXT)]).await.map(drop)
    }

    async fn adopt(&self, lane: LaneId, rows_max: usize) -> Result<u64, StoreError> {
        self.adopt_rows(lane, rows_max).await
    }

    async fn wake(&self) -> Result<(), StoreError> {
        self.confirm(&format!("notify {CHANNEL}"), &[]).await.map(drop)
    }

    fn woken(&self) -> BoxStream<'static, ()> {
        match self.pooled {
            true => stream::empty().boxed(),
            false => listen::words(self.connector.clone(), CHANNEL, |_| true),
        }
    }
}

#[async_trait]
impl OperateConfirmations for PostgresStore {
    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError> {
        self.lane_numbers().await
    }

    async fn confirmation(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError> {
        self.confirmation_of(id).await
    }

    async fn pause(&self, topic: &TopicName, lane: Option<&str>, reason: &str) -> Result<u64, StoreError> {
        self.pause_lanes(topic, lane, reason).await
    }

    async fn resume(&self, topic: &TopicName, lane: Option<&str>) -> Result<u64, StoreError> {
        self.resume_lanes(topic, lane).await
    }

    async fn void(&self, id: Uuid, reason: &str) -> Result<Acted, StoreError> {
        self.void_one(id, reason).await
    }

    async fn redrive(&self, id: Uuid) -> Result<Acted, StoreError> {
        self.redrive_one(id).await
    }

    async fn resolve(&self, id: Uuid, fact: Fact, reason: &str) -> Result<Acted, StoreError> {
        self.resolve_one(id, fact, reason).await
    }

    async fn arrivals(&self, hours: u32) -> Result<Vec<Arrivals>, StoreError> {
        self.arrivals_since(hours).await
    }

    async fn verify(&self) -> Result<Vec<LaneAudit>, StoreError> {
        self.audit().await
    }
}
