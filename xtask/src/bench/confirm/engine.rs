//! A full backlog drained by one `caudal serve --role confirm` with a call over HTTP for each transaction.

use std::time::Duration;

use anyhow::Result;

use super::super::Bench;
use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::servers;
use super::caudal::Payments;
use super::{Side, drain, in_turns, limit, peers};

const DRAINED_WITHIN: Duration = Duration::from_secs(240);

pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    peers::install(bench)?;
    let endpoint = servers::endpoint(bench, 0)?;
    let url = format!("{}/confirm", endpoint.url());
    let mut sides = vec![
        Side::new("caudal", || caudal(bench, postgres, endpoint.port)),
        Side::new("claim-settle 100", || limit::claim_and_settle(bench, postgres, 100)),
        Side::new("claim-settle 1000", || limit::claim_and_settle(bench, postgres, 1_000)),
    ];
    sides.extend(peers::sides(bench, postgres, Some(&url)));
    let measured = in_turns(bench, "postgres/engine", &sides)?;
    let outcome = |case: &str, limit: usize| {
        peers::compared(Outcome::new(case, measured[0], "transactions/s").limit(measured[limit]), &measured, 3)
    };
    Ok(vec![outcome("postgres/engine", 2), outcome("postgres/engine-limit-100", 1)])
}

fn caudal(bench: &Bench, postgres: &Postgres, port: u16) -> Result<f64> {
    // PostgreSQL's own defaults, as the peers' defaults have.
    postgres.reset()?;
    postgres.set(&[("max_wal_size", "3GB")])?;
    let count = if bench.quick { 50_000 } else { 500_000 };
    let database = postgres.database("caudal")?;
    let payments = Payments::new(bench, &database, port, "")?;
    payments.fill(0, count)?;
    postgres.settle()?;
    let mut workers = payments.workers(1)?;
    drain::rate(&mut workers, count, DRAINED_WITHIN, || payments.outcomes())
}
