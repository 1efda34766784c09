//! Deleting and hiding messages of a queue: ten a request, many requests at once, until each entry is answered for.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::client::Aws;
use super::failure::{Call, Failure};
use super::place::Queue;
use super::shelf::Receipt;

/// Entries of one request, AWS's own limit.
pub(crate) const BATCH_MAX: usize = 10;
const REQUESTS_MAX: usize = 32;
/// Times that an entry is sent which AWS turned away for a moment.
const ROUNDS_MAX: u32 = 4;
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// As far as a message may be put off.
const HIDDEN_MAX: Duration = Duration::from_secs(12 * 3600);

/// Settles messages of one queue.
#[derive(Debug, Clone)]
pub(crate) struct Settler {
    aws: Aws,
    queue: Arc<Queue>,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Delete,
    /// From now, in seconds.
    Hide(i32),
}

impl Settler {
    pub(crate) fn new(aws: Aws, queue: Arc<Queue>) -> Self {
        Self { aws, queue }
    }

    /// For good.
    pub(crate) async fn delete(&self, receipts: Vec<Receipt>) -> Result<(), Failure> {
        self.in_batches(receipts, Deed::Delete).await
    }

    /// Makes messages come again after a time, counted from now, in whole seconds.
    pub(crate) async fn hide(&self, receipts: Vec<Receipt>, after: Duration) -> Result<(), Failure> {
        let after = after.min(HIDDEN_MAX);
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.in_batches(receipts, Deed::Hide(seconds as i32)).await
    }

    async fn in_batches(&self, receipts: Vec<Receipt>, deed: Deed) -> Result<(), Failure> {
        let batches: Vec<Vec<Receipt>> = receipts.chunks(BATCH_MAX).map(<[Receipt]>::to_vec).collect();
        let requests = batches.into_iter().map(|batch| self.clone().until_done(batch, deed));
        stream::iter(requests).buffer_unordered(REQUESTS_MAX).try_collect().await
    }

    /// An entry that AWS turns away for what it is (its receipt is too old, the message is gone) is done with: if the message
    /// is still there it comes again, and is known by its name then. One turned away for a moment is sent again.
    async fn until_done(self, mut batch: Vec<Receipt>, deed: Deed) -> Result<(), Failure> {
        for round in 1.. {
            let mut again = Vec::new();
            for failed in self.send(&batch, deed).await? {
                let failure = Failure::entry(failed.code(), failed.message(), failed.sender_fault(), self.call(deed));
                let receipt = failed.id().parse().ok().and_then(|number: usize| batch.get(number));
                match receipt {
                    Some(receipt) if failure.is_transient() && round < ROUNDS_MAX => again.push(receipt.clone()),
                    _ if failure.is_transient() => return Err(failure),
                    _ => tracing::debug!(%failure, "a message was not settled and will come again"),
                }
            }
            if again.is_empty() {
                break;
            }
            batch = again;
            tokio::time::sleep(ROUND_PAUSE * round).await;
        }
        Ok(())
    }

    fn call(&self, deed: Deed) -> Call<'_> {
        let action = match deed {
            Deed::Delete => "sqs:DeleteMessage",
            Deed::Hide(_) => "sqs:ChangeMessageVisibility",
        };
        Call { action, resource: &self.queue.arn }
    }

    /// Returns the entries that failed.
    async fn send(&self, batch: &[Receipt], deed: Deed) -> Result<Vec<BatchResultErrorEntry>, Failure> {
        let call = self.call(deed);
        let numbered = batch.iter().enumerate().map(|(number, receipt)| (number.to_string(), receipt.to_string()));
        match deed {
            Deed::Delete => {
                let entry =
                    |(id, receipt)| DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(receipt).build();
                let entries = numbered.map(entry).collect::<Result<Vec<_>, _>>().map_err(unfit)?;
                let request = self.aws.sqs.delete_message_batch().queue_url(&self.queue.url).set_entries(Some(entries));
                Ok(request.send().await.map_err(|error| Failure::of(&error, call))?.failed)
            }
            Deed::Hide(seconds) => {
                let entry = |(id, receipt)| {
                    let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(id).receipt_handle(receipt);
                    entry.visibility_timeout(seconds).build()
                };
                let entries = numbered.map(entry).collect::<Result<Vec<_>, _>>().map_err(unfit)?;
                let request = self.aws.sqs.change_message_visibility_batch().queue_url(&self.queue.url);
                let sent = request.set_entries(Some(entries)).send().await;
                Ok(sent.map_err(|error| Failure::of(&error, call))?.failed)
            }
        }
    }
}

fn unfit(error: BuildError) -> Failure {
    Failure::Setup(format!("a request to SQS could not be made: {error}"))
}
