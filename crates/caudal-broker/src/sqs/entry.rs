//! A message as one entry of a batch: its text, its attributes, and how large AWS reckons it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use caudal_core::message::Message;
use caudal_core::topic::TopicName;
use uuid::Uuid;

use crate::wire;

/// Says that the text stands for bytes, and how.
const ENCODING: &str = "caudal-encoding";
const BASE64: &str = "base64";
/// An attribute's value cannot be empty there. [`wire`] writes a percent sign only before two digits, so it is free.
const EMPTY_VALUE: &str = "%";
/// Nor can a text; decoded, padding alone is nothing.
const EMPTY_TEXT: &str = "=";
/// The type that every attribute of ours has. Its name counts towards a message's size.
pub(crate) const TEXT: &str = "String";
/// The longest `MessageGroupId`.
const GROUP_MAX: usize = 128;

/// What a batch is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) text: String,
    pub(crate) attributes: Vec<(&'static str, String)>,
    /// Bytes as AWS counts them: text, and names, types and values of the attributes.
    pub(crate) size: usize,
    /// Where order matters: the messages of one group stay in line. Empty in a standard topic.
    pub(crate) group: String,
    /// What a FIFO topic knows a repeat of this very publish by. Not the message's own id: the same key again is for the store
    /// to judge, which answers for it or keeps it as a dead letter, and AWS would swallow it.
    pub(crate) id: Uuid,
}

impl Entry {
    pub(crate) fn of(message: Message, topic: &TopicName, fifo: bool) -> Self {
        let mut attributes = wire::headers(&message);
        let text = match carried(&message.body) {
            Some(text) => text,
            None => {
                attributes.push((ENCODING, BASE64.to_owned()));
                encoded(&message.body)
            }
        };
        for (_, value) in &mut attributes {
            if value.is_empty() {
                EMPTY_VALUE.clone_into(value);
            }
        }
        let sizes = attributes.iter().map(|(name, value)| name.len() + TEXT.len() + value.len());
        let size = text.len() + sizes.sum::<usize>();
        let id = publish_id(&message);
        let group = if fifo { group(message.key.as_deref().unwrap_or(topic.as_str())) } else { String::new() };
        Self { text, attributes, size, group, id }
    }
}

fn publish_id(message: &Message) -> Uuid {
    let attributes = message.attributes.as_deref().unwrap_or_default();
    let at = message.published_at.unix_micros().to_le_bytes();
    Uuid::new_v5(&message.id, &[&at, attributes, &message.body].concat())
}

/// The body itself, if it is text of which AWS takes every character: those of XML 1.0.
fn carried(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok().filter(|text| !text.is_empty())?;
    let fits = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    text.chars().all(fits).then(|| text.to_owned())
}

fn encoded(body: &[u8]) -> String {
    match body.is_empty() {
        true => EMPTY_TEXT.to_owned(),
        false => STANDARD_NO_PAD.encode(body),
    }
}

/// The body that a text and its attributes stand for; `None` if they say base64 and it is none.
pub(crate) fn body<N: AsRef<str>, V: AsRef<str>>(text: Bytes, attributes: &[(N, V)]) -> Option<Bytes> {
    let is_encoded = attributes.iter().any(|(name, value)| name.as_ref() == ENCODING && value.as_ref() == BASE64);
    if !is_encoded {
        return Some(text);
    }
    let digits = text.strip_suffix(EMPTY_TEXT.as_bytes()).unwrap_or(&text);
    STANDARD_NO_PAD.decode(digits).ok().map(Bytes::from)
}

/// An attribute's value as it was before [`Entry::of`] filled it.
pub(crate) fn value(text: &str) -> &str {
    if text == EMPTY_VALUE { "" } else { text }
}

/// A dedup key as a group's name: its own text where AWS takes that, else a digest of it.
fn group(key: &str) -> String {
    let takes = !key.is_empty() && key.len() <= GROUP_MAX && key.bytes().all(|b| b.is_ascii_graphic());
    let name =
        if takes { Cow::Borrowed(key) } else { Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string().into() };
    name.into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use caudal_core::time::Instant;
    use proptest::prelude::*;

    use super::*;

    fn message(body: &[u8]) -> Message {
        Message {
            id: Uuid::nil(),
            key: None,
            source: String::new(),
            published_at: Instant::default(),
            attributes: None,
            body: Bytes::copy_from_slice(body),
        }
    }

    fn entry(body: &[u8]) -> Entry {
        Entry::of(message(body), &TopicName::parse("t").unwrap(), true)
    }

    #[test]
    fn json_stays_readable() {
        let entry = entry("{\"a\":\"ñ\u{1F30A}\"}".as_bytes());
        assert_eq!(entry.text, "{\"a\":\"ñ\u{1F30A}\"}");
        assert!(entry.attributes.iter().all(|(name, _)| *name != ENCODING));
        assert_eq!(entry.group, "t");
    }

    #[test]
    fn what_is_not_xml_text_is_base64() {
        for body in [&b""[..], b"\xff\xfe", b"{\"a\":\"\x01\"}", "\u{FFFE}".as_bytes(), b"=", b"\0"] {
            let entry = entry(body);
            let attributes = &entry.attributes;
            assert_eq!(attributes.iter().any(|(name, _)| *name == ENCODING), body != b"=", "{body:?}");
            assert!(!entry.text.is_empty() && attributes.iter().all(|(_, value)| !value.is_empty()));
            assert!(attributes.len() < 10, "SNS passes on ten at most");
        }
        assert_eq!(super::body(Bytes::from_static(b"not base64!"), &[(ENCODING, BASE64)]), None);
    }

    #[test]
    fn groups_are_what_aws_takes() {
        assert_eq!(group("order-7"), "order-7");
        for key in ["", "a b", "ñ", &"k".repeat(129)] {
            assert!(group(key).len() == 36 && group(key) != group("other one"), "{key}");
        }
    }

    proptest! {
        #[test]
        fn every_body_comes_back(body: Vec<u8>) {
            let entry = entry(&body);
            prop_assert!(carried(entry.text.as_bytes()).is_some());
            let back = super::body(Bytes::from(entry.text), &entry.attributes);
            prop_assert_eq!(back.as_deref(), Some(&body[..]));
        }
    }
}
