//! How messages look on the way, and what Caudal makes in an account: run on each emulator.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use bytes::Bytes;
use caudal_broker::sqs::SqsBroker;
use caudal_broker::{Place, RemoteConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Message, Origin};
use caudal_core::ports::{Broker, Publish, Subscription};
use caudal_core::rejection::Code;
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Ledger, bare, marks, message, messages, receive, topic};
use caudal_testkit::emulator::Road;
use serde_json::Value;
use uuid::Uuid;

use crate::aws::Client;

pub(crate) fn fresh(name: &str) -> TopicName {
    topic(&format!("{}-{name}", &Uuid::now_v7().simple().to_string()[20..]))
}

pub(crate) async fn open(road: &Road) -> SqsBroker {
    SqsBroker::open(RemoteConfig::new(road.url())).await.unwrap()
}

pub(crate) async fn subscribe(broker: &SqsBroker, topic: &TopicName, name: &str) -> Box<dyn Subscription> {
    broker.subscribe(topic, name, Arc::new(Ledger::default())).await.unwrap()
}

pub(crate) async fn take(subscription: &mut dyn Subscription, count: usize) -> Vec<Delivery> {
    let got = receive(subscription, count).await;
    subscription.ack(&marks(&got)).await.unwrap();
    got
}

fn sorted(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by_key(|message| message.id);
    messages
}

/// Bodies of every kind.
fn awkward() -> Vec<Message> {
    let bodies: [&[u8]; 6] = [b"{\"a\":\"<&>\r\n\\u0000\"}", b"", b"\x00\x1f", b"\xff", "\u{FFFF}ñ".as_bytes(), b"="];
    let with = |(number, body): (u64, &&[u8])| Message { body: Bytes::copy_from_slice(body), ..message(number) };
    (0..).zip(&bodies).map(with).collect()
}

/// The envelope that SNS makes and the message as it is, both from Caudal and from others.
pub(crate) async fn understands_envelopes_and_raw_delivery(road: Road) {
    let (broker, client) = (open(&road).await, Client::of(&road.url()));
    let topic = fresh("shapes");
    let mut wrapped = subscribe(&broker, &topic, "store").await;
    let mut raw = subscribe(&broker, &topic, "raw").await;
    client.deliver_raw(&topic, &format!("caudal-{topic}-raw")).await;
    broker.publish(&topic, awkward()).await.unwrap();
    for subscription in [&mut wrapped, &mut raw] {
        let got = take(&mut **subscription, 6).await;
        assert!(got.iter().all(|delivery| delivery.origin == Origin::Accepted && delivery.fault.is_none()));
        assert_eq!(sorted(bare(got)), sorted(awkward()));
    }
    let id = client.publish(&topic, vec![("n".into(), "1".into())], b"{\"a\":1}").await;
    let arn = client.topic_arn(&topic).await;
    let foreign = take(&mut *wrapped, 1).await.remove(0).message;
    assert_eq!(foreign.key, Some(format!("sns:{arn}:{id}")));
    assert_eq!((foreign.source, foreign.body), (format!("sns:{arn}"), Bytes::from_static(b"{\"a\":1}")));
    assert!(String::from_utf8_lossy(&foreign.attributes.unwrap()).contains("\"n\":\"1\""));
    let foreign = take(&mut *raw, 1).await.remove(0).message;
    let queue = client.queue_attributes(&format!("caudal-{topic}-raw")).await[&QueueAttributeName::QueueArn].clone();
    assert!(foreign.key.unwrap().starts_with(&format!("sqs:{queue}:")));
    assert_eq!((foreign.source, foreign.body), (format!("sqs:{queue}"), Bytes::from_static(b"{\"a\":1}")));
}

/// Something like an envelope that cannot be opened.
pub(crate) async fn a_broken_envelope_is_a_fault(road: Road) {
    let (broker, client) = (open(&road).await, Client::of(&road.url()));
    let topic = fresh("broken");
    let mut subscription = subscribe(&broker, &topic, "store").await;
    let broken =
        format!(r#"{{"Type":"Notification","TopicArn":"{}","MessageId":"1"}}"#, client.topic_arn(&topic).await);
    client.send(&format!("caudal-{topic}-store"), &broken).await;
    let delivery = take(&mut *subscription, 1).await.remove(0);
    assert_eq!(delivery.fault.unwrap().code, Code::MalformedEvent);
    assert_eq!(delivery.message.body, broken);
}

/// A queue of somebody's own, without a topic before it, in both directions.
pub(crate) async fn works_on_a_queue_alone(road: Road) {
    let client = Client::of(&road.url());
    let (topic, name) = (fresh("alone"), format!("alone-{}", Uuid::now_v7().simple()));
    let url = client.create_queue(&name).await;
    let mut config = RemoteConfig { create: false, ..RemoteConfig::new(road.url()) };
    config.places.insert(topic.clone(), Place { publish: Some(url), consume: None });
    let broker = SqsBroker::open(config).await.unwrap();
    broker.publish(&topic, awkward()).await.unwrap();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    assert_eq!(sorted(bare(take(&mut *subscription, 6).await)), sorted(awkward()));
    client.send(&name, "{\"a\":1}").await;
    let foreign = take(&mut *subscription, 1).await.remove(0);
    assert_eq!((foreign.origin, foreign.message.body.as_ref()), (Origin::Foreign, &b"{\"a\":1}"[..]));
}

/// What is made: a policy for that topic alone, a place for what is never settled, the whole of the message.
pub(crate) async fn makes_what_is_needed_and_no_more(road: Road) {
    let (broker, client) = (open(&road).await, Client::of(&road.url()));
    for (topic, end) in [(fresh("made"), ""), (fresh("made.fifo"), ".fifo")] {
        broker.publish(&topic, messages(0..1)).await.unwrap();
        let stem = format!("caudal-{}-store", topic.as_str().trim_end_matches(".fifo"));
        let queue = client.queue_attributes(&format!("{stem}{end}")).await;
        let dead = client.queue_attributes(&format!("{stem}-dlq{end}")).await;
        let redrive: Value = serde_json::from_str(&queue[&QueueAttributeName::RedrivePolicy]).unwrap();
        assert_eq!(redrive["deadLetterTargetArn"], dead[&QueueAttributeName::QueueArn].as_str());
        let receives: u64 = redrive["maxReceiveCount"].to_string().trim_matches('"').parse().unwrap();
        assert!(receives > 20, "Caudal's own dead letters come first: {receives}");
        let policy: Value = serde_json::from_str(&queue[&QueueAttributeName::Policy]).unwrap();
        let arn = queue[&QueueAttributeName::QueueArn].replace(":sqs:", ":sns:").replace("-store", "");
        assert_eq!(policy["Statement"][0]["Condition"]["ArnEquals"]["aws:SourceArn"], arn);
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 1);
        let keeps = |queue: &std::collections::HashMap<QueueAttributeName, String>| -> u64 {
            queue[&QueueAttributeName::MessageRetentionPeriod].parse().unwrap()
        };
        assert!(keeps(&dead) > keeps(&queue) && keeps(&queue) > 7 * 86_400);
        if !end.is_empty() {
            assert_eq!(queue[&QueueAttributeName::FifoQueue], "true");
        }
    }
}

/// `create = false`: each missing part is named with the command that makes it, until all is there.
pub(crate) async fn says_what_is_missing(road: Road) {
    let client = Client::of(&road.url());
    let topic = fresh("missing");
    let config = RemoteConfig { create: false, ..RemoteConfig::new(road.url()) };
    let broker = SqsBroker::open(config).await.unwrap();
    let said = async || match broker.publish(&topic, messages(0..1)).await {
        Err(BrokerError::Setup(text)) => text,
        other => panic!("{other:?}"),
    };
    let queue = format!("caudal-{topic}-store");
    assert!(said().await.contains(&format!("aws sqs create-queue --queue-name {queue}")));
    let refused = broker.subscribe(&topic, "store", Arc::new(Ledger::default())).await.map(drop);
    assert!(matches!(&refused, Err(BrokerError::Setup(text)) if text.contains("create-queue")), "{refused:?}");
    let unknown = broker.topic_state(&topic, "store").await;
    assert!(matches!(unknown, Err(BrokerError::UnknownTopic(_))), "{unknown:?}");
    client.create_queue(&queue).await;
    assert!(said().await.contains(&format!("aws sns create-topic --name caudal-{topic}")));
    client.sns().await.create_topic().name(format!("caudal-{topic}")).send().await.unwrap();
    assert!(said().await.contains("aws sns subscribe --topic-arn"));
    client.subscribe(&topic, &queue).await;
    broker.publish(&topic, messages(0..3)).await.unwrap();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    assert_eq!(sorted(bare(take(&mut *subscription, 3).await)), sorted(messages(0..3)));
}

/// The queue's own limit, and what to do about it.
pub(crate) async fn says_how_large_a_message_may_be(road: Road) {
    let client = Client::of(&road.url());
    let (topic, name) = (fresh("size"), format!("size-{}", Uuid::now_v7().simple()));
    let url = client.create_queue(&name).await;
    client.set(&url, QueueAttributeName::MaximumMessageSize, "2048").await;
    let mut config = RemoteConfig { create: false, ..RemoteConfig::new(road.url()) };
    config.places.insert(topic.clone(), Place { publish: Some(url), consume: None });
    let broker = SqsBroker::open(config).await.unwrap();
    let large = Message { body: Bytes::from(vec![b'x'; 2000]), ..message(1) };
    match broker.publish(&topic, vec![message(0), large]).await {
        Err(BrokerError::Refused(text)) => {
            assert!(text.contains("takes 2048") && text.contains("MaximumMessageSize=1048576"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(broker.topic_state(&topic, "store").await.unwrap().waiting, Some(0), "nothing of the call went out");
    // Ten of 1,500 bytes exceed a batch of 2,048: each travels alone.
    let many: Vec<Message> =
        (0..10).map(|number| Message { body: Bytes::from(vec![b'x'; 1500]), ..message(number) }).collect();
    broker.publish(&topic, many).await.unwrap();
    assert_eq!(broker.topic_state(&topic, "store").await.unwrap().waiting, Some(10));
}
