//! From an HTTP answer to what the front wants to be given.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::event::Front;

impl Front {
    /// How large a whole answer may be: Lambda's limit, or the load balancer's 1 MB.
    pub(super) fn answer_bytes_max(self) -> usize {
        match self {
            Self::LoadBalancer { .. } => 1_000_000,
            _ => 6_291_556,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    status_code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<&'a str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multi_value_headers: Option<BTreeMap<&'a str, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookies: Option<Vec<String>>,
    body: std::borrow::Cow<'a, str>,
    is_base64_encoded: bool,
}

/// What to hand over. Not yet held against [`Front::answer_bytes_max`].
pub(super) fn answer(front: Front, response: &http::Response<Bytes>) -> serde_json::Result<Box<RawValue>> {
    let (status, headers) = (response.status(), response.headers());
    let (body, is_base64_encoded) = match text(headers, response.body()) {
        Some(text) => (text.into(), false),
        None => (STANDARD.encode(response.body()).into(), true),
    };
    let multi_value = match front {
        Front::RestApi | Front::HttpApi1 => true,
        Front::HttpApi2 => false,
        Front::LoadBalancer { multi_value } => multi_value,
    };
    let split_cookies = front == Front::HttpApi2;
    to_raw_value(&Answer {
        status_code: status.as_u16(),
        status_description: matches!(front, Front::LoadBalancer { .. })
            .then(|| format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Unknown"))),
        headers: (!multi_value).then(|| joined(headers, split_cookies)),
        multi_value_headers: multi_value.then(|| listed(headers)),
        cookies: split_cookies.then(|| headers.get_all(header::SET_COOKIE).iter().map(written).collect()),
        body,
        is_base64_encoded,
    })
}

fn listed(headers: &HeaderMap) -> BTreeMap<&str, Vec<String>> {
    let names = headers.keys().filter(|name| !of_the_connection(name));
    names.map(|name| (name.as_str(), headers.get_all(name).iter().map(written).collect())).collect()
}

fn joined(headers: &HeaderMap, without_cookies: bool) -> BTreeMap<&str, String> {
    let left_out = |name: &HeaderName| of_the_connection(name) || without_cookies && name == header::SET_COOKIE;
    let names = headers.keys().filter(|name| !left_out(name));
    let values = |name| headers.get_all(name).iter().map(written).collect::<Vec<_>>().join(", ");
    names.map(|name| (name.as_str(), values(name))).collect()
}

fn written(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The front has a connection and a length of its own.
fn of_the_connection(name: &HeaderName) -> bool {
    [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH].contains(name)
}

/// The body as text, if it is meant as text and is.
fn text<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<&'a str> {
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return None;
    }
    let media = headers.get(header::CONTENT_TYPE).map(|media| media.to_str().unwrap_or_default());
    if media.is_some_and(|media| !is_text(media)) {
        return None;
    }
    std::str::from_utf8(body).ok()
}

fn is_text(media: &str) -> bool {
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let application = ["json", "x-ndjson", "ndjson", "jsonl", "xml", "yaml", "javascript", "openmetrics-text"];
    media.starts_with("text/")
        || media.ends_with("+json")
        || media.ends_with("+xml")
        || media.strip_prefix("application/").is_some_and(|kind| application.contains(&kind))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn answered(front: Front, headers: &[(&str, &str)], body: &'static [u8]) -> Value {
        let mut response = http::Response::new(Bytes::from_static(body));
        *response.status_mut() = http::StatusCode::CREATED;
        for (name, value) in headers {
            response.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        serde_json::from_str(answer(front, &response).unwrap().get()).unwrap()
    }

    const HEADERS: &[(&str, &str)] = &[
        ("vary", "Accept"),
        ("vary", "Prefer"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("connection", "close"),
    ];

    #[test]
    fn each_front_gets_its_own_form() {
        let rest = answered(Front::RestApi, HEADERS, b"{}");
        assert_eq!(rest["multiValueHeaders"]["vary"], serde_json::json!(["Accept", "Prefer"]));
        assert_eq!((&rest["statusCode"], &rest["body"], &rest["headers"]), (&201.into(), &"{}".into(), &Value::Null));
        let two = answered(Front::HttpApi2, HEADERS, b"");
        assert_eq!(two["headers"], serde_json::json!({"vary": "Accept, Prefer"}));
        assert_eq!(two["cookies"], serde_json::json!(["a=1", "b=2"]));
        let single = answered(Front::LoadBalancer { multi_value: false }, HEADERS, b"");
        assert_eq!(
            (&single["statusDescription"], &single["headers"]["vary"]),
            (&"201 Created".into(), &"Accept, Prefer".into())
        );
        let multi = answered(Front::LoadBalancer { multi_value: true }, HEADERS, b"");
        assert_eq!(multi["multiValueHeaders"]["set-cookie"], serde_json::json!(["a=1", "b=2"]));
    }

    #[test]
    fn what_is_not_text_is_base64() {
        let is_base64 = |headers: &[(&str, &str)], body| {
            let answer = answered(Front::HttpApi2, headers, body);
            (answer["isBase64Encoded"].as_bool().unwrap(), answer["body"].as_str().unwrap().to_owned())
        };
        assert_eq!(is_base64(&[("content-type", "application/problem+json")], b"{}"), (false, "{}".into()));
        assert_eq!(is_base64(&[("content-type", "text/csv; charset=utf-8")], b"a\n"), (false, "a\n".into()));
        assert_eq!(
            is_base64(&[("content-type", "application/vnd.apache.parquet")], b"PAR1"),
            (true, "UEFSMQ==".into())
        );
        assert_eq!(
            is_base64(&[("content-type", "text/csv"), ("content-encoding", "gzip")], b"a"),
            (true, "YQ==".into())
        );
        assert_eq!(is_base64(&[("content-type", "text/plain")], b"\xff"), (true, "/w==".into()));
        assert_eq!(is_base64(&[], b"plain"), (false, "plain".into()));
    }
}
