//! What a producer is told.

use axum::response::{IntoResponse, Response};
use caudal_engine::{Report, Verdict, VerdictState};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::prefer::Preferences;

/// The answer for one message: `201` stored, `200` duplicate, `202` queued.
pub(crate) fn one(topic: &str, verdict: &Verdict, preferences: &Preferences) -> Response {
    finish(plain(topic, verdict), preferences)
}

/// The same for somebody who has no preferences.
pub(crate) fn plain(topic: &str, verdict: &Verdict) -> Response {
    let id = verdict.transaction_id;
    let (status, location) = match verdict.state {
        VerdictState::Queued => (StatusCode::ACCEPTED, format!("/v1/receipts/{id}")),
        VerdictState::Duplicate => (StatusCode::OK, format!("/v1/topics/{topic}/messages/{id}")),
        _ => (StatusCode::CREATED, format!("/v1/topics/{topic}/messages/{id}")),
    };
    let state = verdict.state.name();
    // The id and the topic's name need no escaping.
    let body = format!("{{\"transaction_id\":\"{id}\",\"topic\":\"{topic}\",\"state\":\"{state}\"}}");
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::LOCATION, &location)];
    (status, headers, body).into_response()
}

/// The answer for many: a sum and a verdict a record. `207` when any was set aside (RFC 4918 §11.1, for the status only).
pub(crate) fn many(topic: &str, report: &Report, preferences: &Preferences) -> Response {
    let status = match report {
        r if r.dead > 0 => StatusCode::MULTI_STATUS,
        r if r.queued > 0 => StatusCode::ACCEPTED,
        r if r.stored > 0 => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let shown = |verdict: &&Verdict| !preferences.minimal || verdict.rejection.is_some();
    let records: Vec<Value> = report.verdicts.iter().filter(shown).map(entry).collect();
    let omitted = report.total() - records.len() as u64;
    let body = json!({
        "topic": topic,
        "records_total": report.total(),
        "stored": report.stored,
        "queued": report.queued,
        "duplicate": report.duplicate,
        "dead": report.dead,
        "records": records,
        "records_omitted": omitted,
    });
    let headers = [(header::CONTENT_TYPE, "application/json")];
    finish((status, headers, body.to_string()).into_response(), preferences)
}

fn entry(verdict: &Verdict) -> Value {
    let mut entry = Map::new();
    entry.insert("index".into(), verdict.index.into());
    entry.insert("transaction_id".into(), verdict.transaction_id.to_string().into());
    entry.insert("state".into(), verdict.state.name().into());
    if let Some(rejection) = &verdict.rejection {
        entry.insert("code".into(), rejection.code.name().into());
        entry.insert("pointer".into(), rejection.pointer.as_str().into());
        entry.insert("detail".into(), rejection.detail.as_ref().into());
    }
    if let Some(dead_letter) = verdict.dead_letter {
        entry.insert("dead_letter".into(), dead_letter.to_string().into());
    }
    Value::Object(entry)
}

fn finish(mut response: Response, preferences: &Preferences) -> Response {
    if let Some(applied) = preferences.applied() {
        response.headers_mut().insert("preference-applied", applied);
    }
    if response.status() == StatusCode::ACCEPTED {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
