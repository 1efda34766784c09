//! Claims with five million pending, beside claims with fifty thousand.

use std::time::Duration;

use anyhow::Result;

use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::{Bench, median, servers};
use super::caudal::Payments;
use super::drain;

pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let (large, small) = if bench.quick { (200_000, 20_000) } else { (5_000_000, 50_000) };
    let endpoint = servers::endpoint(bench, 0)?;
    // As many are watched of both: the first thousands go faster than what follows.
    let few = (0..5).map(|_| drained(bench, postgres, endpoint.port, small, small)).collect::<Result<Vec<_>>>()?;
    let many = drained(bench, postgres, endpoint.port, large, small)?;
    println!("postgres/backlog {small}: {few:.0?}, {large}: {many:.0} per second");
    Ok(vec![Outcome::new("postgres/backlog", many, "transactions/s").limit(median(few))])
}

/// How fast the first `measured` of what is pending are confirmed.
fn drained(bench: &Bench, postgres: &Postgres, port: u16, pending: u64, measured: u64) -> Result<f64> {
    let database = postgres.database("caudal")?;
    let payments = Payments::new(bench, &database, port, "")?;
    payments.fill(0, pending)?;
    postgres.settle()?;
    let mut workers = payments.workers(1)?;
    drain::rate(&mut workers, measured, Duration::from_secs(120), || payments.outcomes())
}
