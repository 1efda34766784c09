//! Retention: records leave, their keys stay, readers go on.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use caudal_core::outcome::RowOutcome;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::{OnBadRow, Store};
use caudal_core::row::field;
use caudal_core::schema::Table;
use caudal_core::time::Instant;
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::{Fixture, at, batch, ids, rows_in, small, topic};

fn expiring(name: &str) -> Arc<Table> {
    Arc::new(Table { expires: Some(Duration::ZERO), ..Table::clone(&small(name, true)) })
}

fn far() -> Instant {
    at("9000-01-01T00:00:00Z")
}

async fn fill(store: &dyn Store, table: &Arc<Table>, rows: usize) -> Vec<(Uuid, i64)> {
    let rows: Vec<(Uuid, i64)> = ids(rows).into_iter().zip(0..).collect();
    store.append(batch(table, OnBadRow::Report, &rows).into()).await.expect("append");
    rows
}

/// Removes everything that is due; returns how many records.
async fn sweep(store: &dyn Store, table: &Arc<Table>, before: Instant) -> u64 {
    let topic = topic(&table.name);
    let mut gone = 0;
    loop {
        match store.expire(table, &topic, before, 100).await.expect("expire") {
            0 => return gone,
            some => {
                assert!(some <= 100, "{some}");
                gone += some;
            }
        }
    }
}

pub async fn old_records_leave_and_their_keys_stay(fx: Fixture) {
    let table = expiring("leaves");
    let topic = topic("leaves");
    fx.store.ensure_table(&table).await.expect("table");
    let old = fill(&*fx.store, &table, 250).await;
    assert_eq!(sweep(&*fx.store, &table, at("2001-01-01T00:00:00Z")).await, 0, "nothing is that old");
    // A store may keep the newest record of all.
    let gone = sweep(&*fx.store, &table, far()).await;
    let left = rows_in(&*fx.store, &table).await;
    assert!(gone >= 249 && gone + left == 250, "{gone} gone, {left} left");
    assert_eq!(fx.store.expired(&topic).await.expect("expired"), gone);
    assert!(fx.store.get(&table, old[0].0).await.expect("get").is_none());
    assert!(fx.store.expired_at(&topic, old[0].0).await.expect("expired_at").is_some());
    assert!(fx.store.expired_at(&topic, Uuid::now_v7()).await.expect("expired_at").is_none());

    // Again, by every way into the table: alone, among others, with other content, in a batch that is taken whole.
    let again = fx.store.append(batch(&table, OnBadRow::Report, &old[..1]).into()).await.expect("append");
    assert_eq!(again.rows, Some(vec![RowOutcome::Duplicate]));
    let fresh = Uuid::now_v7();
    let mixed = [old[1], (fresh, 7), old[2], (old[3].0, 999), (fresh, 7)];
    let again = fx.store.append(batch(&table, OnBadRow::DeadLetter, &mixed).into()).await.expect("append");
    use RowOutcome::{Duplicate, Stored};
    assert_eq!(again.rows, Some(vec![Duplicate, Stored, Duplicate, Duplicate, Duplicate]));
    assert_eq!((again.tally.stored, again.tally.duplicate, again.tally.dead), (1, 4, 0));
    let whole = fx.store.append(batch(&table, OnBadRow::Abort, &[old[4], (Uuid::now_v7(), 8)]).into()).await;
    assert_eq!(whole.expect("append").tally.stored, 1);
    assert_eq!(rows_in(&*fx.store, &table).await, left + 2);
    let tally = fx.store.tally(&topic).await.expect("tally");
    assert_eq!(tally.unaccounted(0), 0);
    assert_eq!(tally.stored, gone + left + 2, "what was stored is in the table or has left it");
}

pub async fn forgotten_keys_are_new_again(fx: Fixture) {
    let table = expiring("forgets");
    let topic = topic("forgets");
    fx.store.ensure_table(&table).await.expect("table");
    let old = fill(&*fx.store, &table, 120).await;
    sweep(&*fx.store, &table, far()).await;
    assert_eq!(fx.store.forget(&topic, at("2001-01-01T00:00:00Z"), 1000).await.expect("forget"), 0);
    assert_eq!(fx.store.forget(&topic, far(), 100).await.expect("forget"), 100);
    assert!(fx.store.forget(&topic, far(), 100).await.expect("forget") >= 19);
    assert_eq!(fx.store.forget(&topic, far(), 100).await.expect("forget"), 0);
    assert!(fx.store.expired_at(&topic, old[0].0).await.expect("expired_at").is_none());
    let again = fx.store.append(batch(&table, OnBadRow::Report, &old[..1]).into()).await.expect("append");
    assert_eq!(again.tally.stored, 1);
    // Each topic forgets its own.
    sweep(&*fx.store, &table, far()).await;
    assert_eq!(fx.store.forget(&super::topic("other"), far(), 100).await.expect("forget"), 0);
    assert!(fx.store.forget(&topic, far(), 100).await.expect("forget") >= 1);
}

/// Readers see each record whole or not at all, and none waits; a stream that was open before sees all of them.
pub async fn readers_read_while_records_leave(fx: Fixture) {
    let table = expiring("read");
    fx.store.ensure_table(&table).await.expect("table");
    for _ in 0..4 {
        fill(&*fx.store, &table, 2_000).await;
    }
    let open = fx.store.read(ReadPlan::all(table.clone())).await.expect("read");
    let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, table, stop, reads) = (fx.store.clone(), table.clone(), stop.clone(), reads.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let plan = ReadPlan { limit: Some(50), ..ReadPlan::all(table.clone()) };
                    let batches: Vec<_> = store.read(plan).await.expect("read").try_collect().await.expect("rows");
                    let at = table.column("t").expect("a column");
                    let texts =
                        batches.iter().flat_map(|batch| batch.rows()).filter_map(|mut row| row.nth(at).flatten());
                    assert!(texts.map(field::text).all(|text| text.starts_with("row ")));
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while reads.load(Ordering::Relaxed) < 3 {
        tokio::task::yield_now().await;
    }
    let gone = sweep(&*fx.store, &table, far()).await;
    assert!(gone >= 7_999, "{gone}");
    let during = reads.load(Ordering::Relaxed);
    assert!(during > 3, "readers went on: {during}");
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("reader");
    }
    let seen: usize = open.map_ok(|batch| batch.len()).try_collect::<Vec<_>>().await.expect("rows").iter().sum();
    assert_eq!(seen, 8_000, "a read that began before has them all");
}

/// A producer that repeats each of its keys while they leave stores none of them twice: sweeps and appends race, and every
/// record is in the table or among the expired, once.
pub async fn repeats_race_with_the_sweep(fx: Fixture) {
    let table = expiring("races");
    let name = topic("races");
    fx.store.ensure_table(&table).await.expect("table");
    let rows = fill(&*fx.store, &table, 600).await;
    let stop = Arc::new(AtomicBool::new(false));
    let sweeper = {
        let (store, table, name, stop) = (fx.store.clone(), table.clone(), name.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                store.expire(&table, &name, far(), 7).await.expect("expire");
            }
        })
    };
    let producers: Vec<_> = (0..3)
        .map(|n| {
            let (store, table, rows) = (fx.store.clone(), table.clone(), rows.clone());
            tokio::spawn(async move {
                for chunk in rows.chunks(20 + n) {
                    // Straight or carefully, as the store chooses: a new key in each batch keeps it writing.
                    let mut again = chunk.to_vec();
                    again.push((Uuid::now_v7(), -1));
                    let appended = store.append(batch(&table, OnBadRow::Report, &again).into()).await.expect("append");
                    assert_eq!(appended.tally.stored, 1, "{appended:?}");
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.expect("producer");
    }
    stop.store(true, Ordering::Relaxed);
    sweeper.await.expect("sweeper");
    let tally = fx.store.tally(&name).await.expect("tally");
    let gone = fx.store.expired(&name).await.expect("expired");
    assert_eq!(tally.stored, gone + rows_in(&*fx.store, &table).await);
    assert_eq!(
        tally.stored,
        600 + rows.chunks(20).count() as u64 + rows.chunks(21).count() as u64 + rows.chunks(22).count() as u64
    );
}

/// What follows a table live goes on after everything before has left.
pub async fn tails_outlive_what_they_saw(fx: Fixture) {
    let table = expiring("followed");
    fx.store.ensure_table(&table).await.expect("table");
    fill(&*fx.store, &table, 150).await;
    let (_, mut mark) = fx.store.tail(&table, None, 10).await.expect("tail");
    let (mut seen, mut expected) = (HashSet::new(), HashSet::new());
    for _ in 0..3 {
        sweep(&*fx.store, &table, far()).await;
        expected.extend(fill(&*fx.store, &table, 30).await.into_iter().map(|(id, _)| id));
        loop {
            let (rows, next) = fx.store.tail(&table, Some(mark), 100).await.expect("tail");
            mark = next;
            if rows.is_empty() {
                break;
            }
            seen.extend(rows.rows().map(|mut row| field::uuid(row.next().flatten().expect("an id"))));
        }
    }
    assert_eq!(seen, expected);
}
