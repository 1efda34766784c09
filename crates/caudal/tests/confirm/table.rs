//! A table of DynamoDB, on moto: a case's store, and what the oracle reads of it.

use std::time::Duration;

use caudal_core::confirm::ports::{Confirm, LaneSpec, LaneStatus, OperateConfirmations, Records};
use caudal_core::confirm::transfer::{Carried, ExportTransactions};
use caudal_core::schema::RecordSchema;
use caudal_core::topic::{Identity, TopicName};
use caudal_store::dynamodb::DynamoStore;
use caudal_testkit::emulator::Road;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fleet::TOPIC;

/// What is enqueued needs a key.
pub(crate) const SCHEMA: &str =
    r#"{"type": "object", "required": ["payment"], "properties": {"payment": {"type": "string"}}}"#;
/// An emulator answers some hundred requests a second, for whoever looks, too.
pub(crate) const LOOK: Duration = Duration::from_millis(300);

pub(crate) struct Table {
    pub(crate) url: String,
    pub(crate) store: DynamoStore,
    /// For an outage.
    pub(crate) road: Road,
}

impl Table {
    /// A table of its own, on the emulator that all tests share.
    pub(crate) async fn new() -> Self {
        let moto = caudal_testkit::moto::shared().unwrap();
        let (road, own) = (moto.road().unwrap(), moto.road().unwrap());
        let name = format!("t{}", Uuid::now_v7().simple());
        let url = |road: &Road| format!("dynamodb:{name}?endpoint={}&create=true&shards=2", road.endpoint());
        // A way of its own, which stays when the other one is cut.
        let store = DynamoStore::open(&url(&own)).await.unwrap();
        std::mem::forget(own);
        Self { url: url(&road), store, road }
    }

    pub(crate) async fn lane(&self) -> LaneStatus {
        let lanes = self.store.lanes().await.unwrap();
        lanes.into_iter().find(|lane| lane.topic == TOPIC).unwrap_or_default()
    }

    /// What the table says of each transaction, as the routes of a database would.
    pub(crate) async fn rows(&self) -> Vec<(Uuid, Value)> {
        let topic = TopicName::parse(TOPIC).unwrap();
        let records = Records::Topic(RecordSchema::untyped(TOPIC, false).table);
        let spec = LaneSpec { topic, name: "default".into(), records };
        let lane = self.store.ensure_lanes(&[spec]).await.unwrap()[0];
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.page(lane, after.as_deref(), 1000).await.unwrap();
            rows.extend(page.rows.iter().map(|row| (row.id, shown(row))));
            after = page.next;
            if after.is_none() {
                return rows;
            }
        }
    }

    /// What the number `n` is enqueued as, and the id that it gets.
    pub(crate) fn payment(n: usize) -> (Value, Uuid) {
        let name = format!("p{n}");
        let id = Identity::of(&TopicName::parse(TOPIC).unwrap()).transaction_id(&name);
        (json!({ "payment": name }), id)
    }
}

fn shown(row: &Carried) -> Value {
    let at = |at: Option<caudal_core::time::Instant>| at.map(|at| at.to_string());
    json!({
        "_id": row.id, "state": row.state, "attempts": row.attempts, "crashes": row.crashes, "maybe_done": row.maybe_done,
        "code": row.code, "detail": row.detail, "since": at(Some(row.since)), "due": at(row.due),
    })
}
