//! rdkafka's plain consumer, offsets committed once at the end. A group of its own: it reads what Caudal's worker reads too.

use std::time::Duration;

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use crate::Clock;

pub(crate) fn consume(url: &str, topic: &str, count: usize) -> Result<f64> {
    let servers = url.trim_start_matches("kafka://");
    let servers = servers.split_once('?').map_or(servers, |(servers, _)| servers);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "limit")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    let mut clock = Clock::default();
    let mut taken = 0;
    while taken < count {
        let Some(message) = consumer.poll(Duration::from_secs(1)) else { continue };
        message?;
        clock.start();
        taken += 1;
    }
    consumer.commit_consumer_state(CommitMode::Sync)?;
    Ok(clock.seconds())
}
