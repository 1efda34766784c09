//! CloudEvents 1.0 apart from any transport: the event's data becomes the record, its context travels beside it, and its
//! `source` and `id` together are the dedup key (CloudEvents 1.0.2, "REQUIRED attributes").

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::json;
use crate::rejection::{Code, Rejection};
use crate::time::Instant;

/// An event, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `source` and `id`, which together name the event.
    pub key: String,
    /// `cloudevents:` and the event's source.
    pub source: String,
    /// The context attributes as one JSON object.
    pub attributes: Bytes,
    /// The data.
    pub body: Bytes,
}

/// A refusal of an event.
pub fn bad(pointer: &str, detail: impl Into<String>) -> Rejection {
    Rejection::new(Code::MalformedEvent, pointer, detail.into())
}

/// Structured mode: the whole event is one JSON object.
pub fn structured(event: &Bytes) -> Result<Event, Rejection> {
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
    event_of(attributes, body)
}

#[derive(Deserialize)]
struct DataOnly<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Binary mode: context attributes from wherever the transport carries them, data as they are.
pub fn event_of(attributes: Map<String, Value>, body: Bytes) -> Result<Event, Rejection> {
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match text("specversion") {
        Some("1.0") => {}
        _ => return Err(bad("/specversion", "specversion must be \"1.0\"")),
    }
    if let Some(name) = attributes.keys().find(|n| !n.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())) {
        let name: String = name.chars().take(40).collect();
        return Err(bad("", format!("attribute names hold only a-z and 0-9, which {name:?} does not")));
    }
    if let Some((name, _)) = attributes.iter().find(|(_, value)| value.as_str().is_some_and(|text| text.contains('\0')))
    {
        return Err(bad(&format!("/{name}"), "an attribute holds a NUL character, which no store keeps"));
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
    Ok(Event { key, source, attributes, body })
}
