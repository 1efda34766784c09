//! Losses in a stream, deliveries that are out for long, and readers that die.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{consumer, stream};
use caudal_broker::{Place, RemoteConfig};
use caudal_core::ports::Broker;
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Reader, bare, messages};
use caudal_testkit::nats;

use super::{broker, client, config, fresh, open, publish};

/// Messages that a limit removed before they were read are counted, right before the next.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_limit_removed_is_missing() {
    let server = nats::shared().expect("a server");
    let topic = fresh("limited");
    let jetstream = client(&server.url()).await;
    let (name, subject) = (format!("LIMITED-{topic}"), format!("limited.{topic}"));
    let limited = stream::Config { name, subjects: vec![subject.clone()], max_messages: 10, ..Default::default() };
    jetstream.create_stream(limited).await.expect("a stream");
    let mut config = config(server.url());
    config.places.insert(topic.clone(), Place { publish: Some(subject), consume: None });
    let first = broker(config.clone()).await;
    first.publish(&topic, messages(0..4)).await.expect("publish works");
    let mut reader = Reader::fresh(&first, &topic).await;
    assert_eq!(reader.take(4).await, messages(0..4));
    drop(reader);
    first.close().await.expect("close works");
    // Nobody reads: of these twenty the stream keeps ten.
    let broker = broker(config).await;
    broker.publish(&topic, messages(4..24)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(10).await;
    let missing: Vec<u64> = deliveries.iter().map(|delivery| delivery.missing).collect();
    assert_eq!(missing, [10, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    reader.settle(&deliveries).await;
    assert_eq!(bare(deliveries), messages(14..24));
}

/// A message that an administrator removed in the middle, and one that comes again, which is not missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_removed_in_the_middle_is_missing() {
    let server = nats::shared().expect("a server");
    let topic = fresh("holed");
    let broker = open(server.url()).await;
    broker.publish(&topic, messages(0..10)).await.expect("publish works");
    let stream = client(&server.url()).await.get_stream(format!("caudal-{topic}")).await.expect("a stream");
    stream.delete_message(4).await.expect("message 3 is removed");
    stream.delete_message(5).await.expect("message 4 is removed");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(8).await;
    assert_eq!(deliveries.iter().map(|d| d.missing).collect::<Vec<_>>(), [0, 0, 0, 2, 0, 0, 0, 0]);
    drop(reader);
    let mut reader = Reader::fresh(&broker, &topic).await;
    let again = reader.receive(8).await;
    assert!(again.iter().all(|delivery| delivery.missing == 0 && delivery.attempt == 2), "{:?}", again[3]);
}

async fn impatient(topic: &TopicName) -> RemoteConfig {
    let server = nats::shared().expect("a server");
    open(server.url()).await.publish(topic, messages(0..5)).await.expect("publish works");
    let impatient = consumer::pull::Config {
        durable_name: Some("impatient".into()),
        ack_wait: Duration::from_secs(1),
        ..Default::default()
    };
    let jetstream = client(&server.url()).await;
    jetstream.create_consumer_on_stream(impatient, format!("caudal-{topic}")).await.expect("a consumer");
    let mut config = config(server.url());
    config.places.insert(topic.clone(), Place { publish: None, consume: Some("impatient".into()) });
    config
}

/// A store that takes long must not make the server hand the same messages to others.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_worked_on_does_not_come_again() {
    let topic = fresh("slow");
    let broker = broker(impatient(&topic).await).await;
    let mut slow = Reader::fresh(&broker, &topic).await;
    // Some are handed out, the others wait for the worker.
    let deliveries = slow.receive(2).await;
    let mut other = Reader::fresh(&broker, &topic).await;
    let stolen = tokio::time::timeout(Duration::from_secs(4), other.subscription.receive(10, usize::MAX)).await;
    assert!(stolen.is_err(), "{stolen:?}");
    slow.settle(&deliveries).await;
    slow.take(3).await;
}

/// A process that dies gives nothing back; the server notices by itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_had_comes_again() {
    let topic = fresh("dead");
    let config = impatient(&topic).await;
    let (dying, of_topic) = (config.clone(), topic.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let broker = broker(dying).await;
            let mut reader = Reader::fresh(&broker, &of_topic).await;
            assert_eq!(reader.receive(5).await.len(), 5);
            // Its tasks end with the runtime and say no farewell.
            std::mem::forget(reader);
        });
        runtime.shutdown_background();
    })
    .join()
    .expect("the process dies");
    let begun = Instant::now();
    let broker = broker(config).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let again = reader.receive(5).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    assert_eq!(bare(again), messages(0..5));
}

/// Large messages come although they are more than is asked for at once.
#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_than_are_asked_for_at_once() {
    let topic = fresh("heavy");
    let broker: Arc<dyn Broker> = open(nats::shared().expect("a server").url()).await;
    let body = bytes::Bytes::from(vec![b'1'; 3 * 1024 * 1024]);
    let heavy = |numbers| -> Vec<_> {
        messages(numbers).into_iter().map(|m| caudal_core::message::Message { body: body.clone(), ..m }).collect()
    };
    broker.publish(&topic, heavy(0..12)).await.expect("publish works");
    let got = Reader::fresh(&broker, &topic).await.take(12).await;
    assert!(got == heavy(0..12));
}

/// A consumer whose bound in bytes is below its next message still gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_bound_of_its_consumer() {
    let server = nats::shared().expect("a server");
    let topic = fresh("narrow");
    open(server.url()).await.publish(&topic, Vec::new()).await.expect("nothing is published");
    let broker = open(server.url()).await;
    broker.publish(&topic, messages(0..1)).await.expect("publish works");
    let jetstream = client(&server.url()).await;
    let narrow = consumer::pull::Config { durable_name: Some("narrow".into()), max_bytes: 1000, ..Default::default() };
    jetstream.create_consumer_on_stream(narrow, format!("caudal-{topic}")).await.expect("a consumer");
    let large = format!("\"{}\"", "x".repeat(5000));
    publish(&jetstream, &format!("caudal.{topic}"), HeaderMap::new(), large).await;
    broker.publish(&topic, messages(1..2)).await.expect("publish works");
    let mut config = config(server.url());
    config.places.insert(topic.clone(), Place { publish: None, consume: Some("narrow".into()) });
    let broker = super::broker(config).await;
    let sizes: Vec<_> = Reader::fresh(&broker, &topic).await.take(3).await.into_iter().map(|m| m.body.len()).collect();
    assert_eq!(sizes[1], 5002, "{sizes:?}");
}

/// What another client wrote as bytes, without a look at them.
async fn publish_raw(subject: &str, headers: &[u8], body: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let url = nats::shared().expect("a server").url();
    let mut stream = tokio::net::TcpStream::connect(url.trim_start_matches("nats://")).await.expect("it connects");
    let line = format!("HPUB {subject} {} {}\r\n", headers.len(), headers.len() + body.len());
    let connect = &b"CONNECT {\"verbose\":false,\"headers\":true}\r\n"[..];
    stream.write_all(&[connect, line.as_bytes(), headers, body, b"\r\nPING\r\n"].concat()).await.expect("it is sent");
    let mut said = Vec::new();
    while !said.ends_with(b"PONG\r\n") {
        assert!(stream.read_buf(&mut said).await.expect("the server answers") > 0);
    }
}

/// Headers that no client can read stop nobody: the message is set aside, and what is behind it arrives.
#[tokio::test(flavor = "multi_thread")]
async fn unreadable_headers() {
    let topic = fresh("unreadable");
    let subject = format!("caudal.{topic}");
    let broker = open(nats::shared().expect("a server").url()).await;
    broker.publish(&topic, messages(0..3)).await.expect("publish works");
    publish_raw(&subject, b"NATS/1.0\r\nx: \xff\r\n\r\n", b"one").await;
    broker.publish(&topic, messages(3..6)).await.expect("publish works");
    publish_raw(&subject, b"NATS/1.0\r\nno colon\r\n\r\n", b"two").await;
    publish_raw(&subject, b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b"a message all the same").await;
    broker.publish(&topic, messages(6..9)).await.expect("publish works");
    let begun = Instant::now();
    let (mut readable, mut faults) = (Vec::new(), Vec::new());
    let mut reader = Reader::fresh(&broker, &topic).await;
    while readable.len() + faults.len() < 12 {
        assert!(begun.elapsed() < Duration::from_secs(45), "{} and {}", readable.len(), faults.len());
        let Ok(some) = reader.subscription.receive(100, usize::MAX).await else {
            // As the worker does.
            tokio::time::sleep(Duration::from_millis(500)).await;
            reader = Reader::fresh(&broker, &topic).await;
            continue;
        };
        if reader.subscription.ack(&caudal_testkit::broker::marks(&some)).await.is_err() {
            continue;
        }
        for delivery in some {
            match delivery.fault {
                Some(_) => faults.push(delivery.message),
                None if !readable.contains(&delivery.message) => readable.push(delivery.message),
                None => {}
            }
        }
    }
    let faults: Vec<_> = faults.iter().map(|m| (&m.body[..], m.key.as_deref().unwrap_or_default())).collect();
    assert!(
        matches!(faults[..], [(b"one", one), (b"two", two)] if one.ends_with(":4") && two.ends_with(":8")),
        "{faults:?}"
    );
    assert!(readable.iter().any(|message| message.body == "a message all the same"));
    println!("all came after {:?}", begun.elapsed());
}
