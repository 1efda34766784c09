//! What SNS sends, and the text that its signature is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caudal_engine::ingest::Record;
use serde::Deserialize;

use crate::problem::Problem;
use crate::pushed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Notification,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Notification, Self::SubscriptionConfirmation, Self::UnsubscribeConfirmation];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Notification => "Notification",
            Self::SubscriptionConfirmation => "SubscriptionConfirmation",
            Self::UnsubscribeConfirmation => "UnsubscribeConfirmation",
        }
    }
}

/// A message of SNS. Its texts are kept exactly as they came: they are what is signed.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) topic_arn: String,
    pub(crate) timestamp: String,
    pub(crate) subscribe_url: Option<String>,
    pub(crate) certificate_url: String,
    pub(crate) version: String,
    pub(crate) signature: Vec<u8>,
    id: String,
    text: String,
    subject: Option<String>,
    token: Option<String>,
    attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(rename = "Type")]
    kind: String,
    message_id: String,
    topic_arn: String,
    message: String,
    timestamp: String,
    signature_version: String,
    signature: String,
    #[serde(rename = "SigningCertURL")]
    signing_cert_url: String,
    subject: Option<String>,
    token: Option<String>,
    #[serde(rename = "SubscribeURL")]
    subscribe_url: Option<String>,
    #[serde(default)]
    message_attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug, Deserialize)]
struct Attribute {
    #[serde(rename = "Value")]
    value: String,
}

pub(crate) fn malformed(detail: &'static str) -> Problem {
    Problem::bad_request("malformed_sns", detail)
}

impl Message {
    /// `header` is `x-amz-sns-message-type`, which must agree with the signed `Type`.
    pub(crate) fn parse(header: &str, body: &[u8]) -> Result<Self, Problem> {
        let wire: Wire =
            serde_json::from_slice(body).map_err(|_| malformed("the body is not a signed message of SNS"))?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == header);
        let Some(kind) = kind.filter(|_| wire.kind == header) else {
            return Err(malformed("x-amz-sns-message-type and Type are the same kind of message, one that SNS has"));
        };
        if kind == Kind::SubscriptionConfirmation && (wire.subscribe_url.is_none() || wire.token.is_none()) {
            return Err(malformed("a SubscriptionConfirmation has SubscribeURL and Token"));
        }
        Ok(Self {
            kind,
            signature: STANDARD.decode(&wire.signature).map_err(|_| malformed("Signature is not base64"))?,
            topic_arn: wire.topic_arn,
            timestamp: wire.timestamp,
            subscribe_url: wire.subscribe_url,
            certificate_url: wire.signing_cert_url,
            version: wire.signature_version,
            id: wire.message_id,
            text: wire.message,
            subject: wire.subject,
            token: wire.token,
            attributes: wire.message_attributes,
        })
    }

    /// Name and value of each signed field, a line each, in order of the names. `MessageAttributes` are not among them.
    pub(crate) fn string_to_sign(&self) -> String {
        let notification = self.kind == Kind::Notification;
        let fields = [
            ("Message", Some(&self.text)),
            ("MessageId", Some(&self.id)),
            ("Subject", self.subject.as_ref().filter(|_| notification)),
            ("SubscribeURL", self.subscribe_url.as_ref().filter(|_| !notification)),
            ("Timestamp", Some(&self.timestamp)),
            ("Token", self.token.as_ref().filter(|_| !notification)),
            ("TopicArn", Some(&self.topic_arn)),
        ];
        let mut text = String::with_capacity(self.text.len() + 512);
        for (name, value) in fields.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            text.extend([name, "\n", value, "\n"]);
        }
        text.extend(["Type\n", self.kind.name(), "\n"]);
        text
    }

    pub(crate) fn into_record(self) -> Record {
        let subject = self.subject.map(|subject| ("Subject".to_owned(), subject));
        let attributes = self.attributes.into_iter().map(|(name, attribute)| (name, attribute.value));
        Record {
            key: Some(dedup_key(&self.topic_arn, &self.id)),
            source: source(&self.topic_arn),
            attributes: pushed::attributes(subject.into_iter().chain(attributes)),
            body: self.text.into(),
            fault: None,
        }
    }
}

/// The same whether a message comes over HTTP or by a queue that is subscribed to the same topic.
pub(crate) fn dedup_key(arn: &str, message_id: &str) -> String {
    format!("sns:{arn}:{message_id}")
}

pub(crate) fn source(arn: &str) -> Arc<str> {
    format!("sns:{arn}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, more: &str) -> Message {
        let body = format!(
            r#"{{"Type":"{kind}","MessageId":"m-1","TopicArn":"arn:t","Message":"{{\"n\":1}}\n","Timestamp":"2026-01-02T03:04:05.678Z",
            "SignatureVersion":"1","Signature":"AAAA","SigningCertURL":"https://x"{more}}}"#
        );
        Message::parse(kind, body.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_signed_is_what_sns_documents() {
        let plain = "Message\n{\"n\":1}\n\nMessageId\nm-1\nTimestamp\n2026-01-02T03:04:05.678Z\nTopicArn\narn:t\nType\nNotification\n";
        assert_eq!(message("Notification", "").string_to_sign(), plain);
        let subject = message("Notification", r#","Subject":"S\tü","UnsubscribeURL":"u","SequenceNumber":"9""#);
        assert_eq!(subject.string_to_sign(), plain.replace("Timestamp", "Subject\nS\tü\nTimestamp"));
        let confirm =
            message("SubscriptionConfirmation", r#","Token":"t","SubscribeURL":"https://s?a=b","Subject":"x""#);
        assert_eq!(
            confirm.string_to_sign(),
            "Message\n{\"n\":1}\n\nMessageId\nm-1\nSubscribeURL\nhttps://s?a=b\nTimestamp\n2026-01-02T03:04:05.678Z\nToken\nt\n\
             TopicArn\narn:t\nType\nSubscriptionConfirmation\n"
        );
    }

    #[test]
    fn a_notification_becomes_a_record() {
        let more = r#","Subject":"S","MessageAttributes":{"b":{"Type":"Number","Value":"2"},"a":{"Type":"String","Value":"x"}}"#;
        let record = message("Notification", more).into_record();
        assert_eq!(record.key.as_deref(), Some("sns:arn:t:m-1"));
        assert_eq!(&*record.source, "sns:arn:t");
        assert_eq!(record.attributes.unwrap(), r#"{"Subject":"S","a":"x","b":"2"}"#);
        assert_eq!(record.body, "{\"n\":1}\n");
        assert_eq!(message("Notification", "").into_record().attributes, None);
    }

    #[test]
    fn what_does_not_agree_with_itself_is_malformed() {
        let good = r#"{"Type":"Notification","MessageId":"m","TopicArn":"a","Message":"x","Timestamp":"t","SignatureVersion":"1",
            "Signature":"AAAA","SigningCertURL":"u"}"#;
        assert!(Message::parse("Notification", good.as_bytes()).is_ok());
        for (header, body) in [
            ("", good.to_owned()),
            ("UnsubscribeConfirmation", good.to_owned()),
            ("Other", good.replace("Notification", "Other")),
            ("SubscriptionConfirmation", good.replace("Notification", "SubscriptionConfirmation")),
            ("Notification", good.replace("AAAA", "A*")),
            ("Notification", good.replace("\"MessageId\":\"m\",", "")),
            ("Notification", good.replace("\"Message\":\"x\"", "\"Message\":\"x\",\"Message\":\"y\"")),
            ("Notification", String::new()),
            ("Notification", "[]".to_owned()),
        ] {
            assert!(Message::parse(header, body.as_bytes()).is_err(), "{header} {body}");
        }
    }
}
