//! How many transactions a second PostgreSQL alone can confirm through the port: claim, begin of calls, settle, with nobody called.
//!
//! `postgres_confirm_rate URL TRANSACTIONS WORKERS BATCH`, against a database that it may fill.

use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_core::confirm::ports::{Claim, Confirm, Finish, LaneSpec, Marked, Records};
use caudal_core::confirm::{Fact, LaneId, Mark, Rank};
use caudal_core::ports::{Append, AppendBatch, Catalogue, Lanes, OnBadRow};
use caudal_core::schema::{Column, ColumnType, Origin, Table};
use caudal_core::time::Instant as Stamp;
use caudal_core::topic::TopicName;
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, transactions, workers, size] = &args[..] else {
        return Err("usage: postgres_confirm_rate URL TRANSACTIONS WORKERS BATCH".into());
    };
    let (transactions, workers, size): (usize, usize, usize) = (transactions.parse()?, workers.parse()?, size.parse()?);
    let store = Arc::new(
        PostgresStore::connect(PostgresConfig { confirmers: workers, ..PostgresConfig::new(url, "rate") }).await?,
    );
    store.migrate().await?;
    let column = Column::new("payload", ColumnType::Text, true, Origin::Property);
    let table = Arc::new(Table::of_topic("payments", vec![column], false));
    store.ensure_table(&table).await?;
    let topic = TopicName::parse("payments").map_err(|error| error.to_string())?;
    let spec = LaneSpec { topic: topic.clone(), name: "default".into(), records: Records::Topic(table.clone()) };
    let lane = store.ensure_lanes(&[spec]).await?[0];
    let started = Instant::now();
    fill(&store, &table, &topic, lane, transactions).await?;
    let filled = started.elapsed();
    let started = Instant::now();
    let tasks: Vec<_> = (0..workers).map(|n| tokio::spawn(work(store.clone(), lane, n, size))).collect();
    let (mut done, mut times) = (0, [Duration::ZERO; 3]);
    for task in tasks {
        let (some, took) = task.await??;
        done += some;
        times.iter_mut().zip(took).for_each(|(sum, took)| *sum += took);
    }
    let took = started.elapsed();
    assert_eq!(done, transactions, "each once");
    let rate = |time: Duration| transactions as f64 / time.as_secs_f64();
    println!(
        "stored and made pending {:.0}/s; confirmed {:.0}/s with {workers} workers in batches of {size} (claim {:?}, begin {:?}, settle {:?} of all workers)",
        rate(filled),
        rate(took),
        times[0],
        times[1],
        times[2]
    );
    Ok(())
}

async fn fill(
    store: &PostgresStore,
    table: &Arc<Table>,
    topic: &TopicName,
    lane: LaneId,
    transactions: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let payload = "x".repeat(200);
    let mut left = transactions;
    while left > 0 {
        let mut batch = AppendBatch::new(table.clone(), topic.clone(), OnBadRow::Report);
        for _ in 0..left.min(10_000) {
            let mut row = batch.rows.begin(table.written().count());
            row.uuid(Uuid::now_v7());
            row.null();
            row.text("rate");
            row.timestamp(Stamp(0));
            row.text(&payload);
            row.null();
            row.finish();
        }
        left -= batch.rows.len();
        batch.lanes = Lanes::All(lane);
        store.append(Arc::new(batch)).await?;
    }
    Ok(())
}

type Worked = Result<(usize, [Duration; 3]), caudal_core::error::StoreError>;

async fn work(store: Arc<PostgresStore>, lane: LaneId, number: usize, size: usize) -> Worked {
    let worker: Arc<str> = format!("worker {number}").into();
    let (mut from, mut done, mut times) = (0, 0, [Duration::ZERO; 3]);
    let mut swept = Instant::now();
    loop {
        if swept.elapsed() > Duration::from_secs(1) {
            (from, swept) = (0, Instant::now());
        }
        let claim =
            Claim { lane, rank: Rank::Usual, from, to: i64::MAX, items_max: size, ttl: TTL, worker: worker.clone() };
        let at = Instant::now();
        let claimed = store.claim(&claim).await?;
        times[0] += at.elapsed();
        let Some(batch) = claimed else {
            if from == 0 {
                return Ok((done, times));
            }
            from = 0;
            continue;
        };
        from = batch.watermark;
        let at = Instant::now();
        assert!(store.begin_calls(&batch.lease, TTL).await?, "the lease lives");
        times[1] += at.elapsed();
        let mark = Mark::Fact { fact: Fact::Confirmed, code: Some(200), detail: String::new() };
        let marks = batch.items.into_iter().map(|item| Marked { item, mark: mark.clone() }).collect::<Vec<_>>();
        done += marks.len();
        let at = Instant::now();
        let settled = store.settle(&[Finish { lease: batch.lease, marks, ends: true }]).await?;
        times[2] += at.elapsed();
        assert_eq!(settled.repeats + settled.contradictions, 0, "nothing was there before");
    }
}
