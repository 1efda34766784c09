//! One SQS message, whether a queue was asked for it or a Lambda event brought it, becomes a delivery.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use caudal_core::message::{Delivery, Mark};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;

use super::entry;
use super::envelope::{self, Found, Notification};
use crate::wire::Incoming;

/// CloudEvents has no binding for SNS and SQS; producers borrow the prefixes of HTTP's and of Kafka's.
const EVENT_PREFIXES: &[&str] = &["ce-", "ce_"];

/// A message as SQS hands it over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The queue's ARN: a Lambda event's `eventSourceARN`.
    pub queue_arn: String,
    pub message_id: String,
    pub body: String,
    /// Message attributes (not those of the system), as text; binary values in base64.
    pub attributes: Vec<(String, String)>,
    /// `ApproximateReceiveCount`: which hand-over this is.
    pub attempt: u32,
    /// `SentTimestamp`: milliseconds since 1970.
    pub sent_at_ms: Option<i64>,
}

impl Record {
    /// Makes a delivery of it.
    ///
    /// An SNS envelope is taken off; the dedup key of a message that Caudal did not publish is then
    /// `sns:<topic ARN>:<MessageId>`, the same however often SNS tries. Without an envelope it is
    /// `sqs:<queue ARN>:<MessageId>`. What SNS wrapped and cannot be read is a delivery with its fault.
    pub fn delivery(self, mark: Mark) -> Delivery {
        let attempt = self.attempt.max(1);
        let delivery = match envelope::open(&self.body) {
            Found::Raw => self.raw(mark),
            Found::Notification(notification) => self.notification(notification, mark),
            Found::Broken(rejection) => Delivery { fault: Some(rejection), ..self.raw(mark) },
        };
        Delivery { attempt, ..delivery }
    }

    fn raw(self, mark: Mark) -> Delivery {
        let at = self.sent_at();
        let source = format!("sqs:{}", self.queue_arn);
        let name = format!("{source}:{}", self.message_id);
        delivery(Bytes::from(self.body), &self.attributes, name, source, at, mark)
    }

    fn notification(self, notification: Notification, mark: Mark) -> Delivery {
        let at = notification.at.unwrap_or_else(|| self.sent_at());
        let source = format!("sns:{}", notification.topic_arn);
        let name = format!("{source}:{}", notification.message_id);
        delivery(Bytes::from(notification.message), &notification.attributes, name, source, at, mark)
    }

    fn sent_at(&self) -> Instant {
        let micros = self.sent_at_ms.and_then(|ms| ms.checked_mul(1000));
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        Instant::from_unix_micros(micros.unwrap_or_else(now))
    }
}

fn delivery(
    text: Bytes,
    attributes: &[(String, String)],
    name: String,
    source: String,
    at: Instant,
    mark: Mark,
) -> Delivery {
    let (body, fault) = match entry::body(text.clone(), attributes) {
        Some(body) => (body, None),
        None => (text, Some(Rejection::whole(Code::MalformedEvent, "its attributes say base64, and it is none"))),
    };
    let headers = attributes.iter().map(|(name, value)| (Cow::from(name), Cow::from(entry::value(value))));
    let incoming = Incoming {
        headers: headers.collect(),
        content_type: None,
        event_prefix: EVENT_PREFIXES,
        name: Some(name),
        source,
        at,
        body,
    };
    let delivery = incoming.delivery(mark);
    Delivery { fault: fault.or(delivery.fault), ..delivery }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use caudal_core::message::Origin;
    use serde_json::json;

    use super::*;

    const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:caudal-t";

    fn taken(body: impl Into<String>) -> Delivery {
        let record = Record {
            queue_arn: "arn:aws:sqs:us-east-1:123456789012:q".to_owned(),
            message_id: "m-1".to_owned(),
            body: body.into(),
            attributes: vec![("traceparent".to_owned(), "00-a".to_owned())],
            attempt: 3,
            sent_at_ms: Some(1_700_000_000_000),
        };
        record.delivery(Mark::Tag(7))
    }

    fn envelope() -> serde_json::Value {
        json!({
            "Type": "Notification", "MessageId": "s-1", "TopicArn": TOPIC, "Subject": "news",
            "Message": "{\"a\":\"\\u00f1\"}", "Timestamp": "2026-01-02T03:04:05.678Z", "SignatureVersion": "1",
            "MessageAttributes": {"n": {"Type": "Number", "Value": "1"}, "b": {"Type": "Binary", "Value": "AAE="}}
        })
    }

    #[test]
    fn an_envelope_comes_off() {
        let delivery = taken(envelope().to_string());
        assert_eq!((delivery.origin, delivery.attempt, delivery.mark), (Origin::Foreign, 3, Mark::Tag(7)));
        assert_eq!(delivery.message.body, "{\"a\":\"\\u00f1\"}");
        assert_eq!(delivery.message.key.as_deref(), Some("sns:arn:aws:sns:us-east-1:123456789012:caudal-t:s-1"));
        assert_eq!(delivery.message.source, format!("sns:{TOPIC}"));
        assert_eq!(delivery.message.published_at.to_string(), "2026-01-02T03:04:05.678+00:00");
        let attributes = delivery.message.attributes.unwrap();
        assert_eq!(attributes, r#"{"Subject":"news","b":"AAE=","n":"1"}"#);
        assert_eq!(delivery.fault, None);
    }

    #[test]
    fn a_raw_message_is_taken_as_it_is() {
        let delivery = taken("{\"a\":1}");
        assert_eq!(delivery.message.key.as_deref(), Some("sqs:arn:aws:sqs:us-east-1:123456789012:q:m-1"));
        assert_eq!(delivery.message.source, "sqs:arn:aws:sqs:us-east-1:123456789012:q");
        assert_eq!(delivery.message.published_at.unix_millis(), 1_700_000_000_000);
        assert_eq!(delivery.message.attributes.unwrap(), r#"{"traceparent":"00-a"}"#);
    }

    #[test]
    fn a_broken_envelope_is_a_fault() {
        for (field, value) in [("Message", json!(1)), ("MessageId", json!(null)), ("Message", json!(null))] {
            let mut broken = envelope();
            broken[field] = value;
            let delivery = taken(broken.to_string());
            let fault = delivery.fault.unwrap();
            assert_eq!((fault.code, fault.pointer), (Code::MalformedEvent, format!("/{field}")));
            assert_eq!(delivery.message.body, broken.to_string(), "the dead letter has the bytes");
        }
        let mut confirmation = envelope();
        confirmation["Type"] = json!("SubscriptionConfirmation");
        let fault = taken(confirmation.to_string()).fault.unwrap();
        assert!(fault.detail.contains("confirm-subscription"), "{fault}");
    }

    #[test]
    fn what_only_looks_like_one_is_raw() {
        let cut = &envelope().to_string()[..40];
        let mentions = r#"{"Type":"Notification","TopicArn":7,"Message":"x"}"#;
        for body in [cut, mentions, "", "[]", r#"{"inner":{"Type":"Notification","TopicArn":"arn:x"}}"#] {
            let delivery = taken(body);
            assert_eq!((delivery.message.body.as_ref(), delivery.fault), (body.as_bytes(), None));
            assert!(delivery.message.source.starts_with("sqs:"));
        }
    }

    #[test]
    fn false_base64_is_a_fault() {
        let mut wrapped = envelope();
        wrapped["MessageAttributes"] = json!({"caudal-encoding": {"Type": "String", "Value": "base64"}});
        let delivery = taken(wrapped.to_string());
        assert_eq!(delivery.fault.unwrap().code, Code::MalformedEvent);
        assert_eq!(delivery.message.body, "{\"a\":\"\\u00f1\"}");
    }
}
