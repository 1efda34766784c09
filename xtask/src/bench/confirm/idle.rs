//! A worker that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::Bench;
use super::super::postgres::{Database, Postgres};
use super::super::results::Outcome;
use super::caudal::{Payments, memory_of};

/// Each of an idle worker's statements is a transaction of its own.
const TRANSACTIONS: &str =
    "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";

pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let seconds = if bench.quick { 5 } else { 60 };
    let database = postgres.database("caudal")?;
    let payments = Payments::new(bench, &database, 9, "")?;
    // It makes the tables.
    drop(payments.api()?);
    let without = transactions(&database, seconds)?;
    let workers = payments.workers(1)?;
    std::thread::sleep(Duration::from_secs(5));
    let with = transactions(&database, seconds)?;
    let memory = memory_of(&workers[0])?.now as f64 / 1e6;
    Ok(vec![
        Outcome::new("postgres/idle-queries", (with - without).max(0.0), "queries/s"),
        Outcome::new("postgres/idle-memory", memory, "MB"),
    ])
}

/// A second, ours included.
fn transactions(database: &Database<'_>, seconds: u64) -> Result<f64> {
    let before = database.number(TRANSACTIONS)?;
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    Ok((database.number(TRANSACTIONS)? - before) / start.elapsed().as_secs_f64())
}
