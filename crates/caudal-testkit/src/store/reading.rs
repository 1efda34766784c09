//! Reads: plans against an evaluator in memory, streams, point reads, the tail.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::plan::{Comparison, Filter, Is, OrderBy, ReadPlan, Scalar, Selected};
use caudal_core::ports::{AppendBatch, OnBadRow, Store, TailMark};
use caudal_core::row::{Row, RowBatch, field};
use caudal_core::schema::{ID, Table};
use caudal_core::time::Date;
use futures_util::TryStreamExt;
use uuid::Uuid;

use super::evaluator::{Rows, Values, compare};
use super::{Fixture, all_types, at, batch, ids, push, rows_in, small, topic};

pub(super) async fn read_all(store: &dyn Store, plan: ReadPlan) -> RowBatch {
    let batches: Vec<RowBatch> = store.read(plan).await.expect("read").try_collect().await.expect("stream");
    let mut all = RowBatch::default();
    batches.iter().for_each(|b| all.extend(b));
    all
}

/// The ids that a plan yields; `_id` is selected alone.
async fn ids_of(store: &dyn Store, mut plan: ReadPlan) -> Vec<Uuid> {
    let column = plan.table.column(ID).expect("_id");
    plan.select = vec![Selected::column(column, ID)];
    read_all(store, plan).await.rows().map(|mut r| field::uuid(r.next().flatten().expect("an id"))).collect()
}

/// Rows with few distinct values, so that every comparison has ties and nulls.
pub(super) async fn sample(fx: &Fixture, name: &str) -> (Arc<Table>, Rows) {
    let mut rows = Rows::default();
    let table = add_sample(fx, name, ids(120), &mut rows).await;
    (table, rows)
}

/// A table of them with these ids.
pub(super) async fn add_sample(fx: &Fixture, name: &str, ids: Vec<Uuid>, to: &mut Rows) -> Arc<Table> {
    let table = all_types(name);
    fx.store.ensure_table(&table).await.expect("table");
    let texts = ["", "a", "A", "B", "b", "ab", "a_b", "a%b", "Z", "é", "ñ", "zz\\"];
    let days = ["2020-02-29", "1999-12-31", "2024-01-01"];
    let times = ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z", "2024-01-01T00:00:00.05Z", "2023-12-31T23:59:59Z"];
    let documents = [
        r#"{"k": 0}"#,
        r#"{"k": 1, "list": [1, "two", 2.50], "flag": true}"#,
        r#"{"k": "1", "list": [], "deep": {"q\"uote $.é": "b"}, "flag": null}"#,
        r#"[{"k": 2}, 3]"#,
        r#"{"k": {"k": 1}, "list": [null, "é"], "deep": {"q\"uote $.é": -1}}"#,
    ];
    let mut rows = Vec::new();
    let mut batch = AppendBatch::new(table.clone(), topic(name), OnBadRow::Report);
    for (i, id) in ids.into_iter().enumerate() {
        let some = |every: usize, value: Scalar| (!i.is_multiple_of(every)).then_some(value);
        let values = vec![
            some(5, Scalar::Int8((i % 7) as i64 - 3)),
            some(7, Scalar::Float8([0.5, -1.25, 1e10, 3.0][i % 4])),
            some(11, Scalar::Text(texts[i % texts.len()].into())),
            some(3, Scalar::Bool(i.is_multiple_of(2))),
            some(13, Scalar::Timestamptz(at(times[i % 4]))),
            some(4, Scalar::Date(Date::parse(days[i % 3]).expect("date"))),
            some(6, Scalar::Uuid(Uuid::from_u128((i % 5) as u128))),
            some(9, Scalar::Jsonb(documents[i % documents.len()].into())),
        ];
        push(&mut batch.rows, &table, id, &values);
        rows.push((id, values));
    }
    fx.store.append(batch.into()).await.expect("append");
    to.first = table.column("i").expect("i");
    to.tables.insert(name.to_owned(), rows);
    table
}

fn filters(table: &Table) -> Vec<Filter> {
    let column = |name: &str| table.column(name).expect("column");
    let mut filters = Vec::new();
    let samples = [
        ("i", Scalar::Int8(1)),
        ("f", Scalar::Float8(0.5)),
        ("t", Scalar::Text("a".into())),
        ("t", Scalar::Text("Z'; drop table x; --".into())),
        ("b", Scalar::Bool(true)),
        ("ts", Scalar::Timestamptz(at("2024-01-01T00:00:00.05Z"))),
        ("d", Scalar::Date(Date::parse("2020-02-29").expect("date"))),
        ("u", Scalar::Uuid(Uuid::from_u128(2))),
    ];
    use Comparison::{Eq, Gt, Gte, Lt, Lte, Neq};
    for (name, value) in &samples {
        for op in [Eq, Neq, Gt, Gte, Lt, Lte] {
            filters.push(Filter::Compare { field: column(name).into(), op, value: value.clone() });
        }
        filters.push(Filter::In { field: column(name).into(), values: vec![value.clone()] });
        filters.push(Filter::Is { field: column(name).into(), what: Is::Null });
    }
    filters.push(Filter::In { field: column("i").into(), values: (-1..2).map(Scalar::Int8).collect() });
    filters.push(Filter::In { field: column("i").into(), values: Vec::new() });
    for pattern in ["a%", "A%", "_", "%b", "a\\_b", "a\\%%", "%", "", "é", "zz\\\\", "%ñ%"] {
        filters.push(Filter::Like { field: column("t").into(), pattern: pattern.into(), insensitive: false });
    }
    filters.push(Filter::Is { field: column("b").into(), what: Is::True });
    filters.push(Filter::Is { field: column("b").into(), what: Is::False });
    let simple = filters.clone();
    for (i, filter) in simple.iter().enumerate() {
        filters.push(Filter::Not(Box::new(filter.clone())));
        let other = simple[(i * 7 + 3) % simple.len()].clone();
        let third = Filter::Not(Box::new(simple[(i * 5 + 1) % simple.len()].clone()));
        filters.push(Filter::And(vec![filter.clone(), third.clone()]));
        filters.push(Filter::Or(vec![filter.clone(), Filter::And(vec![other, third])]));
    }
    filters.push(Filter::And(Vec::new()));
    filters.push(Filter::Or(Vec::new()));
    filters
}

pub async fn plans_match_the_evaluator(fx: Fixture) {
    let (table, rows) = sample(&fx, "plans").await;
    for filter in filters(&table) {
        let plan = ReadPlan { filter: vec![filter.clone()], ..ReadPlan::all(table.clone()) };
        let fits = |row: &&(Uuid, Values)| rows.fits(&plan, row);
        let expected: HashSet<Uuid> = rows.of(&table).iter().filter(fits).map(|(id, _)| *id).collect();
        assert_eq!(fx.store.count(&plan).await.expect("count"), expected.len() as u64, "{filter:?}");
        let found: HashSet<Uuid> = ids_of(&*fx.store, plan).await.into_iter().collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub async fn orders_and_pages(fx: Fixture) {
    let (table, rows) = sample(&fx, "orders").await;
    let rows = rows.of(&table);
    let first = table.column("i").expect("i");
    for column in first..first + 7 {
        for (descending, nulls_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let order = vec![OrderBy { descending, nulls_first, ..OrderBy::column(column) }];
            let mut expected: Vec<&(Uuid, Values)> = rows.iter().collect();
            expected.sort_by(|(a_id, a), (b_id, b)| {
                let order = match (&a[column - first], &b[column - first]) {
                    (None, None) => Ordering::Equal,
                    (None, _) => {
                        if nulls_first {
                            Ordering::Less
                        } else {
                            Ordering::Greater
                        }
                    }
                    (_, None) => {
                        if nulls_first {
                            Ordering::Greater
                        } else {
                            Ordering::Less
                        }
                    }
                    (Some(a), Some(b)) => {
                        if descending {
                            compare(b, a)
                        } else {
                            compare(a, b)
                        }
                    }
                };
                order.then(if descending { b_id.cmp(a_id) } else { a_id.cmp(b_id) })
            });
            let expected: Vec<Uuid> = expected.into_iter().map(|(id, _)| *id).collect();
            let plan = ReadPlan { order, ..ReadPlan::all(table.clone()) };
            assert_eq!(ids_of(&*fx.store, plan.clone()).await, expected, "column {column} {descending} {nulls_first}");
            let mut paged = Vec::new();
            for page in 0..7 {
                let plan = ReadPlan { limit: Some(20), offset: page * 20, ..plan.clone() };
                paged.extend(ids_of(&*fx.store, plan).await);
            }
            assert_eq!(paged, expected);
        }
    }
    let plan = ReadPlan { offset: 110, ..ReadPlan::all(table.clone()) };
    assert_eq!(ids_of(&*fx.store, plan).await.len(), 10, "an offset needs no limit");
    let plan = ReadPlan { limit: Some(0), ..ReadPlan::all(table.clone()) };
    assert!(ids_of(&*fx.store, plan).await.is_empty());
    // A subset of the columns, in another order, under other names.
    let select = ["j", "i", "_id"].map(|name| Selected::column(table.column(name).expect("column"), "x"));
    let plan = ReadPlan { select: select.to_vec(), ..ReadPlan::all(table.clone()) };
    let types = plan.types();
    for row in read_all(&*fx.store, plan).await.rows() {
        let row: Vec<_> = row.collect();
        assert_eq!(row.len(), types.len());
        let (_, values) = rows.iter().find(|(id, _)| Some(id.as_bytes().as_slice()) == row[2]).expect("a row we wrote");
        assert_eq!(row[1].map(field::int8).map(Scalar::Int8), values[0]);
    }
}

pub async fn json_equality(fx: Fixture) {
    let table = all_types("json");
    fx.store.ensure_table(&table).await.expect("table");
    let mut batch = AppendBatch::new(table.clone(), topic("json"), OnBadRow::Report);
    let id = Uuid::now_v7();
    let mut values: Values = vec![None; 7];
    values.push(Some(Scalar::Jsonb(r#"{"a": 1.0, "b": [true]}"#.into())));
    push(&mut batch.rows, &table, id, &values);
    fx.store.append(batch.into()).await.expect("append");
    let column = table.column("j").expect("j");
    for (text, equal) in [(r#"{"b":[true],"a":1}"#, true), (r#"{"b":[false],"a":1}"#, false)] {
        for op in [Comparison::Eq, Comparison::Neq] {
            let filter = Filter::Compare { field: column.into(), op, value: Scalar::Jsonb(text.into()) };
            let plan = ReadPlan { filter: vec![filter], ..ReadPlan::all(table.clone()) };
            assert_eq!(ids_of(&*fx.store, plan).await.len() == 1, equal == (op == Comparison::Eq), "{op:?} {text}");
        }
    }
}

async fn fill(fx: &Fixture, table: &Arc<Table>, rows: usize) {
    fx.store.ensure_table(table).await.expect("table");
    for start in (0..rows).step_by(10_000) {
        let rows: Vec<(Uuid, i64)> = ids(10_000.min(rows - start)).into_iter().zip(start as i64..).collect();
        fx.store.append(batch(table, OnBadRow::Report, &rows).into()).await.expect("append");
    }
}

pub async fn streams_with_a_slow_consumer(fx: Fixture) {
    let table = small("long", false);
    fill(&fx, &table, 200_000).await;
    let mut stream = fx.store.read(ReadPlan::all(table.clone())).await.expect("read");
    let (mut rows, mut largest, mut batches) = (0, 0, 0);
    while let Some(batch) = stream.try_next().await.expect("stream") {
        rows += batch.len();
        largest = largest.max(batch.byte_len());
        batches += 1;
        if batches % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(rows, 200_000);
    assert!(largest < 512 * 1024, "batches stay small: {largest}");
}

pub async fn early_drops_free_the_store(fx: Fixture) {
    let table = small("dropped", false);
    fill(&fx, &table, 50_000).await;
    for _ in 0..50 {
        let mut stream = fx.store.read(ReadPlan::all(table.clone())).await.expect("read");
        assert!(stream.try_next().await.expect("stream").is_some());
    }
    let counted = tokio::time::timeout(Duration::from_secs(20), rows_in(&*fx.store, &table)).await;
    assert_eq!(counted.expect("reads are possible"), 50_000);
}

/// Streams that nobody reads on hold their own connections only.
pub async fn open_streams_block_nobody(fx: Fixture) {
    let table = small("held", false);
    fill(&fx, &table, 50_000).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = fx.store.read(ReadPlan::all(table.clone())).await.expect("read");
        assert!(stream.try_next().await.expect("stream").is_some());
        streams.push(stream);
    }
    let others = async {
        fx.store.ping().await.expect("ping");
        fx.store.get(&table, Uuid::now_v7()).await.expect("get");
        fx.store.tally(&topic("held")).await.expect("tally");
        fx.store.tail(&table, None, 1).await.expect("tail");
        fx.store.append(batch(&table, OnBadRow::Report, &[(Uuid::now_v7(), 1)]).into()).await.expect("append");
    };
    tokio::time::timeout(Duration::from_secs(10), others).await.expect("nothing waits for the streams");
    drop(streams);
    assert_eq!(rows_in(&*fx.store, &table).await, 50_001);
}

pub async fn concurrent_gets(fx: Fixture) {
    let (a, b) = (small("gets-a", false), small("gets-b", true));
    let mut tasks = Vec::new();
    for table in [a, b] {
        fx.store.ensure_table(&table).await.expect("table");
        let rows: Vec<(Uuid, i64)> = ids(200).into_iter().zip(0..).collect();
        fx.store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
        for (id, n) in rows {
            let (store, table) = (fx.store.clone(), table.clone());
            tasks.push(tokio::spawn(async move {
                assert!(store.get(&table, Uuid::now_v7()).await.expect("get").is_none());
                let found = store.get(&table, id).await.expect("get").expect("a row");
                let at = table.column("n").expect("n");
                assert_eq!(found.row(0).nth(at).flatten().map(field::int8), Some(n));
            }));
        }
    }
    for task in tasks {
        task.await.expect("get");
    }
}

pub async fn tail_skips_and_repeats_nothing(fx: Fixture) {
    let table = small("tail", true);
    fx.store.ensure_table(&table).await.expect("table");
    fx.store.append(batch(&table, OnBadRow::Report, &[(Uuid::now_v7(), 0)]).into()).await.expect("append");
    let (nothing, mut mark) = fx.store.tail(&table, None, 10).await.expect("tail");
    assert!(nothing.is_empty(), "a tail starts at the present");

    let mut writers = Vec::new();
    for _ in 0..4 {
        let (store, table) = (fx.store.clone(), table.clone());
        writers.push(tokio::spawn(async move {
            let mut written = Vec::new();
            for _ in 0..50 {
                let rows: Vec<(Uuid, i64)> = ids(7).into_iter().zip(0..).collect();
                store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
                written.extend(rows.into_iter().map(|(id, _)| id));
            }
            written
        }));
    }
    let (mut seen, mut expected) = (Vec::new(), HashSet::new());
    let mut done = false;
    loop {
        let (rows, next) = fx.store.tail(&table, Some(mark), 10).await.expect("tail");
        assert!(rows.len() <= 10);
        seen.extend(rows.rows().map(|mut r| field::uuid(r.next().flatten().expect("an id"))));
        mark = next;
        if rows.is_empty() && done {
            break;
        }
        done = writers.iter().all(tokio::task::JoinHandle::is_finished);
    }
    for writer in writers {
        expected.extend(writer.await.expect("writer"));
    }
    assert_eq!(seen.len(), expected.len(), "none twice");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), expected);
}

/// The ids of one pass, and its mark.
async fn pass(fx: &Fixture, table: &Arc<Table>, from: Option<&TailMark>) -> (Vec<Uuid>, TailMark) {
    let (stream, mark) = fx.store.changes(table, from).await.expect("changes");
    let batches: Vec<RowBatch> = stream.try_collect().await.expect("a whole pass");
    let id = |mut row: Row<'_>| field::uuid(row.next().flatten().expect("an id"));
    (batches.iter().flat_map(|batch| batch.rows().map(id).collect::<Vec<_>>()).collect(), mark)
}

pub async fn changes_skip_and_repeat_nothing(fx: Fixture) {
    let table = small("changes", true);
    fx.store.ensure_table(&table).await.expect("table");
    let (nothing, empty) = pass(&fx, &table, None).await;
    assert!(nothing.is_empty());
    let first: Vec<(Uuid, i64)> = ids(3000).into_iter().zip(0..).collect();
    fx.store.append(batch(&table, OnBadRow::Report, &first).into()).await.expect("append");
    let mut expected: HashSet<Uuid> = first.iter().map(|(id, _)| *id).collect();
    for from in [None, Some(&empty)] {
        let (seen, _) = pass(&fx, &table, from).await;
        assert_eq!((seen.len(), seen.into_iter().collect()), (3000, expected.clone()), "from the beginning: {from:?}");
    }

    let mut writers = Vec::new();
    for _ in 0..4 {
        let (store, table) = (fx.store.clone(), table.clone());
        writers.push(tokio::spawn(async move {
            let mut written = Vec::new();
            for _ in 0..50 {
                let rows: Vec<(Uuid, i64)> = ids(7).into_iter().zip(0..).collect();
                store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
                written.extend(rows.into_iter().map(|(id, _)| id));
            }
            written
        }));
    }
    let (mut seen, mut mark) = pass(&fx, &table, None).await;
    let mut done = false;
    while !done {
        done = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let (mut new, next) = pass(&fx, &table, Some(&mark)).await;
        seen.append(&mut new);
        mark = next;
    }
    for writer in writers {
        expected.extend(writer.await.expect("writer"));
    }
    assert_eq!(seen.len(), expected.len(), "none twice");
    assert_eq!(seen.into_iter().collect::<HashSet<_>>(), expected);
    assert_eq!(pass(&fx, &table, Some(&mark)).await.0, Vec::<Uuid>::new());
}

pub async fn changes_refuse_foreign_marks(fx: Fixture) {
    let table = small("changes", true);
    fx.store.ensure_table(&table).await.expect("table");
    fx.store.append(batch(&table, OnBadRow::Report, &[(Uuid::now_v7(), 0)]).into()).await.expect("append");
    // The last two are well-formed for one store each, and from a future that this database has not seen.
    for mark in ["", "x", "1:2", "1:2:|x", "9000000000000000000", "9000000000000000000:9000000000000000001:|0"] {
        let refused = fx.store.changes(&table, Some(&TailMark(mark.into()))).await.map(drop);
        assert!(matches!(refused, Err(StoreError::Setup(_))), "{mark:?}: {refused:?}");
    }
}

pub async fn missing_table_is_setup(fx: Fixture) {
    let table = small("nowhere", false);
    let read = fx.store.read(ReadPlan::all(table.clone())).await.map(drop);
    let get = fx.store.get(&table, Uuid::now_v7()).await.map(drop);
    let append = fx.store.append(batch(&table, OnBadRow::DeadLetter, &[(Uuid::now_v7(), 1)]).into()).await.map(drop);
    for result in [read, get, append] {
        assert!(matches!(result, Err(StoreError::Setup(_))), "{result:?}");
    }
}
