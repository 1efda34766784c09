//! How fast SQLite makes records pending, claims, begins calls and settles, through the ports: `sqlite_confirm_rate [FOLDER] [COUNT]`.

#![allow(clippy::unwrap_used)] // a measurement that cannot go on has failed

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_core::confirm::ports::{Claim, Confirm, Finish, LaneSpec, Marked, OperateConfirmations, Records};
use caudal_core::confirm::{Fact, LaneId, Mark, Rank};
use caudal_core::ports::{Append, Catalogue, Lanes, OnBadRow};
use caudal_core::schema::Table;
use caudal_store::sqlite::{SqliteConfig, SqliteStore};
use caudal_testkit::store::{batch, ids, small, topic};
use futures_util::future::try_join_all;

const TTL: Duration = Duration::from_secs(60);
/// Rows of one append; so many wait for the writer at a time.
const APPENDED: usize = 1000;
const APPENDS: usize = 4;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "/tmp".into());
    let count: usize = arguments.next().map_or(100_000, |count| count.parse().unwrap());
    let dir = tempfile::tempdir_in(folder).unwrap();
    for (items, workers, count) in
        [(100, 4, count), (1000, 4, count), (100, 8, count), (10, 4, count / 20), (1, 4, count / 100)]
    {
        measure(&dir.path().join(format!("{items}-{workers}.db")), items, workers, count).await;
    }
}

async fn measure(path: &Path, items: usize, workers: usize, count: usize) {
    let store = Arc::new(SqliteStore::open(SqliteConfig::new(path, "rate")).unwrap());
    store.migrate().await.unwrap();
    let (plain, table) = (small("plain", false), small("payments", false));
    store.ensure_table(&plain).await.unwrap();
    store.ensure_table(&table).await.unwrap();
    let records = Records::Topic(table.clone());
    let spec = LaneSpec { topic: topic("payments"), name: "default".into(), records };
    let lane = store.ensure_lanes(&[spec]).await.unwrap()[0];
    let without = append(&store, &plain, Lanes::None, count).await;
    let with = append(&store, &table, Lanes::All(lane), count).await;
    let begun = Instant::now();
    let work = (0..workers).map(|n| tokio::spawn(work(store.clone(), lane, items, n)));
    let times = try_join_all(work).await.unwrap();
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    let mean = |of: fn(&Times) -> Duration| {
        let calls: u32 = times.iter().map(|times| times.calls).sum();
        times.iter().map(of).sum::<Duration>() / calls.max(1)
    };
    println!(
        "{items} items, {workers} workers: {rate:.0}/s (claim {:?}, begin {:?}, settle {:?}); stored {without:.0}/s, and pending {with:.0}/s",
        mean(|times| times.claim),
        mean(|times| times.begin),
        mean(|times| times.settle)
    );
    assert!(store.verify().await.unwrap().iter().all(|audit| audit.is_sound() && audit.open == 0));
}

/// Rows a second.
async fn append(store: &SqliteStore, table: &Arc<Table>, lanes: Lanes, count: usize) -> f64 {
    let made = (0..count).step_by(APPENDED).map(|from| {
        let rows: Vec<_> = ids(APPENDED.min(count - from)).into_iter().zip(0..).collect();
        let mut made = batch(table, OnBadRow::Report, &rows);
        made.lanes = lanes.clone();
        Arc::new(made)
    });
    let made: Vec<_> = made.collect();
    let begun = Instant::now();
    for together in made.chunks(APPENDS) {
        try_join_all(together.iter().map(|batch| store.append(batch.clone()))).await.unwrap();
    }
    count as f64 / begun.elapsed().as_secs_f64()
}

#[derive(Default)]
struct Times {
    calls: u32,
    claim: Duration,
    begin: Duration,
    settle: Duration,
}

/// Claims and confirms until nothing is left.
async fn work(store: Arc<SqliteStore>, lane: LaneId, items_max: usize, number: usize) -> Times {
    let (mut times, mut from) = (Times::default(), 0);
    loop {
        let claim = Claim {
            lane,
            rank: Rank::Usual,
            from,
            to: i64::MAX,
            items_max,
            ttl: TTL,
            worker: format!("worker {number}").into(),
        };
        let begun = Instant::now();
        let Some(batch) = store.claim(&claim).await.unwrap() else { return times };
        times.claim += begun.elapsed();
        from = batch.watermark;
        let begun = Instant::now();
        assert!(store.begin_calls(&batch.lease, TTL).await.unwrap());
        times.begin += begun.elapsed();
        let mark = || Mark::Fact { fact: Fact::Confirmed, code: Some(200), detail: String::new() };
        let marks = batch.items.into_iter().map(|item| Marked { item, mark: mark() }).collect();
        let begun = Instant::now();
        store.settle(&[Finish { lease: batch.lease, marks, ends: true }]).await.unwrap();
        times.settle += begun.elapsed();
        times.calls += 1;
    }
}
