//! CloudEvents 1.0 over HTTP; the context attributes end up in `_extra` under `$attributes`.

use bytes::Bytes;
use caudal_core::cloud_events::{self, Event, bad};
use caudal_core::rejection::Rejection;
use caudal_engine::ingest::Record;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Binary mode: attributes in `ce-` headers, data as the body.
pub(crate) fn binary(headers: &HeaderMap, body: Bytes) -> Result<Record, Rejection> {
    let mut attributes = Map::new();
    for (name, value) in headers {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else { continue };
        if attribute == "datacontenttype" {
            return Err(bad(
                "",
                "in binary mode the Content-Type is the datacontenttype; leave ce-datacontenttype out",
            ));
        }
        let text = header_text(value.as_bytes())
            .ok_or_else(|| bad("", format!("ce-{attribute} is not percent-encoded UTF-8")))?;
        attributes.insert(attribute.to_owned(), Value::String(text));
    }
    cloud_events::event_of(attributes, body).map(record)
}

/// A header value: quotes off, one percent-decoding, valid UTF-8 (HTTP binding §3.1.3.2).
fn header_text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    percent_decode_str(text).decode_utf8().ok().map(|t| t.into_owned())
}

/// Structured mode: the whole event is one JSON object.
pub(crate) fn structured(event: &Bytes) -> Result<Record, Rejection> {
    cloud_events::structured(event).map(record)
}

fn record(event: Event) -> Record {
    let Event { key, source, attributes, body } = event;
    Record { key: Some(key), source: source.into(), attributes: Some(attributes), body, fault: None }
}
