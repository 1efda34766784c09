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

use super::answer::{Media, Rows, chained, stream};
use super::asked::{Asked, Count, ESTIMATE_OVER, content_range, not_satisfiable};
use super::bounds;
use super::cursor::{Cursor, CursorKey, Shape};
use super::find::find_table;
use super::page::{self, Page, Paging};
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
    let asked = Asked::of(method, headers)?;
    let parsed = Query::parse(query)?;
    let mut plan = planned(app, table, &parsed)?;
    let mut paging = Paging { by_limit: !asked.has_range(), singular: media == Media::Singular, cursor: None };
    asked.cut(&mut plan)?;
    if let Some(cursor) = &parsed.cursor {
        paging.cursor = Some(open(app, &mut plan, query, cursor).await?);
        plan.offset = 0;
    }
    page::in_order(app, &mut plan);
    bounds::affordable(app, &page::ranges(&plan, &paging)).await?;
    let total = match asked.count {
        Some(count) => Some(total(app, &plan, count).await?),
        None => None,
    };
    // Only what was counted tells where the rows end.
    let counted = total.filter(|_| asked.count == Some(Count::Exact));
    if let Some(total) = counted.filter(|total| plan.offset > *total) {
        let detail = format!("An offset of {} was requested, but there are only {total} rows.", plan.offset);
        let problem = not_satisfiable("Requested range not satisfiable".to_owned()).with("details", detail);
        return Err(problem.header(header::CONTENT_RANGE, format!("*/{total}")));
    }
    if media == Media::Singular {
        plan.limit = Some(plan.limit.unwrap_or(2).min(2));
    }
    let renderer = renderer(&plan, media).stripped(strips_nulls(headers));
    #[cfg(feature = "parquet")]
    let columns = super::files::columns(&plan);
    let Page { mut rows, known, first: offset, cut, next } = page::read(app, plan.clone(), &paging).await?;
    let next = match next {
        Some(next) => Some(bounds::next_page(app, &plan, query, next).await?),
        None => None,
    };
    // The first batch decides the status: a read that fails at once is an error, not a broken 200.
    let first = rows.next().await.transpose()?;
    let mut rows = rows.peekable();
    let shown = match known {
        Some(known) => Some(known),
        None => shown(app, &plan, counted.map(|total| total.saturating_sub(offset)), first.as_ref(), &mut rows).await,
    };
    let mut response = match media {
        Media::Singular => singular(renderer, first.as_ref())?,
        _ if method == Method::HEAD => StatusCode::OK.into_response(),
        #[cfg(feature = "parquet")]
        Media::File(format) => super::files::stream(format, &columns, first, rows.boxed())?.into_response(),
        _ => stream(renderer, chained(first, rows.boxed())).into_response(),
    };
    media.describe(response.headers_mut());
    bounds::say_next(&mut response, cut, next);
    if let Some(shown) = shown {
        let (range, partial) = content_range(offset, shown, total);
        if let Ok(range) = HeaderValue::from_str(&range) {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        if partial {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
    }
    if let Some(applied) = asked.applied() {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

/// How many rows match, whatever the limits.
async fn total(app: &App, plan: &ReadPlan, count: Count) -> Result<u64, Problem> {
    let whole = ReadPlan { limit: None, offset: 0, order: Vec::new(), ..plan.clone() };
    if count != Count::Exact {
        let planned = app.engine.store.estimate(&whole).await?.rows;
        if let Some(planned) = planned.filter(|rows| count == Count::Planned || *rows > ESTIMATE_OVER) {
            return Ok(planned);
        }
    }
    // A count looks at every row that matches, however few are answered.
    bounds::affordable(app, &[whole]).await?;
    Ok(app.engine.store.count(plan).await?)
}

/// How many rows the answer has, where that is known before it is sent: by the total, or because all of them are here.
async fn shown(
    app: &App,
    plan: &ReadPlan,
    left: Option<u64>,
    first: Option<&RowBatch>,
    rest: &mut Ahead,
) -> Option<u64> {
    /// A store that gives less than this at first has given all, as a rule; whether it has is then seen.
    const SMALL_BYTES: usize = 64 * 1024;
    if let Some(left) = left {
        let max = Some(app.config.read.rows_max).filter(|max| *max > 0);
        return Some(left.min(plan.limit.unwrap_or(u64::MAX)).min(max.unwrap_or(u64::MAX)));
    }
    let Some(first) = first else { return Some(0) };
    if first.byte_len() >= SMALL_BYTES || std::pin::Pin::new(rest).peek().await.is_some() {
        return None;
    }
    Some(first.len() as u64)
}

/// A read of which the next batch can be looked at.
type Ahead = futures_util::stream::Peekable<Rows>;

/// What a query string asks of a table, all of it: no page.
///
/// # Errors
/// `400` for a cursor.
pub(crate) fn plan_of(app: &App, table: Arc<Table>, query: &str) -> Result<ReadPlan, Problem> {
    let query = Query::parse(query)?;
    match query.cursor {
        Some(_) => {
            Err(Problem::bad_request("bad_cursor", "a cursor goes on with a read of a table, which this is not"))
        }
        None => planned(app, table, &query),
    }
}

fn planned(app: &App, table: Arc<Table>, query: &Query) -> Result<ReadPlan, Problem> {
    let relations = app.engine.relations();
    let find = |schema: &str, name: &str| app.engine.table_in(schema, name);
    resolve::plan(&Catalogue { relations: &relations, find: &find }, table, query)
}

/// The cursor of a query, for the plan that it goes on with.
async fn open(app: &App, plan: &mut ReadPlan, query: &str, cursor: &str) -> Result<Cursor, Problem> {
    if plan.is_grouped() || plan.table.key.is_empty() {
        return Err(Problem::bad_request("bad_cursor", "no cursor goes with this read: its pages go by offset"));
    }
    page::by_key(plan);
    Cursor::open(CursorKey::of(app).await?, Shape::of(plan, query)?, cursor)
}

fn renderer(plan: &ReadPlan, media: Media) -> Renderer {
    let columns = plan.columns().into_iter().map(|column| (column.name, column.ty));
    let encoding = match media {
        Media::Rows(encoding) => encoding,
        _ => Encoding::Json,
    };
    Renderer::new(columns, encoding)
}

/// `application/vnd.pgrst.array+json;nulls=stripped`, and of `object`.
fn strips_nulls(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.split(',').next().is_some_and(|first| first.replace(' ', "").contains(";nulls=stripped"))
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
            // PostgREST's clients look for these words.
            let details = format!("The result contains {rows} rows");
            Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not_one_row", detail).with("details", details))
        }
    }
}
