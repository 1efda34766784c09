//! A snapshot that somebody forgot: dead rows stay, and every claim must get past them.

use std::io::Write;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::Bench;
use super::super::postgres::{Database, Postgres};
use super::super::process::Service;
use super::super::results::Outcome;
use super::super::servers;
use super::caudal::Payments;

/// The rate in the last minute of five under the snapshot, beside what it was before and is again afterwards.
pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let (count, apart, pinned) = match bench.quick {
        true => (500_000, 2, 4),
        false => (13_000_000, 45, 300),
    };
    let endpoint = servers::endpoint(bench, 0)?;
    let database = postgres.database("caudal")?;
    let payments = Payments::new(bench, &database, endpoint.port, "")?;
    payments.fill(0, count)?;
    postgres.settle()?;
    let mut workers = payments.workers(1)?;
    // The start is not what is compared.
    over(&payments, &mut workers, (apart / 4).max(3))?;
    let before = over(&payments, &mut workers, apart)?;
    let snapshot = Snapshot::hold(&database)?;
    over(&payments, &mut workers, pinned - apart)?;
    let under = over(&payments, &mut workers, apart)?;
    drop(snapshot);
    let after = over(&payments, &mut workers, apart)?;
    ensure!(payments.outcomes()? < count, "all were done before the end: put in more");
    println!("postgres/pinned before {before:.0}, under {under:.0}, after {after:.0} per second");
    Ok(vec![Outcome::new("postgres/pinned", under, "transactions/s").limit((before + after) / 2.0)])
}

/// Outcomes a second during the next `seconds`.
pub(super) fn over(payments: &Payments<'_>, workers: &mut [Service], seconds: u64) -> Result<f64> {
    let first = payments.outcomes()?;
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    workers.iter_mut().try_for_each(Service::check)?;
    let last = payments.outcomes()?;
    Ok((last - first) as f64 / start.elapsed().as_secs_f64())
}

/// A transaction that has read, has an id of its own, and does nothing more.
struct Snapshot(Child);

impl Snapshot {
    fn hold(database: &Database<'_>) -> Result<Self> {
        let mut psql = database.psql();
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let input = child.stdin.as_mut().context("a pipe")?;
        input.write_all(b"begin isolation level repeatable read;\nselect txid_current();\n")?;
        let snapshot = Self(child);
        let held = "select count(*) from pg_stat_activity
            where application_name = 'psql' and state = 'idle in transaction' and backend_xid is not null";
        let start = Instant::now();
        while database.number(held)? < 1.0 {
            ensure!(start.elapsed() < Duration::from_secs(10), "the snapshot is not held");
        }
        Ok(snapshot)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
