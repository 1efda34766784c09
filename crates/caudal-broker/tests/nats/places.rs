//! Streams and consumers that are there already, and streams that go away.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::{consumer, stream};
use caudal_broker::{Place, RemoteConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::Origin;
use caudal_core::ports::Broker;
use caudal_testkit::broker::{Reader, messages};
use caudal_testkit::nats;
use uuid::Uuid;

use super::{broker, client, config, fresh, open, publish, sentence, subscribe};

async fn stream(name: &str, subjects: &[String]) {
    let jetstream = client(&nats::shared().expect("a server").url()).await;
    let subjects = subjects.to_vec();
    jetstream
        .create_stream(stream::Config { name: name.to_owned(), subjects, ..Default::default() })
        .await
        .expect("a stream");
}

fn at(topic: &caudal_core::topic::TopicName, publish: Option<&str>, consume: Option<&str>) -> RemoteConfig {
    let mut config = config(nats::shared().expect("a server").url());
    let place = Place { publish: publish.map(str::to_owned), consume: consume.map(str::to_owned) };
    config.places.insert(topic.clone(), place);
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_a_consumer_that_are_there() {
    let server = nats::shared().expect("a server");
    let topic = fresh("orders");
    let (name, subject) = (format!("ORDERS-{topic}"), format!("shop.{topic}"));
    stream(&name, std::slice::from_ref(&subject)).await;
    let jetstream = client(&server.url()).await;
    let durable =
        consumer::pull::Config { durable_name: Some("worker".into()), max_ack_pending: 7, ..Default::default() };
    jetstream.create_consumer_on_stream(durable, name.clone()).await.expect("a consumer");
    // By the stream's name or by the subject's.
    for (round, publish_to) in [(0, name.as_str()), (1, subject.as_str())] {
        let broker = broker(RemoteConfig { create: false, ..at(&topic, Some(publish_to), Some("worker")) }).await;
        let numbers = round * 20..round * 20 + 20;
        broker.publish(&topic, messages(numbers.clone())).await.expect("publish works");
        let mut reader = Reader::fresh(&broker, &topic).await;
        assert_eq!(reader.take(20).await, messages(numbers), "although no more than 7 may be out");
    }
}

/// A stream of many subjects gives a topic only its own.
#[tokio::test(flavor = "multi_thread")]
async fn one_subject_of_many() {
    let server = nats::shared().expect("a server");
    let topic = fresh("mixed");
    let (name, mine, other) = (format!("MIXED-{topic}"), format!("mixed.{topic}.mine"), format!("mixed.{topic}.other"));
    stream(&name, &[format!("mixed.{topic}.>")]).await;
    let refused = sentence(broker(at(&topic, Some(&name), None)).await.publish(&topic, messages(0..1)).await);
    assert!(refused.contains("name the subject in publish_to"), "{refused}");
    let broker = broker(at(&topic, Some(&mine), None)).await;
    broker.publish(&topic, messages(0..2)).await.expect("publish works");
    let jetstream = client(&server.url()).await;
    publish(&jetstream, &other, HeaderMap::new(), "{\"not\":\"ours\"}").await;
    broker.publish(&topic, messages(2..4)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(4).await;
    assert!(deliveries.iter().all(|delivery| delivery.missing == 0), "what a filter skips is not missing");
    reader.settle(&deliveries).await;
    assert_eq!(caudal_testkit::broker::bare(deliveries), messages(0..4));
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_do_not_fit() {
    let server = nats::shared().expect("a server");
    let topic = fresh("unfit");
    let jetstream = client(&server.url()).await;
    let push = consumer::push::Config {
        durable_name: Some("pushed".into()),
        deliver_subject: format!("pushed.{topic}"),
        ..Default::default()
    };
    let first = broker(at(&topic, None, None)).await;
    first.publish(&topic, messages(0..1)).await.expect("publish works");
    jetstream.create_consumer_on_stream(push, format!("caudal-{topic}")).await.expect("a consumer");
    let refused = sentence(subscribe(&broker(at(&topic, None, Some("pushed"))).await, &topic).await);
    assert!(refused.contains("not a pull consumer"), "{refused}");
    let refused = sentence(broker(at(&topic, Some("a.*"), None)).await.publish(&topic, messages(0..1)).await);
    assert!(refused.contains("publish_to"), "{refused}");
    // A stream of our name that takes something else.
    let other = fresh("unfit");
    stream(&format!("caudal-{other}"), &[format!("elsewhere.{other}")]).await;
    let refused = sentence(broker(config(server.url())).await.publish(&other, messages(0..1)).await);
    assert!(
        refused.contains(&format!("nats stream edit caudal-{other} --subjects=elsewhere.{other},caudal.{other}")),
        "{refused}"
    );
    // A subject that somebody else's stream takes.
    let taken = fresh("unfit");
    stream(&format!("OTHER-{taken}"), &[format!("caudal.{taken}")]).await;
    let refused = sentence(broker(config(server.url())).await.publish(&taken, messages(0..1)).await);
    assert!(refused.contains("publish_to"), "{refused}");
}

/// A foreign message is named by its place in this life of the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_names_its_messages_anew() {
    let server = nats::shared().expect("a server");
    let topic = fresh("anew");
    let jetstream = client(&server.url()).await;
    let broker = open(server.url()).await;
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut reader = Reader::fresh(&broker, &topic).await;
        publish(&jetstream, &format!("caudal.{topic}"), HeaderMap::new(), "{}").await;
        let delivery = reader.receive(1).await.remove(0);
        assert_eq!(
            (delivery.origin, delivery.message.source.as_str()),
            (Origin::Foreign, &*format!("nats:caudal.{topic}"))
        );
        keys.extend(delivery.message.key);
        jetstream.delete_stream(format!("caudal-{topic}")).await.expect("the stream is deleted");
        let ended = reader.subscription.receive(1, 1).await;
        assert!(matches!(ended, Err(BrokerError::Unavailable(_))), "{ended:?}");
    }
    assert_eq!(keys.len(), 2);
    assert!(keys[0] != keys[1] && keys.iter().all(|key| key.ends_with(":1")), "{keys:?}");
}

/// Publishing into nothing is an error, once; then the stream is made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_deleted_under_a_publisher() {
    let server = nats::shared().expect("a server");
    let topic = fresh("deleted");
    let broker: Arc<dyn Broker> = open(server.url()).await;
    broker.publish(&topic, messages(0..1)).await.expect("publish works");
    client(&server.url()).await.delete_stream(format!("caudal-{topic}")).await.expect("the stream is deleted");
    let lost = broker.publish(&topic, messages(1..2)).await;
    assert!(matches!(lost, Err(BrokerError::Unavailable(_))), "{lost:?}");
    broker.publish(&topic, messages(1..2)).await.expect("publish works again");
    assert_eq!(Reader::fresh(&broker, &topic).await.take(1).await, messages(1..2));
}

/// The same message again is for the store to judge, not for the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_publish_repeated_is_kept_and_counted() {
    let topic = fresh("twice");
    let broker = open(nats::shared().expect("a server").url()).await;
    broker.publish(&topic, messages(0..10)).await.expect("publish works");
    broker.publish(&topic, messages(5..15)).await.expect("publish works");
    let state = broker.topic_state(&topic, "store").await.expect("the topic is known");
    assert_eq!(state.waiting, Some(20));
    assert!(state.bytes > Some(500), "{state:?}");
}

/// CloudEvents in the binding for NATS.
#[tokio::test(flavor = "multi_thread")]
async fn cloud_events() {
    let server = nats::shared().expect("a server");
    let topic = fresh("events");
    let broker = open(server.url()).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let mut headers = HeaderMap::new();
    for (name, value) in [("specversion", "1.0"), ("id", "7"), ("source", "/shop"), ("type", "sold")] {
        headers.insert(format!("ce-{name}"), value);
    }
    let jetstream = client(&server.url()).await;
    publish(&jetstream, &format!("caudal.{topic}"), headers, "{\"n\":1}").await;
    let mut structured = HeaderMap::new();
    structured.insert("Content-Type", "application/cloudevents+json");
    let event = r#"{"specversion":"1.0","id":"8","source":"/shop","type":"sold","data":{"n":2}}"#;
    publish(&jetstream, &format!("caudal.{topic}"), structured.clone(), event).await;
    publish(&jetstream, &format!("caudal.{topic}"), structured, "not an event").await;
    let deliveries = reader.receive(3).await;
    let keys: Vec<_> = deliveries.iter().map(|d| d.message.key.as_deref().unwrap_or_default()).collect();
    assert_eq!(keys[..2], ["/shop 7", "/shop 8"]);
    assert_eq!(deliveries[1].message.body, r#"{"n":2}"#);
    assert!(deliveries[0].fault.is_none() && deliveries[0].message.id == Uuid::nil());
    assert!(deliveries[2].fault.is_some() && deliveries[2].message.body == "not an event", "{:?}", deliveries[2]);
}
