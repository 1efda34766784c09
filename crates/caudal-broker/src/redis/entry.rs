//! How a message looks as an entry of a stream: a field a header, and the body.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use caudal_core::message::{Delivery, Mark, Message};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use redis::{Cmd, RedisWrite, ToRedisArgs, Value};

use crate::wire::{self, Incoming};

/// What a foreign producer may call the body, the first that is there.
const BODY: [&[u8]; 3] = [b"body", b"data", b"payload"];
const EVENT_PREFIX: &[&str] = &["ce-", "ce_"];

/// An entry's id: milliseconds since 1970 and a number within them, unless the producer chose another.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EntryId {
    pub(super) ms: u64,
    pub(super) seq: u64,
}

impl EntryId {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let Value::BulkString(text) = value else { return None };
        let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
    }

    /// The least id above this one.
    pub(super) fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { seq, ..self },
            None => Self { ms: self.ms.saturating_add(1), seq: 0 },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl ToRedisArgs for EntryId {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(self);
    }
}

/// An entry as the server hands it over.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    /// Names and values in turn; `None` when the entry was deleted while it was pending.
    pub(super) fields: Option<Vec<Value>>,
}

impl Entry {
    /// What the server answered to a read of entries.
    pub(super) fn all(value: Value) -> Vec<Self> {
        array(value).into_iter().filter_map(Self::of).collect()
    }

    fn of(value: Value) -> Option<Self> {
        let mut parts = array(value).into_iter();
        let id = EntryId::of(&parts.next()?)?;
        let fields = match parts.next()? {
            Value::Array(fields) => Some(fields),
            _ => None,
        };
        Some(Self { id, fields })
    }

    pub(super) fn bytes(&self) -> usize {
        let value = |value: &Value| if let Value::BulkString(bytes) = value { bytes.len() } else { 0 };
        self.fields.iter().flatten().map(value).sum()
    }

    /// Makes a delivery of an entry that is there.
    pub(super) fn delivery(self, key: &str, tag: u64) -> Delivery {
        let mut texts = self.fields.unwrap_or_default().into_iter().map(|value| match value {
            Value::BulkString(bytes) => bytes,
            _ => Vec::new(),
        });
        let mut fields = Vec::new();
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            fields.push((name, value));
        }
        let named = |name: &&[u8]| fields.iter().position(|(n, _)| n == name);
        let body = BODY.iter().find_map(named).or((fields.len() == 1).then_some(0));
        let (body, fault) = match body {
            Some(index) => (Bytes::from(fields.remove(index).1), None),
            None => object(std::mem::take(&mut fields)),
        };
        let headers: Vec<_> = fields.into_iter().map(|(name, value)| (text(name), text(value))).collect();
        let foreign = !headers.iter().any(|(name, _)| name == wire::ID);
        let incoming = Incoming {
            headers,
            content_type: None,
            event_prefix: EVENT_PREFIX,
            name: foreign.then(|| format!("redis:{key}:{}", self.id)),
            source: if foreign { format!("redis:{key}") } else { String::new() },
            at: Instant::from_unix_micros(i64::try_from(self.id.ms.saturating_mul(1000)).unwrap_or(i64::MAX)),
            body,
        };
        let delivery = incoming.delivery(Mark::Tag(tag));
        Delivery { fault: fault.or(delivery.fault), ..delivery }
    }
}

/// Fields of which none is the body, as one JSON object.
fn object(fields: Vec<(Vec<u8>, Vec<u8>)>) -> (Bytes, Option<Rejection>) {
    let mut fault = None;
    let mut text = |bytes: Vec<u8>| match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let why = "the entry has no field body, data or payload, and its fields are not all UTF-8";
            fault = Some(Rejection::whole(Code::InvalidUtf8, why));
            String::from_utf8_lossy(error.as_bytes()).into_owned()
        }
    };
    let object: serde_json::Map<_, _> =
        fields.into_iter().map(|(name, value)| (text(name), text(value).into())).collect();
    (Bytes::from(serde_json::Value::Object(object).to_string()), fault)
}

fn text(bytes: Vec<u8>) -> Cow<'static, str> {
    let text = String::from_utf8(bytes);
    Cow::Owned(text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Adds a message to a stream, if the stream is there: one that is not has no groups either.
pub(super) fn add(key: &str, message: &Message) -> Cmd {
    let mut add = redis::cmd("XADD");
    add.arg(key).arg("NOMKSTREAM").arg("*");
    for (name, value) in wire::headers(message) {
        add.arg(name).arg(value);
    }
    add.arg(BODY[0]).arg(&message.body[..]);
    add
}

pub(super) fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(fields: &[(&str, &[u8])]) -> Delivery {
        let values = fields.iter().flat_map(|(name, value)| [name.as_bytes(), value]);
        let fields = Some(values.map(|bytes| Value::BulkString(bytes.to_vec())).collect());
        Entry { id: EntryId { ms: 7, seq: 1 }, fields }.delivery("s", 1)
    }

    #[test]
    fn what_a_foreign_entrys_body_is() {
        for (fields, body, attributes) in [
            (&[("a", &b"1"[..]), ("payload", b"2"), ("data", b"3")][..], "3", Some(r#"{"a":"1","payload":"2"}"#)),
            (&[("only", b"{}")], "{}", None),
            (&[("a", b"x\"y"), ("b", b"1")], r#"{"a":"x\"y","b":"1"}"#, None),
        ] {
            let delivery = delivery(fields);
            assert_eq!(delivery.message.body, body);
            assert_eq!(delivery.message.attributes.as_deref(), attributes.map(str::as_bytes));
            assert_eq!((delivery.message.key.as_deref(), &delivery.fault), (Some("redis:s:7-1"), &None));
        }
        assert!(delivery(&[("a", b"\xff"), ("b", b"1")]).fault.is_some());
    }
}
