//! From stored to confirmed, while transactions come at their own pace, whether the last ones are done or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::super::Bench;
use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::servers;
use super::caudal::{Payments, payment};

const PER_SECOND: u64 = 2_000;
const ENDPOINT_MS: u32 = 5;
/// Each request brings some, so that putting in is not what is measured.
const PER_REQUEST: u64 = 20;
const CONNECTIONS: u64 = 4;

/// The middle and the end of how long it took, in milliseconds; then the same of a cron job that runs each full minute and is done
/// in no time.
const WAITED: &str = "
select concat_ws(' ', count(*), percentile_cont(0.5) within group (order by took), percentile_cont(0.99) within group (order by took),
    percentile_cont(0.5) within group (order by tick), percentile_cont(0.99) within group (order by tick))
from (select 1000 * extract(epoch from at - since)::float8 as took,
             1000 * (60 - extract(epoch from since)::float8 + 60 * floor(extract(epoch from since)::float8 / 60)) as tick
      from _confirm_outcomes where tx in (select _id from payments where payment_id >= $from)) waited";

pub(super) fn run(bench: &Bench, postgres: &Postgres) -> Result<Vec<Outcome>> {
    let seconds = if bench.quick { 5 } else { 120 };
    let endpoint = servers::endpoint(bench, ENDPOINT_MS)?;
    let database = postgres.database("caudal")?;
    let payments = Payments::new(bench, &database, endpoint.port, "")?;
    let (_api, port) = payments.api()?;
    let mut workers = payments.workers(1)?;
    // The first seconds are those of a process that starts.
    let warm = 3 * PER_SECOND;
    open_loop(port, 0, warm)?;
    open_loop(port, warm, seconds * PER_SECOND)?;
    let all = warm + seconds * PER_SECOND;
    workers[0].wait(Duration::from_secs(60), || {
        std::thread::sleep(Duration::from_millis(200));
        payments.outcomes().is_ok_and(|n| n >= all)
    })?;
    let said = database.sql(&WAITED.replace("$from", &format!("'p-{warm:010}'")))?;
    let numbers: Vec<f64> = said.split(' ').map(str::parse).collect::<Result<_, _>>().context(said.clone())?;
    let [count, p50, p99, cron50, cron99] = numbers[..] else { anyhow::bail!("{said}") };
    ensure!(count as u64 == seconds * PER_SECOND, "{count} outcomes were measured");
    Ok(vec![
        Outcome::new("postgres/latency-p50", p50, "ms").peer("cron each minute", cron50),
        Outcome::new("postgres/latency-p99", p99, "ms").peer("cron each minute", cron99),
    ])
}

/// Puts in `count` at the pace, over connections that take turns.
fn open_loop(port: u16, from: u64, count: u64) -> Result<()> {
    let start = Instant::now();
    let step = Duration::from_secs(1) / (PER_SECOND / PER_REQUEST) as u32;
    let requests = count / PER_REQUEST;
    let sent: Result<Vec<()>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|turn| {
                scope.spawn(move || -> Result<()> {
                    let mut connection = Connection::open(port)?;
                    for request in (turn..requests).step_by(CONNECTIONS as usize) {
                        let due = start + step * request as u32;
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        connection.put(from + request * PER_REQUEST, PER_REQUEST)?;
                    }
                    Ok(())
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender panicked")).collect()
    });
    sent?;
    let late = start.elapsed().saturating_sub(step * requests as u32);
    ensure!(late < Duration::from_secs(1), "the transactions came {late:?} late: the pace was not held");
    Ok(())
}

struct Connection {
    port: u16,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { port, stream: BufReader::new(stream) })
    }

    fn put(&mut self, from: u64, count: u64) -> Result<()> {
        let body: String = (from..from + count).map(|n| payment(n) + "\n").collect();
        let request = format!(
            "POST /v1/topics/payments/messages HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/x-ndjson\r\n\
             Prefer: return=minimal\r\nContent-Length: {}\r\n\r\n{body}",
            self.port,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length) = (String::new(), 0);
        self.stream.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            ensure!(!line.starts_with("transfer-encoding"), "an answer in chunks, which this does not read");
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        ensure!(status.starts_with("HTTP/1.1 2"), "{status}{}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
