//! lapin, a prefetch of two batches, one ack a batch.

use anyhow::{Context, Result};
use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};

use crate::{BATCH, Clock};

pub(crate) async fn consume(url: &str, topic: &str, count: usize) -> Result<f64> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(2 * BATCH as u16, BasicQosOptions::default()).await?;
    let queue = format!("caudal.{topic}.store");
    let mut consumer = channel
        .basic_consume(queue.into(), "limit".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let mut clock = Clock::default();
    for taken in 1..=count {
        let delivery = consumer.next().await.context("the consumer ended")??;
        clock.start();
        if taken % BATCH == 0 || taken == count {
            delivery.ack(BasicAckOptions { multiple: true }).await?;
        }
    }
    connection.close(200, "done".into()).await?;
    Ok(clock.seconds())
}
