//! What a read of a table may cost and answer, by the settings in `[read]`. A plan that costs too much is refused before it
//! runs; one that would answer too much is cut, and says where the rest is.

use axum::response::Response;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::Estimate;
use http::{HeaderValue, StatusCode, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::cap::Caps;
use super::cursor::{CURSOR_CHARS_MAX, CursorKey, Shape, is_paging};
use super::page::Next;
use super::query;
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
        Caps { bytes: self.bytes_max, ..Caps::default() }
    }
}

/// Refuses plans that together cost more than they may.
pub(crate) async fn affordable(app: &App, plans: &[ReadPlan]) -> Result<(), Problem> {
    let (max, mut estimate) = (app.config.read.cost_max, Estimate { cost: 0.0, rows: None, index: None });
    let (true, Some(plan)) = (max > 0.0, plans.first()) else { return Ok(()) };
    for plan in plans {
        let one = app.engine.store.estimate(plan).await?;
        estimate = Estimate { cost: estimate.cost + one.cost, index: estimate.index.or(one.index), ..one };
    }
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

/// Says in the head of an answer that a cap ended it, and where the next rows are.
pub(crate) fn say_next(response: &mut Response, cut: bool, next: Option<String>) {
    let headers = response.headers_mut();
    if cut {
        headers.insert("caudal-truncated", HeaderValue::from_static("true"));
    }
    if let Some(link) = next.and_then(|next| HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).ok()) {
        headers.insert(header::LINK, link);
    }
}

/// The address of the page after the one that `query` asked for.
pub(crate) async fn next_page(app: &App, plan: &ReadPlan, query: &str, next: Next) -> Result<String, Problem> {
    let name = utf8_percent_encode(&plan.table.name, NON_ALPHANUMERIC);
    let is_kept = |term: &&str| {
        let Some((name, value)) = term.split_once('=') else { return false };
        let decoded = query::decode(name).and_then(|name| Ok((name, query::decode(value)?)));
        decoded.is_ok_and(|(name, value)| name == "limit" || !is_paging(&name, &value))
    };
    let mut terms: Vec<&str> = query.split('&').filter(is_kept).collect();
    let place = match next {
        Next::Offset(offset) => format!("offset={offset}"),
        Next::After(cursor) => {
            let given = cursor.given;
            let sealed = cursor.seal(CursorKey::of(app).await?, Shape::of(plan, query)?);
            match sealed.len() <= CURSOR_CHARS_MAX {
                true => format!("cursor={sealed}"),
                // The values are longer than an address may be.
                false => format!("offset={given}"),
            }
        }
    };
    terms.push(&place);
    Ok(format!("/rest/v1/{name}?{}", terms.join("&")))
}
