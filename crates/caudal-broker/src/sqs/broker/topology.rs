//! Makes topics, queues and what ties them together, or looks whether they are there.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;

use super::address;
use super::client::Aws;
use super::failure::{Call, Failure};
use super::place::{MESSAGE_BYTES_MAX, Plan, Queue, Target, To};
use super::policy;
use crate::sqs::names::{self, Arn, QueueRef};

/// Ten days. A message that moves to the dead-letter queue keeps its age, so that queue has more.
const RETENTION_SECONDS: u64 = 10 * 86_400;
/// Fourteen days, the longest there is.
const RETENTION_SECONDS_MAX: u64 = 14 * 86_400;
/// AWS asks for a second before a new queue is used.
const NEW_QUEUE_PAUSE: Duration = Duration::from_secs(1);

type Attributes = HashMap<QueueAttributeName, String>;

/// Looks after one AWS account's topics and queues.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    pub(crate) aws: Aws,
    pub(crate) create: bool,
    pub(crate) visibility: Duration,
}

impl Topology {
    /// What a topic is published to, with every subscription in place that must miss nothing.
    pub(crate) async fn target(&self, plan: &Plan, subscriptions: &[String]) -> Result<Target, Failure> {
        let queues: Vec<QueueRef> = subscriptions.iter().map(|name| plan.queue(name)).collect();
        match &plan.to {
            To::Queue(queue) => Ok(Target::Queue(self.queue(queue, None).await?)),
            To::Own(name) if self.create => self.fan_out(&self.make_topic(name).await?, &queues).await,
            To::Own(name) => {
                let Some(first) = queues.first() else {
                    return Err(Failure::Setup(format!(
                        "the ARN of topic {name} must be named in its topic's configuration"
                    )));
                };
                let queue = self.queue(first, None).await?;
                self.fan_out(&topic_beside(&queue, name)?, &queues).await
            }
            To::Topic(arn) => self.fan_out(&arn.to_string(), &queues).await,
        }
    }

    async fn fan_out(&self, topic_arn: &str, queues: &[QueueRef]) -> Result<Target, Failure> {
        let bytes_max = self.topic_bytes_max(topic_arn).await?;
        for queue in queues {
            self.subscribed(queue, topic_arn).await?;
        }
        Ok(Target::Topic { arn: topic_arn.to_owned(), fifo: names::is_fifo(topic_arn), bytes_max })
    }

    /// The queue of a subscription, tied to its topic.
    pub(crate) async fn subscription(&self, plan: &Plan, name: &str) -> Result<Queue, Failure> {
        let queue = plan.queue(name);
        match &plan.to {
            To::Queue(_) => self.queue(&queue, None).await,
            To::Own(topic) if self.create => self.subscribed(&queue, &self.make_topic(topic).await?).await,
            // Whether messages get there is the publisher's to see to; reading needs the queue alone.
            To::Own(_) => self.queue(&queue, None).await,
            To::Topic(arn) if self.create => self.subscribed(&queue, &arn.to_string()).await,
            To::Topic(_) => self.queue(&queue, None).await,
        }
    }

    /// A queue that gets what the topic is sent.
    async fn subscribed(&self, queue: &QueueRef, topic_arn: &str) -> Result<Queue, Failure> {
        let queue = self.queue(queue, Some(topic_arn)).await?;
        match self.create {
            true => self.subscribe(&queue, topic_arn).await?,
            false => self.check_subscription(&queue, topic_arn).await?,
        }
        Ok(queue)
    }

    /// A queue that is there already. [`Failure::Missing`] if it is not.
    pub(crate) async fn find_queue(&self, queue: &QueueRef) -> Result<Queue, Failure> {
        let url = self.url(queue).await?;
        let attributes = self.queue_attributes(&url, vec![QueueAttributeName::All]).await?;
        Ok(Queue::of(url, &attributes))
    }

    /// Messages that wait in a queue, are out, or are put off: estimates, as AWS says itself.
    pub(crate) async fn waiting(&self, queue: &QueueRef) -> Result<u64, Failure> {
        const COUNTS: [QueueAttributeName; 3] = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let url = self.url(queue).await?;
        let attributes = self.queue_attributes(&url, COUNTS.to_vec()).await?;
        let count = |name| attributes.get(name).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        Ok(COUNTS.iter().map(count).sum())
    }

    async fn url(&self, queue: &QueueRef) -> Result<String, Failure> {
        let (name, account) = match queue {
            QueueRef::Url(url) => return Ok(url.clone()),
            QueueRef::Name(name, account) => (name, account.clone()),
        };
        let call = Call { action: "sqs:GetQueueUrl", resource: name };
        let asked = self.aws.sqs.get_queue_url().queue_name(name).set_queue_owner_aws_account_id(account).send();
        let found = asked.await.map_err(|error| Failure::of(&error, call))?;
        found.queue_url.ok_or_else(|| Failure::Missing(format!("queue {name} has no URL")))
    }

    async fn queue_attributes(&self, url: &str, names: Vec<QueueAttributeName>) -> Result<Attributes, Failure> {
        let call = Call { action: "sqs:GetQueueAttributes", resource: url };
        let asked = self.aws.sqs.get_queue_attributes().queue_url(url).set_attribute_names(Some(names)).send();
        Ok(asked.await.map_err(|error| Failure::of(&error, call))?.attributes.unwrap_or_default())
    }

    /// A queue, made if it may be, with what it lacks: a place for what is never settled, and an open door for the topic.
    async fn queue(&self, wanted: &QueueRef, topic_arn: Option<&str>) -> Result<Queue, Failure> {
        let queue = match self.find_queue(wanted).await {
            Err(Failure::Missing(_)) if self.create => self.make_queue(wanted, topic_arn).await?,
            Err(Failure::Missing(_)) => return Err(self.no_queue(wanted)),
            found => found?,
        };
        if self.create { self.mend(queue, topic_arn).await } else { Ok(queue) }
    }

    async fn make_queue(&self, wanted: &QueueRef, topic_arn: Option<&str>) -> Result<Queue, Failure> {
        let name = wanted.name();
        let mut attributes = self.attributes(name, RETENTION_SECONDS);
        // With the first request, for a queue that is changed later may turn the topic away for a minute.
        if let Some((topic_arn, topic)) = topic_arn.and_then(|text| Some((text, Arn::parse(text)?))) {
            let queue_arn = topic.sibling("sqs", name).to_string();
            attributes
                .extend(policy::access(None, &queue_arn, topic_arn).map(|text| (QueueAttributeName::Policy, text)));
            let dead = self.dead_letter_queue(name).await?;
            attributes.insert(QueueAttributeName::RedrivePolicy, policy::redrive(&dead.arn));
        }
        let made = self.create_queue(wanted, attributes).await?;
        if address::is_aws(&made.url) {
            tokio::time::sleep(NEW_QUEUE_PAUSE).await;
        }
        Ok(made)
    }

    fn attributes(&self, name: &str, retention_seconds: u64) -> Attributes {
        let mut attributes = HashMap::from([
            (QueueAttributeName::MessageRetentionPeriod, retention_seconds.to_string()),
            (QueueAttributeName::VisibilityTimeout, self.visibility.as_secs().to_string()),
        ]);
        if names::is_fifo(name) {
            // Without the last two, the whole queue shares one narrow limit.
            attributes.insert(QueueAttributeName::FifoQueue, "true".to_owned());
            attributes.insert(QueueAttributeName::DeduplicationScope, "messageGroup".to_owned());
            attributes.insert(QueueAttributeName::FifoThroughputLimit, "perMessageGroupId".to_owned());
        }
        attributes
    }

    /// Another process may be making it, in its own way; then it is there.
    async fn create_queue(&self, wanted: &QueueRef, attributes: Attributes) -> Result<Queue, Failure> {
        let name = wanted.name();
        let call = Call { action: "sqs:CreateQueue", resource: name };
        let made = self.aws.sqs.create_queue().queue_name(name).set_attributes(Some(attributes)).send().await;
        match made.map_err(|error| may_be_made_by_hand(Failure::of(&error, call))) {
            Ok(made) => self.find_queue(&made.queue_url.map_or_else(|| wanted.clone(), QueueRef::Url)).await,
            Err(failure) => self.find_queue(wanted).await.map_err(|_| failure),
        }
    }

    async fn dead_letter_queue(&self, queue: &str) -> Result<Queue, Failure> {
        let name = names::dead_letter_queue(queue);
        let wanted = QueueRef::Name(name.clone(), None);
        match self.find_queue(&wanted).await {
            Err(Failure::Missing(_)) => self.create_queue(&wanted, self.attributes(&name, RETENTION_SECONDS_MAX)).await,
            found => found,
        }
    }

    /// Adds to a queue what it lacks. What somebody set stays.
    async fn mend(&self, queue: Queue, topic_arn: Option<&str>) -> Result<Queue, Failure> {
        let mut lacks = HashMap::new();
        if let Some(policy) = topic_arn.and_then(|topic| policy::access(queue.policy.as_deref(), &queue.arn, topic)) {
            tracing::warn!(
                queue = queue.arn,
                "this queue let the topic in only now; AWS may take a minute to apply it"
            );
            lacks.insert(QueueAttributeName::Policy, policy);
        }
        if queue.redrive.is_none() {
            let dead = self.dead_letter_queue(names::last(&queue.url)).await?;
            lacks.insert(QueueAttributeName::RedrivePolicy, policy::redrive(&dead.arn));
        }
        if lacks.is_empty() {
            return Ok(queue);
        }
        let call = Call { action: "sqs:SetQueueAttributes", resource: &queue.arn };
        let set = self.aws.sqs.set_queue_attributes().queue_url(&queue.url).set_attributes(Some(lacks));
        set.send().await.map_err(|error| may_be_made_by_hand(Failure::of(&error, call)))?;
        Ok(queue)
    }

    /// Making a topic that is there gives its ARN.
    async fn make_topic(&self, name: &str) -> Result<String, Failure> {
        let mut make = self.aws.sns.create_topic().name(name);
        if names::is_fifo(name) {
            make = make.attributes("FifoTopic", "true");
        }
        let call = Call { action: "sns:CreateTopic", resource: name };
        let made = make.send().await.map_err(|error| may_be_made_by_hand(Failure::of(&error, call)))?;
        made.topic_arn.ok_or_else(|| Failure::Unavailable(format!("SNS gave topic {name} no ARN")))
    }

    /// How large a message the topic takes. Also shows that it is there.
    async fn topic_bytes_max(&self, arn: &str) -> Result<usize, Failure> {
        let call = Call { action: "sns:GetTopicAttributes", resource: arn };
        let asked = self.aws.sns.get_topic_attributes().topic_arn(arn).send().await;
        match asked.map_err(|error| Failure::of(&error, call)) {
            Ok(found) => {
                let said = found.attributes.as_ref().and_then(|attributes| attributes.get("MaximumMessageSize"));
                Ok(said.and_then(|bytes| bytes.parse().ok()).unwrap_or(MESSAGE_BYTES_MAX))
            }
            Err(Failure::Missing(_)) => Err(self.no_topic(arn)),
            // A publisher may be allowed to publish and nothing else.
            Err(Failure::Denied(why)) => {
                tracing::debug!(arn, why, "the topic's limit is taken to be AWS's usual one");
                Ok(MESSAGE_BYTES_MAX)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Makes the subscription unless it is there, in which case somebody may have made it in another way (raw delivery).
    async fn subscribe(&self, queue: &Queue, topic_arn: &str) -> Result<(), Failure> {
        let call = Call { action: "sns:Subscribe", resource: topic_arn };
        let made = self.aws.sns.subscribe().topic_arn(topic_arn).protocol("sqs").endpoint(&queue.arn).send().await;
        match made.map_err(|error| Failure::of(&error, call)) {
            Err(Failure::Setup(why)) if why.contains("already exists with different attributes") => Ok(()),
            Err(Failure::Missing(_)) => Err(self.no_topic(topic_arn)),
            made => made.map(drop).map_err(may_be_made_by_hand),
        }
    }

    /// A topic that nobody listens to loses what it is sent.
    async fn check_subscription(&self, queue: &Queue, topic_arn: &str) -> Result<(), Failure> {
        let call = Call { action: "sns:ListSubscriptionsByTopic", resource: topic_arn };
        let mut pages = self.aws.sns.list_subscriptions_by_topic().topic_arn(topic_arn).into_paginator().send();
        while let Some(page) = pages.next().await {
            match page.map_err(|error| Failure::of(&error, call)) {
                Ok(page) if page.subscriptions().iter().any(|s| s.endpoint() == Some(&queue.arn)) => return Ok(()),
                Ok(_) => {}
                Err(Failure::Denied(why)) => {
                    tracing::warn!(topic_arn, queue = queue.arn, why, "cannot look whether the queue is subscribed");
                    return Ok(());
                }
                Err(failure) => return Err(failure),
            }
        }
        let command = self.command(&format!(
            "sns subscribe --topic-arn {topic_arn} --protocol sqs --notification-endpoint {}",
            queue.arn
        ));
        Err(Failure::Setup(format!("queue {} is not subscribed to its topic: {command}", queue.arn)))
    }

    fn no_queue(&self, wanted: &QueueRef) -> Failure {
        let name = wanted.name();
        let fifo = if names::is_fifo(name) { " --attributes FifoQueue=true" } else { "" };
        let command = self.command(&format!("sqs create-queue --queue-name {name}{fifo}"));
        Failure::Setup(format!("queue {name} does not exist in {}: {command}", self.aws.region))
    }

    fn no_topic(&self, arn: &str) -> Failure {
        let name = Arn::parse(arn).map_or_else(|| arn.to_owned(), |arn| arn.name);
        let fifo = if names::is_fifo(&name) { " --attributes FifoTopic=true" } else { "" };
        let command = self.command(&format!("sns create-topic --name {name}{fifo}"));
        Failure::Setup(format!("topic {arn} does not exist: {command}"))
    }

    /// A command for an operator.
    pub(crate) fn command(&self, rest: &str) -> String {
        let endpoint = self.aws.endpoint.as_ref().map_or_else(String::new, |url| format!(" --endpoint-url {url}"));
        format!("aws {rest} --region {}{endpoint}", self.aws.region)
    }
}

/// A topic by its name, in the account of a queue.
fn topic_beside(queue: &Queue, name: &str) -> Result<String, Failure> {
    let arn = Arn::parse(&queue.arn).map(|arn| arn.sibling("sns", name).to_string());
    arn.ok_or_else(|| Failure::Setup(format!("queue {} has no ARN to tell the account by", queue.url)))
}

fn may_be_made_by_hand(failure: Failure) -> Failure {
    match failure {
        Failure::Denied(why) => {
            Failure::Denied(format!("{why} (or make topics and queues yourself and set broker.create = false)"))
        }
        other => other,
    }
}
