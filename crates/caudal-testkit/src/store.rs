//! What every store must do, run identically against each.
//!
//! A store's tests say how to open one ([`Fixture`]) and call [`store_conformance!`](crate::store_conformance), which makes
//! one test a case.

pub mod analysing;
pub mod appending;
pub mod catalogue;
pub mod differential;
mod evaluator;
pub mod found;
pub mod operating;
pub mod reading;
pub mod retaining;

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use caudal_core::json;
use caudal_core::plan::Scalar;
use caudal_core::ports::{AppendBatch, Body, OnBadRow, Store};
use caudal_core::row::{Row, RowBatch, field};
use caudal_core::schema::{Column, ColumnType, Origin, Table};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use futures_util::future::BoxFuture;
use uuid::Uuid;

/// A store to test, empty and migrated, and what the suite must do to it from outside.
pub struct Fixture {
    pub store: Arc<dyn Store>,
    /// Makes the database itself refuse rows whose column is negative.
    pub refuse_negative: Box<dyn Fn(String, String) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Runs SQL in the database behind the store's back.
    pub execute: Box<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>,
    /// The schema in which that makes tables.
    pub schema: &'static str,
    /// Kept as long as the store is used.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Fixture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fixture").finish_non_exhaustive()
    }
}

/// One test a case, each with a store of its own from `$open`, an `async fn() -> Fixture`.
#[macro_export]
macro_rules! store_conformance {
    ($open:path) => {
        $crate::store_conformance!($open;
            appending: stores_all_and_gets_equal_rows, round_trips_every_type, tells_duplicates,
                duplicates_within_a_batch, conflicts_by_each_policy, isolates_refused_rows,
                refused_rows_leave_their_id, commits_positions_and_fences, aborts_whole,
                one_row_a_key_under_contention, survives_more_conflicts_than_rows;
            operating: dead_letters_are_kept_once, odd_dead_letters_are_kept, redrive_settles,
                repair_replaces_payload, tally_is_conserved, drift_adds_up;
            catalogue: migrates_once, concurrent_migrations, adds_columns, names_type_mismatch,
                refuses_foreign_tables, describes_itself;
            retaining: old_records_leave_and_their_keys_stay, forgotten_keys_are_new_again, readers_read_while_records_leave,
                repeats_race_with_the_sweep, tails_outlive_what_they_saw;
            found: tables_columns_and_keys, own_tables_are_left_out, odd_names, values_as_they_are, filters_and_order,
                marks_change_with_the_tables_only, unknown_schemas_are_setup, a_table_that_went_away;
            analysing: statements_answer_rows, statements_only_read, statements_leave_nothing_behind, estimates_tell_scans;
            reading: plans_match_the_evaluator, orders_and_pages, json_equality, streams_with_a_slow_consumer,
                early_drops_free_the_store, open_streams_block_nobody, concurrent_gets, tail_skips_and_repeats_nothing,
                changes_skip_and_repeat_nothing, changes_refuse_foreign_marks, missing_table_is_setup;
            differential: random_plans_match_the_evaluator;
        );
    };
    ($open:path; $($module:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                $crate::store::$module::$case($open().await).await;
            }
        )+)+
    };
}

/// A table with a column of every type.
pub fn all_types(name: &str) -> Arc<Table> {
    use ColumnType::{Bool, Date, Float8, Int8, Jsonb, Text, Timestamptz, Uuid};
    let types = [
        ("i", Int8),
        ("f", Float8),
        ("t", Text),
        ("b", Bool),
        ("ts", Timestamptz),
        ("d", Date),
        ("u", Uuid),
        ("j", Jsonb),
    ];
    let columns = types.map(|(name, ty)| Column::new(name, ty, true, Origin::Property));
    Arc::new(Table::of_topic(name, columns.to_vec(), false))
}

/// A table with one number and one text.
pub fn small(name: &str, numbered: bool) -> Arc<Table> {
    let columns = [("n", ColumnType::Int8), ("t", ColumnType::Text)];
    let columns = columns.map(|(name, ty)| Column::new(name, ty, true, Origin::Property));
    Arc::new(Table::of_topic(name, columns.to_vec(), numbered))
}

pub fn topic(name: &str) -> TopicName {
    TopicName::parse(name).expect("a topic name")
}

pub fn at(text: &str) -> Instant {
    Instant::parse(text).expect("an instant")
}

/// Appends a row: Caudal's columns, the properties, no extra.
pub fn push(rows: &mut RowBatch, table: &Table, id: Uuid, properties: &[Option<Scalar>]) {
    let mut out = rows.begin(table.written().count());
    out.uuid(id);
    out.text_or_null(Some("key"));
    out.text("test");
    out.timestamp(at("2024-05-06T07:08:09Z"));
    for value in properties {
        match value {
            None => out.null(),
            Some(Scalar::Int8(v)) => out.int8(*v),
            Some(Scalar::Float8(v)) => out.float8(*v),
            Some(Scalar::Text(v)) => out.text(v),
            Some(Scalar::Bool(v)) => out.boolean(*v),
            Some(Scalar::Timestamptz(v)) => out.timestamp(*v),
            Some(Scalar::Date(v)) => out.date(*v),
            Some(Scalar::Uuid(v)) => out.uuid(*v),
            Some(Scalar::Jsonb(v)) => out.json(v.as_bytes()),
            Some(Scalar::Literal(v) | Scalar::Exact(v)) => panic!("{v:?} is for a table that Caudal did not make"),
        }
    }
    out.null();
    out.finish();
}

/// A batch of rows `(id, n)` for a [`small`] table.
pub fn batch(table: &Arc<Table>, on_bad_row: OnBadRow, rows: &[(Uuid, i64)]) -> AppendBatch {
    let mut batch = AppendBatch::new(table.clone(), topic(&table.name), on_bad_row);
    for (id, n) in rows {
        push(&mut batch.rows, table, *id, &[Some(Scalar::Int8(*n)), Some(Scalar::Text(format!("row {n}")))]);
        batch.bodies.push(Body { body: Bytes::from(format!("{{\"n\":{n}}}")), attributes: None });
    }
    batch
}

pub fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

/// Whether two rows hold the same values; JSON by meaning, floats by value.
pub fn same_row(types: &[ColumnType], a: Row<'_>, b: Row<'_>) -> bool {
    let (a, b): (Vec<_>, Vec<_>) = (a.collect(), b.collect());
    a.len() == types.len()
        && b.len() == types.len()
        && types.iter().zip(a.iter().zip(&b)).all(|(ty, (a, b))| same_field(*ty, *a, *b))
}

pub fn same_field(ty: ColumnType, a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (ty, a, b) {
        (ColumnType::Jsonb, Some(a), Some(b)) => json::same(field::json(a), field::json(b)),
        (ColumnType::Float8, Some(a), Some(b)) => field::float8(a) == field::float8(b),
        _ => a == b,
    }
}

/// A stored row's values in the order of the written columns.
pub fn written_fields<'a>(table: &Table, stored: Row<'a>) -> Vec<Option<&'a [u8]>> {
    let columns = table.columns.iter().zip(stored);
    columns.filter(|(c, _)| c.origin != Origin::Database).map(|(_, value)| value).collect()
}

/// How many rows a table has.
pub async fn rows_in(store: &dyn Store, table: &Arc<Table>) -> u64 {
    store.count(&caudal_core::plan::ReadPlan::all(table.clone())).await.expect("count")
}
