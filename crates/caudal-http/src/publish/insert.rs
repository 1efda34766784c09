//! `POST /rest/v1/{table}`: inserts as PostgREST's clients send them, by the same way into the store as every message. All records
//! of a request or none.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_core::plan::{Filter, ReadPlan, Scalar, Selected};
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::ID;
use caudal_engine::ingest::{Answer, Record};
use caudal_engine::topic::Topic;
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode, header};
use uuid::Uuid;

use super::body::BodyReader;
use super::media::Format;
use super::{csv, record, split_array};
use crate::problem::{Problem, excerpt};
use crate::read::answer::Media;
use crate::read::find::{find_table, read_only};
use crate::read::render::{Encoding, Renderer};
use crate::read::table::plan_of;
use crate::state::App;

/// What the client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Return {
    #[default]
    Minimal,
    Representation,
}

pub(crate) async fn insert(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = query.unwrap_or_default();
    let inserted = answer(&app, &name, &query, &headers, body).await;
    inserted.unwrap_or_else(|problem| problem.for_postgrest().into_response())
}

async fn answer(app: &App, name: &str, query: &str, headers: &HeaderMap, body: Body) -> Result<Response, Problem> {
    let table = find_table(app, name, headers)?;
    let topic = app.engine.topics.get(name).filter(|_| table.insertable);
    let Some(topic) = topic else { return Err(read_only(&table).header(header::ALLOW, "GET,HEAD")) };
    let Preferences { wanted, counted } = preferences(headers)?;
    no_conflict_target(query)?;
    let media = Media::of(headers)?;
    // A select that cannot be answered is refused before anything is stored.
    let plan = plan_of(app, table, &only_select(query))?;
    let records = records(app, topic, headers, body).await?;
    let many = records.len();
    let mut intake = app.engine.intake(name, Answer::WhenStored(app.config.wait_max), true)?;
    for record in records {
        intake.push(record).await?;
    }
    let report = intake.finish().await?;
    // As PostgREST says how many were inserted, whatever kind of count was asked for.
    let count = counted.then(|| [(header::CONTENT_RANGE, format!("*/{}", report.total()))]);
    if report.queued > 0 || wanted == Return::Minimal || report.omitted > 0 {
        let status = if report.queued > 0 { StatusCode::ACCEPTED } else { StatusCode::CREATED };
        return Ok((status, [("preference-applied", "return=minimal")], count, ()).into_response());
    }
    let ids: Vec<Uuid> = report.verdicts.iter().map(|verdict| verdict.transaction_id).collect();
    let body = stored(app, plan, &ids, media == Media::Singular && many == 1).await?;
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/json; charset=utf-8"),
        ("preference-applied", "return=representation"),
    ];
    Ok((StatusCode::CREATED, headers, count, body).into_response())
}

#[derive(Debug, Default)]
struct Preferences {
    wanted: Return,
    /// The number of records is to be said.
    counted: bool,
}

/// # Errors
/// `400` for what stored records cannot do, whatever `handling` is: silence would be a lie.
fn preferences(headers: &HeaderMap) -> Result<Preferences, Problem> {
    let mut found = Preferences::default();
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    for preference in values.flat_map(|value| value.split(',')).map(str::trim) {
        match preference {
            "return=representation" => found.wanted = Return::Representation,
            "return=minimal" | "return=headers-only" => found.wanted = Return::Minimal,
            "count=exact" | "count=planned" | "count=estimated" => found.counted = true,
            "resolution=merge-duplicates" | "tx=rollback" => {
                let detail = format!(
                    "Prefer: {}: a record never changes once it is stored, and what is answered is stored",
                    excerpt(preference)
                );
                return Err(Problem::bad_request("bad_preference", detail));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// # Errors
/// `400`: which columns tell records apart is the topic's to say.
fn no_conflict_target(query: &str) -> Result<(), Problem> {
    match query.split('&').any(|term| term.starts_with("on_conflict=")) {
        true => Err(Problem::bad_request(
            "bad_filter",
            "on_conflict is not offered: a topic's own key says which records are the same; leave it out",
        )),
        false => Ok(()),
    }
}

fn only_select(query: &str) -> String {
    query.split('&').filter(|term| term.starts_with("select=")).collect::<Vec<_>>().join("&")
}

async fn records(app: &App, topic: &Topic, headers: &HeaderMap, body: Body) -> Result<Vec<Record>, Problem> {
    let format = Format::of(headers)?;
    let body = BodyReader::new(body, headers)?.collect(app.config.body_bytes_max).await?;
    match format {
        Format::Json if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[') => {
            let items = split_array(&body).map_err(|fault| Problem::rejection(&fault.reject()))?;
            Ok(items.into_iter().map(|item| record(None, item)).collect())
        }
        Format::Json => Ok(vec![record(None, body)]),
        Format::Csv => {
            let rows = csv::CsvRecords::new(topic.table()).feed(body, true)?;
            Ok(rows.into_iter().map(|row| Record { fault: row.fault, ..record(None, row.json) }).collect())
        }
        _ => Err(Problem::unsupported_media_type("inserts are application/json or text/csv")),
    }
}

/// The stored records, in the order of `ids`.
async fn stored(app: &App, mut plan: ReadPlan, ids: &[Uuid], alone: bool) -> Result<Bytes, Problem> {
    if ids.is_empty() {
        return Ok(Bytes::from_static(b"[]"));
    }
    let columns: Vec<_> = plan.columns().into_iter().map(|column| (column.name, column.ty)).collect();
    let id = plan.table.column(ID).unwrap_or_default();
    plan.select.push(Selected::column(id, ID));
    let values = ids.iter().copied().map(Scalar::Uuid).collect();
    plan.filter.push(Filter::In { field: id.into(), values });
    let found: Vec<RowBatch> = app.engine.store.read(plan).await?.try_collect().await?;
    let mut rows = std::collections::HashMap::new();
    for batch in &found {
        for index in 0..batch.len() {
            let id = batch.row(index).last().flatten().map(field::uuid);
            rows.insert(id, batch.encoded(index));
        }
    }
    let mut batch = RowBatch::default();
    ids.iter().filter_map(|id| rows.get(&Some(*id))).for_each(|row| batch.push_encoded(row));
    let mut renderer = Renderer::new(columns, Encoding::Json);
    let mut out = Vec::new();
    match alone && batch.len() == 1 {
        true => renderer.object(&mut out, batch.row(0)),
        false => {
            out = renderer.batch(&batch);
            out.extend(renderer.end());
        }
    }
    Ok(out.into())
}
