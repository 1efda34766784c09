//! The conformance suite of confirmation against SQLite, and what is SQLite's alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Confirm, LaneSpec, OperateConfirmations, Records};
use caudal_core::ports::{Append, Catalogue, Lanes, OnBadRow};
use caudal_core::schema::Table;
use caudal_core::topic::TopicName;
use caudal_store::sqlite::{SqliteConfig, SqliteStore};
use caudal_testkit::confirm::{ConfirmStore, Damage, Harness, TOPIC};
use caudal_testkit::store::{batch, small};
use uuid::Uuid;

struct Sqlite {
    dir: tempfile::TempDir,
    store: Arc<SqliteStore>,
    table: Arc<Table>,
}

fn open(path: &Path, instance: &str) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(SqliteConfig::new(path, instance)).expect("open"))
}

async fn harness() -> Sqlite {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(&dir.path().join("test.db"), "test");
    store.migrate().await.expect("migrate");
    let table = small(TOPIC, false);
    store.ensure_table(&table).await.expect("table");
    Sqlite { dir, store, table }
}

impl Sqlite {
    fn path(&self) -> PathBuf {
        self.dir.path().join("test.db")
    }

    fn specs(&self, topic: &str, lanes: &[&str]) -> Vec<LaneSpec> {
        let topic = TopicName::parse(topic).expect("a topic name");
        let spec = |name: &&str| LaneSpec {
            topic: topic.clone(),
            name: (*name).into(),
            records: Records::Topic(self.table.clone()),
        };
        lanes.iter().map(spec).collect()
    }
}

#[async_trait]
impl Harness for Sqlite {
    fn store(&self) -> Arc<dyn ConfirmStore> {
        self.store.clone()
    }

    async fn another(&self) -> Arc<dyn ConfirmStore> {
        let store = open(&self.path(), "another");
        // What a process does at its start; lanes that are there keep their numbers.
        let lanes = lanes_of(&self.store, TOPIC).await;
        let names: Vec<&str> = lanes.iter().map(String::as_str).collect();
        store.ensure_lanes(&self.specs(TOPIC, &names)).await.expect("lanes");
        store
    }

    async fn lane_of(&self, topic: &str, lane: &str) -> LaneId {
        self.store.ensure_lanes(&self.specs(topic, &[lane])).await.expect("lanes")[0]
    }

    async fn enqueue(&self, lane: LaneId, ids: &[Uuid]) {
        let rows: Vec<(Uuid, i64)> = ids.iter().copied().zip(0..).collect();
        let mut batch = batch(&self.table, OnBadRow::Report, &rows);
        batch.lanes = Lanes::All(lane);
        let appended = self.store.append(batch.into()).await.expect("append");
        assert_eq!(appended.tally.stored, ids.len() as u64);
    }

    async fn damage(&self, damage: Damage) -> bool {
        let conn = rusqlite::Connection::open(self.path()).expect("open");
        let sql = match damage {
            Damage::Lose(id) => format!("delete from _confirm_ready where tx = '{id}'"),
            Damage::Double(LaneId(lane), id) => format!(
                "insert into _confirm_aside (tx, lane, state, maybe_done, attempts, crashes, since, detail, at)
                 select tx, {lane}, 'held', 0, attempts, crashes, since, '', since from _confirm_ready where tx = '{id}'"
            ),
            Damage::Stray(LaneId(lane), id) => format!(
                "insert into _confirm_outcomes (tx, lane, state, attempts, fence, since, at, detail)
                 values ('{id}', {lane}, 'confirmed', 1, 1, '2020-01-01T00:00:00+00:00', '2020-01-01T00:00:00+00:00', '')"
            ),
        };
        assert_eq!(conn.execute(&sql, []).expect("damage"), 1);
        true
    }
}

async fn lanes_of(store: &SqliteStore, topic: &str) -> Vec<String> {
    let lanes = store.lanes().await.expect("lanes");
    lanes.into_iter().filter(|lane| lane.topic == topic).map(|lane| lane.lane).collect()
}

caudal_testkit::confirm_conformance!(harness);
