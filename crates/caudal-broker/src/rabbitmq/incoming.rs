//! What a delivery becomes.
//!
//! A foreign message's dedup key is its `message-id`, within what gave it: the application if the message names one, else
//! the exchange. RabbitMQ itself numbers nothing and makes no ids, so a foreign message without one has no name at all, and
//! is stored again when it is handed over again after its row was committed: such a topic needs its `key` set.

use std::borrow::Cow;
use std::time::SystemTime;

use caudal_core::message::{Delivery, Mark, Message, Origin};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use uuid::Uuid;

use super::amqp::{Delivered, Malformed, Properties, Value};
use crate::wire::{self, Incoming};

/// CloudEvents' AMQP binding has two spellings (4.1.3.1 of its version 1.0.2).
const EVENT_PREFIXES: &[&str] = &["cloudEvents:", "cloudEvents_"];
/// How often a quorum queue handed it over before, in vain.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// Headers that RabbitMQ changes from one hand-over to the next.
const COUNTERS: [&str; 2] = [DELIVERY_COUNT, "x-acquired-count"];

pub(super) fn delivery(delivered: &Delivered) -> Delivery {
    let mark = Mark::Tag(delivered.tag);
    read(delivered, mark).unwrap_or_else(|malformed| unreadable(delivered, mark, malformed))
}

fn read(delivered: &Delivered, mark: Mark) -> Result<Delivery, Malformed> {
    let mut properties = delivered.properties()?;
    let mut headers: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(8);
    // A classic queue only says that it was handed over before.
    let mut attempt = 1 + u32::from(delivered.redelivered);
    for header in properties.headers.take().into_iter().flatten() {
        let (name, value) = header?;
        if name == DELIVERY_COUNT
            && let Value::Integer(count) = value
        {
            attempt = u32::try_from(count).unwrap_or(0).saturating_add(1);
        }
        if !COUNTERS.contains(&&*name) {
            headers.push((name, value.text()?));
        }
    }
    let ours = headers.iter().any(|(name, _)| name == wire::ID);
    let (name, source) = if ours { (None, String::new()) } else { foreign(delivered, &properties, &mut headers)? };
    let content_type = properties.content_type.as_deref();
    let at = properties.timestamp.and_then(instant).unwrap_or_else(now);
    let body = delivered.body.clone();
    let incoming = Incoming { headers, content_type, event_prefix: EVENT_PREFIXES, name, source, at, body };
    Ok(Delivery { attempt, ..incoming.delivery(mark) })
}

/// The name and the source of somebody else's message. Its properties travel as attributes beside its headers.
fn foreign<'a>(
    delivered: &'a Delivered,
    properties: &Properties<'a>,
    headers: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
) -> Result<(Option<String>, String), Malformed> {
    let (exchange, routing_key) = delivered.route()?;
    let scope = properties.app_id.as_deref().unwrap_or(&exchange);
    let name = properties.message_id.as_deref().map(|id| format!("amqp:{scope}:{id}"));
    let source = format!("amqp:{exchange}");
    let Properties { correlation_id, message_id, kind, app_id, .. } = properties;
    let beside = [
        ("amqp-app-id", app_id.clone()),
        ("amqp-correlation-id", correlation_id.clone()),
        ("amqp-message-id", message_id.clone()),
        ("amqp-routing-key", Some(routing_key).filter(|key| !key.is_empty())),
        ("amqp-type", kind.clone()),
    ];
    headers.extend(beside.into_iter().filter_map(|(name, value)| Some((Cow::Borrowed(name), value?))));
    Ok((name, source))
}

/// A message whose properties or headers cannot be read; it becomes a dead letter.
fn unreadable(delivered: &Delivered, mark: Mark, malformed: Malformed) -> Delivery {
    let message = Message {
        id: Uuid::nil(),
        key: None,
        source: "amqp:".to_owned(),
        published_at: now(),
        attributes: None,
        body: delivered.body.clone(),
    };
    let fault = Some(Rejection::whole(Code::Refused, format!("its AMQP properties cannot be read: {malformed}")));
    Delivery { fault, ..Delivery::new(message, Origin::Foreign, mark) }
}

/// None for a time that no clock shows.
fn instant(seconds: u64) -> Option<Instant> {
    const YEAR_10000: i64 = 253_402_300_800;
    let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds < YEAR_10000)?;
    Some(Instant::from_unix_micros(seconds * 1_000_000))
}

fn now() -> Instant {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or_default())
}
