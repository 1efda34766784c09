//! DynamoDB as the suite wants it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::confirm::ports::{Confirm, LaneSpec, Records};
use caudal_core::confirm::transfer::ImportTransactions;
use caudal_core::confirm::{LaneId, Rank};
use caudal_core::schema::RecordSchema;
use caudal_core::topic::TopicName;
use caudal_store::dynamodb::DynamoStore;
use caudal_testkit::confirm::moving::Movable;
use caudal_testkit::confirm::{ConfirmStore, Damage, Doing, Harness};
use caudal_testkit::emulator::Road;
use uuid::Uuid;

use super::raw::Raw;

/// One table of its own, on the emulator that all tests share.
pub(crate) struct Dynamo {
    pub(crate) url: String,
    pub(crate) store: Arc<DynamoStore>,
    pub(crate) raw: Raw,
    pub(crate) road: Road,
}

impl Dynamo {
    pub(crate) async fn open(shards: u16) -> Self {
        let road = caudal_testkit::moto::shared().unwrap().road().unwrap();
        let table = format!("t{}", Uuid::now_v7().simple());
        let url = format!("dynamodb:{table}?endpoint={}&create=true&shards={shards}", road.endpoint());
        let store = Arc::new(DynamoStore::open(&url).await.unwrap());
        let raw = Raw::of(&road.endpoint(), &table).await;
        Self { url, store, raw, road }
    }

    pub(crate) async fn again(&self) -> Arc<DynamoStore> {
        Arc::new(DynamoStore::open(&self.url).await.unwrap())
    }

    /// What a beat says can be claimed.
    pub(crate) async fn ready(&self, lane: LaneId) -> Vec<(LaneId, Rank)> {
        self.store().beat_as("looks", &[lane]).await.places()
    }
}

pub(crate) fn record(id: Uuid) -> Bytes {
    // As the databases write the suite's records, so that it could become one of theirs.
    Bytes::from(format!(
        r#"{{"_id":"{id}","_key":"key","_source":"test","_published_at":"2024-05-06T07:08:09+00:00","_stored_at":"2024-05-06T07:08:10+00:00","n":7,"t":null}}"#
    ))
}

pub(crate) fn spec(topic: &str, lane: &str) -> LaneSpec {
    let records = Records::Topic(RecordSchema::untyped(topic, false).table);
    LaneSpec { topic: TopicName::parse(topic).unwrap(), name: lane.to_owned(), records }
}

#[async_trait]
impl Harness for Dynamo {
    fn store(&self) -> Arc<dyn ConfirmStore> {
        self.store.clone()
    }

    async fn another(&self) -> Arc<dyn ConfirmStore> {
        self.again().await
    }

    async fn lane_of(&self, topic: &str, lane: &str) -> LaneId {
        self.store.ensure_lanes(&[spec(topic, lane)]).await.unwrap()[0]
    }

    async fn enqueue(&self, lane: LaneId, ids: &[Uuid]) {
        let items: Vec<_> = ids.iter().map(|id| (*id, record(*id))).collect();
        let enqueued = self.store.enqueue(lane, &items).await.unwrap();
        assert_eq!(enqueued.new, ids.len() as u64);
    }

    async fn damage(&self, damage: Damage) -> bool {
        match damage {
            Damage::Lose(id) => self.raw.change(id, "REMOVE gpk, gsk", &[]).await,
            Damage::Double(_, id) => self.raw.change(id, "SET st = :v", &["held"]).await,
            Damage::Stray(lane, id) => self.raw.put_outcome(id, lane).await,
        }
        true
    }
}

impl Movable for Dynamo {
    fn mover(&self) -> Arc<dyn ImportTransactions> {
        self.store.clone()
    }
}
