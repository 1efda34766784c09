//! Redis Streams against a real server: the conformance suite, and what is special here.

mod entry;
mod failing;
mod reading;
mod worth;

use std::sync::Arc;
use std::time::Duration;

use caudal_broker::RemoteConfig;
use caudal_broker::redis::RedisBroker;
use caudal_core::error::BrokerError;
use caudal_core::ports::{Broker, Subscription};
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Harness, Ledger, topic};
use caudal_testkit::redis::{self as servers, Redis};
use futures_util::future::BoxFuture;
use redis::{Cmd, FromRedisValue, cmd};

fn config(url: impl Into<String>) -> RemoteConfig {
    let mut config = RemoteConfig::new(url);
    config.subscriptions.push("audit".to_owned());
    config
}

async fn broker(config: RemoteConfig) -> Arc<dyn Broker> {
    Arc::new(RedisBroker::open(config).await.expect("the broker opens"))
}

async fn open(url: impl Into<String>) -> Arc<dyn Broker> {
    broker(config(url)).await
}

/// Asks with the server's own client.
async fn ask<T: FromRedisValue>(url: &str, command: &Cmd) -> T {
    let client = redis::Client::open(url).expect("a client");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a client connects");
    command.query_async(&mut connection).await.expect("it answers")
}

async fn subscribe(broker: &Arc<dyn Broker>, topic: &TopicName) -> Result<Box<dyn Subscription>, BrokerError> {
    broker.subscribe(topic, "store", Arc::new(Ledger::default())).await
}

/// A topic that no other test has.
fn fresh(name: &str) -> TopicName {
    topic(&format!("{name}-{}", &uuid::Uuid::now_v7().simple().to_string()[24..]))
}

fn key(topic: &TopicName) -> String {
    format!("caudal:{topic}")
}

/// The sentence of an error that somebody must act upon.
fn sentence<T>(outcome: Result<T, BrokerError>) -> String {
    match outcome {
        Err(BrokerError::Setup(sentence)) => sentence,
        Err(other) => panic!("not a matter of setup: {other:?}"),
        Ok(_) => panic!("it works"),
    }
}

fn harness() -> Harness {
    let url = servers::shared().expect("a server").url();
    let publish_to = url.clone();
    over(url).foreign(move |topic, headers, body| {
        let url = publish_to.clone();
        Box::pin(async move {
            let mut add = cmd("XADD");
            add.arg(key(&topic)).arg("*").arg("data").arg(&body[..]);
            for (name, value) in &headers {
                add.arg(name).arg(value);
            }
            let _: String = ask(&url, &add).await;
        })
    })
}

fn over(url: String) -> Harness {
    let open = move || -> BoxFuture<'static, _> {
        let url = url.clone();
        Box::pin(async move { Ok(open(url).await) })
    };
    Harness::new(open).counts_attempts().delays_nacks()
}

caudal_testkit::broker_conformance!(harness());

/// The suite's rule of a crash, with a server that may be killed.
#[tokio::test(flavor = "multi_thread")]
async fn survives_a_kill_of_the_server() {
    let server = Arc::new(Redis::start().expect("a server"));
    let killed = server.clone();
    let harness = over(server.url()).crash(move || {
        let server = killed.clone();
        Box::pin(async move {
            server.kill();
            tokio::time::sleep(Duration::from_secs(1)).await;
            server.restart().expect("it starts again");
        })
    });
    caudal_testkit::broker::settling::survives_a_crash_of_the_broker(&harness).await;
}
