//! What only PostgreSQL can do to us: killed backends, crashes, failover, open transactions, locks, wrong settings.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::outcome::RowOutcome;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::{Append, Catalogue, OnBadRow, Operate, Read, TailMark};
use caudal_core::rejection::Code;
use caudal_core::row::field;
use caudal_core::schema::Table;
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use caudal_testkit::postgres::{Postgres, client, create_database, database, execute, with_database};
use caudal_testkit::store::{batch, ids, rows_in, small, topic};
use futures_util::TryStreamExt;
use uuid::Uuid;

async fn store_at(url: &str, table: &Table) -> Arc<PostgresStore> {
    let store = PostgresStore::connect(PostgresConfig::new(url, "test")).await.expect("connect");
    store.migrate().await.expect("migrate");
    store.ensure_table(table).await.expect("table");
    Arc::new(store)
}

/// Appends batches until told to stop, repeating each until it succeeds; returns the ids.
fn appender(store: Arc<PostgresStore>, table: Arc<Table>, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Vec<Uuid>> {
    tokio::spawn(async move {
        let mut written = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let rows: Vec<(Uuid, i64)> = ids(50).into_iter().zip(0..).collect();
            let batch = batch(&table, OnBadRow::DeadLetter, &rows);
            loop {
                match store.append(batch.clone().into()).await {
                    Ok(appended) => {
                        assert_eq!(appended.tally.dead, 0, "a repeated batch has no conflicts");
                        break;
                    }
                    Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(20)).await,
                    Err(error) => panic!("append: {error}"),
                }
            }
            written.extend(rows.into_iter().map(|(id, _)| id));
        }
        written
    })
}

/// Every id once, and nothing else.
async fn holds_exactly(store: &PostgresStore, table: &Arc<Table>, written: Vec<Uuid>) {
    assert_eq!(rows_in(store, table).await, written.len() as u64);
    for id in written.iter().step_by(37) {
        assert!(store.get(table, *id).await.expect("get").is_some());
    }
    let tally = store.tally(&topic(&table.name)).await.expect("tally");
    assert_eq!((tally.stored, tally.unaccounted(0)), (written.len() as u64, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_backends_lose_and_double_nothing() {
    let url = database().await.expect("a database");
    let table = small("killed", false);
    let store = store_at(&url, &table).await;
    let stop = Arc::new(AtomicBool::new(false));
    let appenders: Vec<_> = (0..4).map(|_| appender(store.clone(), table.clone(), stop.clone())).collect();
    let killer = client(&url).await.expect("client");
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name like 'caudal %'";
        killer.batch_execute(kill).await.expect("kill");
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for appender in appenders {
        written.extend(appender.await.expect("appender"));
    }
    assert!(!written.is_empty());
    holds_exactly(&store, &table, written).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_server_loses_and_doubles_nothing() {
    let server = Postgres::start().expect("a server");
    let url = create_database(&server.url()).await.expect("a database");
    let table = small("crashed", false);
    let store = store_at(&url, &table).await;
    let stop = Arc::new(AtomicBool::new(false));
    let appenders: Vec<_> = (0..3).map(|_| appender(store.clone(), table.clone(), stop.clone())).collect();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.stop_immediate().expect("stop");
        assert!(store.ping().await.expect_err("the server is down").is_transient());
        server.start_again().expect("start");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut written = Vec::new();
    for appender in appenders {
        written.extend(appender.await.expect("appender"));
    }
    holds_exactly(&store, &table, written).await;
}

/// After a failover the old primary is read-only: only a new connection finds the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_server_is_left() {
    let server = Postgres::start().expect("a server");
    let url = create_database(&server.url()).await.expect("a database");
    let table = small("failover", false);
    let store = store_at(&url, &table).await;
    let row = || batch(&table, OnBadRow::DeadLetter, &[(Uuid::now_v7(), 1)]);
    store.append(row().into()).await.expect("append");
    let client = client(&url).await.expect("client");
    let set = |value: &str| format!("alter system set default_transaction_read_only = {value}");
    for statement in [set("on").as_str(), "select pg_reload_conf()"] {
        client.batch_execute(statement).await.expect("configure");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = store.append(row().into()).await.expect_err("read-only");
    assert!(refused.is_transient(), "{refused}");
    client.batch_execute("set default_transaction_read_only = off").await.expect("configure");
    for statement in [set("off").as_str(), "select pg_reload_conf()"] {
        client.batch_execute(statement).await.expect("configure");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    store.append(row().into()).await.expect("the store works on");
}

async fn tail_ids(store: &PostgresStore, table: &Arc<Table>, mark: &mut TailMark) -> Vec<Uuid> {
    let (rows, next) = store.tail(table, Some(mark.clone()), 3).await.expect("tail");
    *mark = next;
    rows.rows().map(|mut r| field::uuid(r.next().flatten().expect("an id"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tail_is_exact_when_commits_overtake() {
    let url = database().await.expect("a database");
    let table = small("overtaken", false);
    let store = store_at(&url, &table).await;
    let (_, mut mark) = store.tail(&table, None, 3).await.expect("tail");

    let mut slow = client(&url).await.expect("client");
    let transaction = slow.transaction().await.expect("begin");
    let insert = "insert into overtaken (_id, _source, _published_at, n)
                  select gen_random_uuid(), 'slow', now(), n from generate_series(1, 5) n";
    transaction.batch_execute(insert).await.expect("insert");

    let rows: Vec<(Uuid, i64)> = ids(7).into_iter().zip(0..).collect();
    store.append(batch(&table, OnBadRow::Report, &rows).into()).await.expect("append");
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.extend(tail_ids(&store, &table, &mut mark).await);
    }
    assert_eq!(seen.len(), 6, "pages of three");
    // The slow one commits in the middle of the pages: it belongs to the next snapshot.
    transaction.commit().await.expect("commit");
    loop {
        let more = tail_ids(&store, &table, &mut mark).await;
        if more.is_empty() {
            break;
        }
        seen.extend(more);
    }
    let fast: HashSet<Uuid> = rows.iter().map(|(id, _)| *id).collect();
    assert_eq!(seen.len(), 12, "none twice");
    assert_eq!(seen.iter().filter(|id| fast.contains(id)).count(), 7);
    assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 12, "none skipped");

    // Rows stored after others were refused are found as well (they must not carry a savepoint's transaction).
    execute(&url, "alter table overtaken add check (n >= 0)").await.expect("constraint");
    let rows = [(Uuid::now_v7(), 1), (Uuid::now_v7(), -1), (Uuid::now_v7(), 2)];
    store.append(batch(&table, OnBadRow::DeadLetter, &rows).into()).await.expect("append");
    assert_eq!(tail_ids(&store, &table, &mut mark).await.len(), 2);
    assert!(tail_ids(&store, &table, &mut mark).await.is_empty());
    let xids = "select count(distinct xmin::text) from overtaken where n in (1, 2) and _source = 'test'
                and _id = any(array[$1, $2]::uuid[])";
    let row = client(&url).await.expect("client").query_one(xids, &[&rows[0].0, &rows[2].0]).await.expect("xmin");
    assert_eq!(row.get::<_, i64>(0), 1, "one transaction");
}

/// Checks that run at the end of the statement do not name the row; it is found by halves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_without_a_line_are_found() {
    let url = database().await.expect("a database");
    let table = small("referring", false);
    let store = store_at(&url, &table).await;
    let sql = "create table allowed (n bigint primary key);
               insert into allowed select generate_series(0, 999);
               alter table referring add foreign key (n) references allowed (n);
               create function raise_on_13() returns trigger language plpgsql as
                 $$ begin if new.n = 13 then raise 'thirteen'; end if; return new; end $$;
               create trigger unlucky before insert on referring for each row execute function raise_on_13()";
    execute(&url, sql).await.expect("constraints");
    let bad = [3usize, 500, 501, 999];
    let numbers = (0..1000i64).map(|n| if bad.contains(&(n as usize)) { n + 5_000 } else { n });
    let rows: Vec<(Uuid, i64)> = ids(1000).into_iter().zip(numbers).collect();
    let appended = store.append(batch(&table, OnBadRow::DeadLetter, &rows).into()).await.expect("append");
    let outcomes = appended.rows.expect("outcomes");
    let found: Vec<usize> =
        (0..1000).filter(|i| matches!(&outcomes[*i], RowOutcome::Bad(r) if r.code == Code::Refused)).collect();
    assert_eq!(found, [3, 13, 500, 501, 999]);
    assert_eq!((appended.tally.stored, appended.tally.dead), (995, 5));
    let RowOutcome::Bad(rejection) = &outcomes[13] else { panic!("row 13 is refused") };
    assert!(rejection.detail.contains("P0001") && rejection.detail.contains("thirteen"), "{rejection}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_streams_leave_nothing_running() {
    let url = database().await.expect("a database");
    let table = small("running", false);
    let store = store_at(&url, &table).await;
    let insert = "insert into running (_id, _source, _published_at, t)
                  select gen_random_uuid(), 's', now(), repeat('x', 200) from generate_series(1, 200000)";
    execute(&url, insert).await.expect("insert");
    for _ in 0..50 {
        let mut stream = store.read(ReadPlan::all(table.clone())).await.expect("read");
        assert!(stream.try_next().await.expect("stream").is_some());
    }
    let client = client(&url).await.expect("client");
    let active = "select count(*) from pg_stat_activity where datname = current_database()
                  and application_name like 'caudal %' and state = 'active'";
    for _ in 0..100 {
        if client.query_one(active, &[]).await.expect("activity").get::<_, i64>(0) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("abandoned reads still run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_times_out() {
    let url = database().await.expect("a database");
    let table = small("locked", false);
    let config = PostgresConfig { statement_timeout: Duration::from_millis(300), ..PostgresConfig::new(&url, "test") };
    let store = PostgresStore::new(config).expect("store");
    store.migrate().await.expect("migrate");
    store.ensure_table(&table).await.expect("table");
    let mut other = client(&url).await.expect("client");
    let lock = other.transaction().await.expect("begin");
    lock.batch_execute("lock table locked").await.expect("lock");
    let read = store.read(ReadPlan::all(table.clone())).await.map(drop).expect_err("the table is locked");
    assert!(read.is_transient(), "{read}");
    let append = store.append(batch(&table, OnBadRow::Report, &[(Uuid::now_v7(), 1)]).into()).await;
    assert!(append.expect_err("the table is locked").is_transient());
    let mut wider = (*table).clone();
    let mut column = wider.columns[6].clone();
    column.name = "more".into();
    wider.columns.push(column);
    let (widened, ()) = tokio::join!(store.ensure_table(&wider), async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        lock.rollback().await.expect("rollback");
    });
    widened.expect("the column is added once the lock is gone");
}

/// The bound is on each wait for a row, not on the whole answer: a long result or a slow reader must not be cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_the_whole_answer() {
    let url = database().await.expect("a database");
    let table = small("slow", false);
    let bound = Duration::from_millis(300);
    let config = PostgresConfig { statement_timeout: bound, ..PostgresConfig::new(&url, "test") };
    let store = PostgresStore::new(config).expect("store");
    store.migrate().await.expect("migrate");
    store.ensure_table(&table).await.expect("table");
    let sql = "insert into slow (_id, _source, _published_at, n)
               select gen_random_uuid(), repeat('x', 1000), now(), i from generate_series(1, 30000) i";
    execute(&url, sql).await.expect("rows");
    let mut rows = store.read(ReadPlan::all(table)).await.expect("read");
    let (mut seen, start) = (0, std::time::Instant::now());
    while let Some(batch) = rows.try_next().await.expect("a batch") {
        seen += batch.len();
        // Thirty megabytes do not fit into the buffers between: the server has to wait for this reader.
        if start.elapsed() < bound * 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(start.elapsed() > bound * 2, "the answer came too fast to show anything");
    assert_eq!(seen, 30_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_settings_are_one_sentence() {
    let url = database().await.expect("a database");
    let connect = |url: String| async move {
        PostgresStore::connect(PostgresConfig::new(url, "test")).await.map(drop).expect_err("cannot work")
    };
    let missing = connect(with_database(&url, "not_there")).await;
    assert!(
        matches!(&missing, StoreError::Setup(s) if s.contains("not_there") && s.contains("create it")),
        "{missing}"
    );
    let unreadable = connect("postgres://:::".into()).await;
    assert!(matches!(&unreadable, StoreError::Setup(_)), "{unreadable}");
    let nobody = connect(url.replace("//postgres@", "//nobody@")).await;
    assert!(matches!(&nobody, StoreError::Setup(_)), "{nobody}");
    let down = connect("postgres://postgres@127.0.0.1:1/x".into()).await;
    assert!(matches!(&down, StoreError::Unavailable(_)), "{down}");
    let store = PostgresStore::connect(PostgresConfig::new(&url, "test")).await.expect("connect");
    let unmigrated = store.tally(&topic("x")).await.expect_err("not migrated");
    assert!(matches!(&unmigrated, StoreError::Setup(s) if s.contains("caudal migrate")), "{unmigrated}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_before_its_server() {
    let server = Postgres::start().expect("a server");
    server.stop_immediate().expect("stop");
    let store = PostgresStore::new(PostgresConfig::new(server.url(), "test")).expect("no connection is needed");
    assert!(store.migrate().await.expect_err("the server is down").is_transient());
    server.start_again().expect("start");
    assert_eq!(store.migrate().await.expect("migrate").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_run_once_and_are_not_edited() {
    let url = database().await.expect("a database");
    let store = || PostgresStore::new(PostgresConfig::new(&url, "test")).expect("store");
    let (a, b) = (store(), store());
    let (a, b) = tokio::join!(a.migrate(), b.migrate());
    let applied = a.expect("migrate").len() + b.expect("migrate").len();
    assert_eq!(applied, 4, "one of two runners applied each");
    execute(&url, "update _caudal_migrations set checksum = 'other'").await.expect("edit");
    let refused = store().migrate().await;
    assert!(matches!(&refused, Err(StoreError::Setup(s)) if s.contains("0001_system")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_checks_as_much_as_asked() {
    let server = Postgres::start().expect("a server");
    let authority = server.use_tls().expect("tls");
    let encrypted = |url: String| async move {
        let store = PostgresStore::connect(PostgresConfig::new(&url, "tls")).await?;
        let client =
            client(&url.split('?').next().expect("a URL").replace("localhost", "127.0.0.1")).await.expect("client");
        let sql = "select bool_or(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'caudal tls'";
        store.ping().await?;
        Ok::<bool, StoreError>(client.query_one(sql, &[]).await.expect("pg_stat_ssl").get(0))
    };
    let with = |host: &str, query: &str| format!("{}?{query}", server.url().replace("127.0.0.1", host));
    let root = format!("sslrootcert={}", authority.display());
    for (host, query, expected) in [
        ("localhost", "sslmode=disable".to_owned(), Some(false)),
        ("localhost", "sslmode=prefer".to_owned(), Some(true)),
        ("localhost", "sslmode=require".to_owned(), Some(true)),
        ("localhost", format!("sslmode=verify-full&{root}"), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}"), Some(true)),
        ("127.0.0.1", format!("sslmode=verify-full&{root}"), None),
        ("localhost", "sslmode=verify-full".to_owned(), None),
        ("localhost", "sslmode=verify-full&sslrootcert=/not/there".to_owned(), None),
    ] {
        let result = encrypted(with(host, &query)).await;
        assert_eq!(result.as_ref().ok().copied(), expected, "{host} {query}: {result:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn one_process_holds_a_name_until_it_lets_go_or_its_connection_breaks() {
    let url = database().await.expect("a database");
    let table = small("held", false);
    let (one, other) = (store_at(&url, &table).await, store_at(&url, &table).await);
    let held = one.exclusive("export held").await.expect("lock").expect("nobody has it");
    assert!(other.exclusive("export held").await.expect("lock").is_none());
    assert!(one.exclusive("export held").await.expect("lock").is_none(), "not twice in one process either");
    assert!(other.exclusive("another").await.expect("lock").is_some());
    drop(held);
    let again = loop {
        match other.exclusive("export held").await.expect("lock") {
            Some(again) => break again,
            // The server learns of the end of a session a moment later.
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    // Of this database only: the migrations of other tests hold such locks, too.
    let kill = "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'
                and database = (select oid from pg_database where datname = current_database())";
    execute(&url, kill).await.expect("kill");
    while one.exclusive("export held").await.expect("lock").is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(again);
}
