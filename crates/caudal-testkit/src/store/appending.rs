//! Appends: what is stored, what is a duplicate, what is refused, and that a batch commits as one.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::message::Position;
use caudal_core::outcome::RowOutcome;
use caudal_core::plan::Scalar;
use caudal_core::ports::{AppendBatch, OnBadRow};
use caudal_core::rejection::Code;
use caudal_core::schema::ColumnType;
use caudal_core::time::{Date, Instant};
use uuid::Uuid;

use super::{Fixture, all_types, at, batch, ids, push, rows_in, same_field, small, topic, written_fields};

fn code_of(outcome: &RowOutcome) -> Option<Code> {
    match outcome {
        RowOutcome::Bad(rejection) => Some(rejection.code),
        _ => None,
    }
}

pub async fn stores_all_and_gets_equal_rows(fx: Fixture) {
    let table = small("plain", true);
    fx.store.ensure_table(&table).await.expect("table");
    let ids = ids(1000);
    let rows: Vec<(Uuid, i64)> = ids.iter().copied().zip(0..).collect();
    let batch = batch(&table, OnBadRow::DeadLetter, &rows);
    let appended = fx.store.append(batch.clone().into()).await.expect("append");
    assert_eq!(appended.rows, None);
    assert_eq!((appended.tally.accepted, appended.tally.stored), (1000, 1000));
    for index in [0, 499, 999] {
        let found = fx.store.get(&table, ids[index]).await.expect("get").expect("a row");
        let ours: Vec<_> = batch.rows.row(index).collect();
        assert_eq!(written_fields(&table, found.row(0)), ours);
        let row = found.row(0).nth(table.column("_row").expect("_row")).flatten();
        assert!(row.is_some(), "_row is filled");
    }
    assert!(fx.store.get(&table, Uuid::now_v7()).await.expect("get").is_none());
    assert_eq!(rows_in(&*fx.store, &table).await, 1000);
}

pub async fn round_trips_every_type(fx: Fixture) {
    let table = all_types("every-type");
    fx.store.ensure_table(&table).await.expect("table");
    let text = |t: &str| Some(Scalar::Text(t.into()));
    let json = |t: &str| Some(Scalar::Jsonb(t.into()));
    let rows: Vec<[Option<Scalar>; 8]> = vec![
        [const { None }; 8],
        [
            Some(Scalar::Int8(i64::MAX)),
            Some(Scalar::Float8(1e308)),
            text("ñandú 🚀 \u{1}\t\n\"'\\ e\u{301}"),
            Some(Scalar::Bool(true)),
            Some(Scalar::Timestamptz(at("9999-12-31T23:59:59.999999Z"))),
            Some(Scalar::Date(Date::parse("9999-12-31").expect("date"))),
            Some(Scalar::Uuid(Uuid::max())),
            json(r#"{"b":[1,2.50,{"x":null}],"a":"ü","long":12345678901234567890}"#),
        ],
        [
            Some(Scalar::Int8(i64::MIN)),
            Some(Scalar::Float8(-0.0)),
            text(""),
            Some(Scalar::Bool(false)),
            Some(Scalar::Timestamptz(at("0001-01-01T00:00:00Z"))),
            Some(Scalar::Date(Date::parse("0001-01-01").expect("date"))),
            Some(Scalar::Uuid(Uuid::nil())),
            json("null"),
        ],
        [
            Some(Scalar::Int8(0)),
            Some(Scalar::Float8(5e-324)),
            text(&"x".repeat(300_000)),
            None,
            Some(Scalar::Timestamptz(Instant(-1))),
            Some(Scalar::Date(Date(0))),
            None,
            json("[]"),
        ],
    ];
    let ids = ids(rows.len());
    let mut batch = AppendBatch::new(table.clone(), topic("every-type"), OnBadRow::Report);
    for (id, row) in ids.iter().zip(&rows) {
        push(&mut batch.rows, &table, *id, row);
    }
    fx.store.append(batch.clone().into()).await.expect("append");
    let types: Vec<ColumnType> = table.written().map(|c| c.ty).collect();
    for (index, id) in ids.iter().enumerate() {
        let found = fx.store.get(&table, *id).await.expect("get").expect("a row");
        let theirs = written_fields(&table, found.row(0));
        for ((ty, ours), theirs) in types.iter().zip(batch.rows.row(index)).zip(theirs) {
            assert!(same_field(*ty, ours, theirs), "row {index}: {ty:?} {ours:?} came back as {theirs:?}");
        }
    }
    // And all of it again is a duplicate: comparing has no trouble with any type.
    let again = fx.store.append(batch.into()).await.expect("append");
    assert_eq!(again.tally.duplicate, rows.len() as u64);
}

pub async fn tells_duplicates(fx: Fixture) {
    let table = small("twice", false);
    fx.store.ensure_table(&table).await.expect("table");
    let rows: Vec<(Uuid, i64)> = ids(100).into_iter().zip(0..).collect();
    fx.store.append(batch(&table, OnBadRow::Report, &rows[..60]).into()).await.expect("append");
    let all = fx.store.append(batch(&table, OnBadRow::Report, &rows[..60]).into()).await.expect("append");
    assert_eq!((all.tally.stored, all.tally.duplicate), (0, 60));
    assert!(all.rows.expect("outcomes").iter().all(|o| *o == RowOutcome::Duplicate));
    let some = fx.store.append(batch(&table, OnBadRow::Report, &rows[40..]).into()).await.expect("append");
    assert_eq!((some.tally.stored, some.tally.duplicate), (40, 20));
    let outcomes = some.rows.expect("outcomes");
    assert!(outcomes[..20].iter().all(|o| *o == RowOutcome::Duplicate));
    assert!(outcomes[20..].iter().all(|o| *o == RowOutcome::Stored));
    assert_eq!(rows_in(&*fx.store, &table).await, 100);
}

pub async fn duplicates_within_a_batch(fx: Fixture) {
    let table = small("within", false);
    fx.store.ensure_table(&table).await.expect("table");
    let ids = ids(2);
    let rows = [(ids[0], 1), (ids[1], 2), (ids[0], 1), (ids[0], 3)];
    let appended = fx.store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
    let outcomes = appended.rows.expect("outcomes");
    assert_eq!(outcomes[..3], [RowOutcome::Stored, RowOutcome::Stored, RowOutcome::Duplicate]);
    assert_eq!(code_of(&outcomes[3]), Some(Code::Conflict));
    let tally = appended.tally;
    assert_eq!((tally.stored, tally.duplicate, tally.rejected, tally.unaccounted(0)), (2, 1, 1, 0));
}

pub async fn conflicts_by_each_policy(fx: Fixture) {
    let table = small("conflict", false);
    fx.store.ensure_table(&table).await.expect("table");
    let ids = ids(3);
    fx.store.append(batch(&table, OnBadRow::Report, &[(ids[0], 1)]).into()).await.expect("append");

    let reported =
        fx.store.append(batch(&table, OnBadRow::Report, &[(ids[0], 9), (ids[1], 2)]).into()).await.expect("append");
    let outcomes = reported.rows.expect("outcomes");
    let RowOutcome::Bad(rejection) = &outcomes[0] else { panic!("not a conflict: {outcomes:?}") };
    assert_eq!((rejection.code, rejection.pointer.as_str()), (Code::Conflict, "/n"));
    assert_eq!(outcomes[1], RowOutcome::Stored);
    assert_eq!((reported.tally.rejected, reported.tally.dead), (1, 0));

    let kept = fx.store.append(batch(&table, OnBadRow::DeadLetter, &[(ids[0], 9)]).into()).await.expect("append");
    assert_eq!((kept.tally.rejected, kept.tally.dead), (0, 1));
    let letters = fx.store.dead_letters_of(ids[0]).await.expect("dead letters");
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].reason.as_str(), &*letters[0].message.body), ("conflict", &b"{\"n\":9}"[..]));
    assert_eq!(letters[0].message.source, "test");

    let aborted = fx.store.append(batch(&table, OnBadRow::Abort, &[(ids[2], 5), (ids[0], 9)]).into()).await;
    assert!(matches!(aborted, Err(StoreError::Aborted { row: 1, .. })), "{aborted:?}");
    assert!(fx.store.get(&table, ids[2]).await.expect("get").is_none(), "nothing of an aborted batch is stored");
    assert_eq!(fx.store.tally(&topic("conflict")).await.expect("tally").accepted, 4);
}

pub async fn isolates_refused_rows(fx: Fixture) {
    let table = small("refuse", false);
    fx.store.ensure_table(&table).await.expect("table");
    (fx.refuse_negative)("refuse".into(), "n".into()).await;
    let bad = [0, 1, 777, 4_998, 4_999, 5_000, 9_999];
    let ids = ids(10_000);
    let rows: Vec<(Uuid, i64)> =
        ids.iter().enumerate().map(|(i, id)| (*id, if bad.contains(&i) { -1 - i as i64 } else { i as i64 })).collect();
    let appended = fx.store.append(batch(&table, OnBadRow::DeadLetter, &rows).into()).await.expect("append");
    let outcomes = appended.rows.expect("outcomes");
    let found: Vec<usize> = (0..rows.len()).filter(|i| code_of(&outcomes[*i]) == Some(Code::Refused)).collect();
    assert_eq!(found, bad);
    assert_eq!(outcomes.iter().filter(|o| **o == RowOutcome::Stored).count(), 9_993);
    assert_eq!((appended.tally.stored, appended.tally.dead), (9_993, 7));
    assert_eq!(rows_in(&*fx.store, &table).await, 9_993);
    for index in bad {
        let letters = fx.store.dead_letters_of(ids[index]).await.expect("dead letters");
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].reason, "refused");
    }
    let again = fx.store.append(batch(&table, OnBadRow::DeadLetter, &rows).into()).await.expect("append");
    assert_eq!((again.tally.duplicate, again.tally.unaccounted(0)), (10_000, 0));
}

/// The next row of the same id gets its chance when the first was refused.
pub async fn refused_rows_leave_their_id(fx: Fixture) {
    let table = small("second", false);
    fx.store.ensure_table(&table).await.expect("table");
    (fx.refuse_negative)("second".into(), "n".into()).await;
    let ids = ids(2);
    let rows = [(ids[0], -1), (ids[1], 1), (ids[0], 2), (ids[0], 2)];
    let appended = fx.store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
    let outcomes = appended.rows.expect("outcomes");
    assert_eq!(code_of(&outcomes[0]), Some(Code::Refused));
    assert_eq!(outcomes[1..], [RowOutcome::Stored, RowOutcome::Stored, RowOutcome::Duplicate]);
}

pub async fn commits_positions_and_fences(fx: Fixture) {
    let table = small("position", false);
    fx.store.ensure_table(&table).await.expect("table");
    let (name, incarnation) = (topic("position"), Uuid::now_v7());
    let step = |from, to, n| {
        let mut batch = batch(&table, OnBadRow::DeadLetter, &[(Uuid::now_v7(), n)]);
        batch.positions = vec![Position { subscription: "s".into(), lane: incarnation, from, to }];
        batch
    };
    assert_eq!(fx.store.position(&name, "s", incarnation).await.expect("position"), None);
    fx.store.append(step(0, 10, 1).into()).await.expect("first");
    fx.store.append(step(10, 20, 2).into()).await.expect("second");
    assert_eq!(fx.store.position(&name, "s", incarnation).await.expect("position"), Some(20));
    for from in [10, 0, 21] {
        let fenced = fx.store.append(step(from, from + 5, 3).into()).await;
        assert!(matches!(fenced, Err(StoreError::Fenced)), "from {from}: {fenced:?}");
    }
    assert_eq!(rows_in(&*fx.store, &table).await, 2, "a fenced batch stores nothing");
    assert_eq!(fx.store.tally(&name).await.expect("tally").accepted, 2, "nor is it counted");
    assert_eq!(fx.store.position(&name, "s", Uuid::now_v7()).await.expect("position"), None);
    fx.store.append(step(20, 30, 4).into()).await.expect("the store works on");
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    let steps = |steps: &[(Uuid, u64, u64)], n| {
        let mut batch = batch(&table, OnBadRow::DeadLetter, &[(Uuid::now_v7(), n)]);
        let position = |s: &(Uuid, u64, u64)| Position { subscription: "s".into(), lane: s.0, from: s.1, to: s.2 };
        batch.positions = steps.iter().map(position).collect();
        batch
    };
    fx.store.append(steps(&[(one, 0, 5), (other, 7, 9)], 5).into()).await.expect("many lanes at once");
    let fenced = fx.store.append(steps(&[(one, 5, 6), (other, 8, 10)], 6).into()).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)), "one lane that moved fences all: {fenced:?}");
    assert_eq!(fx.store.position(&name, "s", one).await.expect("position"), Some(5));
    fx.store.append(steps(&[(other, 9, 10), (one, 5, 6)], 7).into()).await.expect("in any order");
    assert_eq!(fx.store.position(&name, "s", one).await.expect("position"), Some(6));
    assert_eq!(fx.store.position(&name, "s", other).await.expect("position"), Some(10));
}

pub async fn aborts_whole(fx: Fixture) {
    let table = small("abort", false);
    fx.store.ensure_table(&table).await.expect("table");
    (fx.refuse_negative)("abort".into(), "n".into()).await;
    let (name, incarnation, ids) = (topic("abort"), Uuid::now_v7(), ids(3));
    let mut batch = batch(&table, OnBadRow::Abort, &[(ids[0], 1), (ids[1], -5), (ids[2], 3)]);
    batch.positions = vec![Position { subscription: "s".into(), lane: incarnation, from: 0, to: 3 }];
    let aborted = fx.store.append(batch.into()).await;
    let Err(StoreError::Aborted { row: 1, rejection }) = aborted else { panic!("not aborted: {aborted:?}") };
    assert_eq!(rejection.code, Code::Refused);
    assert_eq!(rows_in(&*fx.store, &table).await, 0);
    assert_eq!(fx.store.position(&name, "s", incarnation).await.expect("position"), None);
    assert_eq!(fx.store.tally(&name).await.expect("tally").accepted, 0);
}

pub async fn one_row_a_key_under_contention(fx: Fixture) {
    let table = small("contended", false);
    fx.store.ensure_table(&table).await.expect("table");
    let keys: Arc<Vec<Uuid>> = Arc::new(ids(2_000));
    let mut appenders = Vec::new();
    for appender in 0..8usize {
        let (store, table, keys) = (fx.store.clone(), table.clone(), keys.clone());
        appenders.push(tokio::spawn(async move {
            let mut stored = 0;
            for round in 0..10 {
                let rows: Vec<(Uuid, i64)> = (0..200)
                    .map(|i| (appender * 97 + round * 200 + i * 7) % keys.len())
                    .map(|at| (keys[at], at as i64))
                    .collect();
                let batch = batch(&table, OnBadRow::DeadLetter, &rows);
                stored += loop {
                    match store.append(batch.clone().into()).await {
                        Ok(appended) => break appended.tally.stored,
                        Err(error) if error.is_transient() => {}
                        Err(error) => panic!("append: {error}"),
                    }
                };
            }
            stored
        }));
    }
    let mut stored = 0;
    for appender in appenders {
        stored += appender.await.expect("appender");
    }
    let tally = fx.store.tally(&topic("contended")).await.expect("tally");
    assert_eq!((tally.accepted, tally.unaccounted(0), tally.dead), (16_000, 0, 0));
    assert_eq!(tally.stored, stored);
    assert_eq!(rows_in(&*fx.store, &table).await, stored);
}

/// A batch in which every row is bad still commits its dead letters.
pub async fn survives_more_conflicts_than_rows(fx: Fixture) {
    let table = small("all-bad", false);
    fx.store.ensure_table(&table).await.expect("table");
    (fx.refuse_negative)("all-bad".into(), "n".into()).await;
    let rows: Vec<(Uuid, i64)> = ids(50).into_iter().map(|id| (id, -1)).collect();
    let appended = fx.store.append(batch(&table, OnBadRow::DeadLetter, &rows).into()).await.expect("append");
    assert_eq!((appended.tally.dead, appended.tally.stored, appended.tally.unaccounted(0)), (50, 0, 0));
    assert_eq!(rows_in(&*fx.store, &table).await, 0);
    let good = [(Uuid::now_v7(), 1)];
    assert_eq!(
        fx.store.append(batch(&table, OnBadRow::DeadLetter, &good).into()).await.expect("append").tally.stored,
        1
    );
}
