//! Migrations and tables.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::plan::Scalar;
use caudal_core::ports::{AppendBatch, OnBadRow};
use caudal_core::schema::{Column, ColumnType, Origin, Table};
use uuid::Uuid;

use super::{Fixture, batch, push, small, topic};

pub async fn migrates_once(fx: Fixture) {
    assert_eq!(fx.store.migrate().await.expect("migrate"), Vec::<String>::new(), "the fixture has migrated");
    fx.store.ping().await.expect("ping");
}

pub async fn concurrent_migrations(fx: Fixture) {
    let (a, b, c) = tokio::join!(fx.store.migrate(), fx.store.migrate(), fx.store.migrate());
    assert!([a, b, c].into_iter().all(|r| r.expect("migrate").is_empty()));
    let table = small("at-once", true);
    let ensure = || fx.store.ensure_table(&table);
    let (a, b, c, d) = tokio::join!(ensure(), ensure(), ensure(), ensure());
    [a, b, c, d].into_iter().for_each(|r| drop(r.expect("ensure_table")));
}

pub async fn adds_columns(fx: Fixture) {
    let before = small("grows", true);
    assert!(fx.store.ensure_table(&before).await.expect("table").is_empty());
    let old = Uuid::now_v7();
    fx.store.append(batch(&before, OnBadRow::Report, &[(old, 1)]).into()).await.expect("append");

    let mut properties: Vec<Column> = before.columns.iter().filter(|c| c.origin == Origin::Property).cloned().collect();
    properties.push(Column::new("added \"x\"", ColumnType::Jsonb, true, Origin::Property));
    let after = Arc::new(Table::of_topic("grows", properties, true));
    assert!(fx.store.ensure_table(&after).await.expect("table").is_empty());
    let at = after.column("added \"x\"").expect("column");
    let row = fx.store.get(&after, old).await.expect("get").expect("a row");
    assert_eq!(row.row(0).nth(at), Some(None), "rows from before read null");

    let mut wide = AppendBatch::new(after.clone(), topic("grows"), OnBadRow::Report);
    let new = Uuid::now_v7();
    let values = [Some(Scalar::Int8(2)), None, Some(Scalar::Jsonb("{\"a\":1}".into()))];
    push(&mut wide.rows, &after, new, &values);
    fx.store.append(wide.into()).await.expect("append");
    assert!(fx.store.get(&after, new).await.expect("get").expect("a row").row(0).nth(at).flatten().is_some());
    // A writer that has not heard of the column yet goes on.
    fx.store.append(batch(&before, OnBadRow::Report, &[(Uuid::now_v7(), 3)]).into()).await.expect("append");
    let beyond = fx.store.ensure_table(&before).await.expect("table");
    assert_eq!(beyond.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["added \"x\""]);
}

pub async fn names_type_mismatch(fx: Fixture) {
    fx.store.ensure_table(&small("typed", false)).await.expect("table");
    let columns = vec![Column::new("n", ColumnType::Text, true, Origin::Property)];
    let mismatch = fx.store.ensure_table(&Table::of_topic("typed", columns, false)).await;
    let Err(StoreError::Setup(sentence)) = mismatch else { panic!("not a setup error: {mismatch:?}") };
    assert!(sentence.contains("column n") && sentence.contains("typed") && sentence.contains("text"), "{sentence}");
}

/// A table without Caudal's columns is somebody else's.
pub async fn refuses_foreign_tables(fx: Fixture) {
    let refused = fx.store.ensure_table(&small("_positions", false)).await;
    assert!(matches!(refused, Err(StoreError::Setup(_))), "{refused:?}");
}

pub async fn describes_itself(fx: Fixture) {
    let words = fx.store.describe().await.expect("describe");
    let (product, version) = words.split_once(' ').expect("product and version");
    assert!(product == "PostgreSQL" || product == "SQLite", "{words}");
    assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{words}");
}
