//! What becomes of records when a lane moves into a database: written as an append would have, and kept as long.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Adopt, Confirm, Finish, LaneSpec, Records};
use caudal_core::error::StoreError;
use caudal_core::plan::Scalar;
use caudal_core::ports::{Append, AppendBatch, Lanes, OnBadRow, Store};
use caudal_core::schema::{Column, ColumnType, Table};
use caudal_core::time::Date;
use caudal_core::topic::TopicName;
use caudal_testkit::confirm::moving::{Movable, moved, pause, resume};
use caudal_testkit::confirm::{Doing, Harness, LONG, confirmed, finish, ids, item, part};
use caudal_testkit::store::{all_types, at, batch, push, same_row, small, topic};
use uuid::Uuid;

use crate::{dynamodb, postgres, sqlite};

/// A database, whichever.
trait Database: Movable {
    fn database(&self) -> Arc<dyn Store>;
    async fn lane_with(&self, spec: LaneSpec) -> LaneId;
}

impl Database for postgres::Sql {
    fn database(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn lane_with(&self, spec: LaneSpec) -> LaneId {
        self.ensure(spec).await
    }
}

impl Database for sqlite::Sql {
    fn database(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn lane_with(&self, spec: LaneSpec) -> LaneId {
        self.ensure(spec).await
    }
}

/// The table, with the lane `default` of its records.
async fn kept_in(h: &impl Database, table: &Arc<Table>) -> LaneId {
    h.database().ensure_table(table).await.unwrap();
    let records = Records::Topic(table.clone());
    h.lane_with(LaneSpec { topic: topic("payments"), name: "default".into(), records }).await
}

async fn store(h: &impl Database, lane: LaneId, mut batch: AppendBatch) -> u64 {
    batch.lanes = Lanes::All(lane);
    h.database().append(batch.into()).await.unwrap().tally.stored
}

/// Moves the lane of this table from one database to the other, with what `move` does around it.
async fn move_lane(
    from: &impl Database,
    to: &impl Database,
    lanes: (LaneId, LaneId),
) -> (u64, Vec<(Uuid, &'static str)>) {
    pause(from).await;
    pause(to).await;
    let (here, there) = (from.mover(), to.mover());
    let done = caudal_core::confirm::transfer::transfer((&*here, lanes.0), (&*there, lanes.1), |_| {}).await.unwrap();
    (done.copied, done.differences)
}

fn name() -> TopicName {
    topic("payments")
}

async fn whole_records_arrive(from: impl Database, to: impl Database) {
    let table = all_types("payments");
    let lanes = (kept_in(&from, &table).await, kept_in(&to, &table).await);
    let all = ids(3);
    let mut batch = AppendBatch::new(table.clone(), name(), OnBadRow::Report);
    let full = [
        Some(Scalar::Int8(i64::MIN)),
        Some(Scalar::Float8(-1e-300)),
        Some(Scalar::Text("a \"quoted\"\n\u{1f30a} \\".into())),
        Some(Scalar::Bool(false)),
        Some(Scalar::Timestamptz(at("1969-12-31T23:59:59.999999Z"))),
        Some(Scalar::Date(Date::parse("2024-02-29").unwrap())),
        Some(Scalar::Uuid(Uuid::max())),
        Some(Scalar::Jsonb(r#"{"b": [1.50, null, {"z":1,  "a":"é"}], "a": 1e2}"#.into())),
    ];
    push(&mut batch.rows, &table, all[0], &full);
    push(&mut batch.rows, &table, all[1], &[const { None }; 8]);
    push(&mut batch.rows, &table, all[2], &full);
    assert_eq!(store(&from, lanes.0, batch.clone()).await, 3);
    assert_eq!(move_lane(&from, &to, lanes).await, (3, vec![]));
    let types: Vec<ColumnType> = table.columns.iter().map(|column| column.ty).collect();
    for id in &all {
        let was = from.database().get(&table, *id).await.unwrap().unwrap();
        let is = to.database().get(&table, *id).await.unwrap().unwrap();
        assert!(same_row(&types, was.row(0), is.row(0)), "{id}: {was:?} {is:?}");
    }
    // Counted as stored there, and once: the same message is a duplicate from now on.
    let tally = to.database().tally(&name()).await.unwrap();
    assert_eq!((tally.accepted, tally.stored), (3, 3));
    batch.lanes = Lanes::All(lanes.1);
    let again = to.database().append(batch.into()).await.unwrap();
    assert_eq!((again.tally.stored, again.tally.duplicate), (0, 3));
    to.store().assert_sound().await;
    assert_eq!(move_lane(&to, &from, (lanes.1, lanes.0)).await, (0, vec![]));
    assert_eq!(from.database().tally(&name()).await.unwrap().stored, 3, "they were there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_records_arrive_in_sqlite() {
    whole_records_arrive(postgres::open(false).await, sqlite::open().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_records_arrive_in_postgres() {
    whole_records_arrive(sqlite::open().await, postgres::open(true).await).await;
}

/// Row numbers are each store's own, and those that are there already stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_numbers_are_each_stores_own() {
    let (from, to) = (postgres::open(false).await, sqlite::open().await);
    let table = small("payments", true);
    let lanes = (kept_in(&from, &table).await, kept_in(&to, &table).await);
    let (here, there) = (ids(2), ids(3));
    assert_eq!(store(&from, lanes.0, batch(&table, OnBadRow::Report, &[(here[0], 1), (here[1], 2)])).await, 2);
    let mut others = batch(&table, OnBadRow::Report, &[(there[0], 1), (there[1], 2), (there[2], 3)]);
    others.lanes = Lanes::None;
    to.store.append(others.into()).await.unwrap();
    assert_eq!(move_lane(&from, &to, lanes).await, (2, vec![]));
    assert_eq!(to.connect().query_row("select max(_row) from payments", [], |row| row.get::<_, i64>(0)).unwrap(), 5);
}

/// What has its outcome may have left its table; what is open may not leave, although it was stored before this lane began.
async fn retention_goes_on(from: impl Database, to: impl Database) {
    let table = Arc::new(Table { expires: Some(Duration::ZERO), ..Table::clone(&small("payments", false)) });
    let here = kept_in(&from, &table).await;
    // The last one keeps SQLite's newest row, which never leaves.
    let all = ids(4);
    let rows: Vec<(Uuid, i64)> = all.iter().copied().zip(0..).collect();
    store(&from, here, batch(&table, OnBadRow::Report, &rows)).await;
    let taken = from.store().take(here).await;
    from.store().call(&taken, LONG).await;
    from.store().finish(part(&taken.lease, &[(item(&taken, all[0]), confirmed())])).await;
    let release = |id| (item(&taken, id), caudal_core::confirm::Mark::Release);
    let rest = part(&taken.lease, &[release(all[1]), release(all[2]), release(all[3])]);
    from.store().finish(Finish { ends: true, ..rest }).await;
    let far = at("9000-01-01T00:00:00Z");
    assert_eq!(from.database().expire(&table, &name(), far, 10).await.unwrap(), 1);
    let there = kept_in(&to, &table).await;
    assert_eq!(move_lane(&from, &to, (here, there)).await, (4, vec![]));
    to.store().assert_sound().await;
    let database = to.database();
    let (tally, expired) = (database.tally(&name()).await.unwrap(), database.expired(&name()).await.unwrap());
    assert_eq!((tally.stored, expired), (4, 1), "stored is what is there and what has left");
    assert_eq!(database.expire(&table, &name(), far, 10).await.unwrap(), 0, "what is open stays");
    let again = batch(&table, OnBadRow::Report, &rows[..1]);
    assert_eq!(store(&to, there, again).await, 0, "its key is known");
    resume(&to).await;
    let taken = to.store().take(there).await;
    assert_eq!(taken.items.len(), 3);
    to.store().call(&taken, LONG).await;
    to.store().finish(finish(&taken, &confirmed())).await;
    assert!(database.expire(&table, &name(), far, 10).await.unwrap() >= 2);
    to.store().assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_on_in_postgres() {
    retention_goes_on(sqlite::open().await, postgres::open(false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_goes_on_in_sqlite() {
    retention_goes_on(postgres::open(false).await, sqlite::open().await).await;
}

/// A transaction that was enqueued into DynamoDB by itself may have a record that the topic cannot take.
async fn what_is_no_record_is_refused(to: impl Database) {
    let from = dynamodb::Dynamo::open(1).await;
    let (lane, id) = (from.lane("default").await, Uuid::now_v7());
    let record = format!(r#"{{"_id":"{id}","order":7}}"#);
    from.store.enqueue(lane, &[(id, record.into())]).await.unwrap();
    to.lane("default").await;
    pause(&from).await;
    pause(&to).await;
    let Err(StoreError::Asked(why)) = moved(&from, &to).await else { panic!("it is no record") };
    assert!(why.contains(&id.to_string()) && why.contains("\"order\"") && why.contains("payments"), "{why}");
    assert_eq!(to.store().status("default").await.enqueued, 0);
    assert_eq!(to.database().tally(&name()).await.unwrap().stored, 0);
    to.store().assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_record_is_refused_by_postgres() {
    what_is_no_record_is_refused(postgres::open(false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_record_is_refused_by_sqlite() {
    what_is_no_record_is_refused(sqlite::open().await).await;
}

/// One that it can take becomes a record like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_enqueued_by_itself_becomes_a_record() {
    let (from, to) = (dynamodb::Dynamo::open(1).await, postgres::open(false).await);
    let (lane, id) = (from.lane("default").await, Uuid::now_v7());
    from.store.enqueue(lane, &[(id, format!(r#"{{"_id":"{id}","_key":"k","n":7}}"#).into())]).await.unwrap();
    let there = to.lane("default").await;
    pause(&from).await;
    pause(&to).await;
    let done = moved(&from, &to).await.unwrap();
    assert_eq!((done.copied, done.differences), (1, vec![]));
    assert_eq!(to.database().tally(&name()).await.unwrap().stored, 1);
    to.store().assert_sound().await;
    resume(&to).await;
    let record = to.store().take(there).await.items[0].record.clone();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!((&record["n"], &record["_key"], &record["_source"]), (&7.into(), &"k".into(), &"confirm move".into()));
}

/// Its rows are their owner's: the lane can go, under the same keys, and nothing can come into it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adopted_lane_goes_and_does_not_come() {
    let from = sqlite::open().await;
    from.execute(
        "create table orders (id integer primary key, state text not null); insert into orders values (1, 'new'), (2, 'new')",
    );
    let text = |name: &str| Column::found(name, ColumnType::Text, false, Some("text".into()));
    let columns = vec![Column::found("id", ColumnType::Int8, false, None), text("state")];
    let adopt = Adopt {
        table: Arc::new(Table::found("main", "orders", columns, vec![0])),
        key: "id".into(),
        state: "state".into(),
        pending: "new".into(),
        confirmed: None,
        rejected: None,
    };
    let records = Records::Adopted(Arc::new(adopt));
    let here = from.ensure(LaneSpec { topic: name(), name: "default".into(), records }).await;
    assert_eq!(from.store.adopt(here, 10).await.unwrap(), 2);
    let to = dynamodb::Dynamo::open(2).await;
    let there = to.lane("default").await;
    for store in [from.store(), to.store()] {
        store.pause(&name(), None, "moving").await.unwrap();
    }
    let (out, into) = (from.mover(), to.mover());
    let done = caudal_core::confirm::transfer::transfer((&*out, here), (&*into, there), |_| {}).await.unwrap();
    assert_eq!((done.copied, done.differences), (2, vec![]));
    resume(&to).await;
    let taken = to.store().take(there).await;
    assert!(taken.items.iter().all(|item| item.record.starts_with(b"{\"id\":")), "{taken:?}");
    let Err(StoreError::Asked(why)) = out.import(here, &[]).await else { panic!("it is another's table") };
    assert!(why.contains("adopts"), "{why}");
}
