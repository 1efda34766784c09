//! Measures the embedded log against its limit: one write and one fdatasync a group, with nothing around it.
//!
//! `cargo run --release -p caudal-broker --example append -- [directory]`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Publish, Subscription};
use caudal_core::topic::TopicName;
use rustix::fs::FallocateFlags;
use uuid::Uuid;

const BODY_BYTES: usize = 1024;
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
const EACH: Duration = Duration::from_millis(1500);

type Anything = Result<(), Box<dyn std::error::Error>>;

fn group(size: usize) -> Vec<Message> {
    let message = Message {
        id: Uuid::now_v7(),
        key: None,
        source: "http".to_owned(),
        published_at: caudal_core::time::Instant(0),
        attributes: None,
        body: Bytes::from(vec![b'1'; BODY_BYTES]),
    };
    vec![message; size]
}

/// Calls until the time is over; records a second.
fn rate(size: usize, started: Instant, groups: u64) -> f64 {
    (groups * size as u64) as f64 / started.elapsed().as_secs_f64()
}

/// The limit: a segment that is allocated and synced, then write and fdatasync.
fn limit(dir: &Path, size: usize) -> std::io::Result<f64> {
    let bytes = vec![b'1'; size * (BODY_BYTES + 57) + 32];
    let (started, mut groups) = (Instant::now(), 0);
    let mut at = SEGMENT_BYTES;
    let mut file: Option<File> = None;
    while started.elapsed() < EACH {
        let current = match file.take() {
            Some(file) if at + bytes.len() as u64 <= SEGMENT_BYTES => file,
            _ => {
                // Kept, as the log's are: memory for new pages is part of the price.
                let new = File::create(dir.join(format!("limit-{size}-{groups}")))?;
                rustix::fs::fallocate(&new, FallocateFlags::empty(), 0, SEGMENT_BYTES)?;
                new.sync_all()?;
                at = 0;
                new
            }
        };
        current.write_all_at(&bytes, at)?;
        current.sync_data()?;
        at += bytes.len() as u64;
        groups += 1;
        file = Some(current);
    }
    Ok(rate(size, started, groups))
}

async fn publish_groups(
    broker: &EmbeddedBroker,
    topic: &TopicName,
    size: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let (started, mut groups) = (Instant::now(), 0);
    while started.elapsed() < EACH {
        broker.publish(topic, group(size)).await?;
        groups += 1;
    }
    Ok(rate(size, started, groups))
}

/// One message a publish, from many tasks: the log makes the groups.
async fn publish_singly(
    broker: &Arc<EmbeddedBroker>,
    topic: &TopicName,
    tasks: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let publishers: Vec<_> = (0..tasks)
        .map(|_| {
            let (broker, topic) = (broker.clone(), topic.clone());
            tokio::spawn(async move {
                let mut published = 0;
                while started.elapsed() < EACH {
                    broker.publish(&topic, group(1)).await?;
                    published += 1;
                }
                Ok::<u64, caudal_core::error::BrokerError>(published)
            })
        })
        .collect();
    let mut published = 0;
    for publisher in publishers {
        published += publisher.await??;
    }
    Ok(rate(1, started, published))
}

async fn open(dir: &Path) -> Result<Arc<EmbeddedBroker>, Box<dyn std::error::Error>> {
    let config = EmbeddedConfig { segment_bytes: SEGMENT_BYTES, ..EmbeddedConfig::default() };
    Ok(Arc::new(EmbeddedBroker::open(dir, config).await?))
}

async fn read_and_reopen(dir: &Path, topic: &TopicName) -> Anything {
    let started = Instant::now();
    let broker = open(dir).await?;
    let state = broker.log_state(topic)?;
    let bytes = state.bytes as f64 / 1e6;
    println!("reopen of {} messages, {bytes:.0} MB: {:.0} ms", state.next, started.elapsed().as_secs_f64() * 1e3);
    let mut subscription = broker.open_subscription(topic, "store").await?;
    let (started, mut got) = (Instant::now(), 0);
    while got < state.next {
        got += subscription.receive(8192, 4 * 1024 * 1024).await?.len() as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("read: {:.0} records/s, {:.0} MB/s", got as f64 / seconds, bytes / seconds);
    broker.close().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Anything {
    let dir = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("caudal-append"), PathBuf::from);
    let topic = TopicName::parse("bench")?;
    std::fs::create_dir_all(&dir)?;
    for size in [1, 16, 128, 1024] {
        let log = dir.join(format!("groups-{size}"));
        let broker = open(&log).await?;
        let log_rate = publish_groups(&broker, &topic, size).await?;
        broker.close().await?;
        let limit = limit(&dir, size)?;
        println!("group of {size}: {log_rate:.0} records/s, limit {limit:.0}, ratio {:.2}", log_rate / limit);
    }
    for tasks in [16, 128, 1024] {
        let broker = open(&dir.join(format!("single-{tasks}"))).await?;
        println!("{tasks} publishers of one: {:.0} records/s", publish_singly(&broker, &topic, tasks).await?);
        broker.close().await?;
    }
    read_and_reopen(&dir.join("groups-1024"), &topic).await?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
