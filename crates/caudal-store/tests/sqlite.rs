//! The conformance suite against SQLite, and what is SQLite's alone.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::ports::{Append, Catalogue, OnBadRow, Operate, Read, TailMark};
use caudal_core::row::{Row, RowBatch, field};
use caudal_store::sqlite::{SqliteConfig, SqliteStore};
use caudal_testkit::disk::SmallDisk;
use caudal_testkit::store::{Fixture, batch, ids, rows_in, small, topic};
use futures_util::TryStreamExt;
use uuid::Uuid;

async fn open() -> Fixture {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("test.db");
    let store = SqliteStore::open(SqliteConfig::new(&path, "test")).expect("open");
    store.migrate().await.expect("migrate");
    let database = path.clone();
    let run = move |sql: String| {
        let path = database.clone();
        Box::pin(async move {
            rusqlite::Connection::open(&path).expect("open").execute_batch(&sql).expect("statements");
        }) as _
    };
    let refuse_negative = move |table: String, column: String| {
        let path = path.clone();
        Box::pin(async move {
            let sql = format!(
                "create trigger \"refuse {table}\" before insert on \"{table}\" when new.\"{column}\" < 0
                 begin select raise(abort, 'negative'); end"
            );
            rusqlite::Connection::open(&path).expect("open").execute_batch(&sql).expect("trigger");
        }) as _
    };
    Fixture {
        store: Arc::new(store),
        refuse_negative: Box::new(refuse_negative),
        execute: Box::new(run),
        schema: "main",
        keep: Box::new(dir),
    }
}

caudal_testkit::store_conformance!(open);

fn store_in(dir: &std::path::Path) -> SqliteStore {
    SqliteStore::open(SqliteConfig::new(dir.join("test.db"), "test")).expect("open")
}

/// One job's failure in a group commit is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_in_a_commit_do_not_hurt_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(store_in(dir.path()));
    store.migrate().await.expect("migrate");
    let table = small("grouped", false);
    store.ensure_table(&table).await.expect("table");
    let taken = Uuid::now_v7();
    store.append(batch(&table, OnBadRow::Report, &[(taken, 1)]).into()).await.expect("append");
    let jobs = (0..200i64).map(|n| {
        let (store, table) = (store.clone(), table.clone());
        tokio::spawn(async move {
            let (policy, rows) = match n % 4 {
                0 => (OnBadRow::Abort, [(Uuid::now_v7(), n), (taken, 99)]),
                _ => (OnBadRow::Report, [(Uuid::now_v7(), n), (Uuid::now_v7(), n)]),
            };
            store.append(batch(&table, policy, &rows).into()).await
        })
    });
    let mut aborted = 0;
    for job in jobs.collect::<Vec<_>>() {
        match job.await.expect("job") {
            Ok(appended) => assert_eq!(appended.tally.stored, 2),
            Err(StoreError::Aborted { row: 1, .. }) => aborted += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(aborted, 50);
    assert_eq!(rows_in(&*store, &table).await, 1 + 300);
    assert_eq!(store.tally(&topic("grouped")).await.expect("tally").stored, 301);
}

/// What was answered is there after the process is gone, and a second process may use the file meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reopens_with_everything_and_shares_the_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let table = small("reopened", true);
    let id = Uuid::now_v7();
    {
        let store = store_in(dir.path());
        assert_eq!(store.migrate().await.expect("migrate").len(), 6);
        store.ensure_table(&table).await.expect("table");
        store.append(batch(&table, OnBadRow::Report, &[(id, 1)]).into()).await.expect("append");
    }
    let (a, b) = (store_in(dir.path()), store_in(dir.path()));
    assert!(a.migrate().await.expect("migrate").is_empty());
    let many = |store: SqliteStore| {
        let table = table.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let rows = [(id, 1), (Uuid::now_v7(), 2)];
                store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
            }
            store
        })
    };
    let (a, b) = tokio::join!(many(a), many(b));
    let (a, _b) = (a.expect("a"), b.expect("b"));
    assert_eq!(rows_in(&a, &table).await, 101);
    let tally = a.tally(&topic("reopened")).await.expect("tally");
    assert_eq!((tally.stored, tally.duplicate, tally.unaccounted(0)), (101, 100, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_files_are_one_sentence() {
    let dir = tempfile::tempdir().expect("a folder");
    let nowhere = SqliteStore::open(SqliteConfig::new(dir.path().join("no/such/folder/x.db"), "test")).map(drop);
    assert!(matches!(nowhere, Err(StoreError::Setup(_))), "{nowhere:?}");
    let file = dir.path().join("test.db");
    std::fs::write(&file, "this is not a database, and longer than the header of one would be: ".repeat(20))
        .expect("write");
    let other = SqliteStore::open(SqliteConfig::new(&file, "test")).map(drop);
    assert!(matches!(other, Err(StoreError::Setup(_))), "{other:?}");
}

/// Needs root or sudo, to mount a small file system.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_survived() {
    let disk = SmallDisk::mount(4).expect("a small disk");
    let table = small("full", false);
    let store = store_in(disk.path());
    store.migrate().await.expect("migrate");
    store.ensure_table(&table).await.expect("table");
    let mut stored = 0;
    let full = loop {
        let rows: Vec<(Uuid, i64)> = ids(1000).into_iter().zip(0..).collect();
        match store.append(batch(&table, OnBadRow::Report, &rows).into()).await {
            Ok(_) => stored += 1000,
            Err(error) => break error,
        }
        if stored == 3000 {
            disk.fill();
        }
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert_eq!(rows_in(&store, &table).await, stored, "reads work, and nothing unanswered is there");
    disk.free().expect("space");
    store.append(batch(&table, OnBadRow::Report, &[(Uuid::now_v7(), 1)]).into()).await.expect("writes work again");
}

#[tokio::test]
async fn one_holds_a_name_until_it_lets_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || SqliteStore::open(SqliteConfig::new(dir.path().join("a.db"), "test")).expect("open");
    let (one, other) = (open(), open());
    let held = one.exclusive("export held").await.expect("lock").expect("nobody has it");
    assert!(other.exclusive("export held").await.expect("lock").is_none());
    assert!(other.exclusive("another").await.expect("lock").is_some());
    drop(held);
    assert!(other.exclusive("export held").await.expect("lock").is_some());
}

/// SQLite gives the numbers of the last rows out again when somebody removed them; whoever goes on after one must not miss what comes then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_numbers_come_once() {
    let table = small("emptied", true);
    let number = table.column("_row").expect("_row");
    for (empty, again) in [("delete from emptied", false), ("drop table emptied", true)] {
        let fx = open().await;
        let store = fx.store.clone();
        let add = async |rows: usize| {
            let rows: Vec<(Uuid, i64)> = ids(rows).into_iter().zip(0..).collect();
            store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
            rows.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        let since = async |mark: &TailMark| {
            let (stream, mark) = store.changes(&table, Some(mark)).await.expect("changes");
            let batches: Vec<RowBatch> = stream.try_collect().await.expect("a whole pass");
            let row = |row: Row<'_>| {
                let values: Vec<_> = row.map(Option::unwrap_or_default).collect();
                (field::uuid(values[0]), field::int8(values[number]))
            };
            (batches.iter().flat_map(|batch| batch.rows().map(row).collect::<Vec<_>>()).collect::<Vec<_>>(), mark)
        };
        store.ensure_table(&table).await.expect("table");
        add(5).await;
        let (first, mark) = since(&TailMark("0".into())).await;
        assert_eq!(first.len(), 5);
        let (_, tail) = store.tail(&table, None, 10).await.expect("a tail");
        (fx.execute)(empty.into()).await;
        if again {
            store.ensure_table(&table).await.expect("table");
        }
        let (none, unmoved) = since(&mark).await;
        assert_eq!((none.len(), &unmoved), (0, &mark), "{empty}");
        // Fewer than were there, then more.
        for (rows, numbers) in [(3, 6..9), (4, 9..13)] {
            let added = add(rows).await;
            let (found, _) = since(&unmoved).await;
            let last: Vec<_> = found[found.len().saturating_sub(rows)..].to_vec();
            assert_eq!(last, added.into_iter().zip(numbers).collect::<Vec<_>>(), "{empty}");
        }
        assert_eq!(since(&mark).await.0.len(), 7, "{empty}");
        assert_eq!(store.tail(&table, Some(tail), 10).await.expect("a tail").0.len(), 7, "{empty}");
        // The last one alone, many times.
        for round in 0..3 {
            (fx.execute)("delete from emptied where _row = (select max(_row) from emptied)".into()).await;
            let (_, before) = since(&mark).await;
            let added = add(1).await;
            assert_eq!(since(&before).await.0, [(added[0], 13 + round)], "{empty}");
        }
    }
}
