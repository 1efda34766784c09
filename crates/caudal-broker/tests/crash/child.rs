//! The process that is killed: it publishes and consumes, and writes down what it was told, line by line, in files that
//! the kill leaves alone.
//!
//! `acked`: numbers whose publish returned. `stored`: `offset number` of what a subscriber received, written before it
//! acks, as a store would commit it. `errors`: what publishers were told instead.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::error::BrokerError;
use caudal_core::ports::{Broker, Publish, Subscription};
use caudal_testkit::broker::{messages, next, topic};

use super::oracle;

pub(crate) const PUBLISHERS: u64 = 3;
/// Messages of one publisher in one round.
pub(crate) const EACH: u64 = 60;
pub(crate) const FAILED: i32 = 3;
pub(crate) const IN_USE: i32 = 4;

pub(crate) fn config() -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: 4096,
        retention_age: Duration::ZERO,
        retention_every: Duration::from_millis(1),
        ..EmbeddedConfig::default()
    }
}

/// Runs this test binary again as a child in `dir`.
pub(crate) fn command(dir: &Path, round: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary has a path"));
    command
        .args(["--exact", "child::child", "--nocapture"])
        .env("CAUDAL_TEST_DIR", dir)
        .env("CAUDAL_TEST_ROUND", round.to_string())
        .stdout(Stdio::null());
    command
}

pub(crate) fn run(dir: &Path, round: u64, variables: &[(&str, &str)]) -> ExitStatus {
    command(dir, round).envs(variables.iter().copied()).status().expect("the child starts")
}

/// Does nothing unless a test started it as a child.
#[test]
fn child() {
    let Ok(dir) = std::env::var("CAUDAL_TEST_DIR") else { return };
    let round = std::env::var("CAUDAL_TEST_ROUND").ok().and_then(|round| round.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let code = runtime.expect("a runtime").block_on(work(dir.into(), round));
    std::process::exit(code);
}

async fn work(dir: PathBuf, round: u64) -> i32 {
    let broker = match EmbeddedBroker::open(dir.join("log"), config()).await {
        Ok(broker) => Arc::new(broker),
        Err(error) => {
            log(&dir, "errors").write_all(format!("{error}\n").as_bytes()).expect("the test writes");
            return IN_USE;
        }
    };
    let consumer = tokio::spawn(consume(dir.clone(), broker.clone()));
    let publishers: Vec<_> =
        (0..PUBLISHERS).map(|publisher| tokio::spawn(publish(dir.clone(), broker.clone(), round, publisher))).collect();
    for publisher in publishers {
        publisher.await.expect("a publisher ends");
    }
    let failed = tokio::time::timeout(Duration::from_millis(20), broker.failed()).await;
    consumer.abort();
    broker.close().await.expect("close works");
    if failed.is_ok() { FAILED } else { 0 }
}

fn log(dir: &Path, name: &str) -> File {
    OpenOptions::new().append(true).create(true).open(dir.join(name)).expect("the test's file opens")
}

async fn publish(dir: PathBuf, broker: Arc<EmbeddedBroker>, round: u64, publisher: u64) {
    let (mut acked, mut errors) = (log(&dir, "acked"), log(&dir, "errors"));
    let mut next = (round * PUBLISHERS + publisher) * EACH;
    let end = next + EACH;
    let mut is_failed = false;
    while next < end {
        let batch = next..(next + 1 + next % 4).min(end);
        match broker.publish(&topic("t"), messages(batch.clone())).await {
            Ok(()) => {
                let lines: String = batch.clone().map(|number| format!("{number}\n")).collect();
                acked.write_all(lines.as_bytes()).expect("the test writes");
                assert!(!is_failed, "an ack after a failed fsync");
                next = batch.end;
            }
            Err(error) => {
                errors.write_all(format!("{error:?}\n").as_bytes()).expect("the test writes");
                // Full is a promise that nothing happened, so the same again makes no duplicate. Else, nobody knows: go on.
                is_failed |= matches!(error, BrokerError::Fatal(_));
                next = if matches!(error, BrokerError::Full(_)) { next } else { batch.end };
            }
        }
    }
}

async fn consume(dir: PathBuf, broker: Arc<EmbeddedBroker>) -> Result<(), BrokerError> {
    let mut stored = log(&dir, "stored");
    // A topic's first segment may find no space.
    let mut subscription = loop {
        match broker.open_subscription(&topic("t"), "store").await {
            Err(BrokerError::Full(_)) => tokio::time::sleep(Duration::from_millis(1)).await,
            subscription => break subscription?,
        }
    };
    subscription.seek(oracle::stored(&dir).len() as u64).await.expect("what was stored is a place in the log");
    loop {
        let deliveries = subscription.receive(5, usize::MAX).await?;
        let lines: String = deliveries
            .iter()
            .map(|delivery| format!("{} {}\n", next(delivery) - 1, oracle::number(&delivery.message)))
            .collect();
        stored.write_all(lines.as_bytes()).expect("the test writes");
        subscription.ack_to(next(&deliveries[deliveries.len() - 1]))?;
    }
}
