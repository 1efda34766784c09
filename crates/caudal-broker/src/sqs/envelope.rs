//! The JSON document that SNS wraps around a message on its way to a queue, unless the subscription delivers raw.

use std::collections::BTreeMap;

use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use serde::Deserialize;
use serde_json::Value;

/// A notification, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notification {
    pub(crate) topic_arn: String,
    /// The same at every try of a delivery.
    pub(crate) message_id: String,
    pub(crate) message: String,
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) at: Option<Instant>,
}

/// What a queue's message may be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Not an envelope: what the producer wrote.
    Raw,
    Notification(Notification),
    /// From SNS, but nothing that can be stored.
    Broken(Rejection),
}

/// Every field may be absent or of any type, so that what is wrong with it can be told.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Type")]
    kind: Option<Value>,
    #[serde(rename = "MessageId")]
    message_id: Option<Value>,
    #[serde(rename = "TopicArn")]
    topic_arn: Option<Value>,
    #[serde(rename = "Message")]
    message: Option<Value>,
    #[serde(rename = "Subject")]
    subject: Option<Value>,
    #[serde(rename = "Timestamp")]
    timestamp: Option<Value>,
    #[serde(rename = "MessageAttributes")]
    attributes: Option<BTreeMap<String, Value>>,
}

/// Looks whether a body is an envelope. A body that only mentions SNS is raw: an envelope has SNS's type and a topic's ARN at
/// its top.
pub(crate) fn open(body: &str) -> Found {
    if !(body.trim_start().starts_with('{') && body.contains("\"TopicArn\"") && body.contains("\"Type\"")) {
        return Found::Raw;
    }
    let envelope: Envelope = match serde_json::from_str(body) {
        Ok(envelope) => envelope,
        // The engine says what is wrong with JSON, and where.
        Err(_) => return Found::Raw,
    };
    let (Some(Value::String(kind)), Some(Value::String(topic_arn))) = (envelope.kind, envelope.topic_arn) else {
        return Found::Raw;
    };
    if !topic_arn.starts_with("arn:") {
        return Found::Raw;
    }
    match kind.as_str() {
        "Notification" => {}
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
            let detail = format!(
                "this is no message but SNS's {kind} for {topic_arn}: whoever owns the queue confirms with \
                 aws sns confirm-subscription and the token in it"
            );
            return Found::Broken(Rejection::new(Code::MalformedEvent, "/Type", detail));
        }
        _ => return Found::Raw,
    }
    let (message, message_id) = match (envelope.message, envelope.message_id) {
        (Some(Value::String(message)), Some(Value::String(id))) => (message, id),
        (Some(Value::String(_)), _) => return broken("/MessageId", "the notification has no MessageId"),
        _ => return broken("/Message", "the notification's Message is not a string"),
    };
    let mut attributes: Vec<(String, String)> =
        envelope.attributes.unwrap_or_default().into_iter().filter_map(attribute).collect();
    if let Some(Value::String(subject)) = envelope.subject {
        attributes.push(("Subject".to_owned(), subject));
    }
    let at = envelope.timestamp.as_ref().and_then(Value::as_str).and_then(Instant::parse);
    Found::Notification(Notification { topic_arn, message_id, message, attributes, at })
}

/// `"name": {"Type": "String", "Value": "…"}`; binary values are base64 text there already.
fn attribute((name, value): (String, Value)) -> Option<(String, String)> {
    match value {
        Value::Object(mut fields) => match fields.remove("Value")? {
            Value::String(text) => Some((name, text)),
            other => Some((name, other.to_string())),
        },
        _ => None,
    }
}

fn broken(pointer: &str, detail: &'static str) -> Found {
    Found::Broken(Rejection::new(Code::MalformedEvent, pointer, detail))
}
