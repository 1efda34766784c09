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
pub(super) struct Costs(Mutex<HashMap<String, (Guess, Instant)>>);

impl Costs {
    fn get(&self, text: &str) -> Option<Guess> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(text).filter(|(_, since)| since.elapsed() < REMEMBERED_FOR).map(|(cost, _)| *cost)
    }

    fn put(&self, text: String, cost: Guess) {
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
    Ok(Estimate { cost: cost.cost, rows: Some(cost.rows), index })
}

/// On a connection for streams: the others are told to avoid scans, and would plan something else.
async fn explain(store: &PostgresStore, sql: &sql::Sql) -> Result<Guess, StoreError> {
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
    let cost = plan.as_ref().and_then(|plan| Guess::of(&plan.0));
    cost.ok_or_else(|| StoreError::fatal("the server explained a statement without its cost"))
}

/// What the planner says of the top node.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Guess {
    cost: f64,
    rows: u64,
}

impl Guess {
    /// A quote inside a name is escaped there, so the first key of a name is the top node's.
    fn of(plan: &str) -> Option<Self> {
        let number = |key: &str| plan.split_once(key)?.1.split([',', '\n', '}']).next()?.trim().parse::<f64>().ok();
        Some(Self { cost: number("\"Total Cost\":")?, rows: number("\"Plan Rows\":")? as u64 })
    }
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
    use super::Guess;

    #[test]
    fn the_cost_is_the_top_nodes() {
        let plan = r#"[{"Plan": {"Node Type": "Limit", "Alias": "a\"Total Cost\": 7", "Startup Cost": 0.00,
            "Total Cost": 12.75, "Plan Rows": 7, "Plans": [{"Total Cost": 99.0, "Plan Rows": 9}]}}]"#;
        assert_eq!(Guess::of(plan), Some(Guess { cost: 12.75, rows: 7 }));
        assert_eq!(Guess::of("[]"), None);
    }
}
