//! Caudal over brokers of other makes, both killed again and again under load: what is acknowledged is stored, once.
//!
//! Messages go in by HTTP, through the broker, into PostgreSQL. `CAUDAL_SOAK=20` kills each side that often over 100,000
//! acknowledged messages (10,000 for SQS, whose emulator is slow); otherwise a small sample. `CAUDAL_SEED=n` repeats a run's
//! choices.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_testkit::chance::Chance;
use caudal_testkit::load::{self, Load, PLAIN_TOPIC, SCHEMA, TYPED_TOPIC};
use caudal_testkit::oracle::Oracle;
use caudal_testkit::postgres;
use caudal_testkit::server::Server;
use futures_util::future::BoxFuture;
use serde_json::json;

/// A broker that is killed: how its server dies and comes back, if it can.
struct Victim {
    name: &'static str,
    url: String,
    crash: Option<Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>>,
    /// Acknowledged messages of a whole run.
    messages: usize,
}

fn caudal(store: &str, broker: &str) -> Server {
    Server::new(env!("CARGO_BIN_EXE_caudal"))
        .unwrap()
        .store(store)
        .broker(broker)
        .topic(PLAIN_TOPIC, None, "")
        .topic(TYPED_TOPIC, Some(SCHEMA), "")
        .env("CAUDAL_HTTP__WAIT_MS", "200")
        .env("CAUDAL_LOG__LEVEL", "warn")
}

async fn survives(victim: Victim) {
    let kills: usize = std::env::var("CAUDAL_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let messages = if kills >= 20 { victim.messages } else { victim.messages / 50 };
    let (mut chance, seed) = Chance::from_environment();
    println!("{}: CAUDAL_SEED={seed}", victim.name);
    let database = postgres::database().await.unwrap();
    let mut server = caudal(&database, &victim.url);
    let oracle = Arc::new(Oracle::default());
    server.start().await.unwrap();
    let load = Load::start(server.api(), oracle.clone(), seed);
    let rounds = kills * 2;
    let (mut workers, mut brokers) = (0, 0);
    let begun = Instant::now();
    for round in 1..=rounds {
        while oracle.acknowledgements() < messages * round / (rounds + 1) {
            assert!(
                begun.elapsed() < Duration::from_secs(1800),
                "{}: {} so far",
                victim.name,
                oracle.acknowledgements()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The moment is the subject of the test, not a wait for something.
        tokio::time::sleep(Duration::from_millis(chance.between(0, 300))).await;
        match &victim.crash {
            Some(crash) if round % 2 == 0 => {
                crash().await;
                brokers += 1;
            }
            _ => {
                server.kill().unwrap();
                server.start().await.unwrap();
                workers += 1;
            }
        }
    }
    while oracle.acknowledgements() < messages {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answers = load.stop().await.unwrap();
    let api = server.api();
    load::drained(&api).await.unwrap();
    let findings = oracle.judge(&load::rows(&api).await.unwrap());
    let books = api.get("/v1/reconcile?count=exact").await.unwrap().json();
    assert_eq!(books["unaccounted"], 0, "the books do not balance: {books:#}");
    let dead = api.get("/rest/v1/_dead_letters?select=reason,detail&limit=5").await.unwrap().json();
    assert_eq!(dead, json!([]), "good messages were set aside");
    assert!(findings.is_clean(), "{}: {findings}", victim.name);
    println!("{}: {workers} workers and {brokers} brokers killed; {findings}; {answers:?}", victim.name);
    assert!(findings.acknowledged >= messages);
}
