//! A JetStream delivery as ours.

use std::borrow::Cow;

use async_nats::{HeaderMap, Message};
use caudal_core::message::{Delivery, Mark};
use caudal_core::time::Instant;

use super::gap::Numbers;
use crate::wire::{self, Incoming};

const EVENT_PREFIX: &[&str] = &["ce-"];

/// What the subject that settles a delivery says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) numbers: Numbers,
    published_at: Instant,
}

impl Told {
    /// Reads `$JS.ACK.<stream>.<consumer>.<attempt>.<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>`, or the
    /// form that has domain and account after `ACK` and one more part at the end.
    pub(super) fn by(reply: &str) -> Option<Self> {
        let parts = reply.strip_prefix("$JS.ACK.")?.split('.');
        let skipped = match parts.clone().count() {
            7 => 2,
            9.. => 4,
            _ => return None,
        };
        let mut numbers = parts.skip(skipped).map(|part| part.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let numbers = Numbers { attempt: next()?, stream: next()?, consumer: next()? };
        let published_at = Instant::from_unix_micros(i64::try_from(next()? / 1000).ok()?);
        Some(Self { numbers, published_at })
    }
}

/// Makes a delivery of a message from the stream whose life is so named.
pub(super) fn delivery(message: Message, told: Told, missing: u64, life: &str, tag: u64) -> Delivery {
    let Message { subject, headers, payload, .. } = message;
    let headers = headers.as_ref().map(pairs).unwrap_or_default();
    let foreign = !headers.iter().any(|(name, _)| name == wire::ID);
    let incoming = Incoming {
        content_type: None,
        event_prefix: EVENT_PREFIX,
        name: foreign.then(|| format!("{life}:{}", told.numbers.stream)),
        source: if foreign { format!("nats:{subject}") } else { String::new() },
        at: told.published_at,
        body: payload,
        headers,
    };
    let attempt = u32::try_from(told.numbers.attempt).unwrap_or(u32::MAX);
    Delivery { attempt, missing, ..incoming.delivery(Mark::Tag(tag)) }
}

fn pairs(headers: &HeaderMap) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
    let mut pairs = Vec::with_capacity(headers.len());
    for (name, values) in headers.iter() {
        // The driver takes none but ASCII.
        let name = std::str::from_utf8(name.as_ref()).unwrap_or_default();
        pairs.extend(values.iter().map(|value| (Cow::Borrowed(name), Cow::Borrowed(value.as_str()))));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_reply() {
        let numbers = Numbers { attempt: 2, stream: 33, consumer: 44 };
        let told = Some(Told { numbers, published_at: Instant::from_unix_micros(1_700_000_000_000_001) });
        assert_eq!(Told::by("$JS.ACK.s.c.2.33.44.1700000000000001999.5"), told);
        assert_eq!(Told::by("$JS.ACK.hub.ACCHASH.s.c.2.33.44.1700000000000001999.5"), told);
        assert_eq!(Told::by("$JS.ACK.hub.ACCHASH.s.c.2.33.44.1700000000000001999.5.x7"), told);
        for wrong in ["$JS.ACK.s.c.2.33", "_INBOX.a", "$JS.ACK.s.c.two.33.44.1.5", "$JS.ACK.s.c.2.33.44.-1.5"] {
            assert_eq!(Told::by(wrong), None, "{wrong}");
        }
    }
}
