//! Where a topic lives: what is published to, and what a subscription is read from.

use std::collections::HashMap;

use aws_sdk_sqs::types::QueueAttributeName;
use caudal_core::error::BrokerError;
use caudal_core::topic::TopicName;

use crate::remote::Place;
use crate::sqs::names::{self, Arn, Names, QueueRef};

/// What SNS and SQS took for long, and what SNS still takes unless a topic says otherwise.
pub(crate) const MESSAGE_BYTES_MAX: usize = 262_144;

/// A queue that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) url: String,
    pub(crate) arn: String,
    pub(crate) fifo: bool,
    /// Bytes of one message, and of one batch.
    pub(crate) bytes_max: usize,
    pub(crate) policy: Option<String>,
    pub(crate) redrive: Option<String>,
    pub(crate) retention_seconds: Option<u64>,
}

impl Queue {
    pub(crate) fn of(url: String, attributes: &HashMap<QueueAttributeName, String>) -> Self {
        let get = |name: QueueAttributeName| attributes.get(&name).filter(|value| !value.is_empty()).cloned();
        let number = |name| get(name).and_then(|value| value.parse().ok());
        Self {
            arn: get(QueueAttributeName::QueueArn).unwrap_or_else(|| url.clone()),
            fifo: names::is_fifo(&url),
            bytes_max: number(QueueAttributeName::MaximumMessageSize).map_or(MESSAGE_BYTES_MAX, |bytes| bytes as usize),
            policy: get(QueueAttributeName::Policy),
            redrive: get(QueueAttributeName::RedrivePolicy),
            retention_seconds: number(QueueAttributeName::MessageRetentionPeriod),
            url,
        }
    }
}

/// What is published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Topic { arn: String, fifo: bool, bytes_max: usize },
    Queue(Queue),
}

impl Target {
    pub(crate) fn fifo(&self) -> bool {
        match self {
            Self::Topic { fifo, .. } | Self::Queue(Queue { fifo, .. }) => *fifo,
        }
    }

    /// Bytes of one message, and of one batch.
    pub(crate) fn bytes_max(&self) -> usize {
        match self {
            Self::Topic { bytes_max, .. } | Self::Queue(Queue { bytes_max, .. }) => *bytes_max,
        }
    }

    pub(crate) fn arn(&self) -> &str {
        match self {
            Self::Topic { arn, .. } | Self::Queue(Queue { arn, .. }) => arn,
        }
    }
}

/// What is published to, as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum To {
    /// A topic that follows from the name.
    Own(String),
    Topic(Arn),
    Queue(QueueRef),
}

/// A topic's place as the configuration has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) to: To,
    consume: Option<QueueRef>,
    names: Names,
}

impl Plan {
    pub(crate) fn of(topic: &TopicName, place: &Place, all_fifo: bool) -> Result<Self, BrokerError> {
        let names = Names::of(topic, all_fifo);
        let consume = place.consume.as_deref().map(QueueRef::parse);
        let to = match (place.publish.as_deref(), &consume) {
            (Some(publish), _) => to(topic, publish)?,
            // A queue of one's own is one for both directions, unless a topic is named as well.
            (None, Some(queue)) => To::Queue(queue.clone()),
            (None, None) => To::Own(names.topic()),
        };
        Ok(Self { to, consume, names })
    }

    /// Where a subscription is read from.
    pub(crate) fn queue(&self, subscription: &str) -> QueueRef {
        match (&self.consume, &self.to) {
            (Some(queue), _) | (None, To::Queue(queue)) => queue.clone(),
            (None, To::Topic(arn)) => {
                // Only a FIFO queue may listen to a FIFO topic.
                QueueRef::Name(self.names.clone().with_fifo(names::is_fifo(&arn.name)).queue(subscription), None)
            }
            (None, To::Own(_)) => QueueRef::Name(self.names.queue(subscription), None),
        }
    }
}

fn to(topic: &TopicName, publish: &str) -> Result<To, BrokerError> {
    match Arn::parse(publish) {
        Some(arn) if arn.service == "sns" => return Ok(To::Topic(arn)),
        Some(arn) if arn.service == "sqs" => return Ok(To::Queue(QueueRef::Name(arn.name, Some(arn.account)))),
        _ => {}
    }
    match QueueRef::parse(publish) {
        queue @ QueueRef::Url(_) => Ok(To::Queue(queue)),
        QueueRef::Name(..) => Err(BrokerError::Setup(format!(
            "what topic {topic} publishes to is {publish:?}, which is neither the ARN of an SNS topic nor the URL of an SQS queue",
        ))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn plan(publish: Option<&str>, consume: Option<&str>) -> Result<Plan, BrokerError> {
        let place = Place { publish: publish.map(str::to_owned), consume: consume.map(str::to_owned) };
        Plan::of(&TopicName::parse("t").unwrap(), &place, false)
    }

    #[test]
    fn places() {
        let own = plan(None, None).unwrap();
        assert_eq!((own.to.clone(), own.queue("s").name()), (To::Own("caudal-t".to_owned()), "caudal-t-s"));
        let named = plan(Some("arn:aws:sns:r:1:news.fifo"), None).unwrap();
        assert!(matches!(&named.to, To::Topic(arn) if arn.name == "news.fifo"));
        assert_eq!(named.queue("s").name(), "caudal-t-s.fifo");
        let both = plan(Some("arn:aws:sns:r:1:news"), Some("inbox")).unwrap();
        assert!(matches!(both.to, To::Topic(_)));
        assert_eq!(both.queue("s").name(), "inbox");
        for direct in [plan(None, Some("https://x/1/inbox")), plan(Some("arn:aws:sqs:r:1:inbox"), None)] {
            let direct = direct.unwrap();
            assert!(matches!(&direct.to, To::Queue(queue) if queue.name() == "inbox"));
            assert_eq!(direct.queue("s").name(), "inbox");
        }
        assert!(plan(Some("inbox"), None).is_err());
    }
}
