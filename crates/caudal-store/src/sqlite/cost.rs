//! How many rows a read will look at, as far as its plan tells.

use caudal_core::error::StoreError;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::Estimate;
use rusqlite::params_from_iter;

use super::SqliteStore;
use super::error::store_error;
use super::readers::Reader;
use super::sql::{self, column_list, quoted};
use crate::cost::index_columns;

/// A view, whose rows have no numbers.
const CONFIRMATIONS: &str = "\"_confirmations\"";

pub(super) async fn estimate(store: &SqliteStore, plan: &ReadPlan) -> Result<Estimate, StoreError> {
    let columns = index_columns(plan);
    let table = quoted(&plan.table.name);
    let index = (!columns.is_empty()).then(|| {
        let name = quoted(&format!("{}_{}", plan.table.name, columns.join("_")));
        format!("create index {name} on {table} ({})", column_list(columns.into_iter()))
    });
    let sql = sql::select(plan)?;
    // A scan that nothing filters or sorts ends with the page.
    let plain = plan.filter.is_empty() && plan.order.is_empty();
    let page = plan.limit.map(|limit| limit.saturating_add(plan.offset)).filter(|_| plain);
    let work = move |reader: &Reader| {
        let mut statement = reader.conn.prepare(&format!("explain query plan {}", sql.text)).map_err(store_error)?;
        let steps =
            statement.query_map(params_from_iter(&sql.values), |row| row.get::<_, String>(3)).map_err(store_error)?;
        let steps = steps.collect::<rusqlite::Result<Vec<_>>>().map_err(store_error)?;
        if !steps.iter().any(|step| step.starts_with("SCAN ") || step.starts_with("USE TEMP B-TREE")) {
            return Ok(0);
        }
        // As many as were ever stored: at least as many as there are, and known at once.
        let rows = match table == CONFIRMATIONS {
            true => "select coalesce(sum(enqueued), 0) from _confirm_counts".to_owned(),
            false => format!("select coalesce(max(rowid), 0) from {table}"),
        };
        let rows: i64 = reader.conn.query_row(&rows, [], |row| row.get(0)).map_err(store_error)?;
        Ok(page.unwrap_or(u64::MAX).min(rows as u64))
    };
    let rows = store.points.ask(work).await?;
    Ok(Estimate { cost: rows as f64, rows: None, index })
}
