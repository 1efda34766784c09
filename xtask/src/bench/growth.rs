//! `growth`: how much more memory Caudal takes while much more data than that goes through it. DESIGN's bound is 64 MiB.

use std::io::{BufWriter, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::bulk::BulkStore;
use super::bulk_postgres::BulkPostgres;
use super::bulk_sqlite::BulkSqlite;
use super::caudal::{Caudal, Setup};
use super::postgres::Postgres;
use super::results::Outcome;
use super::{Bench, FLIGHTS};

pub(super) const CASES: &[&str] = &["postgres/upload", "sqlite/upload", "postgres/table", "sqlite/table"];

const MIB: f64 = 1_048_576.0;
/// What a reader on an ordinary network takes.
const BYTES_PER_SECOND: &str = "40M";

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    let postgres =
        cases.iter().any(|case| case.starts_with("postgres/")).then(|| Postgres::start(&bench.work)).transpose()?;
    for case in cases {
        let growth = match (*case, &postgres) {
            ("postgres/upload", Some(postgres)) => upload(bench, &postgres.url())?,
            ("postgres/table", Some(postgres)) => {
                postgres.sql("drop table if exists flights, kept")?;
                table(bench, &BulkPostgres::new(bench, postgres)?)?
            }
            ("sqlite/upload", _) => upload(bench, "sqlite:caudal.db")?,
            _ => table(bench, &BulkSqlite::new(bench)?)?,
        };
        let verdict = if growth <= 64.0 { "within" } else { "ABOVE" };
        println!("{case}: {growth:.1} MiB, {verdict} the bound of 64 MiB");
        bench.record(Outcome::new(*case, growth, "MiB"))?;
    }
    Ok(())
}

/// The peak above what was resident before, in MiB.
pub(super) fn growth_while(caudal: &Caudal, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    caudal.reset_peak()?;
    let before = caudal.memory()?.now;
    work()?;
    Ok(caudal.memory()?.peak.saturating_sub(before) as f64 / MIB)
}

/// Two gigabytes of flights that nobody has sent before, made while they are sent.
fn upload(bench: &Bench, store: &str) -> Result<f64> {
    let setup = Setup { store, broker: "none:", data_dir: bench.dir("upload")?, environment: &[] };
    let caudal = Caudal::start(bench, &setup)?;
    let bytes_wanted: u64 = if bench.quick { 200_000_000 } else { 2_000_000_000 };
    growth_while(&caudal, || {
        let mut curl = caudal.upload();
        curl.args(["--upload-file", "-", "--header", "Transfer-Encoding: chunked"]);
        let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("curl has no input")?;
        let lines = write_flights(BufWriter::with_capacity(1 << 20, input), bytes_wanted)?;
        let output = child.wait_with_output()?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(answer["stored"].as_u64() == Some(lines), "sent {lines} lines, was told {answer}");
        println!("  {lines} records, {bytes_wanted} bytes");
        Ok(())
    })
}

fn write_flights(mut out: impl Write, bytes_wanted: u64) -> Result<u64> {
    let head = "{\"year\":2013,\"month\":1,\"day\":1,\"dep_time\":517,\"sched_dep_time\":515,\"dep_delay\":2,\"arr_time\":830,\
        \"sched_arr_time\":819,\"arr_delay\":11,\"carrier\":\"UA\",\"tailnum\":\"N14228\",\"origin\":\"EWR\",\"dest\":\"IAH\",\
        \"air_time\":227,\"distance\":1400,\"hour\":5,\"minute\":15,\"time_hour\":\"2013-01-01T10:00:00Z\",\"flight\":";
    let (mut lines, mut bytes) = (0, 0);
    while bytes < bytes_wanted {
        lines += 1;
        let line = format!("{head}{lines}}}\n");
        out.write_all(line.as_bytes())?;
        bytes += line.len() as u64;
    }
    out.flush()?;
    Ok(lines)
}

/// More than a gigabyte of rows, read whole by a client that takes its time.
fn table(bench: &Bench, store: &dyn BulkStore) -> Result<f64> {
    let rows = if bench.quick { 500_000 } else { 4_000_000 };
    let caudal = store.caudal(bench)?;
    caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
    store.keep()?;
    store.fill(rows)?;
    store.settle()?;
    // Anew: memory that the upload left behind would hide what the read takes.
    drop(caudal);
    let caudal = store.caudal(bench)?;
    growth_while(&caudal, || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--header", "Accept: application/x-ndjson"]);
        curl.args(["--limit-rate", BYTES_PER_SECOND, "--output", "/dev/null", "--write-out", "%{size_download}"]);
        let bytes = crate::output_of(curl.arg(caudal.url("/rest/v1/flights")))?;
        println!("  {} records, {bytes} bytes", rows + FLIGHTS);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_made_until_there_are_enough_bytes() {
        let mut out = Vec::new();
        let lines = super::write_flights(&mut out, 1_000).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count() as u64, lines);
        assert!(
            text.len() >= 1_000 && text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok())
        );
    }
}
