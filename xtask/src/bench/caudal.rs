//! The program under test: started with a configuration of its own, sent files to, asked for its memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use super::Bench;
use super::process::{Service, answers, free_port, http_get, timed};

#[derive(Debug)]
pub(super) struct Caudal {
    pub(super) port: u16,
    service: Service,
}

/// How one server is started.
#[derive(Debug, Clone)]
pub(super) struct Setup<'a> {
    /// `sqlite:…` or `postgres://…`.
    pub(super) store: &'a str,
    /// `none:` or `embedded:`.
    pub(super) broker: &'a str,
    pub(super) data_dir: PathBuf,
    pub(super) environment: &'a [(&'a str, &'a str)],
}

/// The command that serves `setup` on `port`, with the flights as a typed topic.
pub(super) fn command(bench: &Bench, setup: &Setup<'_>, port: u16) -> Result<Command> {
    command_for(bench, setup, port, &["up"])
}

/// The same with other words for the program.
pub(super) fn command_for(bench: &Bench, setup: &Setup<'_>, port: u16, words: &[&str]) -> Result<Command> {
    std::fs::create_dir_all(&setup.data_dir)?;
    let schema = bench.root.join("examples/flights/flights.schema.json");
    let config = format!(
        "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[store]\nurl = {:?}\n[broker]\nurl = {:?}\n[topics.flights]\n\
         schema = {schema:?}\nkey = [\"time_hour\", \"carrier\", \"flight\", \"origin\"]\n",
        setup.data_dir, setup.store, setup.broker
    );
    let file = setup.data_dir.join("caudal.toml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(&bench.binary);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUDAL_") || name == "DATABASE_URL") {
        command.env_remove(name);
    }
    command.envs(setup.environment.iter().copied());
    // By the environment: nothing in the command line looks like the server that somebody else on this machine restarts.
    command.env("CAUDAL_CONFIG", file).args(words);
    Ok(command)
}

impl Caudal {
    pub(super) fn start(bench: &Bench, setup: &Setup<'_>) -> Result<Self> {
        Self::start_as(bench, setup, &["up"])
    }

    /// Starts `caudal WORDS`, which must serve HTTP.
    pub(super) fn start_as(bench: &Bench, setup: &Setup<'_>, words: &[&str]) -> Result<Self> {
        let port = free_port()?;
        let command = command_for(bench, setup, port, words)?;
        let log = bench.work.join("caudal.log");
        let mut service = Service::start("caudal", &command, &log, Signal::TERM)?;
        let ready = service.wait(Duration::from_secs(60), || answers(port, "/readyz"));
        ready.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(Self { port, service })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Streams a file into the topic; what the server reports, and the seconds of the whole client run.
    pub(super) fn publish(&self, file: &Path) -> Result<(Value, f64)> {
        let mut curl = self.upload();
        let (answer, seconds) = timed(curl.arg("--upload-file").arg(file))?;
        Ok((serde_json::from_str(&answer).with_context(|| answer.clone())?, seconds))
    }

    /// `curl` that posts NDJSON; the caller says from where.
    pub(super) fn upload(&self) -> Command {
        let mut curl = Command::new("curl");
        let headers = ["Content-Type: application/x-ndjson", "Prefer: return=minimal", "Expect:"];
        curl.args(["--silent", "--show-error", "--request", "POST"]);
        curl.args(headers.iter().flat_map(|header| ["--header", header])).arg(self.url("/v1/topics/flights/messages"));
        curl
    }

    /// Publishes and insists on the outcome.
    pub(super) fn publish_expecting(&self, file: &Path, stored: u64, duplicate: u64) -> Result<f64> {
        let (report, seconds) = self.publish(file)?;
        let count = |name: &str| report[name].as_u64().unwrap_or(u64::MAX);
        ensure!(
            count("stored") == stored && count("duplicate") == duplicate && count("dead") == 0,
            "expected {stored} stored and {duplicate} duplicates, was told {report}"
        );
        Ok(seconds)
    }

    /// Waits until nothing is queued any more, so that the next measurement has the machine for itself.
    pub(super) fn drained(&mut self) -> Result<()> {
        let port = self.port;
        self.service.wait(Duration::from_secs(600), || {
            std::thread::sleep(Duration::from_millis(100));
            let Ok((200, body)) = http_get(port, "/v1/reconcile") else { return false };
            let Ok(books) = serde_json::from_str::<Value>(&body) else { return false };
            let queued = |topic: &Value| topic["in_flight"].as_u64() == Some(0);
            books["topics"].as_array().is_some_and(|topics| topics.iter().all(queued))
        })
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        memory(self.service.id())
    }

    /// Forgets the peak so far, as far as the kernel lets us.
    pub(super) fn reset_peak(&self) -> Result<()> {
        std::fs::write(format!("/proc/{}/clear_refs", self.service.id()), "5")
            .context("cannot reset the peak of memory")
    }
}

/// Resident memory in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) now: u64,
    pub(super) peak: u64,
}

pub(super) fn memory(pid: u32) -> Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let bytes = |name: &str| -> Result<u64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name} in status"))?;
        let kb: u64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok(kb * 1024)
    };
    Ok(Memory { now: bytes("VmRSS")?, peak: bytes("VmHWM")? })
}
