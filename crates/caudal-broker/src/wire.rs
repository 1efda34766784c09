//! How a message travels inside a broker that is not Caudal's own: the body as the body, everything else as text headers.
//!
//! Header values are printable ASCII: anything else is percent-encoded, because NATS has no line breaks in headers and SQS
//! takes only XML characters. A message without our `caudal-id` was written by somebody else: a CloudEvent in the broker's
//! own binding is taken apart, anything else is taken as it is, with its headers as attributes.

use std::borrow::Cow;

use bytes::Bytes;
use caudal_core::cloud_events;
use caudal_core::json;
use caudal_core::message::{Delivery, Mark, Message, Origin};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};
use uuid::Uuid;

pub(crate) const ID: &str = "caudal-id";
const KEY: &str = "caudal-key";
const SOURCE: &str = "caudal-source";
const PUBLISHED_AT: &str = "caudal-published-at";
const ATTRIBUTES: &str = "caudal-attributes";
const OWN: &str = "caudal-";

/// What would be ambiguous or is refused by some broker in a header's value. Everything beyond ASCII is encoded too.
const UNSAFE: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

/// A message's headers.
pub(crate) fn headers(message: &Message) -> Vec<(&'static str, String)> {
    let text = |text: &str| utf8_percent_encode(text, UNSAFE).to_string();
    let mut headers = vec![
        (ID, message.id.to_string()),
        (SOURCE, text(&message.source)),
        (PUBLISHED_AT, message.published_at.unix_micros().to_string()),
    ];
    headers.extend(message.key.as_deref().map(|key| (KEY, text(key))));
    headers.extend(
        message.attributes.as_deref().map(|attributes| (ATTRIBUTES, text(&String::from_utf8_lossy(attributes)))),
    );
    headers
}

/// A message as a broker hands it over.
#[derive(Debug)]
pub(crate) struct Incoming<'a> {
    pub(crate) headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The broker's own place for it, if it has one.
    pub(crate) content_type: Option<&'a str>,
    /// What CloudEvents context attributes are prefixed with in this broker's binding.
    pub(crate) event_prefix: &'static [&'static str],
    /// What the broker calls this message, the same at every hand-over; empty if it has no name.
    pub(crate) name: Option<String>,
    /// What a foreign message's `source` says: `amqp:<exchange>`, `sns:<arn>`.
    pub(crate) source: String,
    /// When the broker took it, if it says so; else the reader's clock.
    pub(crate) at: Instant,
    pub(crate) body: Bytes,
}

impl Incoming<'_> {
    /// Makes a first delivery of it; the caller sets what it knows of attempts and missing messages.
    pub(crate) fn delivery(self, mark: Mark) -> Delivery {
        let mut delivery = match self.accepted() {
            Some(message) => Delivery::new(message, Origin::Accepted, mark),
            None => self.foreign(mark),
        };
        if delivery.fault.is_none() {
            delivery.fault = unsound(&delivery.message);
        }
        delivery
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }

    /// A message that Caudal published.
    fn accepted(&self) -> Option<Message> {
        let text =
            |name: &str| self.header(name).map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned());
        Some(Message {
            id: Uuid::try_parse(self.header(ID)?).ok()?,
            key: text(KEY),
            source: text(SOURCE)?,
            published_at: Instant::from_unix_micros(self.header(PUBLISHED_AT)?.parse().ok()?),
            attributes: text(ATTRIBUTES).map(Bytes::from),
            body: self.body.clone(),
        })
    }

    fn foreign(self, mark: Mark) -> Delivery {
        let event = self.event();
        let (name, source) = (self.name.clone(), self.source.clone());
        let (key, source, attributes, body, fault) = match event {
            Some(Ok(event)) => (Some(event.key), event.source, Some(event.attributes), event.body, None),
            Some(Err(rejection)) => (name, source, self.attributes(), self.body.clone(), Some(rejection)),
            None => (name, source, self.attributes(), self.body.clone(), None),
        };
        let message = Message { id: Uuid::nil(), key, source, published_at: self.at, attributes, body };
        Delivery { fault, ..Delivery::new(message, Origin::Foreign, mark) }
    }

    /// The CloudEvent that this is, structured or binary.
    fn event(&self) -> Option<Result<cloud_events::Event, Rejection>> {
        let content_type = self.content_type.or_else(|| self.header("content-type")).unwrap_or_default();
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/cloudevents+json") {
            return Some(cloud_events::structured(&self.body));
        }
        let context: Map<String, Value> = self
            .headers
            .iter()
            .filter_map(|(name, value)| {
                let prefix = self.event_prefix.iter().find(|prefix| name.starts_with(**prefix))?;
                Some((name[prefix.len()..].to_ascii_lowercase(), Value::String(value.to_string())))
            })
            .collect();
        context.contains_key("specversion").then(|| cloud_events::event_of(context, self.body.clone()))
    }

    /// The headers of a foreign message as one JSON object, in a fixed order so that each hand-over gives the same bytes.
    fn attributes(&self) -> Option<Bytes> {
        let mut headers: Vec<_> = self.headers.iter().filter(|(name, _)| !name.starts_with(OWN)).collect();
        headers.sort();
        let headers: Map<String, Value> =
            headers.into_iter().map(|(name, value)| (name.to_string(), Value::String(value.to_string()))).collect();
        (!headers.is_empty()).then(|| Bytes::from(Value::Object(headers).to_string()))
    }
}

/// What no store keeps, or keeps so that readers choke on it. Headers are anybody's who may write to the broker.
fn unsound(message: &Message) -> Option<Rejection> {
    let bad = |detail: &'static str| Some(Rejection::whole(Code::MalformedEvent, detail));
    if message.source.contains('\0') {
        return bad("its source holds a NUL character");
    }
    match message.attributes.as_deref().map(|attributes| (attributes.first(), json::check(attributes))) {
        None | Some((Some(b'{'), Ok(_))) => None,
        Some(_) => bad("its attributes are not one sound JSON object"),
    }
}
