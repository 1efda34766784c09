//! The servers that Caudal is compared with over HTTP.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use super::Bench;
use super::postgres::Postgres;
use super::process::{Service, answers, free_port, need};

/// A server and where it is.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    _service: Service,
}

impl Server {
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The handler that does nothing.
pub(super) fn noop(bench: &Bench) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(&bench.noop);
    start(bench, "limit-noop", command.arg(port.to_string()), port)
}

/// The endpoint that confirms whatever it is asked, after `ms`.
pub(super) fn endpoint(bench: &Bench, ms: u32) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(&bench.noop);
    command.arg(port.to_string());
    if ms > 0 {
        command.arg(ms.to_string());
    }
    start(bench, "endpoint", &command, port)
}

/// `bench/peers/fastapi` over the same PostgreSQL. The first start installs its packages.
pub(super) fn fastapi(bench: &Bench, postgres: &Postgres, workers: u32) -> Result<Server> {
    need("python3", "python3 python3-venv")?;
    let port = free_port()?;
    let mut command = Command::new(bench.root.join("bench/peers/fastapi/run"));
    command.arg(port.to_string()).env("DATABASE_URL", postgres.url());
    command.env("WORKERS", workers.to_string());
    start(bench, "fastapi", &command, port)
}

/// `bench/peers/datasette` over a SQLite database with all flights, as it comes or as its documentation advises.
pub(super) fn datasette(bench: &Bench, tuned: bool) -> Result<Server> {
    let port = free_port()?;
    let flights = bench.work.join("flights.ndjson");
    std::fs::copy(&bench.flights, &flights)?;
    let mut command = Command::new(bench.root.join("bench/peers/datasette/run"));
    command.arg(port.to_string()).arg(&flights);
    if tuned {
        command.env("TUNED", "1");
    }
    start_at(bench, "datasette", &command, port, "/-/versions.json")
}

/// `bench/peers/roapi` with the rows of a file in memory.
pub(super) fn roapi(bench: &Bench, file: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut command = Command::new(bench.root.join("bench/peers/roapi/run"));
    start_at(bench, "roapi", command.arg(port.to_string()).arg(file), port, "/health")
}

fn start(bench: &Bench, name: &str, command: &Command, port: u16) -> Result<Server> {
    start_at(bench, name, command, port, "/ping")
}

fn start_at(bench: &Bench, name: &str, command: &Command, port: u16, path: &str) -> Result<Server> {
    let log = bench.work.join(format!("{name}.log"));
    let mut service = Service::start(name, command, &log, Signal::TERM)?;
    let ready = service.wait(Duration::from_secs(300), || answers(port, path));
    ready.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    Ok(Server { port, _service: service })
}
