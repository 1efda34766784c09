//! What PostgreSQL itself can do: the statements of a batch from `pgbench`, over four connections, with nobody called.

use anyhow::{Context, Result, ensure};

use super::super::Bench;
use super::super::postgres::{Database, Postgres};
use super::caudal::{OUTCOMES, payment};
use crate::output_of;

const SCRIPT: &str = include_str!("limit.sql");
const CONNECTIONS: u64 = 4;
/// The store's own tables.
const TABLES: [&str; 2] = ["0004_confirm.sql", "0005_confirm_find.sql"];

/// Records of as many bytes as Caudal's, all pending.
const FILL: &str = "
create table payments (_id uuid primary key, _stored_at timestamptz not null default now(), payment_id text not null,
                       amount bigint not null, note text not null, _extra jsonb);
insert into payments (_id, payment_id, amount, note)
  select gen_random_uuid(), 'p-' || lpad(n::text, 10, '0'), 1999, $note from generate_series(1, $count) n;
insert into _confirm_lanes (topic, name, adopts) values ('payments', 'default', false);
insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
  select l.lane, 0, p._id, 0, 0, false, true, clock_timestamp() from payments p, _confirm_lanes l;
analyze";

/// Transactions a second, claimed and settled `batch` at a time.
pub(super) fn claim_and_settle(bench: &Bench, postgres: &Postgres, batch: u64) -> Result<f64> {
    let batches = if bench.quick { 40_000 } else { 200_000 } / (CONNECTIONS * batch);
    let count = CONNECTIONS * batch * batches;
    let database = postgres.database("claim_settle")?;
    fill(bench, &database, count)?;
    let script = bench.work.join("limit.sql");
    std::fs::write(&script, SCRIPT)?;
    postgres.settle()?;
    let mut pgbench = database.pgbench();
    pgbench.args(["-n", "-M", "prepared", "-j", "2", "-D", "pos=0", "-D", "lane=1"]);
    pgbench.args(["-c", &CONNECTIONS.to_string(), "-t", &batches.to_string(), "-D", &format!("batch={batch}")]);
    let said = output_of(pgbench.arg("-f").arg(&script))?;
    let done = database.number(OUTCOMES)? as u64;
    ensure!(done == count, "{done} outcomes instead of {count}: {said}");
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench says no tps")?;
    let tps: f64 = tps.split(' ').next().unwrap_or_default().parse()?;
    Ok(tps * batch as f64)
}

fn fill(bench: &Bench, database: &Database<'_>, count: u64) -> Result<()> {
    let migrations = bench.root.join("crates/caudal-store/src/postgres/migrations");
    for file in TABLES {
        output_of(database.psql().arg("-f").arg(migrations.join(file)))?;
    }
    let note: serde_json::Value = serde_json::from_str(&payment(0))?;
    let note = format!("'{}'", note["note"].as_str().unwrap_or_default());
    database.sql(&FILL.replace("$note", &note).replace("$count", &count.to_string())).map(drop)
}
