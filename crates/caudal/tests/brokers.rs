//! Caudal over brokers of other makes, both killed again and again under load: what is acknowledged is stored, once.
//!
//! Messages go in by HTTP, through the broker, into PostgreSQL. `CAUDAL_SOAK=20` kills each side that often over 100,000
//! acknowledged messages (10,000 for SQS, whose emulator is slow); otherwise a small sample. `CAUDAL_SEED=n` repeats a run's
//! choices.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_testkit::chance::Chance;
use caudal_testkit::kafka::Kafka;
use caudal_testkit::load::{self, Load, PLAIN_TOPIC, SCHEMA, TYPED_TOPIC};
use caudal_testkit::localstack::LocalStack;
use caudal_testkit::nats::Nats;
use caudal_testkit::oracle::Oracle;
use caudal_testkit::postgres;
use caudal_testkit::rabbitmq::RabbitMq;
use caudal_testkit::redis::Redis;
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
        // Any credentials will do for an emulator of AWS.
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
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
    // An emulator that is slow may take several times the usual patience; what counts is that it goes on.
    for _ in 0..4 {
        if load::drained(&api).await.is_ok() {
            break;
        }
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_and_the_worker_are_killed() {
    let server = Arc::new(RabbitMq::start().unwrap());
    let url = server.url();
    survives(Victim { name: "RabbitMQ", url, crash: Some(crash(server)), messages: 100_000 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_and_the_worker_are_killed() {
    let server = Arc::new(Nats::start().unwrap());
    let url = server.url();
    survives(Victim { name: "NATS", url, crash: Some(crash(server)), messages: 100_000 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_the_worker_are_killed() {
    let server = Arc::new(Redis::start().unwrap());
    let url = server.url();
    survives(Victim { name: "Redis", url, crash: Some(crash(server)), messages: 100_000 }).await;
}

/// librdkafka's mock cluster: it has no disk, so only the worker is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_of_a_kafka_topic_is_killed() {
    let server = Kafka::start().unwrap();
    survives(Victim { name: "Kafka (mock cluster)", url: server.url(), crash: None, messages: 100_000 }).await;
}

/// LocalStack keeps its queues in memory, so it is the way to it that is cut, at random moments and in the middle of requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_worker_of_a_queue_is_killed_and_the_way_to_it_cut() {
    let server = LocalStack::start().unwrap();
    let road = Arc::new(server.road().unwrap());
    let url = format!("{}&visibility_seconds=15", road.url());
    let cut = Box::new(move || {
        let road = road.clone();
        let cut = async move {
            road.cut();
            tokio::time::sleep(Duration::from_millis(500)).await;
            road.mend().unwrap();
        };
        Box::pin(cut) as BoxFuture<'static, ()>
    });
    survives(Victim { name: "SNS/SQS (LocalStack)", url, crash: Some(cut), messages: 10_000 }).await;
}

/// Kills the server and starts it again over the same storage.
fn crash<S: Dies>(server: Arc<S>) -> Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync> {
    Box::new(move || {
        let server = server.clone();
        Box::pin(async move { tokio::task::spawn_blocking(move || server.die()).await.unwrap() })
    })
}

trait Dies: Send + Sync + 'static {
    fn die(&self);
}

macro_rules! dies {
    ($($server:ty),*) => {
        $(impl Dies for $server {
            fn die(&self) {
                self.kill();
                self.restart().unwrap();
            }
        })*
    };
}

dies!(RabbitMq, Nats, Redis);

/// The API and the worker in processes of their own: the producer still hears of its row, and of its dead letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_hears_of_what_another_process_stored() {
    let nats = Nats::start().unwrap();
    let database = postgres::database().await.unwrap();
    let wait = |server: Server| server.env("CAUDAL_HTTP__WAIT_MS", "20000");
    let mut api = wait(caudal(&database, &nats.url()).roles("api"));
    let mut worker = wait(caudal(&database, &nats.url()).roles("worker"));
    api.start().await.unwrap();
    worker.spawn().unwrap();
    let client = api.api();
    let headers = [("idempotency-key", "one")];
    let reply = client.publish(TYPED_TOPIC, &headers, r#"{"name": "a"}"#).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text());
    let id = reply.json()["transaction_id"].as_str().unwrap().to_owned();
    let receipt = client.get(&format!("/v1/receipts/{id}")).await.unwrap().json();
    assert_eq!(
        (receipt["state"].as_str(), receipt["durability"].as_str()),
        (Some("stored"), Some("process")),
        "{receipt}"
    );
    let path = format!("/v1/topics/{TYPED_TOPIC}/messages");
    let lines = "{\"name\": \"b\"}\n{\"amount\": 1}";
    let batch = client.post(&path, &[("content-type", "application/x-ndjson")], lines.to_owned()).await.unwrap();
    assert_eq!(batch.status, 207, "{}", batch.text());
    let conflict = client.publish(TYPED_TOPIC, &headers, r#"{"name": "other"}"#).await.unwrap();
    assert_eq!((conflict.status, conflict.code()), (422, "conflict".into()), "{}", conflict.text());
}

/// What is on its way is known to the process that took it, although NATS cannot be searched.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_queued_while_no_worker_runs() {
    let nats = Nats::start().unwrap();
    let mut api = caudal("sqlite:caudal.db", &nats.url()).roles("api");
    api.start().await.unwrap();
    let reply = api.api().publish(PLAIN_TOPIC, &[("prefer", "respond-async")], r#"{"name": "a"}"#).await.unwrap();
    assert_eq!(reply.status, 202, "{}", reply.text());
    let id = reply.json()["transaction_id"].as_str().unwrap().to_owned();
    let receipt = api.api().get(&format!("/v1/receipts/{id}")).await.unwrap().json();
    assert_eq!(receipt["state"], "queued", "{receipt}");
}

/// A broker that gives less than the configuration asks for is refused, and the sentence says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_weak_a_broker_is_refused() {
    let nats = Nats::start().unwrap();
    let mut server = caudal("sqlite:caudal.db", &nats.url()).env("CAUDAL_BROKER__DURABILITY", "power");
    let refused = server.start().await.unwrap_err().to_string();
    assert!(refused.contains("broker.durability asks for power") && refused.contains("sync_interval"), "{refused}");
    let doctor = server.run(&["doctor"]).unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(!doctor.status.success() && said.contains("broker.durability asks for power"), "{said}");
    server.set_env("CAUDAL_BROKER__DURABILITY", "process");
    server.start().await.unwrap();
}

/// A message that came too often is set aside, whatever it does to a worker; those behind it are stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_message_is_set_aside_and_the_rest_goes_on() {
    let redis = Redis::start().unwrap();
    let database = postgres::database().await.unwrap();
    let server = |roles| caudal(&database, &redis.url()).roles(roles).env("CAUDAL_BROKER__DELIVERIES_MAX", "3");
    let mut api = server("api");
    api.start().await.unwrap();
    let client = api.api();
    for name in ["a", "b", "c"] {
        let body = json!({ "name": name }).to_string();
        let reply = client.publish(PLAIN_TOPIC, &[("prefer", "respond-async")], body).await.unwrap();
        assert_eq!(reply.status, 202, "{}", reply.text());
    }
    let stream = format!("caudal:{PLAIN_TOPIC}");
    let read = ["XREADGROUP", "GROUP", "store", "crashed", "COUNT", "1", "STREAMS", &stream, ">"];
    let entry = redis.cli(&read).unwrap().lines().nth(1).unwrap().to_owned();
    let came = ["XCLAIM", &stream, "store", "crashed", "0", &entry, "IDLE", "3600000", "RETRYCOUNT", "5", "JUSTID"];
    assert_eq!(redis.cli(&came).unwrap().trim(), entry);
    let mut worker = server("worker");
    worker.spawn().unwrap();
    let begun = Instant::now();
    let (rows, dead) = loop {
        let rows = load::rows(&client).await.unwrap();
        let dead = client.get("/rest/v1/_dead_letters?select=reason,detail").await.unwrap().json();
        if rows.len() >= 2 && dead != json!([]) {
            break (rows, dead);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{} rows, {dead}; {}", rows.len(), worker.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let mut names: Vec<_> = rows.into_iter().map(|row| row.name).collect();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    assert_eq!((dead.as_array().map(Vec::len), &dead[0]["reason"]), (Some(1), &json!("poison")), "{dead}");
    load::drained(&client).await.unwrap();
}

/// Whoever may write to the broker may write anything into our headers: it becomes a dead letter or a row that readers understand,
/// the same in both stores, and the topic goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_headers_stop_nothing() {
    use caudal_testkit::rabbitmq::lapin::BasicProperties;
    use caudal_testkit::rabbitmq::lapin::types::{AMQPValue, FieldTable, ShortString};
    const HOSTILE: [(&str, &str); 9] = [
        ("caudal-published-at", "9223372036854775807"),
        ("caudal-published-at", "-9223372036854775808"),
        ("caudal-attributes", "garbage"),
        ("caudal-attributes", "[1]"),
        ("caudal-attributes", "{%22a%22:%22%5Cu0000%22}"),
        ("caudal-attributes", "{%22a%22:1,%22a%22:2}"),
        ("caudal-attributes", "{%22a%22:%ff}"),
        ("caudal-key", "a%00b"),
        ("caudal-source", "a%00b"),
    ];
    let broker = RabbitMq::start().unwrap();
    let stores = ["sqlite:caudal.db".to_owned(), postgres::database().await.unwrap()];
    let mut seen = Vec::new();
    for (number, store) in stores.iter().enumerate() {
        let mut server = caudal(store, &broker.url()).env("CAUDAL_BROKER__SUBSCRIPTION", format!("s{number}"));
        server.start().await.unwrap();
        let api = server.api();
        api.publish(PLAIN_TOPIC, &[], r#"{"name": "first"}"#).await.unwrap();
        for (turn, (header, value)) in HOSTILE.into_iter().chain([("x", "sound")]).enumerate() {
            let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &[number as u8, turn as u8]).to_string();
            let mut headers = FieldTable::default();
            let sound =
                [("caudal-id", id.as_str()), ("caudal-source", "http"), ("caudal-published-at", "1700000000000000")];
            for (name, value) in sound.into_iter().chain([(header, value)]) {
                headers.insert(ShortString::from(name), AMQPValue::LongString(value.into()));
            }
            let properties = BasicProperties::default().with_headers(headers);
            let body = format!("{{\"turn\": {turn}}}");
            let exchange = format!("caudal.{PLAIN_TOPIC}");
            caudal_testkit::rabbitmq::publish_foreign(&broker.url(), &exchange, "", properties, body.as_bytes())
                .await
                .unwrap();
        }
        load::drained(&api).await.unwrap();
        let all = |path: &'static str| {
            let api = api.clone();
            async move { api.get(path).await.unwrap().json() }
        };
        let rows = all("/rest/v1/crash-plain?select=payload,_published_at&order=_published_at").await;
        let turns: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["payload"]["turn"].clone()).collect();
        assert!(turns.contains(&json!(9)), "what comes after them is stored: {rows}");
        let dead = all("/rest/v1/_dead_letters?select=reason,payload&order=payload").await;
        assert!(dead.as_array().unwrap().iter().all(|d| d["reason"] != "refused"), "refused before the store: {dead}");
        let books = all("/v1/reconcile?count=exact").await;
        assert_eq!(books["unaccounted"], 0, "{books:#}");
        assert!(!server.log().contains("panicked"), "{}", server.log());
        seen.push((turns, dead));
        server.stop().await.unwrap();
    }
    assert_eq!(seen[0], seen[1], "the same verdicts in both stores");
}
