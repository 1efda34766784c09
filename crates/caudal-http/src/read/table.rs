//! `GET /rest/v1/{table}`: rows of a plan, streamed in bounded memory.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use caudal_core::plan::ReadPlan;
use caudal_core::row::RowBatch;
use caudal_core::schema::Table;
use futures_util::stream::StreamExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::answer::{Media, chained, stream};
use super::bounds;
use super::cap::Capped;
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
    if !media.is_json() {
        table = Arc::new(table.as_text());
    }
    let mut plan = plan_of(app, table, query)?;
    bounds::affordable(app, &plan).await?;
    let total = match counts(headers) {
        true => {
            // A count looks at every row that matches, however few are answered.
            let whole = ReadPlan { limit: None, offset: 0, order: Vec::new(), ..plan.clone() };
            bounds::affordable(app, &whole).await?;
            Some(app.engine.store.count(&plan).await?)
        }
        false => None,
    };
    if media == Media::Singular {
        plan.limit = Some(plan.limit.unwrap_or(2).min(2));
    }
    let mut more = bounds::cut(app, &mut plan).await?;
    let range = content_range(&plan, total);
    let renderer = renderer(&plan, media);
    #[cfg(feature = "parquet")]
    let columns = super::files::columns(&plan);
    let capped = Capped::start(app.engine.store.read(plan.clone()).await?, app.config.read.caps()).await?;
    let kept = if capped.truncated { capped.kept } else { plan.limit.unwrap_or_default() };
    more |= capped.truncated;
    let mut rows = capped.rows;
    // The first batch decides the status: a read that fails at once is an error, not a broken 200.
    let first = rows.next().await.transpose()?;
    let mut response = match media {
        Media::Singular => singular(renderer, first.as_ref())?,
        _ if method == Method::HEAD => StatusCode::OK.into_response(),
        #[cfg(feature = "parquet")]
        Media::File(format) => super::files::stream(format, &columns, first, rows)?.into_response(),
        _ => stream(renderer, chained(first, rows)).into_response(),
    };
    media.describe(response.headers_mut());
    if more {
        bounds::say_cut(&mut response, &plan, query, kept);
    }
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
