//! What a broker holds goes into PostgreSQL: Caudal's worker beside the broker's own consume rate with its own client (no
//! store at all), `psql \\copy` of the same rows, and a FastStream service that inserts with asyncpg.
//!
//! Each side gets the same flights anew, published by Caudal, from the same queue. The limit is the slower of the broker
//! and the copy.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::caudal::{Caudal, Setup, command_for};
use super::postgres::Postgres;
use super::process::{Service, free_port, timed};
use super::results::Outcome;
use super::{Bench, bulk_postgres, interleave};
use crate::output_of;

pub(super) const CASES: &[&str] =
    &["postgres/rabbitmq", "postgres/nats", "postgres/redis", "postgres/kafka", "postgres/sqs"];

/// Any will do for an emulator of AWS.
const CREDENTIALS: &[(&str, &str)] = &[("AWS_ACCESS_KEY_ID", "bench"), ("AWS_SECRET_ACCESS_KEY", "bench")];
/// Counting the rows would cost what is being measured; the ledger that commits with them holds their number.
const STORED: &str = "select coalesce(sum(stored), 0) from _ledger where topic = 'flights'";
const PEER: &str = "select count(*) from peer_flights";
const DRAINED_WITHIN: Duration = Duration::from_secs(600);

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    cases.iter().try_for_each(|case| bench.record(Drain::new(bench, case)?.measure()?))
}

/// A broker of the benchmark's own, stopped when dropped.
struct Server {
    url: String,
    child: Child,
}

impl Server {
    fn start(bench: &Bench, name: &str) -> Result<Self> {
        let mut command = Command::new(&bench.limit_broker);
        // It ends when this end of the pipe does.
        let mut child = command.args(["serve", name]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("a pipe")?;
        let mut url = String::new();
        BufReader::new(out).read_line(&mut url)?;
        let url = url.trim().to_owned();
        ensure!(!url.is_empty(), "{name} did not start");
        Ok(Self { url, child })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

struct Drain<'a> {
    bench: &'a Bench,
    case: &'a str,
    broker: &'a str,
    server: Server,
    postgres: Postgres,
    /// Flights of one side's turn, and how many.
    flights: PathBuf,
    count: u64,
    /// Fewer for the peer: it would take minutes.
    few: PathBuf,
    few_count: u64,
    dir: PathBuf,
}

impl<'a> Drain<'a> {
    fn new(bench: &'a Bench, case: &'a str) -> Result<Self> {
        let broker = case.rsplit('/').next().unwrap_or(case);
        let dir = bench.dir(&format!("drain-{broker}"))?;
        // The emulator of SQS gives some hundreds a second.
        let (count, few_count) = match (broker, bench.quick) {
            ("sqs", _) => (2_000, 1_000),
            (_, true) => (20_000, 1_000),
            // The mock cluster keeps no more in a partition.
            ("kafka", false) => (50_000, 5_000),
            (_, false) => (100_000, 5_000),
        };
        let flights = head(bench, &dir, count)?;
        let few = head(bench, &dir, few_count)?;
        let postgres = Postgres::start(&dir)?;
        let server = Server::start(bench, broker)?;
        Ok(Self { bench, case, broker, server, postgres, flights, count, few, few_count, dir })
    }

    fn measure(&self) -> Result<Outcome> {
        let copy_file = self.first_drain()?;
        let measured =
            interleave(self.bench, self.case, ["broker", "copy", "caudal", "faststream"], |side| match side {
                "broker" => {
                    self.publish(&self.flights, self.count)?;
                    let mut consume = Command::new(&self.bench.limit_broker);
                    consume.args(["consume", self.broker, &self.server.url, "flights", &self.count.to_string()]);
                    consume.envs(CREDENTIALS.iter().copied());
                    let seconds: f64 = output_of(&mut consume)?.trim().parse().context("seconds")?;
                    Ok(self.count as f64 / seconds)
                }
                "copy" => {
                    self.postgres.sql("truncate flights")?;
                    self.postgres.settle()?;
                    Ok(self.count as f64 / self.postgres.timed(&self.copy("from", &copy_file)?)?)
                }
                "caudal" => self.caudal(),
                // FastStream has no SQS, of a Redis stream it reads only what FastStream wrote, and its Kafka client is given
                // nothing by the mock cluster.
                _ if ["sqs", "redis", "kafka"].contains(&self.broker) => Ok(f64::NAN),
                _ => self.faststream(),
            })?;
        let [broker, copy, caudal, faststream] = measured;
        let outcome = Outcome::new(self.case, caudal, "records/s").limit(broker.min(copy));
        let outcome = outcome.peer("broker's own client, no store", broker).peer("copy", copy);
        Ok(if faststream.is_finite() { outcome.peer("faststream", faststream) } else { outcome })
    }

    /// Makes the table, the queue and the rows that the copy takes.
    fn first_drain(&self) -> Result<PathBuf> {
        let file = self.dir.join("rows.copy");
        self.caudal()?;
        self.postgres.sql(&self.copy("to", &file)?)?;
        Ok(file)
    }

    fn copy(&self, direction: &str, file: &Path) -> Result<String> {
        let columns = bulk_postgres::columns(&self.postgres, "'_stored_at'")?;
        Ok(format!("\\copy flights ({columns}) {direction} '{}'", file.display()))
    }

    fn setup<'s>(&'s self, store: &'s str) -> Setup<'s> {
        Setup { store, broker: &self.server.url, data_dir: self.dir.clone(), environment: CREDENTIALS }
    }

    /// Fills the queue by an API process that then ends.
    fn publish(&self, flights: &Path, count: u64) -> Result<()> {
        let url = self.postgres.url();
        let api = Caudal::start_as(self.bench, &self.setup(&url), &["serve", "--role", "api"])?;
        let mut curl = api.upload();
        let (answer, _) =
            timed(curl.args(["--header", "Prefer: respond-async, return=minimal", "--upload-file"]).arg(flights))?;
        let report: serde_json::Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        ensure!(report["queued"].as_u64() == Some(count), "published {report}");
        Ok(())
    }

    /// From the first rows that a new worker stored until the last: what comes before is connecting (a Kafka group's first
    /// member is let in after seconds), which the broker's own client is not measured on either.
    fn caudal(&self) -> Result<f64> {
        self.publish(&self.flights, self.count)?;
        // Only the first time there is none.
        self.postgres.sql("do $$ begin truncate flights; exception when undefined_table then null; end $$")?;
        let before: u64 = self.postgres.sql(STORED).ok().and_then(|count| count.parse().ok()).unwrap_or_default();
        self.postgres.settle()?;
        let url = self.postgres.url();
        let command = command_for(self.bench, &self.setup(&url), free_port()?, &["serve", "--role", "worker"])?;
        let mut worker = Service::start("worker", &command, &self.bench.work.join("worker.log"), Signal::TERM)?;
        let first = self.wait_for(STORED, before + 1, &mut worker)?;
        let start = Instant::now();
        self.wait_for(STORED, before + self.count, &mut worker)?;
        Ok((before + self.count - first) as f64 / start.elapsed().as_secs_f64())
    }

    /// The peer counts its own rows from its own table.
    fn faststream(&self) -> Result<f64> {
        let run = self.bench.root.join("bench/peers/faststream/run");
        self.postgres.sql("drop table if exists peer_flights")?;
        self.publish(&self.few, self.few_count)?;
        let mut command = Command::new(run);
        command.args([self.broker, &self.server.url]).env("DATABASE_URL", self.postgres.url());
        let log = self.bench.work.join("faststream.log");
        let mut service = Service::start("faststream", &command, &log, Signal::TERM)?;
        // Its start (an interpreter, imports, the first run's installation) is not its rate.
        let before = self.wait_for(PEER, 1, &mut service)?;
        let start = Instant::now();
        self.wait_for(PEER, self.few_count, &mut service)?;
        Ok((self.few_count - before) as f64 / start.elapsed().as_secs_f64())
    }

    /// Returns the count it saw.
    fn wait_for(&self, count: &str, wanted: u64, service: &mut Service) -> Result<u64> {
        let mut seen = 0;
        service
            .wait(DRAINED_WITHIN, || {
                std::thread::sleep(Duration::from_millis(20));
                seen = self.postgres.sql(count).ok().and_then(|count| count.parse().ok()).unwrap_or_default();
                seen >= wanted
            })
            .with_context(|| format!("{seen} of {wanted} rows are there"))?;
        Ok(seen)
    }
}

/// The first flights of the file, as a file.
fn head(bench: &Bench, dir: &Path, count: u64) -> Result<PathBuf> {
    let to = dir.join(format!("flights-{count}.ndjson"));
    let mut head = Command::new("head");
    head.arg("-n").arg(count.to_string()).arg(&bench.flights).stdout(std::fs::File::create(&to)?);
    ensure!(head.status()?.success(), "head failed");
    Ok(to)
}
