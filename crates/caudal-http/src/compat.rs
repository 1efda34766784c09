//! The routes of the service that Caudal replaces, exactly as its documents write them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use caudal_core::plan::{Comparison, Filter, ReadPlan, Scalar};
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{ColumnType, ID, PAYLOAD, ROW};
use caudal_engine::ingest::{Answer, Record};
use futures_util::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::problem::{Problem, json_response};
use crate::publish::{body::BodyReader, find_topic, source_http};
use crate::read::render::{Encoding, Renderer};
use crate::state::App;

#[derive(Debug, Deserialize)]
struct Publication<'a> {
    topic_arn: Option<String>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

/// `POST /ingresar-datos[/]` with `{"topic_arn","message"}`. Answers once the message is durable.
pub(crate) async fn ingest(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if media.split(';').next().is_none_or(|m| !m.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::unsupported_media_type("send Content-Type: application/json"));
    }
    let body = BodyReader::new(body, &headers)?.collect(app.config.body_bytes_max).await?;
    caudal_core::json::check(&body).map_err(|fault| Problem::rejection(&fault.reject()))?;
    let wrong = |detail: &'static str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "schema", detail);
    let publication: Publication<'_> =
        serde_json::from_slice(&body).map_err(|_| wrong("the body is {\"topic_arn\": string, \"message\": …}"))?;
    let arn = publication.topic_arn.ok_or_else(|| wrong("topic_arn is missing").pointer("/topic_arn".into()))?;
    let message = publication.message.ok_or_else(|| wrong("message is missing").pointer("/message".into()))?;
    // arn:aws:sns:<region>:<account>:<name>, or the name alone.
    let name = arn.rsplit(':').next().unwrap_or(&arn);
    let topic = find_topic(&app, name)?;
    let record = Record {
        key: None,
        source: source_http(),
        attributes: None,
        body: body.slice_ref(message.get().as_bytes()),
        fault: None,
    };
    let verdict = app.engine.accept(topic.name.as_str(), record, Answer::WhenQueued).await?;
    let body = serde_json::json!({ "status": "Publicación OK", "transaction_id": verdict.transaction_id.to_string() });
    Ok(json_response(StatusCode::OK, &body))
}

/// `GET /data/{id}`: a record by `transaction_id`, or by row number in the compatibility topic.
pub(crate) async fn data(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = match (id.parse::<i64>(), Uuid::try_parse(&id)) {
        (Ok(row), _) => by_row(&app, row).await?,
        (_, Ok(id)) => by_id(&app, id).await?,
        _ => return Err(Problem::bad_request("bad_id", "the id is a transaction_id (UUID) or a row number")),
    };
    match found {
        Some(body) => Ok(body),
        None => Err(Problem::not_found(format!("there is no record {}", crate::problem::excerpt(&id)))),
    }
}

async fn by_id(app: &App, id: Uuid) -> Result<Option<Response>, Problem> {
    // The compatibility topic first: that is where these routes write.
    let first = app.engine.topics.get(&app.config.compat_topic);
    let others = app.engine.topics.iter().filter(|t| t.name.as_str() != app.config.compat_topic);
    for topic in first.into_iter().chain(others) {
        if let Some(batch) = app.engine.store.get(&topic.table(), id).await? {
            return Ok(Some(show(&topic.table(), &batch)));
        }
    }
    Ok(None)
}

async fn by_row(app: &App, row: i64) -> Result<Option<Response>, Problem> {
    let Some(topic) = app.engine.topics.get(&app.config.compat_topic) else { return Ok(None) };
    let table = topic.table();
    let Some(column) = table.column(ROW) else { return Ok(None) };
    let filter = vec![Filter::Compare { field: column.into(), op: Comparison::Eq, value: Scalar::Int8(row) }];
    let plan = ReadPlan { filter, limit: Some(1), ..ReadPlan::all(table.clone()) };
    let batch = app.engine.store.read(plan).await?.next().await.transpose()?;
    Ok(batch.filter(|batch| !batch.is_empty()).map(|batch| show(&table, &batch)))
}

/// `{"id", "datos", "transaction_id", …}`: `datos` is the message as it came, or the row of a typed topic.
fn show(table: &caudal_core::schema::Table, batch: &RowBatch) -> Response {
    let fields: Vec<Option<&[u8]>> = batch.row(0).collect();
    let value = |name: &str| table.column(name).and_then(|i| fields[i]);
    let transaction_id = value(ID).map(field::uuid).unwrap_or_default();
    let mut out = b"{\"id\":".to_vec();
    match value(ROW) {
        Some(row) => out.extend_from_slice(field::int8(row).to_string().as_bytes()),
        None => out.extend_from_slice(format!("\"{transaction_id}\"").as_bytes()),
    }
    out.extend_from_slice(b",\"datos\":");
    match value(PAYLOAD).filter(|_| table.column(PAYLOAD).is_some_and(|i| table.columns[i].ty == ColumnType::Jsonb)) {
        Some(payload) => out.extend_from_slice(field::json(payload).as_bytes()),
        None => {
            let columns = table.columns.iter().map(|c| (c.name.clone(), c.ty));
            Renderer::new(columns, Encoding::Json).object(&mut out, batch.row(0));
        }
    }
    out.extend_from_slice(format!(",\"transaction_id\":\"{transaction_id}\"}}").as_bytes());
    let headers = [(header::CONTENT_TYPE, "application/json")];
    axum::response::IntoResponse::into_response((StatusCode::OK, headers, Bytes::from(out)))
}
