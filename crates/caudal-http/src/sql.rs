//! `GET /v1/sql?q=`, `POST /v1/sql` and `GET /{db}/q=…`: one statement that reads, for analysts. The store keeps it from doing
//! anything else (`docs/adr/0017-sql-for-analysts.md`).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use caudal_core::limits::SQL_BYTES_MAX;
use caudal_core::sql::{SqlError, SqlFault, SqlFaultKind, SqlQuery};
use http::{HeaderMap, Method, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;

use crate::problem::{Problem, choices, excerpt};
use crate::publish::body::BodyReader;
use crate::read::answer::{Media, stream};
use crate::read::cap::{Capped, Caps};
use crate::read::query::{self, SyntaxError};
use crate::read::render::Renderer;
use crate::state::App;

/// Whether, and how much.
#[derive(Debug, Clone, Copy, Default)]
pub struct SqlConfig {
    pub enabled: bool,
    /// Rows and bytes of an answer; 0 is no cap.
    pub rows_max: u64,
    pub bytes_max: u64,
}

/// `GET /v1/sql?q=…[&limit=…]`.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let terms = Terms::of(query.as_deref().unwrap_or_default())?;
    let text = terms.text.ok_or_else(|| bad_sql("send the statement as q=, or as the body of a POST"))?;
    answer(&app, &method, text, terms.limit, &headers).await
}

/// `POST /v1/sql[?limit=…]` with the statement as the body.
pub(crate) async fn post(
    State(app): State<Arc<App>>,
    method: Method,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !matches!(media.as_str(), "application/sql" | "text/plain") {
        return Err(Problem::unsupported_media_type("send the statement as application/sql or text/plain"));
    }
    let terms = Terms::of(query.as_deref().unwrap_or_default())?;
    if terms.text.is_some() {
        return Err(bad_sql("send the statement as q= or as the body, not as both"));
    }
    let body = BodyReader::new(body, &headers)?.collect(SQL_BYTES_MAX).await?;
    let text = String::from_utf8(body.to_vec()).map_err(|_| bad_sql("the statement is not UTF-8"))?;
    answer(&app, &method, text, terms.limit, &headers).await
}

/// The statement and the database of `/{db}/q=…`, when a path is one; the rest of the target belongs to the statement.
pub(crate) fn of_path(uri: &Uri) -> Option<(&str, &str)> {
    let target = uri.path_and_query()?.as_str().strip_prefix('/')?;
    let (database, rest) = target.split_once('/')?;
    Some((database, rest.strip_prefix("q=")?))
}

/// `GET /{db}/q=…`.
pub(crate) async fn in_path(app: &App, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Response, Problem> {
    let (database, text) = of_path(uri).ok_or_else(|| Problem::not_found("there is no such path"))?;
    let database = percent_decode_str(database).decode_utf8_lossy();
    let known = app.engine.store.database();
    if database != known {
        let detail =
            format!("there is no database {:?}; {}", excerpt(&database), choices(&database, [known].into_iter()));
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown_database", detail));
    }
    answer(app, method, query::decode(text)?, None, headers).await
}

#[derive(Debug, Default)]
struct Terms {
    text: Option<String>,
    limit: Option<u64>,
}

impl Terms {
    fn of(query: &str) -> Result<Self, Problem> {
        let mut terms = Self::default();
        for (name, value) in query::pairs(query)? {
            match name.as_str() {
                "q" if terms.text.is_none() => terms.text = Some(value),
                "q" => return Err(bad_sql("q= is there twice: send one statement")),
                "limit" => terms.limit = Some(limit(value)?),
                other => {
                    let detail = format!("{:?} is no parameter here; there are q and limit", excerpt(other));
                    return Err(bad_sql(detail));
                }
            }
        }
        Ok(terms)
    }
}

fn bad_sql(detail: impl Into<String>) -> Problem {
    Problem::bad_request("bad_sql", detail.into())
}

async fn answer(
    app: &App,
    method: &Method,
    text: String,
    limit: Option<u64>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let config = &app.config.sql;
    if !config.enabled {
        let detail = "SQL is off where other machines can reach this server: set sql.enabled = true, and sql.role to a role \
                      that may only read";
        return Err(Problem::new(StatusCode::FORBIDDEN, "sql_disabled", detail));
    }
    if text.trim().is_empty() || text.contains('\0') {
        return Err(bad_sql("the statement is empty, or holds a NUL"));
    }
    if text.len() > SQL_BYTES_MAX {
        return Err(Problem::body_too_large(SQL_BYTES_MAX));
    }
    let media = Media::of(headers)?;
    let Media::Rows(encoding) = media else {
        let detail = "there are application/json, application/x-ndjson and text/csv";
        return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail));
    };
    let caps = Caps { rows: config.rows_max, bytes: config.bytes_max, ..Caps::default() }.unless_asked(limit);
    let tables = app.engine.topics.iter().map(|topic| topic.table()).chain([app.engine.dead_letters.clone()]).collect();
    // One row more than the cap tells a whole answer from a cut one.
    let limit = caps.rows().map(|rows| rows.saturating_add(1)).or(limit);
    let answered = app.engine.store.analyse(SqlQuery { text, limit, tables }).await.map_err(problem)?;
    let capped = Capped::start(answered.rows, caps).await?;
    let truncated = capped.truncated;
    let mut response = match *method == Method::HEAD {
        true => StatusCode::OK.into_response(),
        false => stream(Renderer::new(answered.columns, encoding), capped.rows).into_response(),
    };
    media.describe(response.headers_mut());
    if truncated {
        response.headers_mut().insert("caudal-truncated", http::HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn problem(error: SqlError) -> Problem {
    match error {
        SqlError::Store(error) => error.into(),
        SqlError::Refused(fault) => refused(*fault),
    }
}

fn refused(fault: SqlFault) -> Problem {
    let mut problem = match fault.kind {
        SqlFaultKind::Mistake => bad_sql(fault.message),
        SqlFaultKind::Forbidden => Problem::new(StatusCode::FORBIDDEN, "sql_forbidden", fault.message),
    };
    problem = problem.with("sqlstate", fault.code);
    for (name, text) in [("details", fault.detail), ("hint", fault.hint)] {
        if let Some(text) = text {
            problem = problem.with(name, text);
        }
    }
    match fault.position {
        Some(position) => problem.with("position", position),
        None => problem,
    }
}

fn limit(value: String) -> Result<u64, SyntaxError> {
    let limit = query::number("limit", &value)?;
    u64::try_from(limit).map_err(|_| SyntaxError::Number { name: "limit".to_owned(), value })
}
