//! `/v1/confirmations`: where each transaction's confirmation stands, and an operator's hand on it.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_core::confirm::Fact;
use caudal_core::confirm::ports::{Acted, Confirmation};
use caudal_core::plan::{Comparison, Filter, OrderBy, ReadPlan, Scalar};
use caudal_core::schema::Table;
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::operate::ids;
use crate::problem::{Problem, json_response};
use crate::read::record::parse_id;
use crate::read::table::{self, plan_of};
use crate::state::App;

type AppState = State<Arc<App>>;

/// Transactions of one redrive call; the answer says whether there are more.
const REDRIVE_MAX: u64 = 10_000;
/// Characters of a reason.
const REASON_MAX: usize = 300;

fn ok(body: Value) -> Response {
    json_response(StatusCode::OK, &body)
}

/// The table of confirmations, with the grammar of `/rest/v1`.
pub(crate) async fn list(state: AppState, method: Method, query: RawQuery, headers: HeaderMap) -> Response {
    let name = match confirmation_table(&state) {
        Ok(table) => table.name.clone(),
        Err(problem) => return problem.into_response(),
    };
    table::table(state, method, Path(name), query, headers).await
}

/// Confirmations as a table, where the store has one.
fn confirmation_table(app: &App) -> Result<&Arc<Table>, Problem> {
    app.engine.confirmation_table.as_ref().ok_or_else(|| {
        let detail = "confirmations are kept in DynamoDB here, which cannot be searched: ask for one transaction by its id, or for \
                      the numbers of each lane at /v1/confirmations/lanes";
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not_searchable", detail)
    })
}

/// Every lane with its numbers.
pub(crate) async fn lanes(State(app): AppState) -> Result<Response, Problem> {
    let lanes = app.engine.confirmations.lanes().await?;
    Ok(ok(json!({ "lanes": lanes })))
}

pub(crate) async fn one(State(app): AppState, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let found = app.engine.confirmations.confirmation(id).await?;
    Ok(ok(show(&found.ok_or_else(|| unknown(id))?)))
}

pub(crate) fn show(found: &Confirmation) -> Value {
    let text = |at: Option<Instant>| at.map(|at| at.to_string());
    let mut body = json!({
        "transaction_id": found.id.to_string(),
        "topic": found.topic,
        "lane": found.lane,
        "state": found.state.name(),
        "attempts": found.attempts,
        "crashes": found.crashes,
        "maybe_done": found.maybe_done,
        "since": found.since.to_string(),
        "first_sent": text(found.first_sent),
        "due": text(found.due),
        "at": text(found.at),
        "code": found.code,
        "detail": found.detail,
    });
    if !found.history.is_empty() {
        body["history"] = json!(found.history);
    }
    body
}

fn unknown(id: Uuid) -> Problem {
    Problem::not_found(format!("no transaction {id} was ever to be confirmed; GET /v1/confirmations lists them"))
}

/// What an operator says with an act.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolution {
    r#as: FactName,
    reason: String,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum FactName {
    Confirmed,
    Rejected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    topic: String,
    lane: Option<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    topic: String,
    lane: Option<String>,
}

fn body_of<T: DeserializeOwned>(body: &Bytes, example: &str) -> Result<T, Problem> {
    let read = serde_json::from_slice(body);
    read.map_err(|error| {
        Problem::bad_request("malformed_json", format!("the body is not what is needed: {error}; such as {example}"))
    })
}

fn reason(text: String) -> Result<String, Problem> {
    let reason = text.trim();
    match reason.is_empty() || reason.chars().count() > REASON_MAX || reason.contains('\0') {
        true => Err(Problem::bad_request("malformed_json", format!("a reason has 1 to {REASON_MAX} characters"))),
        false => Ok(reason.to_owned()),
    }
}

pub(crate) async fn void(State(app): AppState, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let word: Word = body_of(&body, r#"{"reason":"the order was withdrawn"}"#)?;
    acted(id, "void", app.engine.confirmations.void(id, &reason(word.reason)?).await?)
}

pub(crate) async fn resolve(State(app): AppState, Path(id): Path<String>, body: Bytes) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    let word: Resolution = body_of(&body, r#"{"as":"confirmed","reason":"the bank's statement of 3 May"}"#)?;
    let fact = match word.r#as {
        FactName::Confirmed => Fact::Confirmed,
        FactName::Rejected => Fact::Rejected,
    };
    acted(id, fact.state().name(), app.engine.confirmations.resolve(id, fact, &reason(word.reason)?).await?)
}

pub(crate) async fn redrive(State(app): AppState, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse_id(&id)?;
    acted(id, "redriven", app.engine.confirmations.redrive(id).await?)
}

fn acted(id: Uuid, done: &str, acted: Acted) -> Result<Response, Problem> {
    match acted {
        Acted::Done => Ok(ok(json!({ "transaction_id": id.to_string(), "done": done }))),
        Acted::Unknown => Err(unknown(id)),
        Acted::Refused(why) => Err(Problem::new(StatusCode::CONFLICT, "confirmation_refused", why)),
    }
}

/// Redrives every dead or held transaction that matches the filters. `dry_run=true` only counts.
pub(crate) async fn redrive_many(State(app): AppState, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = query.unwrap_or_default();
    let dry_run = query.split('&').any(|part| part == "dry_run=true");
    let filters: Vec<&str> = query.split('&').filter(|part| !part.starts_with("dry_run=")).collect();
    let mut plan = aside_plan(&app, &filters.join("&"))?;
    let matching = app.engine.store.count(&plan).await?;
    if dry_run {
        return Ok(ok(json!({ "matching": matching, "dry_run": true })));
    }
    plan.limit = Some(plan.limit.unwrap_or(REDRIVE_MAX).min(REDRIVE_MAX));
    let (mut redriven, mut refused) = (0u64, 0u64);
    for id in ids(&app, plan).await? {
        match app.engine.confirmations.redrive(id).await? {
            Acted::Done => redriven += 1,
            Acted::Unknown | Acted::Refused(_) => refused += 1,
        }
    }
    let remaining = matching.saturating_sub(redriven + refused);
    Ok(ok(json!({ "matching": matching, "redriven": redriven, "refused": refused, "remaining": remaining })))
}

fn aside_plan(app: &App, query: &str) -> Result<ReadPlan, Problem> {
    let mut plan = plan_of(app, confirmation_table(app)?.clone(), query)?;
    let column = |name| plan.table.column(name).unwrap_or_default();
    let (state, at) = (column("state"), column("at"));
    let is =
        |name: &str| Filter::Compare { field: state.into(), op: Comparison::Eq, value: Scalar::Text(name.to_owned()) };
    plan.filter.push(Filter::Or(vec![is("dead"), is("held")]));
    if plan.order.is_empty() {
        plan.order.push(OrderBy::column(at));
    }
    Ok(plan)
}

pub(crate) async fn pause(State(app): AppState, body: Bytes) -> Result<Response, Problem> {
    let word: Pause = body_of(&body, r#"{"topic":"payments","reason":"the bank's maintenance"}"#)?;
    let topic = topic_name(&word.topic)?;
    let lanes = app.engine.confirmations.pause(&topic, word.lane.as_deref(), &reason(word.reason)?).await?;
    changed(&app, &topic, word.lane.as_deref(), lanes).await
}

pub(crate) async fn resume(State(app): AppState, body: Bytes) -> Result<Response, Problem> {
    let word: Resume = body_of(&body, r#"{"topic":"payments"}"#)?;
    let topic = topic_name(&word.topic)?;
    let lanes = app.engine.confirmations.resume(&topic, word.lane.as_deref()).await?;
    changed(&app, &topic, word.lane.as_deref(), lanes).await
}

fn topic_name(name: &str) -> Result<TopicName, Problem> {
    TopicName::parse(name).map_err(|error| Problem::bad_request("malformed_json", error.to_string()))
}

/// Nothing changed may mean that it was so already, or that there is no such lane.
async fn changed(app: &App, topic: &TopicName, lane: Option<&str>, lanes: u64) -> Result<Response, Problem> {
    if lanes == 0 {
        let known = app.engine.confirmations.lanes().await?;
        let here = known.iter().filter(|known| known.topic == topic.as_str());
        let names: Vec<&str> = here.map(|known| known.lane.as_str()).collect();
        if names.is_empty() {
            return Err(Problem::not_found(format!("nothing of topic {topic} is confirmed here")));
        }
        if let Some(lane) = lane.filter(|lane| !names.contains(lane)) {
            let names = names.join(", ");
            return Err(Problem::not_found(format!("topic {topic} has no lane {lane:?}; it has {names}")));
        }
    }
    Ok(ok(json!({ "topic": topic.as_str(), "lanes_changed": lanes })))
}
