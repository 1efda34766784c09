//! What a confirmation is worth, by the server's real settings.

use async_nats::jetstream::stream::{self, StorageType};
use caudal_broker::Place;
use caudal_core::message::Durability;
use caudal_testkit::broker::messages;
use caudal_testkit::nats;

use super::{broker, client, config, fresh, open};

#[tokio::test(flavor = "multi_thread")]
async fn one_server_survives_its_process() {
    let server = nats::shared().expect("a server");
    let topic = fresh("worth");
    for url in [server.url(), format!("{}?monitoring={}", server.url(), server.monitoring())] {
        let broker = open(url).await;
        broker.publish(&topic, messages(0..1)).await.expect("publish works");
        let probe = broker.probe(std::slice::from_ref(&topic)).await.expect("probe works");
        assert_eq!(probe.durability, Durability::Process, "{probe:?}");
        assert!(probe.product.starts_with("NATS 2."), "{probe:?}");
        assert!(probe.reasons[0].contains("3 replicas") || probe.reasons[0].contains("2 minutes"), "{probe:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_survives_nothing() {
    let server = nats::shared().expect("a server");
    let (kept, volatile) = (fresh("kept"), fresh("volatile"));
    let subject = format!("elsewhere.{volatile}");
    let config_of = stream::Config {
        name: format!("memory-{volatile}"),
        subjects: vec![subject.clone()],
        storage: StorageType::Memory,
        ..Default::default()
    };
    client(&server.url()).await.create_stream(config_of).await.expect("a stream");
    let mut config = config(server.url());
    config.places.insert(volatile.clone(), Place { publish: Some(subject), consume: None });
    let broker = broker(config).await;
    let probe = broker.probe(&[kept, volatile]).await.expect("probe works");
    assert_eq!(probe.durability, Durability::Unknown, "the worst of all topics counts: {probe:?}");
    assert!(probe.reasons[1].contains("in memory"), "{probe:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitoring_page_that_does_not_answer_is_said() {
    let server = nats::shared().expect("a server");
    let port = caudal_testkit::server::free_port().expect("a port");
    let broker = open(format!("{}?monitoring=http://127.0.0.1:{port}", server.url())).await;
    let probe = broker.probe(&[fresh("worth")]).await.expect("probe works");
    assert_eq!(probe.durability, Durability::Process);
    // A server before 2.10 has nothing to tell there.
    assert!(probe.reasons[0].contains(&port.to_string()) || probe.product.starts_with("NATS 2.9"), "{probe:?}");
}
