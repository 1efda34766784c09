//! More workers for an endpoint that takes its time.

use std::time::Duration;

use anyhow::Result;

use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::{Bench, servers};
use super::caudal::Payments;
use super::{Side, drain, in_turns};

const ENDPOINT_MS: u32 = 20;
/// Calls at the same time that each worker adds: few enough that four together are not the machine's limit.
const CALLS_EACH: usize = 32;

/// The rate of two and of four, beside two and four times that of one.
pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let endpoint = servers::endpoint(bench, ENDPOINT_MS)?;
    let with = |count: usize| move |port: u16| rate(bench, postgres, port, count);
    let port = endpoint.port;
    let sides = [
        Side::new("1 worker", move || with(1)(port)),
        Side::new("2 workers", move || with(2)(port)),
        Side::new("4 workers", move || with(4)(port)),
    ];
    let measured = in_turns(bench, "postgres/workers", &sides)?;
    let outcome = |case, n: usize, times| Outcome::new(case, measured[n], "transactions/s").limit(measured[0] * times);
    Ok(vec![outcome("postgres/workers-2", 1, 2.0), outcome("postgres/workers-4", 2, 4.0)])
}

fn rate(bench: &Bench, postgres: &Postgres, port: u16, count: usize) -> Result<f64> {
    let seconds = if bench.quick { 2 } else { 10 };
    let pending = (count * CALLS_EACH) as u64 * 1_000 / u64::from(ENDPOINT_MS) * (seconds + 2);
    let database = postgres.database("caudal")?;
    // The calls that a topic may have at the same time are those of all workers together.
    let payments = Payments::new(bench, &database, port, &format!("concurrency = {}", count * CALLS_EACH))?;
    payments.fill(0, pending)?;
    postgres.settle()?;
    let mut workers = payments.workers(count)?;
    drain::rate(&mut workers, pending, Duration::from_secs(seconds), || payments.outcomes())
}
