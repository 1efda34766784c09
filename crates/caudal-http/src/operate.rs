//! Routes for whoever runs Caudal: topics, receipts, dead letters, the books.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_core::dead_letter::{DeadLetterState, KeptDeadLetter, payload_as_text};
use caudal_core::limits::RECORD_BYTES_MAX;
use caudal_core::plan::{Comparison, Filter, OrderBy, ReadPlan, Scalar, Selected};
use caudal_core::receipt::ReceiptState;
use caudal_core::row::field;
use caudal_core::schema::ID;
use caudal_engine::receipt::Receipt;
use caudal_engine::redrive::Redriven;
use caudal_engine::topic::Topic;
use futures_util::StreamExt;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::confirmations;
use crate::problem::{Problem, json_response};
use crate::publish::find_topic;
use crate::read::record::parse_id;
use crate::read::table::plan_of;
use crate::state::App;

type AppState = State<Arc<App>>;
type Terms<T> = Result<Query<T>, QueryRejection>;

/// The extractor alone would answer in plain text.
fn unreadable(rejection: QueryRejection) -> Problem {
    Problem::bad_request("bad_filter", rejection.body_text())
}

fn ok(body: Value) -> Response {
    json_response(StatusCode::OK, &body)
}

pub(crate) async fn topics(State(app): AppState) -> Response {
    let topics: Vec<Value> = app.engine.topics.iter().map(|t| describe(t)).collect();
    ok(json!({ "topics": topics }))
}

pub(crate) async fn topic(State(app): AppState, Path(name): Path<String>) -> Result<Response, Problem> {
    Ok(ok(describe(find_topic(&app, &name)?)))
}

fn describe(topic: &Topic) -> Value {
    let table = topic.table();
    let column =
        |c: &caudal_core::schema::Column| json!({ "name": c.name, "type": c.ty.name(), "nullable": c.nullable });
    json!({
        "topic": topic.name.as_str(),
        "typed": topic.config.schema.is_some(),
        "key": topic.config.key,
        "columns": table.columns.iter().map(column).collect::<Vec<_>>(),
    })
}

pub(crate) async fn drift(State(app): AppState, Path(name): Path<String>) -> Result<Response, Problem> {
    let topic = find_topic(&app, &name)?;
    let table = topic.table();
    let fields: Vec<Value> = app
        .engine
        .store
        .drift(&topic.name)
        .await?
        .iter()
        .map(|report| {
            let mut entry = json!(report);
            let ty = caudal_core::json_schema::column_type_for(&report.note.json_type);
            if table.column(&report.note.field).is_none()
                && let Some(ty) = ty
            {
                let field = report.note.field.replace('"', "\"\"");
                entry["suggested_ddl"] =
                    format!("ALTER TABLE \"{}\" ADD COLUMN \"{field}\" {}", table.name, ty.name()).into();
            }
            entry
        })
        .collect();
    Ok(ok(json!({ "topic": topic.name.as_str(), "fields": fields })))
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReceiptQuery {
    topic: Option<String>,
}

pub(crate) async fn receipt(
    State(app): AppState,
    Path(id): Path<String>,
    query: Terms<ReceiptQuery>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(unreadable)?;
    let id = parse_id(&id)?;
    match app.engine.receipt(id, query.topic.as_deref()).await? {
        Some(receipt) => {
            let mut body = show_receipt(&receipt);
            if let Some(confirmation) = confirmation(&app, &receipt).await? {
                body["confirmation"] = confirmation;
            }
            if let Some(durability) = app.engine.durability() {
                body["durability"] = durability.name().into();
            }
            Ok(ok(body))
        }
        None => Err(Problem::not_found(format!("no message {id} was ever accepted here, or it came before retention"))),
    }
}

/// Where the transaction's confirmation stands, for topics that have theirs confirmed.
async fn confirmation(app: &App, receipt: &Receipt) -> Result<Option<Value>, Problem> {
    let confirms = app.engine.topics.get(&receipt.topic).is_some_and(|topic| topic.config.lanes.is_some());
    if !confirms || receipt.state != ReceiptState::Stored {
        return Ok(None);
    }
    let found = app.engine.confirmations.confirmation(receipt.transaction_id).await?;
    Ok(found.map(|found| confirmations::show(&found)))
}

fn show_receipt(receipt: &Receipt) -> Value {
    let text = |at: Option<caudal_core::time::Instant>| at.map(|at| at.to_string());
    let mut body = json!({
        "transaction_id": receipt.transaction_id.to_string(),
        "topic": receipt.topic,
        "state": receipt.state.name(),
        "key": receipt.key,
        "source": receipt.source,
        "published_at": text(receipt.published_at),
        "stored_at": text(receipt.stored_at),
    });
    if !receipt.dead_letters.is_empty() {
        body["dead_letters"] = receipt.dead_letters.iter().map(show_dead_letter).collect();
    }
    body
}

fn show_dead_letter(dead: &KeptDeadLetter) -> Value {
    let (payload, encoding) = payload_as_text(&dead.message.body);
    let text = |at: caudal_core::time::Instant| at.to_string();
    json!({
        "id": dead.id.to_string(),
        "topic": dead.topic,
        "transaction_id": dead.message.id.to_string(),
        "key": dead.message.key,
        "source": dead.message.source,
        "reason": dead.reason,
        "detail": dead.detail,
        "pointer": dead.pointer,
        "payload": payload,
        "payload_encoding": encoding,
        "published_at": text(dead.message.published_at),
        "dead_at": text(dead.dead_at),
        "state": dead.state.name(),
        "attempts": dead.attempts,
        "settled_at": dead.settled_at.map(text),
        "outcome": dead.outcome,
    })
}

pub(crate) async fn dead_letter(State(app): AppState, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    match app.engine.store.dead_letter(id).await? {
        Some(dead) => Ok(ok(show_dead_letter(&dead))),
        None => Err(no_dead_letter(id)),
    }
}

fn no_dead_letter(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no dead letter {id}; GET /v1/dead-letters lists them"))
}

/// Replaces the payload of a dead letter; redriving it is a step of its own.
pub(crate) async fn repair(State(app): AppState, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    if body.len() > RECORD_BYTES_MAX {
        return Err(Problem::body_too_large(RECORD_BYTES_MAX));
    }
    caudal_core::json::check(&body).map_err(|fault| Problem::rejection(&fault.reject()))?;
    if app.engine.store.repair(id, body).await? {
        return Ok(ok(json!({ "id": id.to_string(), "state": "dead", "repaired": true })));
    }
    match app.engine.store.dead_letter(id).await? {
        None => Err(no_dead_letter(id)),
        Some(_) => Err(Problem::new(StatusCode::CONFLICT, "already_redriven", "this dead letter was redriven already")),
    }
}

pub(crate) async fn redrive(State(app): AppState, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let redriven = app.engine.redrive(id).await?.ok_or_else(|| no_dead_letter(id))?;
    let (status, body) = show_redriven(id, &redriven);
    Ok(json_response(status, &body))
}

fn show_redriven(id: Uuid, redriven: &Redriven) -> (StatusCode, Value) {
    let id = id.to_string();
    match redriven {
        Redriven::Stored { topic, transaction_id } => (
            StatusCode::CREATED,
            json!({ "id": id, "outcome": "stored", "topic": topic, "transaction_id": transaction_id.to_string() }),
        ),
        Redriven::Duplicate { topic, transaction_id } => (
            StatusCode::OK,
            json!({ "id": id, "outcome": "duplicate", "topic": topic, "transaction_id": transaction_id.to_string() }),
        ),
        Redriven::Already { outcome } => {
            (StatusCode::OK, json!({ "id": id, "outcome": outcome, "already_redriven": true }))
        }
        Redriven::StillBad(rejection) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            json!({
                "id": id, "outcome": "dead", "code": rejection.code.name(),
                "pointer": rejection.pointer, "detail": rejection.detail,
            }),
        ),
    }
}

/// Dead letters of one redrive call; the answer says whether there are more.
const REDRIVE_MAX: u64 = 10_000;

/// Redrives every dead letter that matches the filters, in order of their death. `dry_run=true` only counts.
pub(crate) async fn redrive_many(
    State(app): AppState,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let dry_run = query.split('&').any(|p| p == "dry_run=true");
    let filters: Vec<&str> = query.split('&').filter(|p| !p.starts_with("dry_run=")).collect();
    let mut plan = dead_plan(&app, &filters.join("&"))?;
    let matching = app.engine.store.count(&plan).await?;
    if dry_run {
        return Ok(ok(json!({ "matching": matching, "dry_run": true })));
    }
    plan.limit = Some(plan.limit.unwrap_or(REDRIVE_MAX).min(REDRIVE_MAX));
    let mut counts = [("stored", 0u64), ("duplicate", 0), ("still_dead", 0), ("already_redriven", 0)];
    for id in ids(&app, plan).await? {
        let slot = match app.engine.redrive(id).await? {
            Some(Redriven::Stored { .. }) => 0,
            Some(Redriven::Duplicate { .. }) => 1,
            Some(Redriven::StillBad(_)) => 2,
            Some(Redriven::Already { .. }) | None => 3,
        };
        counts[slot].1 += 1;
    }
    let done: u64 = counts.iter().map(|(_, n)| n).sum();
    let mut body = json!({ "matching": matching, "remaining": matching.saturating_sub(done) });
    for (name, count) in counts {
        body[name] = count.into();
    }
    Ok(ok(body))
}

/// The dead letters that wait, oldest first, further filtered.
fn dead_plan(app: &App, query: &str) -> Result<ReadPlan, Problem> {
    let mut plan = plan_of(app, app.engine.dead_letters.clone(), query)?;
    let column = |name| plan.table.column(name).unwrap_or_default();
    let (state, dead_at) = (column("state"), column("dead_at"));
    let value = Scalar::Text(DeadLetterState::Dead.name().to_owned());
    plan.filter.push(Filter::Compare { field: state.into(), op: Comparison::Eq, value });
    if plan.order.is_empty() {
        plan.order.push(OrderBy::column(dead_at));
    }
    Ok(plan)
}

/// The ids of a plan's rows.
pub(crate) async fn ids(app: &App, mut plan: ReadPlan) -> Result<Vec<Uuid>, Problem> {
    plan.select.clear();
    plan.select.push(Selected::column(0, ID));
    let mut rows = app.engine.store.read(plan).await?;
    let mut ids = Vec::new();
    while let Some(batch) = rows.next().await {
        ids.extend(batch?.rows().filter_map(|mut row| row.next().flatten().map(field::uuid)));
    }
    Ok(ids)
}

#[derive(Debug, Deserialize)]
pub(crate) struct ReconcileQuery {
    topic: Option<String>,
    #[serde(default)]
    count: String,
}

/// The books of every topic, or of one. `count=exact` counts the tables as well.
pub(crate) async fn reconcile(State(app): AppState, query: Terms<ReconcileQuery>) -> Result<Response, Problem> {
    let Query(query) = query.map_err(unreadable)?;
    let topics: Vec<_> = match &query.topic {
        Some(name) => vec![find_topic(&app, name)?],
        None => app.engine.topics.iter().collect(),
    };
    let mut books = Vec::with_capacity(topics.len());
    for topic in topics {
        books.push(app.engine.reconcile(topic, query.count == "exact").await?);
    }
    let unaccounted: i64 = books.iter().map(|b| b.unaccounted).sum();
    Ok(ok(json!({ "unaccounted": unaccounted, "topics": books })))
}

/// The path of a problem's `type`: a short text that leads to the page in the documentation.
pub(crate) async fn error_page(Path(code): Path<String>) -> Response {
    let known = code.len() < 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match known {
        true => format!("Error code {code}: see docs/errors/{code}.md in Caudal's source.\n").into_response(),
        false => Problem::not_found("no such page").into_response(),
    }
}
