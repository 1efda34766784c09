//! SQLite as the suite wants it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Confirm, LaneSpec, Records};
use caudal_core::confirm::transfer::ImportTransactions;
use caudal_core::ports::{Append, Catalogue, Lanes, OnBadRow};
use caudal_core::schema::Table;
use caudal_store::sqlite::{SqliteConfig, SqliteStore};
use caudal_testkit::confirm::moving::Movable;
use caudal_testkit::confirm::{ConfirmStore, Damage, Harness};
use caudal_testkit::store::{batch, small, topic};
use uuid::Uuid;

pub(crate) struct Sql {
    dir: tempfile::TempDir,
    pub(crate) store: Arc<SqliteStore>,
    specs: Mutex<HashMap<LaneId, LaneSpec>>,
}

pub(crate) fn store_in(path: &Path, instance: &str) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(SqliteConfig::new(path, instance)).expect("open"))
}

pub(crate) async fn open() -> Sql {
    let dir = tempfile::tempdir().expect("a folder");
    let store = store_in(&dir.path().join("test.db"), "test");
    store.migrate().await.expect("migrate");
    Sql { dir, store, specs: Mutex::default() }
}

impl Sql {
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("test.db")
    }

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

    pub(crate) fn connect(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).expect("open")
    }

    pub(crate) fn execute(&self, sql: &str) {
        self.connect().execute_batch(sql).expect("statements");
    }
}

#[async_trait]
impl Harness for Sql {
    fn store(&self) -> Arc<dyn ConfirmStore> {
        self.store.clone()
    }

    async fn another(&self) -> Arc<dyn ConfirmStore> {
        let store = store_in(&self.path(), "another");
        // What a process does at its start; lanes that are there keep their numbers.
        let specs: Vec<LaneSpec> = self.specs.lock().expect("lanes").values().cloned().collect();
        store.ensure_lanes(&specs).await.expect("lanes");
        store
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
        let at = "2020-01-01T00:00:00+00:00";
        self.execute(&match damage {
            Damage::Lose(id) => format!("delete from _confirm_ready where tx = '{id}'"),
            Damage::Double(lane, id) => format!(
                "insert into _confirm_aside (tx, lane, state, maybe_done, attempts, crashes, since, detail, at)
                 values ('{id}', {lane}, 'held', 0, 1, 0, '{at}', '', '{at}')"
            ),
            Damage::Stray(lane, id) => format!(
                "insert into _confirm_outcomes (tx, lane, state, attempts, fence, since, at, detail)
                 values ('{id}', {lane}, 'confirmed', 1, 1, '{at}', '{at}', '');
                 update _confirm_counts set enqueued = enqueued + 1 where lane = {lane}"
            ),
        });
        true
    }
}

impl Movable for Sql {
    fn mover(&self) -> Arc<dyn ImportTransactions> {
        self.store.clone()
    }
}
