//! What `cargo xtask bench drain` needs of brokers: a server to measure on, and how fast the broker's own client takes what
//! Caudal published, doing nothing with it but settling it in bulk.
//!
//! ```text
//! limit-broker serve NAME                       prints its URL, serves until standard input closes
//! limit-broker consume NAME URL TOPIC COUNT     prints the seconds from the first message to the last ack
//! ```
//!
//! Each consumer reads the same queue as Caudal's worker, under the names that `caudal-broker` gives it.

mod kafka;
mod nats;
mod rabbitmq;
mod redis;
mod sqs;

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Messages settled together, and asked for at once.
const BATCH: usize = 5_000;

/// Started with the first message: what comes before it is connecting.
#[derive(Debug, Default)]
struct Clock(Option<Instant>);

impl Clock {
    fn start(&mut self) {
        self.0.get_or_insert_with(Instant::now);
    }

    fn seconds(&self) -> f64 {
        self.0.map_or(f64::NAN, |start| start.elapsed().as_secs_f64())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", name] => serve(name),
        ["consume", name, url, topic, count] => {
            let count = count.parse().context("a count of messages")?;
            let seconds = match name {
                "rabbitmq" => rabbitmq::consume(url, topic, count).await?,
                "nats" => nats::consume(url, topic, count).await?,
                "redis" => redis::consume(url, topic, count).await?,
                "kafka" => kafka::consume(url, topic, count)?,
                "sqs" => sqs::consume(url, topic, count).await?,
                _ => bail!("no broker {name}"),
            };
            println!("{seconds}");
            Ok(())
        }
        _ => bail!("limit-broker serve NAME | limit-broker consume NAME URL TOPIC COUNT"),
    }
}

/// A server of the testkit's, until whoever started us is gone.
fn serve(name: &str) -> Result<()> {
    let wait = |url: String| -> Result<()> {
        println!("{url}");
        std::io::stdout().flush()?;
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    };
    match name {
        "rabbitmq" => {
            let server = caudal_testkit::rabbitmq::RabbitMq::start()?;
            wait(server.url())
        }
        "nats" => {
            let server = caudal_testkit::nats::Nats::start()?;
            wait(server.url())
        }
        "redis" => {
            let server = caudal_testkit::redis::Redis::start()?;
            wait(server.url())
        }
        "kafka" => {
            let server = caudal_testkit::kafka::Kafka::start()?;
            // The mock keeps 5 MiB a partition, and makes only 4 of them unasked.
            server.create_topic("flights", 24)?;
            wait(server.url())
        }
        "sqs" => {
            let server = caudal_testkit::localstack::LocalStack::start()?;
            let road = server.road()?;
            wait(road.url())
        }
        _ => bail!("no broker {name}"),
    }
}
