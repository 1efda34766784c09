//! What storing and retention have to do with confirmation, and how it is read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::ports::{LaneSpec, Records};
use caudal_core::confirm::{LaneId, State};
use caudal_core::plan::ReadPlan;
use caudal_core::ports::{Append, Catalogue, Lanes, OnBadRow, Read, Retain};
use caudal_core::row::field;
use caudal_core::schema::Table;
use caudal_core::time::Instant;
use caudal_testkit::confirm::{Doing, Harness, LONG, claim, confirmed, dead, doubt, held, ids, item, part, retry};
use caudal_testkit::store::{at, batch, small, topic};
use futures_util::TryStreamExt;
use uuid::Uuid;

use crate::harness::{Sql, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_stored_becomes_pending_and_once() {
    let h = open(false).await;
    let (store, one, two) = (h.store(), h.lane("default").await, h.lane("urgent").await);
    let ids = ids(4);
    let rows: Vec<(Uuid, i64)> = ids.iter().copied().zip(0..).collect();
    let mut each = batch(&h.table(one), OnBadRow::Report, &rows);
    each.lanes = Lanes::Each(vec![one, two, one, two]);
    let each = Arc::new(each);
    h.store.append(each.clone()).await.expect("append");
    let again = h.store.append(each).await.expect("append");
    assert_eq!(again.tally.duplicate, 4);
    let numbers = [store.status("default").await, store.status("urgent").await];
    assert_eq!(numbers.map(|lane| (lane.enqueued, lane.pending)), [(2, 2), (2, 2)]);
    // A batch that is not stored makes nothing pending; of one that is stored in part, that part.
    let new = caudal_testkit::confirm::ids(2);
    let mut bad = batch(&h.table(one), OnBadRow::Abort, &[(new[0], 1), (ids[0], 77)]);
    bad.lanes = Lanes::All(one);
    h.store.append(bad.clone().into()).await.expect_err("a conflict");
    bad.on_bad_row = OnBadRow::Report;
    assert_eq!(h.store.append(bad.into()).await.expect("append").tally.stored, 1);
    assert_eq!(store.status("default").await.enqueued, 3);
    store.assert_sound().await;
    let mut nowhere = batch(&h.table(one), OnBadRow::Report, &[(new[1], 1)]);
    nowhere.lanes = Lanes::None;
    h.store.append(nowhere.into()).await.expect("append");
    let audits = store.verify().await.expect("verify");
    assert_eq!(audits.iter().flat_map(|audit| audit.lost.clone()).collect::<Vec<_>>(), [new[1]], "it should have been");
}

fn far() -> Instant {
    at("9000-01-01T00:00:00Z")
}

async fn expiring(h: &Sql) -> (Arc<Table>, LaneId) {
    let table = Arc::new(Table { expires: Some(Duration::ZERO), ..Table::clone(&small("payments", false)) });
    h.store.ensure_table(&table).await.expect("table");
    let old = ids(2);
    let rows: Vec<(Uuid, i64)> = old.iter().copied().zip(0..).collect();
    h.store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
    let spec = LaneSpec { topic: topic("payments"), name: "default".into(), records: Records::Topic(table.clone()) };
    let lane = h.ensure(spec).await;
    (table, lane)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_stay_until_they_are_confirmed() {
    let h = open(false).await;
    let (table, lane) = expiring(&h).await;
    let (store, name) = (h.store(), topic("payments"));
    let ids = ids(4);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let marks = [
        (item(&batch, ids[0]), confirmed()),
        (item(&batch, ids[1]), dead(true)),
        (item(&batch, ids[2]), retry(LONG, true)),
    ];
    store.finish(part(&batch.lease, &marks)).await;
    let gone = h.store.expire(&table, &name, far(), 100).await.expect("expire");
    assert_eq!(gone, 3, "what was confirmed, and what was stored before anything was to be confirmed");
    for id in &ids[1..] {
        assert!(h.store.get(&table, *id).await.expect("get").is_some());
    }
    store.assert_sound().await;
    // Its key is forgotten, and it comes again: stored anew, and not confirmed anew.
    assert_eq!(h.store.forget(&name, far(), 100).await.expect("forget"), 3);
    store.assert_sound().await;
    h.enqueue(lane, &ids[..1]).await;
    assert_eq!((store.status("default").await.enqueued, store.look(ids[0]).await.state), (4, State::Confirmed));
    assert!(store.claim_as(claim(lane)).await.is_none());
    store.assert_sound().await;
}

/// With the read grammar, like any table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmations_are_a_table() {
    let h = open(false).await;
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(7);
    h.enqueue(lane, &ids[..6]).await;
    let batch = store.take(lane).await;
    h.enqueue(lane, &ids[6..]).await;
    store.call(&batch, LONG).await;
    let marks = [confirmed(), retry(LONG, true), doubt(LONG), held(true), dead(false)];
    for (id, mark) in ids.iter().zip(marks) {
        store.finish(part(&batch.lease, &[(item(&batch, *id), mark)])).await;
    }
    let table = Arc::new(Table::confirmations());
    let rows = h.store.read(ReadPlan::all(table.clone())).await.expect("read");
    let batches: Vec<_> = rows.try_collect().await.expect("rows");
    let (id, state) = (0, table.column("state").expect("a column"));
    let mut seen = HashMap::new();
    for row in batches.iter().flat_map(|batch| batch.rows()) {
        let fields: Vec<Option<&[u8]>> = row.collect();
        assert_eq!(fields.len(), table.columns.len());
        let id = field::uuid(fields[id].expect("an id"));
        seen.insert(id, field::text(fields[state].expect("a state")).to_owned());
    }
    let states = ["confirmed", "retry", "doubt", "held", "dead", "calling", "pending"];
    for (id, state) in ids.iter().zip(states) {
        assert_eq!(seen.get(id).map(String::as_str), Some(state));
        assert_eq!(store.look(*id).await.state.name(), state);
    }
    assert_eq!(h.store.get(&table, ids[3]).await.expect("get").expect("one").len(), 1);
}
