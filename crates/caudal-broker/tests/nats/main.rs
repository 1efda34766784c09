//! NATS JetStream against a real server: the conformance suite, and what is special here.

mod entry;
mod failing;
mod places;
mod reading;
mod worth;

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use bytes::Bytes;
use caudal_broker::RemoteConfig;
use caudal_broker::nats::NatsBroker;
use caudal_core::error::BrokerError;
use caudal_core::ports::{Broker, Subscription};
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Harness, Ledger, topic};
use caudal_testkit::nats::{self, MESSAGE_BYTES_MAX, Nats};
use futures_util::future::BoxFuture;

fn config(url: impl Into<String>) -> RemoteConfig {
    let mut config = RemoteConfig::new(url);
    config.subscriptions.push("audit".to_owned());
    config
}

async fn broker(config: RemoteConfig) -> Arc<dyn Broker> {
    Arc::new(NatsBroker::open(config).await.expect("the broker opens"))
}

async fn open(url: impl Into<String>) -> Arc<dyn Broker> {
    broker(config(url)).await
}

/// The server's own client.
async fn client(url: &str) -> Context {
    async_nats::jetstream::new(async_nats::connect(url).await.expect("a client connects"))
}

async fn publish(jetstream: &Context, subject: &str, headers: HeaderMap, body: impl Into<Bytes>) {
    let sent = jetstream.publish_with_headers(subject.to_owned(), headers, body.into()).await.expect("sent");
    sent.await.expect("confirmed");
}

async fn subscribe(broker: &Arc<dyn Broker>, topic: &TopicName) -> Result<Box<dyn Subscription>, BrokerError> {
    broker.subscribe(topic, "store", Arc::new(Ledger::default())).await
}

/// A topic that no other test has.
fn fresh(name: &str) -> TopicName {
    topic(&format!("{name}-{}", &uuid::Uuid::now_v7().simple().to_string()[24..]))
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
    let url = nats::shared().expect("a server").url();
    let publish_to = url.clone();
    over(url).foreign(move |topic, headers, body| {
        let url = publish_to.clone();
        Box::pin(async move {
            let mut map = HeaderMap::new();
            headers.iter().for_each(|(name, value)| map.insert(name.as_str(), value.as_str()));
            publish(&client(&url).await, &format!("caudal.{topic}"), map, body).await;
        })
    })
}

fn over(url: String) -> Harness {
    let open = move || -> BoxFuture<'static, _> {
        let url = url.clone();
        Box::pin(async move { Ok(open(url).await) })
    };
    Harness::new(open).counts_attempts().delays_nacks().body_max(MESSAGE_BYTES_MAX)
}

caudal_testkit::broker_conformance!(harness());

/// The suite's rule of a crash, with a server that may be killed.
#[tokio::test(flavor = "multi_thread")]
async fn survives_a_kill_of_the_server() {
    let server = Arc::new(Nats::start().expect("a server"));
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
