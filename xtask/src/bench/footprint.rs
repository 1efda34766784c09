//! `footprint`: what Caudal takes of a machine. Nothing here has a limit to be compared with; DESIGN names the targets.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::bulk::BulkStore;
use super::bulk_postgres::BulkPostgres;
use super::caudal::{self, Caudal, Setup};
use super::postgres::Postgres;
use super::process::free_port;
use super::results::Outcome;
use super::{Bench, FLIGHTS, median};
use crate::output_of;

pub(super) const CASES: &[&str] =
    &["sqlite/idle", "postgres/bulk-peak", "sqlite/bulk-peak", "first-start", "start", "binary", "crates"];

const MB: f64 = 1e6;

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    for case in cases {
        let (value, unit) = match *case {
            "sqlite/idle" => (idle(bench)?, "MB"),
            "postgres/bulk-peak" => (bulk_peak(bench, true)?, "MB"),
            "sqlite/bulk-peak" => (bulk_peak(bench, false)?, "MB"),
            "first-start" => (start(bench, true)?, "ms"),
            "start" => (start(bench, false)?, "ms"),
            "binary" => (std::fs::metadata(&bench.binary)?.len() as f64 / MB, "MB"),
            _ => (crates(bench)?, "crates"),
        };
        println!("{case} {value:.1} {unit}");
        bench.record(Outcome::new(*case, value, unit))?;
    }
    Ok(())
}

/// `caudal up` as it comes: SQLite and the embedded topic, two seconds after it answers.
fn idle(bench: &Bench) -> Result<f64> {
    let caudal = Caudal::start(bench, &as_it_comes(bench, "idle")?)?;
    std::thread::sleep(Duration::from_secs(2));
    Ok(caudal.memory()?.now as f64 / MB)
}

fn as_it_comes(bench: &Bench, dir: &str) -> Result<Setup<'static>> {
    Ok(Setup { store: "sqlite:caudal.db", broker: "embedded:", data_dir: bench.dir(dir)?, environment: &[] })
}

/// The highest resident memory while all flights are posted.
fn bulk_peak(bench: &Bench, to_postgres: bool) -> Result<f64> {
    let peak = |caudal: Caudal| -> Result<f64> {
        caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
        Ok(caudal.memory()?.peak as f64 / MB)
    };
    if to_postgres {
        let postgres = Postgres::start(&bench.work)?;
        return peak(BulkPostgres::new(bench, &postgres)?.caudal(bench)?);
    }
    let setup = Setup { store: "sqlite:caudal.db", broker: "none:", data_dir: bench.dir("peak")?, environment: &[] };
    peak(Caudal::start(bench, &setup)?)
}

/// Milliseconds from exec to the first 200 of `/ping`, median of ten; the first start makes its database.
fn start(bench: &Bench, first: bool) -> Result<f64> {
    let mut setup = as_it_comes(bench, "start")?;
    let mut seen = Vec::new();
    if !first {
        drop(Caudal::start(bench, &setup)?);
    }
    for _ in 0..10 {
        if first {
            setup = as_it_comes(bench, "start")?;
        }
        seen.push(start_once(bench, &setup)?);
    }
    Ok(median(seen))
}

fn start_once(bench: &Bench, setup: &Setup<'_>) -> Result<f64> {
    let port = free_port()?;
    let mut command = caudal::command(bench, setup, port)?;
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let answered = loop {
        if ping(port) {
            break Some(begun.elapsed());
        }
        if begun.elapsed() > Duration::from_secs(20) || !matches!(child.try_wait(), Ok(None)) {
            break None;
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    if let Some(pid) = rustix::process::Pid::from_raw(child.id() as i32) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    child.wait()?;
    let answered = answered.map(|time| time.as_secs_f64() * 1e3);
    ensure!(answered.is_some(), "caudal did not start");
    Ok(answered.unwrap_or_default())
}

fn ping(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = [0; 12];
    write!(stream, "GET /ping HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.ends_with(b"200")
}

/// Crates in the default program's dependency tree, build dependencies included.
fn crates(bench: &Bench) -> Result<f64> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(&bench.root).args([
        "tree",
        "--package",
        "caudal",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--no-dedupe",
    ]);
    let output = output_of(&mut cargo)?;
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let crates: BTreeSet<String> = output.lines().filter(|line| !line.is_empty()).map(name).collect();
    Ok(crates.len() as f64)
}
