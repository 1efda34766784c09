//! librdkafka's mock cluster as a process of its own: prints its brokers, `host:port,…`, and lives until its standard input
//! closes or it is killed.
//!
//! ```text
//! mock_kafka [topic:partitions]…
//! ```

use std::io::{Read, Write};

use anyhow::{Context, Result};
use caudal_testkit::kafka::Kafka;

fn main() -> Result<()> {
    let kafka = Kafka::start()?;
    for topic in std::env::args().skip(1) {
        let (topic, partitions) = topic.rsplit_once(':').context("a topic is given as topic:partitions")?;
        kafka.create_topic(topic, partitions.parse()?)?;
    }
    println!("{}", kafka.servers());
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
