//! A message as a Kafka record, and a record as a delivery.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use caudal_core::message::{Delivery, Mark, Message};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use uuid::Uuid;

use crate::wire::{self, Incoming};

/// CloudEvents 1.0.2, Kafka protocol binding, 3.2.
const EVENT_PREFIX: &[&str] = &["ce_"];
/// Where a foreign record's key goes among its attributes.
const KEY: &str = "kafka-key";
/// What is encoded of a value that is not plain text.
const NOT_TEXT: &AsciiSet = &CONTROLS.add(b'%');

/// Milliseconds since 1970 that are a time; a producer may write any number. Up to the end of 9999.
const TIMES: RangeInclusive<i64> = 0..=253_402_300_799_999;

const TOMBSTONE: &str =
    "a Kafka tombstone (a record without a value) deletes its key and holds no document, so there is nothing to store";
const HEADERS: &str = "a header of this Kafka record has a name that is not UTF-8";

pub(super) fn headers(message: &Message) -> OwnedHeaders {
    let headers = wire::headers(message);
    let start = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(start, |all, (key, value)| all.insert(Header { key, value: Some(value.as_str()) }))
}

/// Bytes of a message on its way, a little too many.
pub(super) fn bytes_of(message: &Message) -> usize {
    const FIXED: usize = 512;
    let key = message.key.as_ref().map_or(0, String::len);
    // Percent-encoding makes three bytes of one at the most, and the key is the record's key too.
    let headers = 4 * key + 3 * (message.source.len() + message.attributes.as_ref().map_or(0, Bytes::len));
    FIXED + headers + message.body.len()
}

/// What a record's name is made of, the same for all of a topic.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    name: String,
    source: String,
}

impl Origin {
    pub(super) fn new(cluster: &str, topic: &str) -> Self {
        Self { name: format!("kafka:{cluster}:{topic}"), source: format!("kafka:{topic}") }
    }

    /// Makes a delivery; where it joins its lane is for the caller to say.
    pub(super) fn delivery(&self, record: &BorrowedMessage<'_>, mark: Mark) -> Delivery {
        let millis = record.timestamp().to_millis();
        // The library panics on a header name that is not UTF-8, which anybody may write.
        let headers = catch_unwind(AssertUnwindSafe(|| text_headers(record)));
        let fault = match (&headers, record.payload()) {
            (Err(_), _) => Some(Rejection::whole(Code::InvalidUtf8, HEADERS)),
            (_, None) => Some(Rejection::whole(Code::EmptyBody, TOMBSTONE)),
            _ => None,
        };
        let headers = headers.unwrap_or_default();
        let ours = headers.iter().any(|(name, _)| name == wire::ID);
        let incoming = Incoming {
            headers,
            content_type: None,
            event_prefix: EVENT_PREFIX,
            name: (!ours).then(|| self.name_of(record, millis)),
            source: self.source.clone(),
            at: millis.filter(|millis| TIMES.contains(millis)).map_or_else(now, at),
            body: Bytes::copy_from_slice(record.payload().unwrap_or_default()),
        };
        let delivery = incoming.delivery(mark);
        Delivery { fault: fault.or(delivery.fault), ..delivery }
    }

    /// Offset and time together: when a topic is made anew, or its tail is written again by another leader, the same offset
    /// is another message, which must not pass for a repetition.
    fn name_of(&self, record: &BorrowedMessage<'_>, millis: Option<i64>) -> String {
        let (partition, offset) = (record.partition(), record.offset());
        format!("{}:{partition}:{offset}:{}", self.name, millis.unwrap_or_default())
    }
}

/// Whether a record carries the message with this id.
pub(super) fn is_ours(record: &BorrowedMessage<'_>, id: Uuid) -> bool {
    let named = || {
        let header = record.headers()?.iter().find(|header| header.key == wire::ID)?;
        Uuid::try_parse_ascii(header.value?).ok()
    };
    catch_unwind(AssertUnwindSafe(named)).is_ok_and(|named| named == Some(id))
}

/// The headers, and the key of a record that is not ours.
fn text_headers<'a>(record: &'a BorrowedMessage<'_>) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let headers = record.headers();
    let count = headers.map_or(0, Headers::count);
    let mut all = Vec::with_capacity(count + 1);
    for header in headers.into_iter().flat_map(Headers::iter) {
        all.push((Cow::Borrowed(header.key), text(header.value.unwrap_or_default())));
    }
    let ours = all.iter().any(|(name, _)| name == wire::ID);
    all.extend(record.key().filter(|_| !ours).map(|key| (Cow::Borrowed(KEY), text(key))));
    all
}

/// Bytes that are text as they are; what is not is percent-encoded, because no store takes it.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Cow::Borrowed(text),
        _ => percent_encode(bytes, NOT_TEXT).into(),
    }
}

fn at(millis: i64) -> Instant {
    Instant::from_unix_micros(millis.saturating_mul(1000))
}

fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
