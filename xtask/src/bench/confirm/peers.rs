//! Queues in PostgreSQL that people would use instead (`bench/peers/confirm`), each at its defaults and at the best of its documented
//! settings.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::super::Bench;
use super::super::postgres::Postgres;
use super::super::process::Service;
use super::super::results::Outcome;
use super::{Side, drain, in_turns, limit};
use crate::output_of;

/// A peer is measured this long at most.
const WINDOW: Duration = Duration::from_secs(5);

pub(super) struct Peer {
    /// As it is shown.
    name: &'static str,
    program: &'static str,
    settings: &'static str,
    /// More than it does within the window, as far as putting them in takes no minutes.
    jobs: u64,
    /// How many are done, of `$jobs`.
    done: &'static str,
}

const GRAPHILE: &str = "select $jobs - count(*) from graphile_worker._private_jobs";
const PG_BOSS: &str = "select count(*) from pgboss.job where state = 'completed'";
const PROCRASTINATE: &str = "select count(*) from procrastinate_jobs where status = 'succeeded'";
const PGQUEUER: &str = "select count(*) from pgqueuer_log where status = 'successful'";
/// Its view of terminal jobs takes minutes; this is what the view adds up.
const AWA: &str = "select (select coalesce(sum(completed_count), 0) from awa.receipt_completion_batches)
    + (select count(*) from awa.done_entries)";

pub(super) const PEERS: [Peer; 10] = [
    peer("graphile-worker default", "graphile-worker", "default", 5_000, GRAPHILE),
    peer("graphile-worker", "graphile-worker", "best", 100_000, GRAPHILE),
    peer("pg-boss default", "pg-boss", "default", 100, PG_BOSS),
    peer("pg-boss", "pg-boss", "best", 100_000, PG_BOSS),
    peer("procrastinate default", "procrastinate", "default", 3_000, PROCRASTINATE),
    peer("procrastinate", "procrastinate", "best", 3_000, PROCRASTINATE),
    peer("pgqueuer default", "pgqueuer", "default", 15_000, PGQUEUER),
    peer("pgqueuer", "pgqueuer", "best", 80_000, PGQUEUER),
    peer("awa default", "awa", "default", 12_000, AWA),
    peer("awa", "awa", "best", 16_000, AWA),
];

const fn peer(
    name: &'static str,
    program: &'static str,
    settings: &'static str,
    jobs: u64,
    done: &'static str,
) -> Peer {
    Peer { name, program, settings, jobs, done }
}

impl Peer {
    fn command(&self, bench: &Bench, url: &str, words: &[&str]) -> Command {
        let mut command = Command::new(bench.root.join("bench/peers/confirm/run"));
        command.args([self.program, self.settings]).args(words).env("DATABASE_URL", url);
        command
    }

    /// Jobs that are done a second. Its best settings come with an eager autovacuum, its defaults with PostgreSQL's.
    fn rate(&self, bench: &Bench, postgres: &Postgres, endpoint: Option<&str>) -> Result<f64> {
        match self.settings {
            "best" => autovacuum(postgres, "0.01", "0", "5s")?,
            _ => autovacuum(postgres, "0.2", "2ms", "60s")?,
        }
        let database = postgres.database("peer")?;
        let jobs = if bench.quick { self.jobs.min(20_000) } else { self.jobs };
        output_of(&mut self.command(bench, &database.url(), &["enqueue", &jobs.to_string()]))?;
        database.sql("analyze")?;
        postgres.settle()?;
        let words: Vec<&str> = ["work"].into_iter().chain(endpoint).collect();
        let log = bench.work.join(format!("{}.log", self.program));
        let command = self.command(bench, &database.url(), &words);
        let mut service = [Service::start(self.name, &command, &log, Signal::TERM)?];
        let sql = self.done.replace("$jobs", &jobs.to_string());
        let rate = drain::rate(&mut service, jobs, WINDOW, || Ok(database.number(&sql)? as u64));
        rate.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
    }
}

pub(super) fn install(bench: &Bench) -> Result<()> {
    output_of(Command::new(bench.root.join("bench/peers/confirm/run")).arg("install")).map(drop)
}

fn autovacuum(postgres: &Postgres, scale: &str, delay: &str, nap: &str) -> Result<()> {
    postgres.set(&[
        ("autovacuum_vacuum_scale_factor", scale),
        ("autovacuum_vacuum_cost_delay", delay),
        ("autovacuum_naptime", nap),
    ])
}

/// All peers as sides; `None`: their handlers do nothing.
pub(super) fn sides<'a>(bench: &'a Bench, postgres: &'a Postgres, endpoint: Option<&'a str>) -> Vec<Side<'a>> {
    PEERS.iter().map(|peer| Side::new(peer.name, move || peer.rate(bench, postgres, endpoint))).collect()
}

/// Adds the peers that were measured after `before` other sides.
pub(super) fn compared(outcome: Outcome, measured: &[f64], before: usize) -> Outcome {
    PEERS.iter().zip(&measured[before..]).fold(outcome, |outcome, (peer, rate)| outcome.peer(peer.name, *rate))
}

/// Claiming and settling in SQL, a hundred and a thousand at a time, beside the peers with handlers that do nothing.
pub(super) fn claim_settle(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    install(bench)?;
    let mut sides = vec![
        Side::new("claim-settle 100", || limit::claim_and_settle(bench, postgres, 100)),
        Side::new("claim-settle 1000", || limit::claim_and_settle(bench, postgres, 1_000)),
    ];
    sides.extend(self::sides(bench, postgres, None));
    let measured = in_turns(bench, "postgres/claim-settle", &sides)?;
    ensure!(measured.len() == 2 + PEERS.len(), "a side is missing");
    let outcome = |case: &str, n: usize| Outcome::new(case, measured[n], "transactions/s");
    Ok(vec![
        compared(outcome("postgres/claim-settle-100", 0), &measured, 2),
        compared(outcome("postgres/claim-settle-1000", 1), &measured, 2),
    ])
}
