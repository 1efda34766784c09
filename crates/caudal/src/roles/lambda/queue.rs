//! A batch of SQS messages: into the store, and an answer that names those that must come again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use caudal_core::error::StoreError;
use caudal_core::message::Mark;
use caudal_core::topic::TopicName;
use caudal_engine::{Delivered, Pushed};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::{Failure, Function};
use crate::compose::queued;
use crate::config::Loaded;

/// Which topic a queue's messages belong to.
pub(super) struct Queues {
    /// Topics, and where the operator says that each is consumed from.
    topics: Vec<(TopicName, Option<String>)>,
    pub(super) subscription: String,
}

impl Queues {
    pub(super) fn of(loaded: &Loaded) -> Result<Self> {
        let topics = loaded.settings.topics.iter();
        let topics = topics.map(|(name, topic)| Ok((TopicName::parse(name)?, topic.consume_from.clone())));
        Ok(Self { topics: topics.collect::<Result<_>>()?, subscription: loaded.settings.broker.subscription.clone() })
    }

    pub(super) fn topic(&self, queue_arn: &str) -> Option<&TopicName> {
        let consumed = |(topic, from): &&(TopicName, Option<String>)| {
            queued::is_consumed_from(topic, from.as_deref(), &self.subscription, queue_arn)
        };
        self.topics.iter().find(consumed).map(|(topic, _)| topic)
    }
}

/// One record of the event.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) message_id: String,
    body: String,
    #[serde(default)]
    attributes: SystemAttributes,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
    #[serde(rename = "eventSourceARN")]
    queue_arn: Arc<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SystemAttributes {
    approximate_receive_count: Option<String>,
    sent_timestamp: Option<String>,
    message_group_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Attribute {
    string_value: Option<String>,
    /// In base64.
    binary_value: Option<String>,
}

/// What Lambda reads when the event source mapping says `ReportBatchItemFailures`; otherwise it ignores it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    batch_item_failures: Vec<Item>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    item_identifier: String,
}

/// Settles a batch, the messages of each queue by `take`, which returns the ids of those that are not settled. When nothing of it could be settled that is an error of the function: it shows in Lambda's own
/// metrics, and the messages come again even where the mapping lacks `ReportBatchItemFailures`, which would otherwise delete
/// them.
pub(super) async fn settle(
    records: &[&RawValue],
    take: impl AsyncFn(&str, Vec<Message>) -> Vec<String>,
) -> Result<Answer, Failure> {
    let messages: Vec<Message> = records.iter().map(|record| message(record)).collect::<Result<_, _>>()?;
    let total = messages.len();
    let mut by_queue: BTreeMap<Arc<str>, Vec<Message>> = BTreeMap::new();
    for message in messages {
        by_queue.entry(message.queue_arn.clone()).or_default().push(message);
    }
    let mut failures = Vec::new();
    for (queue_arn, messages) in by_queue {
        failures.extend(take(&queue_arn, messages).await);
    }
    if failures.len() == total && total > 0 {
        let message =
            format!("none of {total} messages could be settled, so all of them come again; the log has the cause");
        return Err(Failure { kind: "NothingSettled", message });
    }
    Ok(Answer { batch_item_failures: failures.into_iter().map(|item_identifier| Item { item_identifier }).collect() })
}

impl Function {
    /// Stores a batch.
    pub(super) async fn queue(&self, records: &[&RawValue], within: Duration) -> Result<Answer, Failure> {
        let until = Instant::now() + within;
        settle(records, async |queue_arn, messages| self.store(queue_arn, messages, until).await).await
    }

    /// Stores messages of one queue and returns the ids of those that are not settled.
    async fn store(&self, queue_arn: &str, messages: Vec<Message>, until: Instant) -> Vec<String> {
        let begun = Instant::now();
        let total = messages.len();
        let ids: Vec<String> = messages.iter().map(|message| message.message_id.clone()).collect();
        let topic = self.queues.topic(queue_arn).and_then(|name| self.engine.topics.get(name.as_str()));
        let Some(topic) = topic else {
            tracing::error!(
                queue = queue_arn,
                messages = total,
                "no topic is consumed from this queue: name it in topics.<topic>.consume_from, or call it caudal-<topic>-{}",
                self.engine.subscription()
            );
            return ids;
        };
        let ready = timeout_at(until, self.ready()).await.unwrap_or(Err(StoreError::Timeout));
        if let Err(error) = ready {
            tracing::error!(queue = queue_arn, messages = total, %error, "the store is not ready; they must come again");
            return ids;
        }
        let in_order = queue_arn.ends_with(".fifo");
        let pushed =
            messages.into_iter().enumerate().map(|(at, message)| message.pushed(at as u64, in_order)).collect();
        let Delivered { tally, unsettled } = self.engine.deliver(topic, pushed, until).await;
        tracing::info!(
            topic = %topic.name,
            messages = total,
            stored = tally.stored,
            duplicate = tally.duplicate,
            dead = tally.dead,
            unsettled = unsettled.len(),
            ms = begun.elapsed().as_millis() as u64,
            "took a batch"
        );
        unsettled.into_iter().filter_map(|at| ids.get(at).cloned()).collect()
    }
}

/// SQS records are all alike; one that is not could not be named in an answer either.
fn message(record: &RawValue) -> Result<Message, Failure> {
    let message = |error| format!("a record is not one of SQS: {error}");
    serde_json::from_str(record.get()).map_err(|error| Failure { kind: "MalformedEvent", message: message(error) })
}

impl Message {
    pub(super) fn pushed(self, tag: u64, in_order: bool) -> Pushed {
        let system = self.attributes;
        let number = |text: Option<String>| text.and_then(|text| text.parse::<i64>().ok());
        let attributes = self.message_attributes.into_iter();
        let record = queued::Record {
            queue_arn: self.queue_arn.to_string(),
            message_id: self.message_id,
            body: self.body,
            attributes: attributes.filter_map(|(name, value)| Some((name, value.text()?))).collect(),
            attempt: number(system.approximate_receive_count).map_or(1, |n| u32::try_from(n).unwrap_or(1)),
            sent_at_ms: number(system.sent_timestamp),
        };
        let sequence = system.message_group_id.filter(|_| in_order).map(Arc::from);
        Pushed { delivery: record.delivery(Mark::Tag(tag)), sequence }
    }
}

impl Attribute {
    fn text(self) -> Option<String> {
        self.string_value.or(self.binary_value)
    }
}
