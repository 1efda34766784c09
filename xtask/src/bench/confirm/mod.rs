//! Confirmations: Caudal's engine with a local endpoint beside claiming and settling in plain SQL, and beside queues in PostgreSQL
//! that do the same calls from their own workers.
//!
//! Counted is what PostgreSQL holds as done, never what a handler says.

mod backlog;
mod caudal;
mod drain;
mod engine;
mod idle;
mod latency;
mod limit;
mod peers;
mod pinned;
mod workers;

use anyhow::{Context, Result, bail};

use super::postgres::Postgres;
use super::{Bench, median};

pub(super) const CASES: &[&str] = &[
    "postgres/claim-settle",
    "postgres/engine",
    "postgres/latency",
    "postgres/pinned",
    "postgres/backlog",
    "postgres/workers",
    "postgres/idle",
];

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    for case in cases {
        let postgres = Postgres::start(&bench.dir("confirm")?)?;
        // What is written in a case fits in less, and the disk may be small.
        postgres.set(&[("max_wal_size", "3GB")])?;
        let measured = match *case {
            "postgres/claim-settle" => peers::claim_settle(bench, &postgres),
            "postgres/engine" => engine::run(bench, &postgres),
            "postgres/latency" => latency::run(bench, &postgres),
            "postgres/pinned" => pinned::run(bench, &postgres),
            "postgres/backlog" => backlog::run(bench, &postgres),
            "postgres/workers" => workers::run(bench, &postgres),
            "postgres/idle" => idle::run(bench, &postgres),
            case => bail!("no case {case}"),
        };
        for outcome in measured.with_context(|| (*case).to_owned())? {
            bench.record(outcome)?;
        }
    }
    Ok(())
}

/// One side of a comparison, and how to measure it once.
struct Side<'a> {
    name: &'static str,
    run: Box<dyn Fn() -> Result<f64> + 'a>,
}

impl<'a> Side<'a> {
    fn new(name: &'static str, run: impl Fn() -> Result<f64> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// The sides in turns, so that a busy minute hits all of them alike; each side's median.
fn in_turns(bench: &Bench, case: &str, sides: &[Side<'_>]) -> Result<Vec<f64>> {
    let repetitions = if bench.quick { 1 } else { 3 };
    let mut seen = vec![Vec::new(); sides.len()];
    for repetition in 1..=repetitions {
        for (side, seen) in sides.iter().zip(&mut seen) {
            let value = (side.run)().with_context(|| side.name)?;
            println!("{case} {repetition}/{repetitions} {:<26} {value:>12.1} per second", side.name);
            seen.push(value);
        }
    }
    Ok(seen.into_iter().map(median).collect())
}
