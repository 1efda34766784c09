//! CloudEvents 1.0 over HTTP: the event's data becomes the record, its context travels in `_extra` under `$attributes`, and
//! its `source` and `id` together are the dedup key (CloudEvents 1.0.2, "REQUIRED attributes").

use bytes::Bytes;
use caudal_core::json;
use caudal_core::rejection::{Code, Rejection};
use caudal_core::time::Instant;
use caudal_engine::ingest::Record;
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

fn bad(pointer: &str, detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::MalformedEvent, pointer, detail.into())
}

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
    record(attributes, body)
}

/// A header value: quotes off, one percent-decoding, valid UTF-8 (HTTP binding §3.1.3.2).
fn header_text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    percent_decode_str(text).decode_utf8().ok().map(|t| t.into_owned())
}

/// Structured mode: the whole event is one JSON object.
pub(crate) fn structured(event: &Bytes) -> Result<Record, Rejection> {
    json::check(event).map_err(json::Fault::reject)?;
    // The data's own bytes go through untouched, so they are looked up beside the parsed attributes.
    let whole: Map<String, Value> =
        serde_json::from_slice(event).map_err(|_| bad("", "an event must be a JSON object"))?;
    let data: DataOnly<'_> = serde_json::from_slice(event).map_err(|_| bad("", "an event must be a JSON object"))?;
    let mut attributes: Map<String, Value> =
        whole.into_iter().filter(|(name, value)| name != "data" && !value.is_null()).collect();
    if attributes.remove("data_base64").is_some() {
        let detail = "binary data cannot become columns or a document; send JSON data";
        return Err(bad("/data_base64", detail));
    }
    if let Some(media) = attributes.get("datacontenttype").and_then(Value::as_str)
        && !media.contains("json")
    {
        return Err(bad("/datacontenttype", "only JSON data is stored"));
    }
    let Some(data) = data.data else { return Err(bad("/data", "the event has no data, so there is nothing to store")) };
    attributes.remove("datacontenttype");
    let body = event.slice_ref(data.get().as_bytes());
    record(attributes, body)
}

#[derive(Deserialize)]
struct DataOnly<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

fn record(attributes: Map<String, Value>, body: Bytes) -> Result<Record, Rejection> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match text("specversion") {
        Some("1.0") => {}
        _ => return Err(bad("/specversion", "specversion must be \"1.0\"")),
    }
    if let Some(name) = attributes.keys().find(|n| !n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())) {
        let name: String = name.chars().take(40).collect();
        return Err(bad("", format!("attribute names hold only a-z and 0-9, which {name:?} does not")));
    }
    let (Some(id), Some(source), Some(_)) = (text("id"), text("source"), text("type")) else {
        return Err(bad("", "an event has id, source and type, none of them empty"));
    };
    if attributes.get("time").is_some_and(|t| t.as_str().and_then(Instant::parse).is_none()) {
        return Err(bad("/time", "time must be an RFC 3339 date-time"));
    }
    let key = format!("{source} {id}");
    let source = format!("cloudevents:{source}");
    let attributes = Bytes::from(Value::Object(attributes).to_string());
    Ok(Record { key: Some(key), source: source.into(), attributes: Some(attributes), body, fault: None })
}
