//! Publishing: messages of all callers travel together, ten a request, several requests at once.
//!
//! Nothing lingers: while a request may go out, whatever waits goes. Under load the requests under way fill up, and what
//! arrives meanwhile makes full batches.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sns::types as sns;
use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::types as sqs;
use caudal_core::message::Message;
use caudal_core::topic::TopicName;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::client::Aws;
use super::failure::{self, Failure};
use super::place::{Queue, Target};
use super::waiting::{Batch, Call, Item, Waiting};
use crate::sqs::entry::{Entry, TEXT};

/// Requests under way at once for one topic.
const REQUESTS_MAX: usize = 16;
/// Calls of `publish` that wait to be looked at; further ones wait outside.
const CALLS_MAX: usize = 64;
/// Messages that wait inside. What a single call brings beyond it is taken all the same.
const MESSAGES_MAX: usize = 20_000;
/// Times that entries are sent which AWS turned away for a moment.
const ROUNDS_MAX: u32 = 4;
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// The way into one topic. Its task ends when nobody has it any more and all is settled.
#[derive(Debug)]
pub(crate) struct Publisher {
    target: Target,
    calls: mpsc::Sender<Vec<Item>>,
}

impl Publisher {
    /// `alive` is held until the last request is settled.
    pub(crate) fn start(aws: Aws, target: Target, alive: mpsc::Sender<()>) -> Self {
        let (calls, arriving) = mpsc::channel(CALLS_MAX);
        let waiting = Waiting::new(target.fifo(), target.bytes_max());
        let sender = Sender { aws, target: target.clone() };
        tokio::spawn(async move {
            run(sender, waiting, arriving).await;
            drop(alive);
        });
        Self { target, calls }
    }

    pub(crate) async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), Failure> {
        let (call, answered) = Call::new(messages.len());
        let mut items = Vec::with_capacity(messages.len());
        for message in messages {
            let entry = Entry::of(message, topic, self.target.fifo());
            if entry.size > self.target.bytes_max() {
                // Before any of them goes out.
                return Err(self.too_large(&entry));
            }
            items.push(Item { entry, call: call.clone() });
        }
        let gone = || Failure::Unavailable("the publisher of this topic ended".to_owned());
        self.calls.send(items).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    fn too_large(&self, entry: &Entry) -> Failure {
        let (arn, most) = (self.target.arn(), self.target.bytes_max());
        let raise = match &self.target {
            Target::Topic { .. } => {
                format!(
                    "aws sns set-topic-attributes --topic-arn {arn} --attribute-name MaximumMessageSize --attribute-value 1048576"
                )
            }
            Target::Queue(queue) => {
                format!(
                    "aws sqs set-queue-attributes --queue-url {} --attributes MaximumMessageSize=1048576",
                    queue.url
                )
            }
        };
        Failure::Refused(format!(
            "message {} has {} bytes with its attributes and {arn} takes {most}; raise that to 1 MiB ({raise}), or store large data \
             elsewhere and publish where it is",
            entry.id, entry.size
        ))
    }
}

async fn run(sender: Sender, mut waiting: Waiting, mut arriving: mpsc::Receiver<Vec<Item>>) {
    let mut requests = FuturesUnordered::new();
    let mut open = true;
    while open || waiting.len() > 0 || !requests.is_empty() {
        while requests.len() < REQUESTS_MAX
            && let Some(batch) = waiting.take()
        {
            requests.push(sender.send(batch));
        }
        tokio::select! {
            Some((batch, away)) = requests.next() => {
                if let Some(failure) = away {
                    waiting.give_up(&failure);
                }
                waiting.settled(batch);
            }
            items = arriving.recv(), if open && waiting.len() < MESSAGES_MAX => match items {
                Some(items) => items.into_iter().for_each(|item| waiting.push(item)),
                None => open = false,
            },
        }
    }
}

struct Sender {
    aws: Aws,
    target: Target,
}

impl Sender {
    /// Sends a batch until each of its messages is in or has failed for good, and tells whoever waits for them. Says so when
    /// nobody answered.
    async fn send(&self, batch: Batch) -> (Batch, Option<Failure>) {
        let mut left: Vec<usize> = (0..batch.items.len()).collect();
        for round in 1.. {
            let mut outcomes = match self.request(&batch.items, &left).await {
                Ok(outcomes) => outcomes,
                // The SDK repeated it already.
                Err(failure) => {
                    left.iter().for_each(|index| batch.items[*index].call.settle(Err(failure.clone())));
                    return (batch, Some(failure).filter(|failure| matches!(failure, Failure::Away(_))));
                }
            };
            let silent = || Err(Failure::Unavailable(format!("{} said nothing of one message", self.target.arn())));
            left.retain(|index| match outcomes.remove(index).unwrap_or_else(silent) {
                Err(failure) if failure.is_transient() && round < ROUNDS_MAX => {
                    tracing::debug!(%failure, "one message of a batch was turned away, will repeat it");
                    true
                }
                outcome => {
                    batch.items[*index].call.settle(outcome);
                    false
                }
            });
            if left.is_empty() {
                break;
            }
            tokio::time::sleep(ROUND_PAUSE * round).await;
        }
        (batch, None)
    }

    /// One request, and what became of each message in it.
    async fn request(&self, items: &[Item], which: &[usize]) -> Result<Outcomes, Failure> {
        match &self.target {
            Target::Topic { arn, fifo, .. } => self.publish_batch(arn, *fifo, items, which).await,
            Target::Queue(queue) => self.send_message_batch(queue, items, which).await,
        }
    }

    async fn publish_batch(&self, arn: &str, fifo: bool, items: &[Item], which: &[usize]) -> Result<Outcomes, Failure> {
        let call = failure::Call { action: "sns:Publish", resource: arn };
        let entries = which.iter().map(|index| notification(&items[*index].entry, *index, fifo));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(unfit)?;
        let request = self.aws.sns.publish_batch().topic_arn(arn).set_publish_batch_request_entries(Some(entries));
        let answer = request.send().await.map_err(|error| Failure::of(&error, call))?;
        let good = answer.successful().iter().filter_map(|entry| Some((number(entry.id()?)?, Ok(()))));
        let bad = answer.failed().iter().filter_map(|entry| {
            let failure = Failure::entry(entry.code(), entry.message(), entry.sender_fault(), call);
            Some((number(entry.id())?, Err(failure)))
        });
        Ok(good.chain(bad).collect())
    }

    async fn send_message_batch(&self, queue: &Queue, items: &[Item], which: &[usize]) -> Result<Outcomes, Failure> {
        let call = failure::Call { action: "sqs:SendMessage", resource: &queue.arn };
        let entries = which.iter().map(|index| queued(&items[*index].entry, *index, queue.fifo));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(unfit)?;
        let request = self.aws.sqs.send_message_batch().queue_url(&queue.url).set_entries(Some(entries));
        let answer = request.send().await.map_err(|error| Failure::of(&error, call))?;
        let good = answer.successful().iter().filter_map(|entry| Some((number(entry.id())?, Ok(()))));
        let bad = answer.failed().iter().filter_map(|entry| {
            let failure = Failure::entry(entry.code(), entry.message(), entry.sender_fault(), call);
            Some((number(entry.id())?, Err(failure)))
        });
        Ok(good.chain(bad).collect())
    }
}

/// By the entry's number in its batch.
type Outcomes = HashMap<usize, Result<(), Failure>>;

fn number(id: &str) -> Option<usize> {
    id.parse().ok()
}

fn notification(entry: &Entry, number: usize, fifo: bool) -> Result<sns::PublishBatchRequestEntry, BuildError> {
    let mut built = sns::PublishBatchRequestEntry::builder().id(number.to_string()).message(&entry.text);
    for (name, value) in &entry.attributes {
        let value = sns::MessageAttributeValue::builder().data_type(TEXT).string_value(value).build()?;
        built = built.message_attributes(*name, value);
    }
    if fifo {
        built = built.message_group_id(&entry.group).message_deduplication_id(entry.id.to_string());
    }
    built.build()
}

fn queued(entry: &Entry, number: usize, fifo: bool) -> Result<sqs::SendMessageBatchRequestEntry, BuildError> {
    let mut built = sqs::SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(&entry.text);
    for (name, value) in &entry.attributes {
        let value = sqs::MessageAttributeValue::builder().data_type(TEXT).string_value(value).build()?;
        built = built.message_attributes(*name, value);
    }
    if fifo {
        built = built.message_group_id(&entry.group).message_deduplication_id(entry.id.to_string());
    }
    built.build()
}

fn unfit(error: BuildError) -> Failure {
    Failure::Refused(format!("an entry could not be made of it: {error}"))
}
