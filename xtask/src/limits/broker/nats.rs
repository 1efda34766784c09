//! async-nats, pulls of a batch, one unconfirmed ack a message: JetStream has no ack for many with explicit acks.

use anyhow::{Context, Result};
use async_nats::jetstream;
use futures_util::StreamExt;

use crate::{BATCH, Clock};

pub(crate) async fn consume(url: &str, topic: &str, count: usize) -> Result<f64> {
    let client = async_nats::connect(url).await?;
    let stream = jetstream::new(client.clone()).get_stream(format!("caudal-{topic}")).await?;
    let consumer: jetstream::consumer::PullConsumer =
        stream.get_consumer("store").await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut messages = consumer.stream().max_messages_per_batch(BATCH).messages().await?;
    let mut clock = Clock::default();
    for _ in 0..count {
        let message = messages.next().await.context("the consumer ended")??;
        clock.start();
        message.ack().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    client.flush().await?;
    Ok(clock.seconds())
}
