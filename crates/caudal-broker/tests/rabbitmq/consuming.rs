//! What arrives, and how it is settled, beyond the conformance suite.

use super::*;

async fn send(topic: &TopicName, properties: BasicProperties, body: &[u8]) {
    let exchange = format!("caudal.{topic}");
    publish_foreign(&shared().unwrap().url(), &exchange, "a.key", properties, body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_message_is_named_by_its_message_id() {
    let broker = shared_broker().await;
    let topic = fresh("names");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let id = || BasicProperties::default().with_message_id("42".into());
    send(&topic, id(), b"{}").await;
    send(&topic, id().with_app_id("billing".into()).with_type("paid".into()).with_timestamp(1_700_000_000), b"{}")
        .await;
    send(&topic, BasicProperties::default(), b"{}").await;
    let deliveries = reader.receive(3).await;
    let keys: Vec<_> = deliveries.iter().map(|delivery| delivery.message.key.as_deref()).collect();
    assert_eq!(keys, [Some(&*format!("amqp:caudal.{topic}:42")), Some("amqp:billing:42"), None]);
    assert!(deliveries.iter().all(|delivery| delivery.origin == Origin::Foreign));
    let paid = &deliveries[1].message;
    assert_eq!(paid.published_at.unix_micros(), 1_700_000_000_000_000);
    assert_eq!(paid.source, format!("amqp:caudal.{topic}"));
    let attributes = String::from_utf8(paid.attributes.as_deref().unwrap().to_vec()).unwrap();
    for part in ["\"amqp-type\":\"paid\"", "\"amqp-app-id\":\"billing\"", "\"amqp-routing-key\":\"a.key\""] {
        assert!(attributes.contains(part), "{attributes}");
    }
    // What RabbitMQ adds on the way back is not part of the message.
    let before = bare(deliveries);
    drop(reader);
    let again = Reader::fresh(&broker, &topic).await.receive(3).await;
    assert!(again.iter().all(|delivery| delivery.attempt == 2));
    let again = bare(again);
    assert_eq!(
        again[..2].iter().map(|m| &m.attributes).collect::<Vec<_>>(),
        before[..2].iter().map(|m| &m.attributes).collect::<Vec<_>>()
    );
    assert_eq!(
        again[..2].iter().map(|m| &m.key).collect::<Vec<_>>(),
        before[..2].iter().map(|m| &m.key).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_every_type_travel_as_text() {
    let broker = shared_broker().await;
    let topic = fresh("types");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let mut inner = FieldTable::default();
    inner.insert("deep".into(), AMQPValue::LongInt(-7));
    let mut table = FieldTable::default();
    for (name, value) in [
        ("bool", AMQPValue::Boolean(true)),
        ("int", AMQPValue::LongLongInt(i64::MIN)),
        ("double", AMQPValue::Double(0.5)),
        ("nested", AMQPValue::FieldTable(inner)),
        ("list", AMQPValue::FieldArray(vec![AMQPValue::LongString("a".into()), AMQPValue::Void].into())),
    ] {
        table.insert(name.into(), value);
    }
    send(&topic, BasicProperties::default().with_headers(table), b"{}").await;
    let delivery = reader.receive(1).await.remove(0);
    let attributes: serde_json::Value =
        serde_json::from_slice(delivery.message.attributes.as_deref().unwrap()).unwrap();
    assert_eq!(attributes["bool"], "true");
    assert_eq!(attributes["int"], i64::MIN.to_string());
    assert_eq!(attributes["double"], "0.5");
    assert_eq!(attributes["nested"], "{\"deep\":-7}");
    assert_eq!(attributes["list"], "[\"a\",null]");
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_are_taken_apart() {
    let broker = shared_broker().await;
    let topic = fresh("events");
    let mut reader = Reader::fresh(&broker, &topic).await;
    for prefix in ["cloudEvents:", "cloudEvents_"] {
        let mut table = FieldTable::default();
        for (name, value) in [("specversion", "1.0"), ("id", "7"), ("source", "/orders"), ("type", "made")] {
            table.insert(format!("{prefix}{name}").into(), AMQPValue::LongString(value.into()));
        }
        let properties = BasicProperties::default().with_headers(table).with_content_type("application/json".into());
        send(&topic, properties, b"{\"n\":1}").await;
    }
    let structured = br#"{"specversion":"1.0","id":"8","source":"/orders","type":"made","data":{"n":2}}"#;
    let properties = BasicProperties::default().with_content_type("application/cloudevents+json; charset=utf-8".into());
    send(&topic, properties, structured).await;
    let deliveries = reader.receive(3).await;
    assert!(deliveries.iter().all(|delivery| delivery.fault.is_none() && delivery.message.key.is_some()));
    assert_eq!(deliveries[0].message.key, deliveries[1].message.key, "the same event in both spellings");
    let bodies: Vec<_> = deliveries.iter().map(|delivery| &delivery.message.body[..]).collect();
    assert_eq!(bodies, [&b"{\"n\":1}"[..], b"{\"n\":1}", b"{\"n\":2}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_and_an_exchange_of_others_are_used_as_they_are() {
    let topic = fresh("theirs");
    let queue = format!("{topic}.in");
    declare(&queue, &[("x-queue-type", "classic")]).await;
    bind(&queue, "amq.topic", "orders.#").await;
    let theirs = broker(placed(&topic, Some("amq.topic/orders.made"), Some(&queue))).await;
    let mut reader = Reader::fresh(&theirs, &topic).await;
    theirs.publish(&topic, messages(0..5)).await.unwrap();
    let deliveries = reader.receive(5).await;
    assert_eq!(bare(deliveries.clone()), messages(0..5));
    // A classic queue knows only whether it handed a message over before.
    reader.subscription.nack(&marks(&deliveries), Duration::ZERO).await.unwrap();
    assert!(reader.receive(5).await.iter().all(|delivery| delivery.attempt == 2));
    let missing = broker(placed(&topic, None, Some("no-such-queue"))).await;
    assert!(setup(refused(&missing, &topic).await).contains("no queue \"no-such-queue\""));
    // The topic's own exchange feeds a queue of others.
    let fed = broker(placed(&topic, None, Some(&queue))).await;
    fed.publish(&topic, messages(5..6)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_in_any_order_settle_what_they_name() {
    let broker = shared_broker().await;
    let topic = fresh("acks");
    broker.publish(&topic, messages(0..1000)).await.unwrap();
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(1000).await;
    let (mut odd, even): (Vec<_>, Vec<_>) = deliveries.into_iter().enumerate().partition(|(index, _)| index % 2 == 1);
    odd.reverse();
    let odd: Vec<_> = odd.into_iter().map(|(_, delivery)| delivery).collect();
    reader.settle(&odd).await;
    reader.subscription.ack(&Marks { tags: vec![5000], ..Marks::default() }).await.expect("nobody has it");
    drop(reader);
    let again = Reader::fresh(&broker, &topic).await.take(500).await;
    assert!(again == bare(even.into_iter().map(|(_, delivery)| delivery).collect()), "in order");
}

/// The prefetch follows the size of messages while they flow; their order and what is out stay.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_changing_size_keep_their_order() {
    let broker = shared_broker().await;
    let topic = fresh("sizes");
    let sized = |number: u64| Message {
        body: Bytes::from("x".repeat([20, 200_000, 100][(number / 2000 % 3) as usize])),
        ..message(number)
    };
    let mut sent = Vec::new();
    for start in [0, 1500, 2000, 4000] {
        let some: Vec<Message> = (start..start + 150).map(sized).collect();
        broker.publish(&topic, some.clone()).await.unwrap();
        sent.extend(some);
    }
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(sent.len()).await;
    assert!(deliveries.iter().all(|delivery| delivery.attempt == 1));
    reader.settle(&deliveries).await;
    assert!(bare(deliveries) == sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_ends_the_subscription_and_is_made_again() {
    let broker = shared_broker().await;
    let topic = fresh("deleted");
    let mut reader = Reader::fresh(&broker, &topic).await;
    shared().unwrap().control(&["delete_queue", &format!("caudal.{topic}.store")]).unwrap();
    let received = tokio::time::timeout(Duration::from_secs(10), reader.subscription.receive(1, usize::MAX)).await;
    assert!(unavailable(received.unwrap()).contains("was deleted"));
    let mut reader = Reader::fresh(&broker, &topic).await;
    broker.publish(&topic, messages(0..1)).await.unwrap();
    assert_eq!(reader.take(1).await, messages(0..1));
}

/// Messages that are much larger than those before would fill the memory with a prefetch that was right for small ones.
#[tokio::test(flavor = "multi_thread")]
async fn large_messages_after_small_ones_are_bounded_and_all_come() {
    let broker = shared_broker().await;
    let topic = fresh("overrun");
    broker.publish(&topic, messages(0..500)).await.unwrap();
    let mut reader = Reader::fresh(&broker, &topic).await;
    assert!(reader.take(500).await == messages(0..500));
    let large = |number| Message { body: Bytes::from(vec![b'x'; 1024 * 1024]), ..message(number) };
    for number in 500..600 {
        broker.publish(&topic, vec![large(number)]).await.unwrap();
    }
    // Nobody received meanwhile, and nobody settled.
    let text = unavailable(reader.subscription.receive(1000, usize::MAX).await);
    assert!(text.contains("more than fit"), "{text}");
    let mut reader = Reader::fresh(&broker, &topic).await;
    assert!(reader.take(100).await == (500..600).map(large).collect::<Vec<_>>(), "all of them, in order");
}
