//! What PostgreSQL itself can do: the statements of a batch from `pgbench`, over four connections, with nobody called.

use anyhow::{Context, Result, ensure};

use super::super::Bench;
use super::caudal::Payments;
use crate::output_of;

const SCRIPT: &str = include_str!("limit.sql");
const CONNECTIONS: u64 = 4;

/// Confirms `batches` for each connection out of what is pending; transactions a second.
pub(super) fn claim_and_settle(bench: &Bench, payments: &Payments<'_>, batch: u64, batches: u64) -> Result<f64> {
    let script = bench.work.join("limit.sql");
    std::fs::write(&script, SCRIPT)?;
    let database = payments.database;
    let lane = database.sql("select lane from _confirm_lanes where topic = 'payments'")?;
    let before = payments.outcomes()?;
    database.server.settle()?;
    let connections = CONNECTIONS.to_string();
    let (batches_each, lane, size) = (batches.to_string(), format!("lane={lane}"), format!("batch={batch}"));
    let options =
        ["-n", "-M", "prepared", "-c", &connections, "-j", "2", "-t", &batches_each, "-D", &lane, "-D", &size];
    let mut pgbench = database.pgbench();
    pgbench.args(options).args(["-D", "pos=0", "-f"]).arg(&script);
    let said = output_of(&mut pgbench)?;
    let done = payments.outcomes()? - before;
    ensure!(done == CONNECTIONS * batches * batch, "{done} outcomes: {said}");
    let tps = said.lines().find_map(|line| line.strip_prefix("tps = ")).context("pgbench says no tps")?;
    let tps: f64 = tps.split(' ').next().unwrap_or_default().parse()?;
    Ok(tps * batch as f64)
}

/// What one turn takes out of what is pending, for [`claim_and_settle`].
pub(super) const fn items(batch: u64, batches: u64) -> u64 {
    CONNECTIONS * batches * batch
}
