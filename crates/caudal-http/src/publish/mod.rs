//! `POST /v1/topics/{topic}/messages`: from a request to records, and from their outcomes to an answer.

pub(crate) mod answer;
pub(crate) mod body;
mod cloudevents;
mod csv;
pub(crate) mod insert;
mod lines;
mod media;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use caudal_core::json::{self, Scanner};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::topic::TopicName;
use caudal_engine::ingest::Record;
use caudal_engine::{Intake, topic::Topic};
use http::{HeaderMap, StatusCode};

use crate::prefer::Preferences;
use crate::problem::Problem;
use crate::state::App;
use body::BodyReader;
use media::Format;

/// The `_source` of records that came over HTTP without saying more.
const SOURCE_HTTP: &str = "http";

pub(crate) async fn publish(
    State(app): State<Arc<App>>,
    Path(topic): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let topic = find_topic(&app, &topic)?;
    let preferences = Preferences::from_headers(&headers, &app.config)?;
    let key = idempotency_key(&headers)?;
    let format = Format::of(&headers)?;
    let reader = BodyReader::new(body, &headers)?;
    let request = Request { app: &app, topic, preferences, key };
    // Boxed: the commonest request, one JSON message, must not carry (and move) the state of all the others.
    match format {
        Format::Json => request.json(reader).await,
        Format::Ndjson => Box::pin(request.ndjson(reader)).await,
        Format::Csv => Box::pin(request.csv(reader)).await,
        Format::EventBinary => Box::pin(request.binary_event(&headers, reader)).await,
        Format::EventStructured => Box::pin(request.structured_event(reader)).await,
        Format::EventBatch => Box::pin(request.event_batch(reader)).await,
    }
}

/// The topic of a route, or the problem that says why there is none.
pub(crate) fn find_topic<'a>(app: &'a App, name: &str) -> Result<&'a Arc<Topic>, Problem> {
    if let Some(topic) = app.engine.topics.get(name) {
        return Ok(topic);
    }
    match TopicName::parse(name) {
        Err(error) => Err(Problem::bad_request("bad_topic_name", error.to_string())),
        Ok(_) => Err(Problem::unknown_topic(name, app.engine.topics.names())),
    }
}

/// `Idempotency-Key`, as a structured-field string or bare (draft-ietf-httpapi-idempotency-key-header-07).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let bad = |detail: &'static str| Err(Problem::bad_request(Code::KeyInvalid.name(), detail));
    if values.next().is_some() {
        return bad("one request carries one Idempotency-Key");
    }
    let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return bad("Idempotency-Key must be UTF-8") };
    let text = match text.strip_prefix('"') {
        Some(quoted) => match quoted.strip_suffix('"') {
            Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
            None => return bad("Idempotency-Key has an opening quote and no closing one"),
        },
        None => text.to_owned(),
    };
    match caudal_core::encode::check_key(&text) {
        Ok(key) => Ok(Some(key)),
        Err(rejection) => Err(Problem::rejection(&rejection)),
    }
}

/// One request under way.
struct Request<'a> {
    app: &'a Arc<App>,
    topic: &'a Arc<Topic>,
    preferences: Preferences,
    key: Option<String>,
}

impl Request<'_> {
    /// One JSON document: an array is a batch, anything else one message.
    async fn json(self, reader: BodyReader) -> Result<Response, Problem> {
        let body = reader.collect(self.app.config.body_bytes_max).await?;
        let first = body.iter().find(|b| !b.is_ascii_whitespace());
        if first != Some(&b'[') {
            let key = self.key.clone();
            return self.one(record(key, body)).await;
        }
        Box::pin(self.array(body)).await
    }

    async fn array(self, body: Bytes) -> Result<Response, Problem> {
        let items = split_array(&body).map_err(|fault| Problem::rejection(&fault.reject()))?;
        let mut intake = self.intake()?;
        for (i, item) in items.into_iter().enumerate() {
            intake.push(record(self.numbered_key(i as u64), item)).await?;
        }
        self.report(intake).await
    }

    /// One message: refused with no effect when it is bad.
    async fn one(self, record: Record) -> Result<Response, Problem> {
        let verdict = self.app.engine.accept(self.topic.name.as_str(), record, self.preferences.answer).await?;
        Ok(answer::one(self.topic.name.as_str(), &verdict, &self.preferences))
    }

    /// One record a line, any number of lines, in memory that does not grow with them.
    async fn ndjson(self, mut reader: BodyReader) -> Result<Response, Problem> {
        let mut intake = self.intake()?;
        let mut lines = lines::Lines::default();
        let mut index = 0;
        while let Some(chunk) = reader.next().await? {
            lines.feed(chunk);
            while let Some(line) = lines.next() {
                intake.push(self.line(line, &mut index)).await?;
            }
        }
        if let Some(line) = lines.finish() {
            intake.push(self.line(line, &mut index)).await?;
        }
        self.report(intake).await
    }

    fn line(&self, line: lines::Line, index: &mut u64) -> Record {
        let mut record = record(self.numbered_key(*index), line.bytes);
        *index += 1;
        if line.cut {
            let detail = "the line is longer than a record may be; only its beginning is kept";
            record.fault = Some(Rejection::whole(Code::RecordTooLarge, detail));
        }
        record
    }

    async fn csv(self, mut reader: BodyReader) -> Result<Response, Problem> {
        let mut intake = self.intake()?;
        let mut rows = csv::CsvRecords::new(self.topic.table());
        let mut index = 0;
        loop {
            let chunk = reader.next().await?;
            let end = chunk.is_none();
            for row in rows.feed(chunk.unwrap_or_default(), end)? {
                let mut record = record(self.numbered_key(index), row.json);
                record.fault = row.fault;
                index += 1;
                intake.push(record).await?;
            }
            if end {
                return self.report(intake).await;
            }
        }
    }

    async fn binary_event(self, headers: &HeaderMap, reader: BodyReader) -> Result<Response, Problem> {
        let body = reader.collect(self.app.config.body_bytes_max).await?;
        let record = cloudevents::binary(headers, body).map_err(|r| Problem::rejection(&r))?;
        self.one(record).await
    }

    async fn structured_event(self, reader: BodyReader) -> Result<Response, Problem> {
        let body = reader.collect(self.app.config.body_bytes_max).await?;
        let record = cloudevents::structured(&body).map_err(|r| Problem::rejection(&r))?;
        self.one(record).await
    }

    async fn event_batch(self, reader: BodyReader) -> Result<Response, Problem> {
        let body = reader.collect(self.app.config.body_bytes_max).await?;
        let items = split_array(&body).map_err(|fault| Problem::rejection(&fault.reject()))?;
        let mut intake = self.intake()?;
        for item in items {
            let event = cloudevents::structured(&item).unwrap_or_else(|fault| {
                let mut bad = record(None, item);
                bad.fault = Some(fault);
                bad
            });
            intake.push(event).await?;
        }
        self.report(intake).await
    }

    /// The key of record `index` of a batch whose producer named the request as a whole.
    fn numbered_key(&self, index: u64) -> Option<String> {
        self.key.as_ref().map(|key| format!("{key}#{index}"))
    }

    fn intake(&self) -> Result<Intake, Problem> {
        let Preferences { answer, strict, .. } = self.preferences;
        Ok(self.app.engine.intake(self.topic.name.as_str(), answer, strict)?)
    }

    async fn report(&self, intake: Intake) -> Result<Response, Problem> {
        let report = intake.finish().await?;
        if report.total() == 0 {
            return Err(Problem::bad_request(Code::EmptyBody.name(), "the body holds no record"));
        }
        Ok(answer::many(self.topic.name.as_str(), &report, &self.preferences))
    }
}

fn record(key: Option<String>, body: Bytes) -> Record {
    Record { key, source: source_http(), attributes: None, body, fault: None }
}

/// Shared, not made anew for each record.
pub(crate) fn source_http() -> Arc<str> {
    static SOURCE: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| SOURCE_HTTP.into());
    SOURCE.clone()
}

/// The items of a JSON array as slices of it. The whole array is read first: a fault anywhere means that nothing is taken.
fn split_array(body: &Bytes) -> Result<Vec<Bytes>, json::Fault> {
    let mut scanner = Scanner::new(body)?;
    let mut items = Vec::new();
    scanner.open_array()?;
    while scanner.next_item(items.is_empty())? {
        if items.len() == caudal_core::limits::JSON_MEMBERS_MAX {
            let what = "an array takes at most 10000 records (send more as application/x-ndjson), too many";
            return Err(json::Fault { code: Code::TooManyMembers, at: scanner.position(), what });
        }
        items.push(body.slice_ref(scanner.value()?.as_bytes()));
    }
    scanner.end()?;
    Ok(items)
}

/// `405` names what is allowed; routes have no other way to say it.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "see the Allow header for what this path takes")
}
