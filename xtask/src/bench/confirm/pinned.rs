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

/// The rate in the last part of five minutes under the snapshot, beside the same part of a run without one: what has ended makes
/// any run slower as it goes on.
pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let free = late(bench, postgres, false)?;
    let pinned = late(bench, postgres, true)?;
    Ok(vec![Outcome::new("postgres/pinned", pinned, "transactions/s").limit(free)])
}

fn late(bench: &Bench, postgres: &Postgres, pinned: bool) -> Result<f64> {
    let (count, apart, seconds) = match bench.quick {
        true => (500_000, 2, 4),
        false => (12_000_000, 45, 300),
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
    let snapshot = if pinned { Some(Snapshot::hold(&database)?) } else { None };
    over(&payments, &mut workers, seconds - apart)?;
    let under = over(&payments, &mut workers, apart)?;
    drop(snapshot);
    drop(workers);
    let (counted, outcomes) = (payments.counted()?, payments.outcomes()?);
    ensure!(counted == outcomes, "{outcomes} have ended, {counted} are counted");
    ensure!(outcomes < count, "all were done before the end: put in more");
    let how = if pinned { "under a snapshot" } else { "without one" };
    println!("postgres/pinned {how}: {before:.0} at first, {under:.0} at the end, per second");
    Ok(under)
}

/// Outcomes a second during the next `seconds`.
pub(super) fn over(payments: &Payments<'_>, workers: &mut [Service], seconds: u64) -> Result<f64> {
    let first = payments.counted()?;
    let start = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    workers.iter_mut().try_for_each(Service::check)?;
    let last = payments.counted()?;
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
