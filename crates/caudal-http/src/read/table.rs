//! `GET /rest/v1/{table}`: rows of a plan, streamed in bounded memory.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_core::error::StoreError;
use caudal_core::plan::ReadPlan;
use caudal_core::row::RowBatch;
use caudal_core::schema::Table;
use futures_util::stream::{BoxStream, StreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::find::find_table;
use super::query::Query;
use super::render::{Encoding, Renderer};
use super::resolve::{self, Catalogue};
use crate::problem::Problem;
use crate::state::App;

pub(crate) async fn table(
    State(app): State<Arc<App>>,
    method: Method,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let answer = answer(&app, &method, &name, query.as_deref().unwrap_or_default(), &headers).await;
    answer.unwrap_or_else(|problem| problem.for_postgrest().into_response())
}

async fn answer(app: &App, method: &Method, name: &str, query: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let media = Media::of(headers)?;
    let mut table = find_table(app, name, headers)?;
    if media == Media::Rows(Encoding::Csv) {
        table = Arc::new(table.as_text());
    }
    let mut plan = plan_of(app, table, query)?;
    let total = match counts(headers) {
        true => Some(app.engine.store.count(&plan).await?),
        false => None,
    };
    if media == Media::Singular {
        plan.limit = Some(plan.limit.unwrap_or(2).min(2));
    }
    let range = content_range(&plan, total);
    let renderer = renderer(&plan, media);
    #[cfg(feature = "parquet")]
    let columns = super::files::columns(&plan);
    let mut rows = app.engine.store.read(plan).await?;
    // The first batch decides the status: a read that fails at once is an error, not a broken 200.
    let first = rows.next().await.transpose()?;
    let mut response = match media {
        Media::Singular => singular(renderer, first.as_ref())?,
        _ if method == Method::HEAD => StatusCode::OK.into_response(),
        #[cfg(feature = "parquet")]
        Media::File(format) => super::files::stream(format, &columns, first, rows)?.into_response(),
        _ => stream(renderer, first, rows).into_response(),
    };
    let content_type = HeaderValue::from_static(media.content_type());
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept, Prefer"));
    if let Some((range, partial)) = range
        && let Ok(range) = HeaderValue::from_str(&range)
    {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
        if partial {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
    }
    Ok(response)
}

/// What a query string asks of a table.
pub(crate) fn plan_of(app: &App, table: Arc<Table>, query: &str) -> Result<ReadPlan, Problem> {
    let relations = app.engine.relations();
    let find = |schema: &str, name: &str| app.engine.table_in(schema, name);
    resolve::plan(&Catalogue { relations: &relations, find: &find }, table, &Query::parse(query)?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Rows(Encoding),
    /// Exactly one row, as an object.
    Singular,
    #[cfg(feature = "parquet")]
    File(caudal_export::Format),
}

impl Media {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accept = headers.get(header::ACCEPT).map_or("*/*", |v| v.to_str().unwrap_or("*/*"));
        for part in accept.split(',') {
            let media = part.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            return Ok(match media.as_str() {
                "*/*" | "application/*" | "application/json" | "" | "application/vnd.pgrst.array+json" => {
                    Self::Rows(Encoding::Json)
                }
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Self::Rows(Encoding::Ndjson),
                "text/csv" | "text/*" => Self::Rows(Encoding::Csv),
                "application/vnd.pgrst.object+json" => Self::Singular,
                #[cfg(feature = "parquet")]
                other => match super::files::format(other) {
                    Some(format) => Self::File(format),
                    None => continue,
                },
                #[cfg(not(feature = "parquet"))]
                _ => continue,
            });
        }
        const TEXTS: &str = "application/json, application/x-ndjson, text/csv and application/vnd.pgrst.object+json";
        #[cfg(feature = "parquet")]
        let detail = format!("there are {}, {TEXTS}", super::files::MEDIA_TYPES);
        #[cfg(not(feature = "parquet"))]
        let detail = format!("there are {TEXTS}");
        Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail))
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Rows(Encoding::Json) => "application/json; charset=utf-8",
            Self::Rows(Encoding::Ndjson) => "application/x-ndjson; charset=utf-8",
            Self::Rows(Encoding::Csv) => "text/csv; charset=utf-8",
            Self::Singular => "application/vnd.pgrst.object+json; charset=utf-8",
            #[cfg(feature = "parquet")]
            Self::File(format) => format.media_type(),
        }
    }
}

fn renderer(plan: &ReadPlan, media: Media) -> Renderer {
    let columns = plan.columns().into_iter().map(|column| (column.name, column.ty));
    let encoding = match media {
        Media::Rows(encoding) => encoding,
        _ => Encoding::Json,
    };
    Renderer::new(columns, encoding)
}

fn counts(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all("prefer").iter().filter_map(|v| v.to_str().ok());
    preferences.flat_map(|v| v.split(',')).any(|p| p.trim() == "count=exact")
}

/// `Content-Range: first-last/total`, and whether the answer is only a part. Known before the rows only with a count.
fn content_range(plan: &ReadPlan, total: Option<u64>) -> Option<(String, bool)> {
    let total = total?;
    let rows = total.saturating_sub(plan.offset).min(plan.limit.unwrap_or(u64::MAX));
    let range = match rows {
        0 => format!("*/{total}"),
        rows => format!("{}-{}/{total}", plan.offset, plan.offset + rows - 1),
    };
    Some((range, rows < total))
}

fn singular(renderer: Renderer, first: Option<&RowBatch>) -> Result<Response, Problem> {
    let rows = first.map_or(0, RowBatch::len);
    match first {
        Some(batch) if rows == 1 => {
            let mut out = Vec::new();
            renderer.object(&mut out, batch.row(0));
            Ok(Bytes::from(out).into_response())
        }
        _ => {
            let detail = format!(
                "one row was asked for as an object, but the filters match {}",
                if rows == 0 { "none" } else { "more" }
            );
            Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_one_row", detail))
        }
    }
}

/// A failure on the way ends the connection without the closing chunk, so a client can tell a cut answer from a whole one.
fn stream(renderer: Renderer, first: Option<RowBatch>, rest: BoxStream<'static, Result<RowBatch, StoreError>>) -> Body {
    let batches = futures_util::stream::iter(first.map(Ok)).chain(rest).map(Some);
    // `None` marks the end, where the closing bracket goes.
    let marked = batches.chain(futures_util::stream::iter([None]));
    let bytes = marked.scan(renderer, |renderer, batch| {
        let piece = match batch {
            Some(Ok(batch)) => Ok(Bytes::from(renderer.batch(&batch))),
            Some(Err(error)) => {
                tracing::warn!(%error, "a table read broke off");
                Err(error)
            }
            None => Ok(Bytes::from(renderer.end())),
        };
        futures_util::future::ready(Some(piece))
    });
    Body::from_stream(bytes)
}
