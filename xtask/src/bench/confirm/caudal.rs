//! Caudal over one PostgreSQL: transactions put in over HTTP, and workers that confirm them.

use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::super::Bench;
use super::super::caudal::{Memory, memory};
use super::super::postgres::Database;
use super::super::process::{Service, answers, free_port};

/// Each row that is there is a transaction that has ended.
pub(super) const OUTCOMES: &str = "select count(*) from _confirm_outcomes";

const COUNTED: &str = "select coalesce(sum(confirmed + rejected + void), 0) from _confirm_counts";

/// A topic of payments that an endpoint confirms.
pub(super) struct Payments<'a> {
    bench: &'a Bench,
    pub(super) database: &'a Database<'a>,
    /// The endpoint's.
    port: u16,
    /// Lines of `[topics.payments.confirm]` besides.
    settings: String,
    dir: PathBuf,
}

/// The body of one call, and of one job of a peer: 200 bytes.
pub(super) fn payment(n: u64) -> String {
    let head = format!(r#"{{"payment_id":"p-{n:010}","amount":1999,"note":""#);
    format!("{head}{}\"}}", "x".repeat(200 - head.len() - 2))
}

impl<'a> Payments<'a> {
    pub(super) fn new(bench: &'a Bench, database: &'a Database<'a>, port: u16, settings: &str) -> Result<Self> {
        let dir = bench.dir("payments")?;
        let string = json!({ "type": "string" });
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Payment", "type": "object",
            "properties": { "payment_id": string, "amount": { "type": "integer" }, "note": string },
            "required": ["payment_id", "amount", "note"],
        });
        std::fs::write(dir.join("payment.schema.json"), schema.to_string())?;
        Ok(Self { bench, database, port, settings: settings.to_owned(), dir })
    }

    /// `name` tells processes apart that run at the same time.
    fn command(&self, name: &str, role: &str, listen: u16) -> Result<Command> {
        let data = self.dir.join(name);
        std::fs::create_dir_all(&data)?;
        let config = format!(
            "data_dir = {data:?}\n[http]\nlisten = \"127.0.0.1:{listen}\"\n[store]\nurl = {:?}\n[broker]\nurl = \"none:\"\n\
             [topics.payments]\nschema = {:?}\nkey = [\"payment_id\"]\n\
             [topics.payments.confirm]\nurl = \"http://127.0.0.1:{}/confirm\"\nkey_retention = \"1d\"\n{}\n",
            self.database.url(),
            self.dir.join("payment.schema.json"),
            self.port,
            self.settings
        );
        let file = data.join("caudal.toml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(&self.bench.binary);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CAUDAL_") || name == "DATABASE_URL") {
            command.env_remove(name);
        }
        command.env("CAUDAL_CONFIG", file).args(["serve", "--role", role]);
        Ok(command)
    }

    /// A process that takes transactions; with its port.
    pub(super) fn api(&self) -> Result<(Service, u16)> {
        let port = free_port()?;
        let log = self.bench.work.join("caudal-api.log");
        let mut service = Service::start("caudal api", &self.command("api", "api", port)?, &log, Signal::TERM)?;
        let ready = service.wait(Duration::from_secs(60), || answers(port, "/readyz"));
        ready.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok((service, port))
    }

    /// Workers, which begin at once.
    pub(super) fn workers(&self, count: usize) -> Result<Vec<Service>> {
        let log = self.bench.work.join("caudal-confirm.log");
        (1..=count)
            .map(|n| {
                let command = self.command(&format!("worker-{n}"), "confirm", free_port()?)?;
                Service::start("caudal confirm", &command, &log, Signal::TERM)
            })
            .collect()
    }

    /// Transactions number `from` until `from + count`, all pending when this returns.
    pub(super) fn fill(&self, from: u64, count: u64) -> Result<()> {
        let (_api, port) = self.api()?;
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--request", "POST", "--upload-file", "-"]);
        for header in ["Content-Type: application/x-ndjson", "Prefer: return=minimal", "Expect:"] {
            curl.args(["--header", header]);
        }
        curl.arg(format!("http://127.0.0.1:{port}/v1/topics/payments/messages"));
        let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut body = BufWriter::with_capacity(1 << 20, curl.stdin.take().context("a pipe")?);
        for n in from..from + count {
            writeln!(body, "{}", payment(n))?;
        }
        drop(body.into_inner()?);
        let answer = String::from_utf8(curl.wait_with_output()?.stdout)?;
        let report: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        ensure!(report["stored"].as_u64() == Some(count), "put in {report} instead of {count}");
        Ok(())
    }

    pub(super) fn outcomes(&self) -> Result<u64> {
        Ok(self.database.number(OUTCOMES)? as u64)
    }

    /// How many they are by the count that is kept beside them: to ask for it costs nothing that grows with them.
    pub(super) fn counted(&self) -> Result<u64> {
        Ok(self.database.number(COUNTED)? as u64)
    }
}

pub(super) fn memory_of(service: &Service) -> Result<Memory> {
    memory(service.id())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_payment_is_two_hundred_bytes_of_json() {
        for n in [0, 4_999_999] {
            let text = super::payment(n);
            assert_eq!(text.len(), 200);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["payment_id"], format!("p-{n:010}"));
        }
    }
}
