//! Claims with five million pending, beside claims with sixty thousand.

use std::time::Duration;

use anyhow::Result;

use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::{Bench, median, servers};
use super::caudal::Payments;
use super::drain;

/// What waits, but for those that each repetition has: all of the records stay.
const PUT_ASIDE: &str = "
create table waiting as select lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent,
                               row_number() over (order by pos) as n from _confirm_ready;
alter table waiting add primary key (n);
truncate _confirm_ready";

/// The first so many of what is pending, several times each: with all of them, then with hardly more than those. Before and after,
/// the same records are stored, and those that are called for have not been read before.
pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let (large, measured, times) = if bench.quick { (400_000, 20_000, 2) } else { (5_000_000, 50_000, 5) };
    let endpoint = servers::endpoint(bench, 0)?;
    let database = postgres.database("caudal")?;
    let payments = Payments::new(bench, &database, endpoint.port, "")?;
    payments.fill(0, large)?;
    let many = (0..times).map(|_| drained(&payments, measured)).collect::<Result<Vec<_>>>()?;
    database.sql(PUT_ASIDE)?;
    // A fifth more than are measured, so that these have no end either.
    let few = (0..times).map(|n| {
        let (first, last) = (n * measured * 6 / 5, (n + 1) * measured * 6 / 5);
        database.sql(&format!(
            "truncate _confirm_ready;
             insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent)
             select lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent from waiting
             where n > {first} and n <= {last} order by n"
        ))?;
        drained(&payments, measured)
    });
    let few = few.collect::<Result<Vec<_>>>()?;
    println!("postgres/backlog {large}: {many:.0?}, {}: {few:.0?} per second", measured * 6 / 5);
    Ok(vec![Outcome::new("postgres/backlog", median(many), "transactions/s").limit(median(few))])
}

/// How fast a new worker confirms the first of what is pending. PostgreSQL has tidied up before.
fn drained(payments: &Payments<'_>, measured: u64) -> Result<f64> {
    payments.database.sql("vacuum analyze")?;
    payments.database.server.settle()?;
    let before = payments.counted()?;
    let mut workers = payments.workers(1)?;
    drain::rate(&mut workers, measured, Duration::from_secs(120), || Ok(payments.counted()? - before))
}
