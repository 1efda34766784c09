//! PostgreSQL as the suite wants it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Confirm, LaneSpec, Records};
use caudal_core::confirm::transfer::ImportTransactions;
use caudal_core::ports::{Append, Catalogue, Lanes, OnBadRow};
use caudal_core::schema::Table;
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use caudal_testkit::confirm::moving::Movable;
use caudal_testkit::confirm::{ConfirmStore, Damage, Harness};
use caudal_testkit::postgres::{PgBouncer, database, execute};
use caudal_testkit::store::{batch, small, topic};
use uuid::Uuid;

pub(crate) struct Sql {
    /// The server itself, whatever lies between it and the store.
    pub(crate) url: String,
    pub(crate) store: Arc<PostgresStore>,
    config: PostgresConfig,
    specs: Mutex<HashMap<LaneId, LaneSpec>>,
}

pub(crate) async fn open(pooled: bool) -> Sql {
    let url = database().await.expect("a database");
    let reached = if pooled { through_pool(&url) } else { url.clone() };
    let config = PostgresConfig { transaction_pooling: pooled, ..PostgresConfig::new(reached, "test") };
    let store = PostgresStore::connect(config.clone()).await.expect("connect");
    store.migrate().await.expect("migrate");
    Sql { url, store: Arc::new(store), config, specs: Mutex::default() }
}

fn through_pool(url: &str) -> String {
    static SHARED: OnceLock<PgBouncer> = OnceLock::new();
    let (authority, name) = url.rsplit_once('/').expect("a database in the URL");
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port in the URL");
    SHARED.get_or_init(|| PgBouncer::start(port).expect("pgbouncer")).url(name)
}

impl Sql {
    pub(crate) fn table(&self, lane: LaneId) -> Arc<Table> {
        match &self.specs.lock().expect("lanes")[&lane].records {
            Records::Topic(table) => table.clone(),
            Records::Adopted(adopt) => adopt.table.clone(),
        }
    }

    pub(crate) async fn ensure(&self, spec: LaneSpec) -> LaneId {
        let lane = self.store.ensure_lanes(std::slice::from_ref(&spec)).await.expect("lanes")[0];
        self.specs.lock().expect("lanes").insert(lane, spec);
        lane
    }

    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.url, sql).await.expect("statements");
    }
}

#[async_trait]
impl Harness for Sql {
    fn store(&self) -> Arc<dyn ConfirmStore> {
        self.store.clone()
    }

    async fn another(&self) -> Arc<dyn ConfirmStore> {
        let config = PostgresConfig { instance: "another".into(), ..self.config.clone() };
        let store = PostgresStore::connect(config).await.expect("connect");
        let specs: Vec<LaneSpec> = self.specs.lock().expect("lanes").values().cloned().collect();
        store.ensure_lanes(&specs).await.expect("lanes");
        Arc::new(store)
    }

    async fn lane_of(&self, name: &str, lane: &str) -> LaneId {
        let table = small(name, false);
        self.store.ensure_table(&table).await.expect("table");
        self.ensure(LaneSpec { topic: topic(name), name: lane.into(), records: Records::Topic(table) }).await
    }

    async fn enqueue(&self, lane: LaneId, ids: &[Uuid]) {
        let rows: Vec<(Uuid, i64)> = ids.iter().copied().zip(0..).collect();
        let mut batch = batch(&self.table(lane), OnBadRow::Report, &rows);
        batch.lanes = Lanes::All(lane);
        let appended = self.store.append(batch.into()).await.expect("append");
        assert_eq!(appended.tally.stored, ids.len() as u64);
    }

    async fn damage(&self, damage: Damage) -> bool {
        let sql = match damage {
            Damage::Lose(id) => format!("delete from _confirm_ready where tx = '{id}'"),
            Damage::Double(lane, id) => format!(
                "insert into _confirm_aside (tx, lane, state, maybe_done, attempts, crashes, since, detail, at)
                 values ('{id}', {lane}, 'held', false, 1, 0, now(), '', now())"
            ),
            Damage::Stray(lane, id) => format!(
                "insert into _confirm_outcomes (tx, lane, state, attempts, fence, since, at, detail)
                 values ('{id}', {lane}, 'confirmed', 1, 1, now(), now(), '');
                 update _confirm_counts set enqueued = enqueued + 1 where lane = {lane}"
            ),
        };
        self.execute(&sql).await;
        true
    }
}

impl Movable for Sql {
    fn mover(&self) -> Arc<dyn ImportTransactions> {
        self.store.clone()
    }
}
