//! Kill it, anywhere, and ask the oracle: nothing that was acknowledged is lost, nothing is there twice.
//!
//! `CAUDAL_SOAK=200` kills that often for each store and mode instead of 10 times; `CAUDAL_SEED=n` repeats a run's choices.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_broker::embedded::power_loss::lose_unsynced;
use caudal_testkit::chance::Chance;
use caudal_testkit::load::{self, Load, PLAIN_TOPIC, SCHEMA, TYPED_TOPIC};
use caudal_testkit::oracle::{Findings, Oracle};
use caudal_testkit::postgres::{self, Postgres};
use caudal_testkit::server::Server;
use serde_json::json;

/// The issue's bound.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// Places around the durable steps of the embedded topic.
const PLACES: [&str; 14] = [
    "write.before",
    "write.after",
    "fdatasync.after",
    "synced.after",
    "roll.before",
    "roll.after",
    "segment.after-create",
    "segment.after-fallocate",
    "segment.after-dir-sync",
    "meta.before-rename",
    "meta.after-rename",
    "unlink.before",
    "unlink.after",
    "unlink.after-dir-sync",
];

fn server(store: &str, broker: &str) -> Server {
    Server::new(env!("CARGO_BIN_EXE_caudal"))
        .unwrap()
        .store(store)
        .broker(broker)
        .topic(PLAIN_TOPIC, None, "")
        .topic(TYPED_TOPIC, Some(SCHEMA), "")
        .env("CAUDAL_HTTP__WAIT_MS", "200")
        .env("CAUDAL_LOG__LEVEL", "warn")
        // Small and short-lived segments, so that rolls and deletions are among the moments that a kill can hit.
        .env("CAUDAL_BROKER__SEGMENT_BYTES", "262144")
        .env("CAUDAL_BROKER__RETENTION_HOURS", "0")
}

/// Waits for quiet, then asks the oracle and the books.
async fn verdict(server: &Server, oracle: &Oracle) -> Findings {
    let api = server.api();
    load::drained(&api).await.unwrap();
    let findings = oracle.judge(&load::rows(&api).await.unwrap());
    let books = api.get("/v1/reconcile?count=exact").await.unwrap().json();
    assert_eq!(books["unaccounted"], 0, "the books do not balance: {books:#}");
    let dead = api.get("/rest/v1/_dead_letters?select=reason,detail&limit=5").await.unwrap().json();
    assert_eq!(dead, json!([]), "good messages were set aside");
    findings
}

async fn assert_clean(server: &Server, oracle: &Oracle) -> Findings {
    let findings = verdict(server, oracle).await;
    assert!(findings.is_clean(), "{findings}");
    findings
}

/// Ends the server's life: where a failpoint does it, else at a random moment.
async fn die(server: &mut Server, chance: &mut Chance, has_failpoint: bool) {
    let moment = Duration::from_millis(chance.between(30, 700));
    let by_itself = has_failpoint && server.wait(Duration::from_secs(2)).await.unwrap().is_some();
    if !by_itself {
        // The moment is the subject of the test, not a wait for something.
        tokio::time::sleep(moment).await;
        if server.wait(Duration::ZERO).await.unwrap().is_none() {
            server.kill().unwrap();
        }
    }
}

async fn kills_under_load(name: &str, store: &str, broker: &str) {
    let kills: usize = std::env::var("CAUDAL_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(10);
    let (mut chance, seed) = Chance::from_environment();
    println!("{name}: CAUDAL_SEED={seed}");
    let queued = broker.starts_with("embedded");
    let mut server = server(store, broker);
    let oracle = Arc::new(Oracle::default());
    server.start().await.unwrap();
    let load = Load::start(server.api(), oracle.clone(), seed);
    let mut slowest = Duration::ZERO;
    let (mut at_places, mut power_losses) = (0, 0);
    let mut has_failpoint = false;
    for _ in 0..kills {
        let acknowledged = oracle.acknowledgements();
        die(&mut server, &mut chance, has_failpoint).await;
        at_places += usize::from(has_failpoint);
        if queued && chance.one_in(2) {
            lose_unsynced(&server.data_dir().join("topics")).unwrap();
            power_losses += 1;
        }
        has_failpoint = queued && chance.one_in(2);
        if has_failpoint {
            let (place, nth) = (chance.pick(&PLACES), chance.between(1, 40));
            server.set_env("CAUDAL_FAILPOINT", format!("{place}:{nth}"));
        }
        let begun = Instant::now();
        let mut ready = server.start().await;
        server.unset_env("CAUDAL_FAILPOINT");
        if ready.is_err() && has_failpoint {
            // Killed in recovery, which is also a place.
            has_failpoint = false;
            ready = server.start().await;
        }
        let ready = ready.unwrap_or_else(|error| panic!("after {:?}: {error:#}", begun.elapsed()));
        slowest = slowest.max(ready);
        assert!(ready <= READY_WITHIN, "{name}: ready only after {ready:?}");
        assert!(oracle.acknowledgements() >= acknowledged);
    }
    // The last life may still have its failpoint ahead.
    if has_failpoint {
        server.kill().ok();
        server.start().await.ok();
    }
    let answers = load.stop().await.unwrap();
    let findings = assert_clean(&server, &oracle).await;
    println!(
        "{name}: {kills} kills ({at_places} armed at a durable step, {power_losses} with power loss); {findings}; slowest recovery \
         {slowest:?}; 0 failures in {kills} kills bound the rate at {:.1}% (95%); answers {answers:?}",
        300.0 / kills as f64
    );
    assert!(findings.acknowledged > kills, "{name}: the load did next to nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_queued_survives_kills() {
    kills_under_load("sqlite, queued", "sqlite:caudal.db", "embedded:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_direct_survives_kills() {
    kills_under_load("sqlite, direct", "sqlite:caudal.db", "none:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_queued_survives_kills() {
    kills_under_load("postgres, queued", &postgres::database().await.unwrap(), "embedded:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_direct_survives_kills() {
    kills_under_load("postgres, direct", &postgres::database().await.unwrap(), "none:").await;
}

/// Publishes a few messages one after another, each until it is answered; gives up when the server is gone.
async fn small_load(server: &Server, oracle: &Oracle) -> bool {
    let api = server.api();
    for i in 0..4 {
        let name = format!("small-{i}");
        let body = json!({ "name": name, "amount": i, "note": "x".repeat(100_000), "ratio": 0.5 });
        oracle.sending(&name, &format!("{} {i} {} 0.5", body["name"], body["note"]));
        let headers = [("idempotency-key", name.as_str()), ("prefer", "respond-async")];
        match api.publish(PLAIN_TOPIC, &headers, body.to_string()).await {
            Ok(reply) if (200..300).contains(&reply.status) => {
                oracle.acknowledged(&name, reply.json()["transaction_id"].as_str().unwrap());
            }
            _ => return false,
        }
    }
    true
}

/// The same load again and again, killed each time one durable step later; every other time the power goes as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_every_durable_step_of_the_topic() {
    let mut counting = server("sqlite:caudal.db", "embedded:");
    let passes = counting.home().join("passes");
    counting.set_env("CAUDAL_FAILPOINT_COUNT", passes.display().to_string());
    let oracle = Oracle::default();
    counting.start().await.unwrap();
    assert!(small_load(&counting, &oracle).await);
    load::drained(&counting.api()).await.unwrap();
    counting.kill().unwrap();
    let passed = std::fs::read_to_string(&passes).unwrap();
    let mut steps: std::collections::BTreeMap<&str, usize> = Default::default();
    passed.lines().for_each(|place| *steps.entry(place).or_default() += 1);
    assert!(steps["fdatasync.after"] >= 4 && steps["roll.after"] >= 1, "{steps:?}");
    let (mut kills, mut slowest) = (0, Duration::ZERO);
    for (place, &count) in &steps {
        for nth in 1..=count {
            let mut server = server("sqlite:caudal.db", "embedded:");
            let oracle = Oracle::default();
            server.set_env("CAUDAL_FAILPOINT", format!("{place}:{nth}"));
            if server.start().await.is_ok() {
                small_load(&server, &oracle).await;
                if server.wait(Duration::from_millis(500)).await.unwrap().is_none() {
                    // Retention runs when it likes: this pass did not come in this run.
                    assert!(place.starts_with("unlink"), "{place}:{nth} was not passed");
                    server.kill().unwrap();
                }
            }
            kills += 1;
            if kills % 2 == 0 {
                lose_unsynced(&server.data_dir().join("topics")).unwrap();
            }
            server.unset_env("CAUDAL_FAILPOINT");
            let ready = server.start().await.unwrap_or_else(|error| panic!("{place}:{nth}: {error:#}"));
            slowest = slowest.max(ready);
            assert!(ready <= READY_WITHIN, "{place}:{nth}: ready only after {ready:?}");
            assert!(small_load(&server, &oracle).await, "{place}:{nth}");
            let findings = verdict(&server, &oracle).await;
            assert!(findings.is_clean() && findings.stored == 4, "{place}:{nth}: {findings}");
        }
    }
    println!("{kills} kills at {} kinds of step, slowest recovery {slowest:?}", steps.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_notices_an_answer_before_fsync() {
    for round in 1..=40 {
        let mut server = server("sqlite:caudal.db", "embedded:");
        server.set_env("CAUDAL_PLANT", "ack-before-fsync");
        // Producers are answered from the queue at once, so that the early answer gets out before the kill.
        server.set_env("CAUDAL_HTTP__WAIT_MS", "0");
        server.set_env("CAUDAL_FAILPOINT", format!("fdatasync.after:{}", 20 + round));
        let oracle = Arc::new(Oracle::default());
        server.start().await.unwrap();
        let load = Load::start(server.api(), oracle.clone(), round);
        assert!(server.wait(Duration::from_secs(60)).await.unwrap().is_some(), "the failpoint was not reached");
        // Producers repeat what was not answered: the load goes on against a sound server after the power came back.
        lose_unsynced(&server.data_dir().join("topics")).unwrap();
        server.unset_env("CAUDAL_PLANT");
        server.unset_env("CAUDAL_FAILPOINT");
        server.start().await.unwrap();
        load.stop().await.unwrap();
        let findings = verdict(&server, &oracle).await;
        if !findings.lost.is_empty() {
            println!("round {round}: {findings}");
            return;
        }
    }
    panic!("40 times acknowledged before fsync, and nothing was ever missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_notices_missing_deduplication() {
    for broker in ["embedded:", "none:"] {
        let mut server = server("sqlite:caudal.db", broker).env("CAUDAL_PLANT", "dedup-off");
        let oracle = Arc::new(Oracle::default());
        server.start().await.unwrap();
        let load = Load::start(server.api(), oracle.clone(), 7);
        load.wait_for(201, 60).await.unwrap();
        load.stop().await.unwrap();
        let findings = verdict(&server, &oracle).await;
        assert!(!findings.duplicated.is_empty(), "{broker} {findings}");
        println!("{broker} {} duplicated", findings.duplicated.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_messages_outlive_a_crash_of_postgres() {
    let database = Postgres::start().unwrap();
    let mut server = server(&database.url(), "embedded:");
    let oracle = Arc::new(Oracle::default());
    server.start().await.unwrap();
    let load = Load::start(server.api(), oracle.clone(), 11);
    load.wait_for(201, 20).await.unwrap();
    database.stop_immediate().unwrap();
    load.wait_for(202, 100).await.unwrap();
    let reply = server.api().get(&format!("/rest/v1/{PLAIN_TOPIC}?limit=1")).await.unwrap();
    assert_eq!(reply.status, 503, "a read while the store is away: {}", reply.text());
    assert!(!reply.header("retry-after").is_empty());
    database.start_again().unwrap();
    load.wait_for(201, 20).await.unwrap();
    let answers = load.stop().await.unwrap();
    println!("{answers:?}");
    let failed: Vec<_> = answers.keys().filter(|status| **status == 0 || **status >= 400).collect();
    assert!(failed.is_empty(), "every POST is answered 2xx while the store is away: {answers:?}");
    let findings = assert_clean(&server, &oracle).await;
    println!("{findings}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_mode_says_503_while_postgres_is_away_and_recovers() {
    let database = Postgres::start().unwrap();
    let mut server = server(&database.url(), "none:").env("CAUDAL_STORE__PATIENCE_MS", "200");
    let oracle = Arc::new(Oracle::default());
    server.start().await.unwrap();
    let load = Load::start(server.api(), oracle.clone(), 13);
    load.wait_for(201, 20).await.unwrap();
    database.stop_immediate().unwrap();
    load.wait_for(503, 20).await.unwrap();
    let reply = server.api().publish(PLAIN_TOPIC, &[], r#"{"name": "refused"}"#).await.unwrap();
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.code(), "store_unavailable");
    assert!(reply.header("retry-after").parse::<u32>().is_ok());
    database.start_again().unwrap();
    load.wait_for(201, 20).await.unwrap();
    let answers = load.stop().await.unwrap();
    assert!(answers.keys().all(|status| [200, 201, 409, 503].contains(status)), "{answers:?}");
    println!("{answers:?}; {}", assert_clean(&server, &oracle).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_process_in_a_data_directory_is_refused() {
    let mut server = server("sqlite:caudal.db", "embedded:");
    server.start().await.unwrap();
    let begun = Instant::now();
    let mut second = server.command(&["serve"]).unwrap();
    second.env("CAUDAL_HTTP__LISTEN", "127.0.0.1:0").stdout(Stdio::null());
    let output = second.output().unwrap();
    let took = begun.elapsed();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(message.contains("pid ") && message.contains("topics"), "{message}");
    // Generous; the table says a second.
    assert!(took < Duration::from_secs(5), "refused only after {took:?}");
    assert_eq!(server.api().get("/readyz").await.unwrap().status, 200);
    assert!(Path::new(&server.data_dir()).join("topics").join("LOCK").exists());
}

async fn drains_on_sigterm(store: &str, broker: &str) {
    let mut server = server(store, broker);
    let oracle = Arc::new(Oracle::default());
    server.start().await.unwrap();
    let load = Load::start(server.api(), oracle.clone(), 17);
    load.wait_for(201, 30).await.unwrap();
    let status = server.stop().await.unwrap();
    assert_eq!(status.code(), Some(0), "{broker}");
    server.start().await.unwrap();
    load.wait_for(201, 10).await.unwrap();
    let answers = load.stop().await.unwrap();
    println!("{broker} {answers:?}; {}", assert_clean(&server, &oracle).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_drains_and_exits_zero() {
    for broker in ["embedded:", "none:"] {
        drains_on_sigterm("sqlite:caudal.db", broker).await;
        drains_on_sigterm(&postgres::database().await.unwrap(), broker).await;
    }
}
