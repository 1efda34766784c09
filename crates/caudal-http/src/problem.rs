//! Errors as answers: RFC 9457 problem documents with a stable code, and a page for each under `docs/errors/`.

use axum::response::{IntoResponse, Response};
use caudal_core::error::{BrokerError, StoreError};
use caudal_core::rejection::{Code, Rejection};
use caudal_engine::AcceptError;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

const TYPE_BASE: &str = "/docs/errors/";
/// What clients are told to wait when a dependency is away.
const RETRY_AFTER_SECONDS: &str = "1";

/// One error answer. A pointer: it travels through every handler's `Result`, and almost none has one.
#[derive(Debug)]
pub struct Problem(Box<Parts>);

#[derive(Debug)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    pointer: Option<String>,
    more: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    postgrest: bool,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        let parts =
            Parts { status, code, detail, pointer: None, more: Map::new(), headers: Vec::new(), postgrest: false };
        Self(Box::new(parts))
    }

    pub fn bad_request(code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn unknown_topic(name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> Self {
        let detail = format!("topic {:?} does not exist; {}", excerpt(name), choices(name, known));
        Self::new(StatusCode::NOT_FOUND, "unknown_topic", detail)
    }

    pub fn unsupported_media_type(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    pub fn body_too_large(bytes_max: usize) -> Self {
        let detail = format!(
            "this body may have {bytes_max} bytes after decompression; send more as application/x-ndjson, which has no limit"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    pub fn overloaded() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "too much work is waiting; nothing was taken, try again",
        )
        .header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    pub fn rejection(rejection: &Rejection) -> Self {
        let status = match rejection.code {
            Code::RecordTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            code if code.is_malformed() => StatusCode::BAD_REQUEST,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        let problem = Self::new(status, rejection.code.name(), rejection.detail.clone());
        match rejection.pointer.is_empty() {
            true => problem,
            false => problem.pointer(rejection.pointer.clone()),
        }
    }

    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    pub fn pointer(mut self, pointer: String) -> Self {
        self.0.pointer = Some(pointer);
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }

    pub fn header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// Carries PostgREST's four keys as well, for its clients.
    pub fn for_postgrest(mut self) -> Self {
        self.0.postgrest = true;
        self
    }
}

impl Parts {
    fn body(&self) -> Value {
        let mut body = Map::new();
        if self.postgrest {
            body.insert("code".into(), postgrest_code(self.code).into());
            body.insert("message".into(), self.detail.as_ref().into());
            body.insert("details".into(), self.more.get("details").cloned().unwrap_or_default());
            body.insert("hint".into(), self.more.get("hint").cloned().unwrap_or_default());
            body.insert("caudal_code".into(), self.code.into());
        } else {
            body.insert("code".into(), self.code.into());
        }
        body.insert("type".into(), format!("{TYPE_BASE}{}", self.code).into());
        body.insert("title".into(), self.code.replace('_', " ").into());
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("detail".into(), self.detail.as_ref().into());
        if let Some(pointer) = &self.pointer {
            body.insert("pointer".into(), pointer.as_str().into());
        }
        for (name, value) in &self.more {
            body.insert(name.clone(), value.clone());
        }
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let parts = *self.0;
        let mut response = (parts.status, parts.body().to_string()).into_response();
        let media = if parts.postgrest { "application/json; charset=utf-8" } else { "application/problem+json" };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        for (name, value) in parts.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::UnknownTopic(name) => Self::unknown_topic(&name, std::iter::empty::<&str>()),
            AcceptError::Rejected { index, rejection, transaction_id, dead_letter } => {
                let mut problem = Self::rejection(&rejection).with("index", index);
                for (name, id) in [("transaction_id", transaction_id), ("dead_letter", dead_letter)] {
                    if let Some(id) = id {
                        problem = problem.with(name, id.to_string());
                    }
                }
                problem
            }
            AcceptError::KeyInFlight => Self::new(
                StatusCode::CONFLICT,
                "key_in_flight",
                "a request with this key is still running; wait for it, or repeat this one later",
            )
            .header(header::RETRY_AFTER, RETRY_AFTER_SECONDS),
            AcceptError::Overloaded => Self::overloaded(),
            AcceptError::TooLarge { max, bytes_max } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!(
                    "with handling=strict a request is one transaction: at most {max} records and {bytes_max} bytes"
                ),
            ),
            AcceptError::Store(error) => error.into(),
            AcceptError::Broker(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(_) => disk_full(&error),
            StoreError::Timeout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the database did not answer in time; ask for fewer rows or filter by an indexed column",
            ),
            StoreError::Unavailable(_) | StoreError::Fenced => unavailable("store_unavailable", &error),
            StoreError::Aborted { row, rejection } => Self::rejection(&rejection).with("index", row),
            StoreError::Asked(sentence) => Self::bad_request("bad_value", sentence),
            StoreError::Setup(sentence) => internal(&sentence),
            StoreError::Fatal(_) => internal(&error),
        }
    }
}

impl From<BrokerError> for Problem {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Full(_) => disk_full(&error),
            BrokerError::Unavailable(_) | BrokerError::UnknownTopic(_) => unavailable("broker_unavailable", &error),
            BrokerError::Position(error) => error.into(),
            // Only what an operator can change; the producer repeats it and sees it through then.
            BrokerError::Setup(_) => unavailable("broker_unavailable", &error),
            BrokerError::Refused(why) => Self::rejection(&Rejection::whole(Code::RecordTooLarge, why)),
            BrokerError::Fatal(_) => internal(&error),
        }
    }
}

/// The log gets the cause; the client gets what it can act on.
fn unavailable(code: &'static str, error: &dyn std::error::Error) -> Problem {
    tracing::warn!(%error, code, "request answered 503");
    let detail = "a dependency is away; whether the message was taken is unknown, so repeat it with the same key";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
}

fn disk_full(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "request answered 507");
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", "the disk is full; nothing was taken, reads still work")
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "request answered 500");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Caudal failed; the log has the cause")
}

/// PostgREST's codes for the refusals that its clients look at.
fn postgrest_code(code: &'static str) -> &'static str {
    match code {
        "unknown_table" => "PGRST205",
        "unknown_schema" => "PGRST106",
        "unknown_column" => "42703",
        "bad_filter" => "PGRST100",
        "range_not_satisfiable" => "PGRST103",
        "not_embedded" => "PGRST108",
        "related_filter" => "PGRST120",
        "unknown_relation" => "PGRST200",
        "ambiguous_relation" => "PGRST201",
        "bad_value" => "22P02",
        "bad_preference" => "PGRST122",
        "not_acceptable" => "PGRST107",
        "not_one_row" => "PGRST116",
        "timeout" => "57014",
        "store_unavailable" => "PGRST001",
        code => code,
    }
}

/// At most 80 characters of what a caller sent, for a message.
pub fn excerpt(text: &str) -> String {
    let mut short: String = text.chars().take(80).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// "did you mean …" when one is close, else the whole choice, bounded.
pub fn choices(name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    let known: Vec<String> = known.map(|k| k.as_ref().to_owned()).take(50).collect();
    let close = known.iter().map(|k| (distance(name, k), k)).min().filter(|(d, k)| *d <= 2.max(k.len() / 4));
    match close {
        Some((_, close)) => format!("did you mean {close:?}?"),
        None if known.is_empty() => "none is configured".to_owned(),
        None => format!("there are {}", known.join(", ")),
    }
}

/// Levenshtein distance over bytes, for short names.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (&a.as_bytes()[..a.len().min(64)], &b.as_bytes()[..b.len().min(64)]);
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The answer for a page that needs a JSON body of its own.
pub fn json_response(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, body.to_string()).into_response()
}

/// A small JSON object with one message, for probes.
pub fn status_body(status: &str) -> Value {
    json!({ "status": status })
}
