//! Messages pushed by somebody who cannot mend and repeat them: what is wrong with one ends as a dead letter, not as a
//! refusal that nobody reads.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use caudal_engine::ingest::{Answer, Record};
use caudal_engine::{Verdict, VerdictState};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::problem::{Problem, json_response};
use crate::publish::answer;
use crate::publish::body::BodyReader;
use crate::state::App;

/// The body as it came. A signature is over those bytes, so nothing may be unpacked in between.
pub(crate) async fn raw_body(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|coding| coding.to_str().ok());
    if coding.is_some_and(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::unsupported_media_type(
            "a signed body is taken as it is: send it without Content-Encoding",
        ));
    }
    BodyReader::new(body, headers)?.collect(bytes_max).await
}

/// Makes the message durable, good or bad, and answers `200`, `201` or `202`.
///
/// # Errors
/// Only where nothing may have been taken, or that is unknown: whoever pushed it repeats it.
pub(crate) async fn keep(app: &Arc<App>, topic: &str, record: Record) -> Result<Response, Problem> {
    // An intake of one: it keeps what a single publish would refuse.
    let mut intake = app.engine.intake(topic, Answer::WhenQueued, false)?;
    intake.push(record).await?;
    let report = intake.finish().await?;
    match report.verdicts.first() {
        Some(verdict) if verdict.state == VerdictState::Dead => Ok(dead(topic, verdict)),
        Some(verdict) => Ok(answer::plain(topic, verdict)),
        None => Err(Problem::overloaded()),
    }
}

fn dead(topic: &str, verdict: &Verdict) -> Response {
    let code = verdict.rejection.as_ref().map(|rejection| rejection.code.name());
    let body = json!({
        "transaction_id": verdict.transaction_id.to_string(),
        "topic": topic,
        "state": verdict.state.name(),
        "code": code,
        "dead_letter": verdict.dead_letter.map(|id| id.to_string()),
    });
    json_response(StatusCode::OK, &body)
}

/// Attributes as one JSON object, in order of their names, so that a repeated message is the same to the last byte.
pub(crate) fn attributes(pairs: impl IntoIterator<Item = (String, String)>) -> Option<Bytes> {
    let pairs: std::collections::BTreeMap<String, String> = pairs.into_iter().collect();
    if pairs.is_empty() {
        return None;
    }
    serde_json::to_vec(&pairs).ok().map(Bytes::from)
}
