//! Confirmations in one DynamoDB table (docs/adr/0021): no records are read or ingested here, and there is no SQL.
//!
//! A transaction is one item ([`tx`]). Its mark is one conditional write of that item, so an outcome costs one write, and the first
//! one stands. What is open and due is found by a sparse index. Which items are under which lease stands in the [`ledger`]: a
//! claim costs two writes whatever its size, and no write of an item. The item's fence is the number of the last lease that moved
//! it: a lease moves an item once, and never after a later one did.
//!
//! What differs from the relational stores: a settle is one transaction per mark and not one for all, which repeating makes whole;
//! what is due needs no promotion; and counts are made by looking at everything.

mod address;
mod audit;
mod aws;
mod beat;
mod claim;
mod clock;
mod enqueue;
mod error;
mod keys;
mod lanes;
mod ledger;
mod migrate;
mod operate;
mod settle;
mod table;
mod tx;
mod values;
mod work;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::confirm::ports::{
    Acted, Arrivals, Batch, Beat, Beaten, Claim, Confirm, Confirmation, Finish, LaneAudit, LaneSpec, LaneStatus, Lease,
    OperateConfirmations, Settled,
};
use caudal_core::confirm::{Fact, LaneId};
use caudal_core::error::StoreError;
use caudal_core::topic::TopicName;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use uuid::Uuid;

use self::address::Address;
use self::aws::Aws;
use self::beat::Watched;
use self::clock::Clock;
use self::keys::Shard;
use self::lanes::Lane;
use self::ledger::Ledger;

pub use self::enqueue::{Enqueued, RECORD_BYTES_MAX};
pub use self::work::Work;

/// Requests under way for one call at most.
const AT_ONCE: usize = 32;

/// Runs writes, so many at once, and returns what they came to in any order. The first that fails ends it; some others may have been
/// done.
async fn all_of<T: Send>(each: Vec<BoxFuture<'_, Result<T, StoreError>>>) -> Result<Vec<T>, StoreError> {
    stream::iter(each).buffer_unordered(AT_ONCE).try_collect().await
}

/// Confirmations in a DynamoDB table.
#[derive(Debug)]
pub struct DynamoStore {
    aws: Aws,
    clock: Clock,
    ledger: Ledger,
    /// Of a lane that is new.
    shards: u16,
    /// What never changes of a lane: its name and its number of shards.
    known: Mutex<HashMap<LaneId, Lane>>,
    watched: Mutex<Watched>,
    /// Where the next claim begins to look.
    turn: AtomicUsize,
}

impl DynamoStore {
    /// Opens the table that `url` names: `dynamodb:<table>` or `dynamodb://<region>/<table>`, with
    /// `?endpoint=<URL>&create=true&shards=<number>` as needed. A table that is missing is made if `create` says so.
    ///
    /// # Errors
    /// [`StoreError::Setup`] says what to do about a URL, a table or an account that is not as it must be.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let address = Address::parse(url)?;
        let clock = Clock::new();
        let aws = Aws::new(&address, clock.clone()).await?;
        table::ensure(&aws, address.create).await?;
        Ok(Self {
            ledger: Ledger::new(aws.clone()),
            aws,
            clock,
            shards: address.shards,
            known: Mutex::default(),
            watched: Mutex::default(),
            turn: AtomicUsize::new(0),
        })
    }

    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    async fn prolong(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let shard = Shard::of_lease(lease.lane, lease.number);
        self.ledger.prolong(shard, lease.number, &lease.worker, ttl, None).await
    }
}

#[async_trait]
impl Confirm for DynamoStore {
    async fn ensure_lanes(&self, lanes: &[LaneSpec]) -> Result<Vec<LaneId>, StoreError> {
        self.ensure_all_lanes(lanes).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Option<Batch>, StoreError> {
        self.claim_somewhere(claim).await
    }

    async fn begin_calls(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let shard = Shard::of_lease(lease.lane, lease.number);
        self.ledger.prolong(shard, lease.number, &lease.worker, ttl, Some(self.clock.now())).await
    }

    async fn extend(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError> {
        try_join_all(leases.iter().map(|lease| self.prolong(lease, ttl))).await
    }

    async fn settle(&self, finishes: &[Finish]) -> Result<Settled, StoreError> {
        self.settle_all(finishes).await
    }

    async fn beat(&self, beat: &Beat) -> Result<Beaten, StoreError> {
        self.beat_once(beat).await
    }

    async fn leave(&self, worker: &str) -> Result<(), StoreError> {
        self.aws.delete(keys::WORKERS.to_owned(), worker.to_owned()).await
    }

    async fn adopt(&self, lane: LaneId, _rows_max: usize) -> Result<u64, StoreError> {
        Err(StoreError::Setup(format!(
            "lane {lane} is in DynamoDB, where there is no table to adopt: give it to DynamoDB by enqueueing, or keep it in the \
             database that has the table"
        )))
    }

    /// Nobody can be told by DynamoDB: a beat finds out.
    async fn wake(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn woken(&self) -> BoxStream<'static, ()> {
        stream::empty().boxed()
    }
}

#[async_trait]
impl OperateConfirmations for DynamoStore {
    async fn lanes(&self) -> Result<Vec<LaneStatus>, StoreError> {
        self.count().await
    }

    async fn confirmation(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError> {
        self.look(id).await
    }

    async fn pause(&self, topic: &TopicName, lane: Option<&str>, reason: &str) -> Result<u64, StoreError> {
        self.set_paused(topic, lane, Some(reason)).await
    }

    async fn resume(&self, topic: &TopicName, lane: Option<&str>) -> Result<u64, StoreError> {
        self.set_paused(topic, lane, None).await
    }

    async fn void(&self, id: Uuid, reason: &str) -> Result<Acted, StoreError> {
        self.call_off(id, reason).await
    }

    async fn redrive(&self, id: Uuid) -> Result<Acted, StoreError> {
        self.try_again(id).await
    }

    async fn resolve(&self, id: Uuid, fact: Fact, reason: &str) -> Result<Acted, StoreError> {
        self.find_out(id, fact, reason).await
    }

    async fn arrivals(&self, _: u32) -> Result<Vec<Arrivals>, StoreError> {
        // It would read, and pay for, every item.
        Err(StoreError::Asked(
            "DynamoDB cannot count by the hour: give what arrived as a file of hour,count".to_owned(),
        ))
    }

    async fn verify(&self) -> Result<Vec<LaneAudit>, StoreError> {
        self.audit().await
    }
}
