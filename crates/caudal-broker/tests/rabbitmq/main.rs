//! RabbitMQ: the conformance suite and what is RabbitMQ's own, against a real server.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod consuming;
mod crashes;
mod publishing;
mod setup_errors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caudal_broker::rabbitmq::RabbitMqBroker;
use caudal_broker::{Place, RemoteConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::{Durability, Marks, Message, Origin};
use caudal_core::ports::{Broker, Subscription};
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Harness, Ledger, Reader, bare, marks, message, messages, settling, topic};
use caudal_testkit::rabbitmq::lapin::BasicProperties;
use caudal_testkit::rabbitmq::lapin::types::{AMQPValue, FieldTable};
use caudal_testkit::rabbitmq::{MESSAGE_BYTES_MAX, RabbitMq, publish_foreign, shared};

fn config(url: String) -> RemoteConfig {
    let subscriptions = ["store", "audit"].map(str::to_owned).to_vec();
    RemoteConfig { subscriptions, ..RemoteConfig::new(url) }
}

fn harness_on(url: String) -> Harness {
    let foreign_url = url.clone();
    let open = move || -> futures_util::future::BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>> {
        let config = config(url.clone());
        Box::pin(async move { Ok(Arc::new(RabbitMqBroker::open(config).await?) as Arc<dyn Broker>) })
    };
    Harness::new(open).counts_attempts().delays_nacks().body_max(MESSAGE_BYTES_MAX).foreign(
        move |topic, headers, body| {
            let url = foreign_url.clone();
            Box::pin(async move {
                let mut table = FieldTable::default();
                for (name, value) in headers {
                    table.insert(name.into(), AMQPValue::LongString(value.into()));
                }
                let properties = BasicProperties::default().with_headers(table).with_message_id("an id".into());
                publish_foreign(&url, &format!("caudal.{topic}"), "", properties, &body).await.unwrap();
            })
        },
    )
}

caudal_testkit::broker_conformance!(harness_on(shared().unwrap().url()));

/// A topic that no other test uses, on the shared server.
fn fresh(name: &str) -> TopicName {
    topic(&format!("{}-{name}", &uuid::Uuid::now_v7().simple().to_string()[22..]))
}

async fn broker(config: RemoteConfig) -> Arc<dyn Broker> {
    Arc::new(RabbitMqBroker::open(config).await.unwrap())
}

async fn shared_broker() -> Arc<dyn Broker> {
    broker(config(shared().unwrap().url())).await
}

fn setup<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> String {
    match result {
        Err(BrokerError::Setup(sentence)) => {
            println!("{sentence}");
            assert!(!sentence.contains("secret"), "{sentence}");
            sentence
        }
        other => panic!("{other:?}"),
    }
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, BrokerError>) -> String {
    match result {
        Err(BrokerError::Unavailable(cause)) => cause.to_string(),
        other => panic!("{other:?}"),
    }
}

async fn subscribed(broker: &Arc<dyn Broker>, topic: &TopicName) -> Result<Box<dyn Subscription>, BrokerError> {
    broker.subscribe(topic, "store", Arc::new(Ledger::default())).await
}

/// As `subscribed`, for asserting on an error.
async fn refused(broker: &Arc<dyn Broker>, topic: &TopicName) -> Result<(), BrokerError> {
    subscribed(broker, topic).await.map(drop)
}

/// Makes a queue as somebody else would.
async fn declare(name: &str, arguments: &[(&str, &str)]) {
    use caudal_testkit::rabbitmq::lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions};
    let connection = Connection::connect(&shared().unwrap().url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    channel.queue_declare(name.into(), QueueDeclareOptions::durable(), table).await.unwrap();
    connection.close(200, "".into()).await.unwrap();
}

async fn bind(queue: &str, exchange: &str, routing_key: &str) {
    use caudal_testkit::rabbitmq::lapin::{Connection, ConnectionProperties, options::QueueBindOptions};
    let connection = Connection::connect(&shared().unwrap().url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), routing_key.into(), options, FieldTable::default())
        .await
        .unwrap();
    connection.close(200, "".into()).await.unwrap();
}

fn placed(topic: &TopicName, publish: Option<&str>, consume: Option<&str>) -> RemoteConfig {
    let place = Place { publish: publish.map(str::to_owned), consume: consume.map(str::to_owned) };
    let subscriptions = vec!["store".to_owned()];
    RemoteConfig { places: [(topic.clone(), place)].into(), subscriptions, ..config(shared().unwrap().url()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_to_a_trusted_server_only() {
    let server = shared().unwrap();
    let trusted = format!("{}?cacertfile={}", server.tls_url(), server.authority().display());
    let (trusted, untrusted) = (broker(config(trusted)).await, broker(config(server.tls_url())).await);
    let topic = fresh("tls");
    trusted.publish(&topic, messages(0..100)).await.unwrap();
    assert_eq!(Reader::fresh(&trusted, &topic).await.take(100).await, messages(0..100));
    let text = setup(untrusted.publish(&topic, messages(0..1)).await);
    assert!(text.contains("cacertfile"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_word_is_worth_what_the_queues_are() {
    let broker_of = |topic: &TopicName, queue: &str| broker(placed(topic, Some("amq.fanout"), Some(queue)));
    let topic = fresh("probe");
    let own = shared_broker().await.probe(std::slice::from_ref(&topic)).await.unwrap();
    println!("{own:#?}");
    assert!(own.product.starts_with("RabbitMQ "), "{}", own.product);
    assert_eq!(own.durability, Durability::Power);
    for (arguments, durability) in [
        (&[("x-queue-type", "quorum")][..], Durability::Power),
        (&[("x-queue-type", "quorum"), ("x-dead-letter-exchange", "dead")], Durability::Power),
        (&[("x-queue-type", "classic")], Durability::Process),
        (&[("x-dead-letter-exchange", "dead")], Durability::Process),
        (&[], Durability::Process),
        (&[("x-queue-type", "stream")], Durability::Process),
    ] {
        let queue = format!("{topic}-{}", uuid::Uuid::now_v7());
        declare(&queue, arguments).await;
        let probe = broker_of(&topic, &queue).await.probe(std::slice::from_ref(&topic)).await.unwrap();
        assert_eq!(probe.durability, durability, "{arguments:?}: {:?}", probe.reasons);
        assert!(probe.reasons[0].contains(&queue), "{:?}", probe.reasons);
    }
}
