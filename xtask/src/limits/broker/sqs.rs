//! The AWS SDK: several long polls of ten, each batch deleted at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;

const POLLS: usize = 8;

pub(crate) async fn consume(url: &str, topic: &str, count: usize) -> Result<f64> {
    let client = client(url).await;
    let queue = client.get_queue_url().queue_name(format!("caudal-{topic}-store")).send().await?;
    let queue: Arc<str> = queue.queue_url().context("a queue URL")?.into();
    let taken = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let polls = (0..POLLS).map(|_| tokio::spawn(poll(client.clone(), queue.clone(), taken.clone(), count)));
    for poll in polls.collect::<Vec<_>>() {
        poll.await??;
    }
    Ok(start.elapsed().as_secs_f64())
}

async fn poll(client: Client, queue: Arc<str>, taken: Arc<AtomicUsize>, count: usize) -> Result<()> {
    while taken.load(Ordering::Relaxed) < count {
        let got = client.receive_message().queue_url(&*queue).max_number_of_messages(10).wait_time_seconds(1);
        let got = got.send().await?;
        let entries: Vec<_> =
            got.messages().iter().enumerate().map(|(n, message)| entry(n, message)).collect::<Result<_>>()?;
        if entries.is_empty() {
            continue;
        }
        taken.fetch_add(entries.len(), Ordering::Relaxed);
        client.delete_message_batch().queue_url(&*queue).set_entries(Some(entries)).send().await?;
    }
    Ok(())
}

fn entry(n: usize, message: &aws_sdk_sqs::types::Message) -> Result<DeleteMessageBatchRequestEntry> {
    let entry = DeleteMessageBatchRequestEntry::builder().id(n.to_string());
    Ok(entry.receipt_handle(message.receipt_handle().context("a receipt handle")?).build()?)
}

/// `sqs:?endpoint=…&region=…`, as Caudal is told it; any credentials will do for an emulator.
async fn client(url: &str) -> Client {
    let option = |name: &str| {
        let options = url.split_once('?').map_or("", |(_, options)| options);
        options.split('&').find_map(|option| option.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
    };
    let mut config = aws_config::defaults(aws_config::BehaviorVersion::latest());
    if let Some(endpoint) = option("endpoint") {
        config = config.endpoint_url(endpoint.replace("%3A", ":").replace("%2F", "/"));
    }
    config = config.region(aws_config::Region::new(option("region").unwrap_or_else(|| "us-east-1".to_owned())));
    Client::new(&config.load().await)
}
