//! Messages that the driver cannot read.
//!
//! It closes the connection over headers that are no text. The server hands such a message out again and again, and all
//! that is behind it never arrives. So when a connection broke although the server lives on, the messages that were out are
//! looked at one by one, as JSON, before any of them is asked for again; those that are unreadable become deliveries with a
//! fault.

use std::str::FromStr;

use async_nats::{HeaderName, StatusCode, Subject};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Mark, Message, Origin};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use uuid::Uuid;

use super::link::Link;
use super::place::{Consumer, TopicStream, text};

/// Messages that are asked for at once.
const AT_ONCE: usize = 256;

/// A message that only looks like this from afar.
#[derive(Debug)]
pub(super) struct Unreadable {
    /// What settles it, as the server would have written it.
    pub(super) reply: Subject,
    message: Message,
}

impl Unreadable {
    pub(super) fn delivery(self, tag: u64) -> Delivery {
        let detail = "the message's NATS headers are not text, so that it cannot be read as what it is";
        let fault = Some(Rejection::whole(Code::InvalidUtf8, detail));
        Delivery { fault, ..Delivery::new(self.message, Origin::Foreign, Mark::Tag(tag)) }
    }
}

impl Link {
    /// The unreadable ones among the messages that a consumer has out.
    pub(super) async fn sift(&self, stream: &TopicStream, consumer: &Consumer) -> Result<Vec<Unreadable>, BrokerError> {
        let out = consumer.acked + 1..consumer.delivered.1 + 1;
        tracing::info!(stream = %stream.stream, ?out, "looking for messages that break the connection");
        let looked_at = stream::iter(out).map(|sequence| self.look_at(stream, consumer, sequence)).buffered(AT_ONCE);
        let found: Vec<Unreadable> =
            looked_at.try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await?;
        if !found.is_empty() {
            tracing::warn!(stream = %stream.stream, messages = found.len(), "messages whose headers cannot be read");
        }
        Ok(found)
    }

    async fn look_at(
        &self,
        stream: &TopicStream,
        consumer: &Consumer,
        sequence: u64,
    ) -> Result<Option<Unreadable>, BrokerError> {
        let answer = self.ask(&format!("STREAM.MSG.GET.{}", stream.stream), &json!({ "seq": sequence })).await?;
        // It may be gone.
        let Ok(answer) = answer else { return Ok(None) };
        let message = &answer["message"];
        let subject = text(message, "subject");
        // The server writes what is not text in this way.
        if readable(&bytes(&message["hdrs"])) && !subject.contains(char::REPLACEMENT_CHARACTER) {
            return Ok(None);
        }
        let at = Instant::parse(text(message, "time")).unwrap_or_default();
        let (named, nanos) = (&stream.stream, at.unix_micros().saturating_mul(1000));
        let reply = format!("$JS.ACK.{named}.{}.1.{sequence}.{}.{nanos}.0", consumer.name, consumer.delivered.0);
        let message = Message {
            id: Uuid::nil(),
            key: Some(format!("{}:{sequence}", stream.life)),
            source: format!("nats:{subject}"),
            published_at: at,
            attributes: None,
            body: Bytes::from(bytes(&message["data"])),
        };
        Ok(Some(Unreadable { reply: Subject::from(reply), message }))
    }
}

fn bytes(base64: &Value) -> Vec<u8> {
    base64.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default()
}

/// Whether the driver takes a block of headers (`Connection::try_read_op` in async-nats 0.51).
fn readable(headers: &[u8]) -> bool {
    if headers.is_empty() {
        return true;
    }
    let Ok(headers) = std::str::from_utf8(headers) else { return false };
    let mut lines = headers.lines();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else { return false };
    let status = status.trim().split(' ').next().unwrap_or_default();
    if !status.is_empty() && StatusCode::from_str(status).is_err() {
        return false;
    }
    let mut first = true;
    lines.filter(|line| !line.is_empty()).all(|line| {
        // A value may go on in the next line.
        let continued = !first && line.starts_with(char::is_whitespace);
        first = false;
        continued || line.split_once(':').is_some_and(|(name, _)| HeaderName::from_str(name).is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_the_driver_takes() {
        for (headers, taken) in [
            (&b""[..], true),
            (b"NATS/1.0\r\nA: b\r\n\r\n", true),
            (b"NATS/1.0\r\nA: b\r\n more\r\nC:\r\n\r\n", true),
            (b"NATS/1.0 100 Idle\r\n\r\n", true),
            (b"NATS/1.0 what\r\n\r\n", false),
            (b"NATS/1.0\r\nA: \xff\r\n\r\n", false),
            (b"NATS/1.0\r\nA b\r\n\r\n", false),
            (b"NATS/1.0\r\nA b: c\r\n\r\n", false),
            (b"NATS/1.0\r\n\xc3\xa9: c\r\n\r\n", false),
            (b"HTTP/1.0\r\nA: b\r\n\r\n", false),
        ] {
            assert_eq!(readable(headers), taken, "{}", String::from_utf8_lossy(headers));
        }
    }
}
