//! redis, XREADGROUP and XACK of a batch.

use anyhow::Result;
use redis::AsyncCommands;
use redis::streams::{StreamReadOptions, StreamReadReply};

use crate::{BATCH, Clock};

pub(crate) async fn consume(url: &str, topic: &str, count: usize) -> Result<f64> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let stream = format!("caudal:{topic}");
    let mut clock = Clock::default();
    let mut taken = 0;
    while taken < count {
        let options = StreamReadOptions::default().group("store", "limit").count(BATCH.min(count - taken)).block(1_000);
        let reply: Option<StreamReadReply> = connection.xread_options(&[&stream], &[">"], &options).await?;
        let Some(entries) = reply.and_then(|reply| reply.keys.into_iter().next()) else { continue };
        clock.start();
        let ids: Vec<String> = entries.ids.into_iter().map(|entry| entry.id).collect();
        taken += ids.len();
        let _: u64 = connection.xack(&stream, "store", &ids).await?;
    }
    Ok(clock.seconds())
}
