//! What a read of a table may cost and answer, by the settings in `[read]`. A plan that costs too much is refused before it
//! runs; one that would answer too much is cut, and says where the rest is.

use axum::response::Response;
use caudal_core::plan::{OrderBy, ReadPlan};
use caudal_core::schema::ID;
use futures_util::StreamExt;
use http::{HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::cap::Caps;
use crate::problem::Problem;
use crate::state::App;

/// Bounds on one read of a table; 0 is none.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadBounds {
    pub rows_max: u64,
    /// Bytes of the rows in binary, before they are rendered.
    pub bytes_max: u64,
    /// PostgreSQL: of the planner's cost. SQLite: of the rows that are looked at.
    pub cost_max: f64,
}

impl ReadBounds {
    pub(crate) fn caps(self) -> Caps {
        // Rows are cut by the plan.
        Caps { rows: 0, bytes: self.bytes_max }
    }
}

/// Refuses a plan that costs more than it may.
pub(crate) async fn affordable(app: &App, plan: &ReadPlan) -> Result<(), Problem> {
    let max = app.config.read.cost_max;
    if max <= 0.0 {
        return Ok(());
    }
    let estimate = app.engine.store.estimate(plan).await?;
    if estimate.cost <= max {
        return Ok(());
    }
    let advice = match &estimate.index {
        Some(index) => format!("filter by an indexed column, or have somebody run: {index}"),
        None => "filter by an indexed column such as _id, or ask for fewer rows with limit=".to_owned(),
    };
    let detail =
        format!("this read of {} costs {:.0}, and {max:.0} is allowed: {advice}", plan.table.name, estimate.cost);
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too_costly", detail);
    let problem = problem.with("cost", estimate.cost).with("cost_max", max);
    Err(match estimate.index {
        Some(index) => problem.with("hint", index),
        None => problem,
    })
}

/// Cuts a plan to the rows that one answer may have; `true` when there is more. Pages need an order to go on in.
pub(crate) async fn cut(app: &App, plan: &mut ReadPlan) -> Result<bool, Problem> {
    let bounds = app.config.read;
    if bounds.rows_max == 0 && bounds.bytes_max == 0 {
        return Ok(false);
    }
    if plan.order.is_empty()
        && let Some(column) = plan.table.column(ID)
    {
        plan.order = vec![OrderBy::column(column)];
    }
    let max = bounds.rows_max;
    if max == 0 || plan.limit.is_some_and(|limit| limit <= max) {
        return Ok(false);
    }
    let mut beyond = plan.clone();
    (beyond.offset, beyond.limit) = (plan.offset.saturating_add(max), Some(1));
    let more = app.engine.store.read(beyond).await?.next().await.transpose()?;
    if more.is_none_or(|rows| rows.is_empty()) {
        return Ok(false);
    }
    plan.limit = Some(max);
    Ok(true)
}

/// Says in the head of an answer that `plan` was cut after `kept` rows, and where the next are.
pub(crate) fn say_cut(response: &mut Response, plan: &ReadPlan, query: &str, kept: u64) {
    let headers = response.headers_mut();
    headers.insert("caudal-truncated", HeaderValue::from_static("true"));
    if let Ok(link) = HeaderValue::from_str(&format!("<{}>; rel=\"next\"", next_page(plan, query, kept))) {
        headers.insert(header::LINK, link);
    }
}

/// The address of the rows after the first `kept` of `plan`, which `query` asked for.
fn next_page(plan: &ReadPlan, query: &str, kept: u64) -> String {
    let name = utf8_percent_encode(&plan.table.name, NON_ALPHANUMERIC);
    let terms = query.split('&').filter(|term| !term.is_empty() && !term.starts_with("offset="));
    let mut terms: Vec<String> = terms.map(str::to_owned).collect();
    if !terms.iter().any(|term| term.starts_with("order=")) && plan.table.column(ID).is_some() {
        terms.push(format!("order={ID}"));
    }
    terms.push(format!("offset={}", plan.offset.saturating_add(kept)));
    format!("/rest/v1/{name}?{}", terms.join("&"))
}
