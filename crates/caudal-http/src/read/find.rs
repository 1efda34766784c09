//! Which table a request means: by its name, and by the schema that PostgREST's `Accept-Profile` names.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use caudal_core::schema::Table;
use http::{HeaderMap, StatusCode, header};

use crate::problem::{Problem, choices, excerpt};
use crate::publish::method_not_allowed;
use crate::state::App;

const PROFILE: &str = "accept-profile";
const CUSTOMARY: &str = "public";

/// # Errors
/// `404` for a table and `406` for a schema that is not served, with the closest one that is.
pub(crate) fn find_table(app: &App, name: &str, headers: &HeaderMap) -> Result<Arc<Table>, Problem> {
    let engine = &app.engine;
    let relations = engine.relations();
    let profile = headers.get(PROFILE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let table = match &profile {
        None => engine.table(name),
        Some(schema) if relations.schemas().iter().any(|served| served == schema) => engine.table_in(schema, name),
        // What clients name when nobody told them a schema: Caudal's own tables are always served.
        Some(schema) if schema == CUSTOMARY || schema == relations.home() => engine.table_in(relations.home(), name),
        Some(schema) => {
            let served = choices(schema, relations.schemas().iter());
            let detail = format!("schema {:?} is not served; {served}", excerpt(schema));
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "unknown_schema", detail));
        }
    };
    table.ok_or_else(|| {
        let schema = profile.as_deref().or(relations.schemas().first().map(String::as_str));
        let found =
            relations.tables().filter(|table| table.schema.as_deref() == schema).map(|table| table.name.as_str());
        let known = engine.topics.names().chain([engine.dead_letters.name.as_str()]).chain(found);
        let detail = format!("table {:?} does not exist; {}", excerpt(name), choices(name, known));
        Problem::new(StatusCode::NOT_FOUND, "unknown_table", detail)
    })
}

/// What the methods answer that a table does not take.
pub(crate) async fn other_method(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let problem = match find_table(&app, &name, &headers) {
        Ok(table) if table.schema.is_some() => read_only(&table),
        Ok(_) => method_not_allowed().await,
        Err(problem) => problem,
    };
    problem.header(header::ALLOW, "GET,HEAD").for_postgrest().into_response()
}

/// The refusal of a write to a table that Caudal did not make.
pub(crate) fn read_only(table: &Table) -> Problem {
    let detail = format!(
        "table {} was not made by Caudal and is served read-only: publish to a topic instead, or write to the database",
        table.name
    );
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
