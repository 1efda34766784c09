//! Transactions confirmed by a function instead of an endpoint: in PostgreSQL, and on AWS Lambda (the emulator's).

use std::time::{Duration, Instant};

use caudal_core::confirm::Keys;
use caudal_core::topic::TopicName;
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use caudal_testkit::postgres::{client, database, execute};
use serde_json::Value;
use uuid::Uuid;

use crate::fleet::{Fleet, Store, TOPIC};

const PATIENCE: Duration = Duration::from_secs(60);
const USUAL: &str = "lease = \"1s\"\nbackoff = \"20ms\"\nbackoff_max = \"200ms\"\ntimeout = \"10s\"\nbreaker_pause = \"50ms\"\nbreaker_pause_max = \"200ms\"\nbatch_max = 50\n";

/// Every seventh payment is declined, every fifth is told to wait the first time it comes, and each takes a moment, so that a worker that
/// is killed is killed among calls.
const BILLING: &str = "
    create schema billing;
    create table billing.paid (key uuid primary key, payment bigint not null);
    create table billing.called (key uuid, attempt integer);
    create function billing.confirm_payment(key uuid, attempt integer, record jsonb,
        out status text, out detail text, out retry_after_seconds integer) language plpgsql as $$
      declare payment bigint := (record->'payload'->>'payment')::bigint;
      begin
        perform pg_sleep(0.01);
        insert into billing.called values (key, attempt);
        if payment % 7 = 0 then status := 'rejected'; return; end if;
        if payment % 5 = 0 and attempt = 1 then status := 'retry'; return; end if;
        insert into billing.paid values (key, payment) on conflict do nothing;
        status := 'confirmed';
      end $$;
    create function billing.was_paid(key uuid, attempt integer, record jsonb,
        out status text, out detail text, out retry_after_seconds integer) language plpgsql as $$
      begin
        if exists (select from billing.paid p where p.key = $1) then status := 'confirmed';
        elsif (record->'payload'->>'payment')::bigint % 7 = 0 then status := 'rejected';
        else status := 'not_found';
        end if;
      end $$;";

async fn fleet(store: Store, settings: &str) -> Fleet {
    let unused = Endpoint::start(Behaviour::default()).await.unwrap();
    Fleet::calling(store, unused, &format!("{settings}\n{USUAL}")).await
}

fn verified(fleet: &Fleet) {
    let audit = fleet.server.run(&["confirm", "verify", "--json"]).unwrap();
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

/// Kills the worker with `kill -9` in the middle, and lets another one finish.
async fn with_a_kill_in_the_middle(fleet: &mut Fleet, confirmed_before: u64) {
    fleet.worker();
    fleet.reach(&["confirmed"], confirmed_before).await;
    fleet.kill_workers();
    fleet.worker();
    fleet.settled().await;
    verified(fleet);
}

async fn each_was_paid_once(fleet: &Fleet, billing: &str, ids: &[Uuid]) {
    let rows = client(billing).await.unwrap();
    let rows = rows.query("select key, payment from billing.paid", &[]).await.unwrap();
    let mut paid: Vec<(Uuid, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let keys = Keys::of(&TopicName::parse(TOPIC).unwrap(), "confirm");
    let mut expected: Vec<(Uuid, i64)> =
        ids.iter().zip(0..).filter(|(_, n)| n % 7 != 0).map(|(id, n)| (keys.key(*id), n)).collect();
    paid.sort();
    expected.sort();
    assert_eq!(paid, expected);
    let declined = ids.len().div_ceil(7) as u64;
    let (confirmed, rejected) = (fleet.count(&["confirmed"]).await, fleet.count(&["rejected"]).await);
    assert_eq!((confirmed, rejected), (ids.len() as u64 - declined, declined), "{:#}", fleet.lane().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_in_the_store_confirms_each_once_whatever_dies() {
    let url = database().await.unwrap();
    execute(&url, BILLING).await.unwrap();
    let settings = "sql_function = \"billing.confirm_payment\"\nsql_probe = \"billing.was_paid\"";
    let mut fleet = fleet(Store::of(url.clone()), settings).await;
    let ids = fleet.enqueue(400).await;
    with_a_kill_in_the_middle(&mut fleet, 50).await;
    each_was_paid_once(&fleet, &url, &ids).await;
    let called = "select count(*) from billing.called where attempt = 1 group by key having count(*) > 1";
    let twice = client(&url).await.unwrap().query(called, &[]).await.unwrap();
    assert!(
        twice.is_empty(),
        "a first call was made twice; those that may have been made are asked for: {}",
        twice.len()
    );
}

/// The store is SQLite, the function in a PostgreSQL of somebody else; its backends are killed as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_in_another_database_confirms_each_once_whatever_dies() {
    let url = database().await.unwrap();
    execute(&url, BILLING).await.unwrap();
    let settings = format!(
        "sql_function = \"billing.confirm_payment\"\nsql_url = \"{url}\"\nsql_connections = 4\nkey_retention = \"1h\"\nbreaker_failures = 0"
    );
    let mut fleet = fleet(Store::sqlite(), &settings).await;
    let ids = fleet.enqueue(400).await;
    fleet.worker();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    for confirmed in [20, 80, 140] {
        fleet.reach(&["confirmed"], confirmed).await;
        execute(&url, cut).await.unwrap();
    }
    with_a_kill_in_the_middle(&mut fleet, 200).await;
    each_was_paid_once(&fleet, &url, &ids).await;
}

/// Nothing is confirmed while the function is missing, nothing is lost by it, and the log says so once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_function_is_said_and_waited_for() {
    let url = database().await.unwrap();
    let mut fleet =
        fleet(Store::of(url.clone()), "sql_function = \"billing.confirm_payment\"\nbreaker_failures = 3").await;
    fleet.enqueue(30).await;
    fleet.worker();
    let begun = Instant::now();
    while !fleet.workers[0].log().contains("nothing is asked of it for a while") {
        assert!(begun.elapsed() < PATIENCE, "the breaker does not open: {}", fleet.workers[0].log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = fleet.workers[0].log();
    assert_eq!(log.matches("there is no function billing.confirm_payment").count(), 1, "{log}");
    execute(&url, BILLING).await.unwrap();
    fleet.settled().await;
    assert_eq!(fleet.count(&["confirmed", "rejected"]).await, 30, "{:#}", fleet.lane().await);
    verified(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_at_the_start() {
    let unused = Endpoint::start(Behaviour::default()).await.unwrap();
    let fleet = Fleet::calling(Store::sqlite(), unused, "url = \"http://127.0.0.1:1/\"").await;
    let home = fleet.server.home();
    for (settings, expected) in [
        ("sql_function = \"billing.confirm\"", "set sql_url to the database that has it"),
        ("sql_function = \"a.b.c\"\nsql_url = \"postgres://h/d\"", "schema.name"),
        ("sql_function = \"f\"\nsql_url = \"mysql://h/d\"", "starts with postgres://"),
        ("function = \"f\"\nurl = \"http://h/\"", "set only one of url, command, function, sql_function"),
    ] {
        let config = home.join("refused.toml");
        std::fs::write(&config, format!("[topics.payments.confirm]\n{settings}\n")).unwrap();
        let output = fleet.server.run(&["confirm", "once", "--config", config.to_str().unwrap()]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(expected), "{settings}: {said}");
    }
}

#[cfg(feature = "invoke")]
mod on_lambda {
    use caudal_testkit::lambda::Function;

    use super::*;
    use crate::on_both_stores;

    on_both_stores!(a_function_on_lambda_confirms_each_once_whatever_dies);

    async fn a_function_on_lambda_confirms_each_once_whatever_dies(store: Store) {
        let books = tempfile::TempDir::new().unwrap();
        let file = books.path().join("books");
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../caudal-confirm/tests/lambda/function.py");
        let path = std::env::var("PATH").unwrap();
        let environment = [("BOOKS", file.to_str().unwrap()), ("PATH", &path), ("PYTHONDONTWRITEBYTECODE", "1")];
        let function = Function::start(program, &[], &environment).await.unwrap();
        let settings = format!(
            "function = \"_\"\nfunction_endpoint = \"{}\"\nfunction_probes = true\nconcurrency = 4",
            function.url()
        );
        let mut fleet = fleet(store, &settings).await;
        let ids = fleet.enqueue(60).await;
        with_a_kill_in_the_middle(&mut fleet, 10).await;
        assert_eq!(fleet.count(&["confirmed"]).await, 60, "{:#}", fleet.lane().await);
        let keys = Keys::of(&TopicName::parse(TOPIC).unwrap(), "confirm");
        let mut did: Vec<String> = std::fs::read_to_string(&file).unwrap().lines().map(str::to_owned).collect();
        let mut expected: Vec<String> = ids.iter().map(|id| keys.key(*id).to_string()).collect();
        did.sort();
        expected.sort();
        assert_eq!(did, expected, "one effect each");
        let id = ids[0].to_string();
        let shown = fleet.server.run(&["confirm", "show", &id, "--json"]).unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
        assert!(shown["detail"].as_str().unwrap().contains("payment"), "{shown:#}");
    }
}
