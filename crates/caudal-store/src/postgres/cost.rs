//! What a read will cost, as the planner says.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use caudal_core::error::StoreError;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::Estimate;
use tokio_postgres::types::{FromSql, Type};

use super::PostgresStore;
use super::error::{own_error, store_error};
use super::sql::{self, column_list, table_name};
use crate::cost::index_columns;

/// Statements whose cost is remembered; beyond it all are forgotten, which only costs asking again.
const REMEMBERED_MAX: usize = 512;
/// Tables grow, and one text stands for many values.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);

/// Costs by statement text.
#[derive(Debug, Default)]
pub(super) struct Costs(Mutex<HashMap<String, (f64, Instant)>>);

impl Costs {
    fn get(&self, text: &str) -> Option<f64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(text).filter(|(_, since)| since.elapsed() < REMEMBERED_FOR).map(|(cost, _)| *cost)
    }

    fn put(&self, text: String, cost: f64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        known.insert(text, (cost, Instant::now()));
    }
}

pub(super) async fn estimate(store: &PostgresStore, plan: &ReadPlan) -> Result<Estimate, StoreError> {
    let sql = sql::select(plan);
    let cost = match store.costs.get(&sql.text) {
        Some(cost) => cost,
        None => {
            let cost = explain(store, &sql).await?;
            store.costs.put(sql.text, cost);
            cost
        }
    };
    let columns = index_columns(plan);
    let index = (!columns.is_empty()).then(|| {
        let columns = column_list(columns.into_iter());
        format!("create index concurrently on {} ({columns})", table_name(&plan.table))
    });
    Ok(Estimate { cost, index })
}

/// On a connection for streams: the others are told to avoid scans, and would plan something else.
async fn explain(store: &PostgresStore, sql: &sql::Sql) -> Result<f64, StoreError> {
    let text = format!("explain (format json) {}", sql.text);
    let params: Vec<_> = sql.values.iter().map(|(value, ty)| (value as _, ty.clone())).collect();
    let mut lease = store.readers.lease().await?;
    let conn = lease.conn().await?;
    let asked = tokio::time::timeout(store.statement_timeout, conn.client.query_typed(&text, &params)).await;
    let rows = match asked {
        Ok(Ok(rows)) => rows,
        failed => {
            lease.discard();
            return Err(
                failed.map_or(StoreError::Timeout, |error| error.map_or_else(own_error, |_| StoreError::Timeout))
            );
        }
    };
    let plan: Option<JsonText> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
    let cost = plan.as_ref().and_then(|plan| total_cost(&plan.0));
    cost.ok_or_else(|| StoreError::fatal("the server explained a statement without its cost"))
}

/// A quote inside a name is escaped there, so the first key of this name is the top node's.
fn total_cost(plan: &str) -> Option<f64> {
    let (_, rest) = plan.split_once("\"Total Cost\":")?;
    rest.split([',', '\n', '}']).next()?.trim().parse().ok()
}

struct JsonText(String);

impl<'a> FromSql<'a> for JsonText {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(std::str::from_utf8(raw)?.to_owned()))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::JSON
    }
}

#[cfg(test)]
mod tests {
    use super::total_cost;

    #[test]
    fn the_cost_is_the_top_nodes() {
        let plan = r#"[{"Plan": {"Node Type": "Limit", "Alias": "a\"Total Cost\": 7", "Startup Cost": 0.00,
            "Total Cost": 12.75, "Plans": [{"Total Cost": 99.0}]}}]"#;
        assert_eq!(total_cost(plan), Some(12.75));
        assert_eq!(total_cost("[]"), None);
    }
}
