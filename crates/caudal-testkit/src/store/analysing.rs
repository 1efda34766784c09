//! SQL of analysts, and what reads are estimated to cost.

use std::sync::Arc;

use caudal_core::plan::{Comparison, Filter, ReadPlan, Scalar};
use caudal_core::ports::OnBadRow;
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{ColumnType, Table};
use caudal_core::sql::{SqlError, SqlFaultKind, SqlQuery};
use futures_util::StreamExt;
use uuid::Uuid;

use super::{Fixture, batch, ids, rows_in, small};

const ROWS: i64 = 3_000;

async fn filled(fx: &Fixture) -> Arc<Table> {
    let table = small("asked", true);
    fx.store.ensure_table(&table).await.expect("table");
    let rows: Vec<(Uuid, i64)> = ids(ROWS as usize).into_iter().zip(0..).collect();
    fx.store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
    table
}

async fn ask(fx: &Fixture, table: &Arc<Table>, text: &str, limit: Option<u64>) -> Result<Vec<RowBatch>, SqlError> {
    let query = SqlQuery { text: text.to_owned(), limit, tables: vec![table.clone()] };
    let mut answer = fx.store.analyse(query).await?;
    assert!(answer.columns.iter().all(|(_, ty)| *ty == ColumnType::Int8), "{text}: {:?}", answer.columns);
    let mut batches = Vec::new();
    while let Some(batch) = answer.rows.next().await {
        batches.push(batch?);
    }
    Ok(batches)
}

fn numbers(batches: &[RowBatch]) -> Vec<i64> {
    batches.iter().flat_map(RowBatch::rows).filter_map(|mut row| row.next().flatten().map(field::int8)).collect()
}

pub async fn statements_answer_rows(fx: Fixture) {
    let table = filled(&fx).await;
    let all = ask(&fx, &table, "select n from asked order by n", None).await.expect("rows");
    assert_eq!(numbers(&all), (0..ROWS).collect::<Vec<_>>());
    let some = ask(&fx, &table, "select n from asked order by n desc;", Some(2)).await.expect("rows");
    assert_eq!(numbers(&some), [ROWS - 1, ROWS - 2]);
    let computed = ask(&fx, &table, "with x as (select n from asked) select count(*) as c from x -- all", None).await;
    assert_eq!(numbers(&computed.expect("a row")), [ROWS]);
}

pub async fn statements_only_read(fx: Fixture) {
    let table = filled(&fx).await;
    for text in [
        "delete from asked",
        "drop table asked",
        "update asked set n = 0",
        "select 1; delete from asked",
        "select 1) as q(c0); delete from asked; --",
        "begin",
        "commit",
        "nonsense",
        "",
    ] {
        let Err(SqlError::Refused(fault)) = ask(&fx, &table, text, None).await else {
            panic!("{text:?} was not refused")
        };
        assert!(!fault.message.is_empty() && !fault.code.is_empty(), "{text}: {fault:?}");
        let mistake = matches!(text, "nonsense" | "" | "select 1; delete from asked") || text.contains(')');
        assert!(mistake || fault.kind == SqlFaultKind::Forbidden, "{text}: {fault:?}");
    }
    assert_eq!(rows_in(&*fx.store, &table).await, ROWS as u64);
}

/// More statements than may run at a time, some left in the middle, some refused: the store goes on as before.
pub async fn statements_leave_nothing_behind(fx: Fixture) {
    let table = filled(&fx).await;
    for round in 0..12 {
        let query =
            SqlQuery { text: "select a.n from asked a, asked b".into(), limit: None, tables: vec![table.clone()] };
        let mut answer = fx.store.analyse(query).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let first = answer.rows.next().await.expect("a batch").expect("rows");
        assert!(!first.is_empty(), "round {round}");
        drop(answer);
        assert!(ask(&fx, &table, "select nope from asked", None).await.is_err(), "round {round}");
    }
    assert_eq!(rows_in(&*fx.store, &table).await, ROWS as u64);
    let id = Uuid::now_v7();
    fx.store.append(batch(&table, OnBadRow::Report, &[(id, 1)]).into()).await.expect("append");
    assert!(fx.store.get(&table, id).await.expect("get").is_some());
}

pub async fn estimates_tell_scans(fx: Fixture) {
    let table = filled(&fx).await;
    let by = |name: &str, value: Scalar| {
        let column = table.column(name).expect("column");
        let filter = vec![Filter::Compare { field: column.into(), op: Comparison::Eq, value }];
        ReadPlan { filter, ..ReadPlan::all(table.clone()) }
    };
    let by_id = fx.store.estimate(&by("_id", Scalar::Uuid(Uuid::now_v7()))).await.expect("estimate");
    let scan = fx.store.estimate(&by("n", Scalar::Int8(7))).await.expect("estimate");
    assert!(by_id.cost < scan.cost / 2.0, "by id {by_id:?}, by a column without an index {scan:?}");
    let index = scan.index.clone().expect("an index that would help");
    assert!(index.starts_with("create index") && index.ends_with("(\"n\")"), "{index}");
    let page =
        fx.store.estimate(&ReadPlan { limit: Some(10), ..ReadPlan::all(table.clone()) }).await.expect("estimate");
    assert!(page.cost < scan.cost, "a page {page:?}, a scan {scan:?}");
}
