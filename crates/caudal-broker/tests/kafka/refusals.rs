//! What somebody must set right, in one sentence each.

use std::sync::Arc;

use caudal_broker::RemoteConfig;
use caudal_broker::kafka::KafkaBroker;
use caudal_core::error::BrokerError;
use caudal_core::ports::{Broker, Publish};
use caudal_core::topic::TopicName;
use caudal_testkit::broker::{Ledger, PATIENCE, Reader, messages, topic};
use caudal_testkit::kafka::Kafka;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::{cluster, open, open_url};

/// The mock cluster as one that refuses.
async fn refusal(api: RDKafkaApiKey, error: RDKafkaRespErr) -> (Arc<dyn Broker>, TopicName, Kafka) {
    let (kafka, topic) = cluster(1);
    kafka.with(move |cluster| cluster.request_errors(api, &[error; 20])).unwrap();
    (open(&kafka).await, topic, kafka)
}

fn sentence(error: BrokerError) -> String {
    match error {
        BrokerError::Setup(text) => text,
        other => panic!("not a matter of setup: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named() {
    use RDKafkaRespErr as Error;
    let denied = Error::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let (broker, topic, _kafka) = refusal(RDKafkaApiKey::Produce, denied).await;
    let text = sentence(broker.publish(&topic, messages(0..1)).await.unwrap_err());
    assert!(text.contains("kafka-acls.sh") && text.contains("--operation Write --topic t"), "{text}");
    let denied = Error::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    let (broker, topic, _kafka) = refusal(RDKafkaApiKey::JoinGroup, denied).await;
    let mut reader = Reader::fresh(&broker, &topic).await;
    let refused = tokio::time::timeout(PATIENCE, reader.subscription.receive(1, usize::MAX)).await.unwrap();
    let text = sentence(refused.unwrap_err());
    assert!(text.contains("--operation Read --group caudal-store-t"), "{text}");
    let denied = Error::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    let (broker, topic, _kafka) = refusal(RDKafkaApiKey::InitProducerId, denied).await;
    let text = sentence(broker.publish(&topic, messages(0..1)).await.unwrap_err());
    assert!(text.contains("IdempotentWrite"), "{text}");
    // Granted meanwhile: no restart is needed.
    _kafka.with(|cluster| cluster.clear_request_errors(RDKafkaApiKey::InitProducerId)).unwrap();
    broker.publish(&topic, messages(0..1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_cannot_sign_us_in_are_told_apart_from_brokers_that_are_away() {
    let (kafka, topic) = cluster(1);
    let url = format!("kafka://ana:secret@{}?security.protocol=sasl_plaintext", kafka.servers());
    let broker = open_url(url).await;
    let text = sentence(broker.publish(&topic, messages(0..1)).await.unwrap_err());
    assert!(text.contains("user ana") && !text.contains("secret"), "{text}");
    drop(kafka);
    let broker = open_url("kafka://127.0.0.1:9".to_owned()).await;
    let away = tokio::time::timeout(PATIENCE, broker.publish(&topic, messages(0..1))).await.unwrap();
    assert!(matches!(away, Err(BrokerError::Unavailable(_))), "{away:?}");
    let away = broker.subscribe(&topic, "store", Arc::new(Ledger::default())).await.err();
    assert!(matches!(away, Some(BrokerError::Unavailable(_))), "{away:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_explained_when_it_may_not_be_made() {
    let kafka = Kafka::start().unwrap();
    let config = RemoteConfig { create: false, ..RemoteConfig::new(format!("kafka://{}", kafka.servers())) };
    let broker = KafkaBroker::open(config).await.unwrap();
    let text = sentence(broker.publish(&topic("absent"), messages(0..1)).await.unwrap_err());
    assert!(text.contains("kafka-topics.sh") && text.contains("--create --topic absent"), "{text}");
    let unknown = broker.topic_state(&topic("absent"), "store").await;
    assert!(matches!(unknown, Err(BrokerError::UnknownTopic(_))), "{unknown:?}");
}

/// OpenSSL's test server in place of a broker: it shakes hands and then has nothing to say.
#[cfg(feature = "kafka-tls")]
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_nobody_we_know_signed_is_refused() {
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = (dir.path().join("key"), dir.path().join("certificate"));
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
    let names = ["-addext", "subjectAltName=IP:127.0.0.1"];
    let made =
        Command::new("openssl").args(new).args(names).arg("-keyout").arg(&key).arg("-out").arg(&certificate).output();
    assert!(made.expect("openssl is installed: apt-get install openssl").status.success());
    let port = caudal_testkit::server::free_port().unwrap();
    let mut server = Command::new("openssl");
    server
        .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-key"])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate);
    let mut server = server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let url = format!("kafka://ana:secret@127.0.0.1:{port}");
    let text = sentence(open_url(url.clone()).await.publish(&topic("t"), messages(0..1)).await.unwrap_err());
    assert!(text.contains("certificate") && text.contains("user ana") && !text.contains("secret"), "{text}");
    let trusting = open_url(format!("{url}?ssl.ca.location={}", certificate.display())).await;
    let silent = trusting.publish(&topic("t"), messages(0..1)).await;
    assert!(matches!(silent, Err(BrokerError::Unavailable(_))), "{silent:?}");
    server.kill().unwrap();
    server.wait().unwrap();
}
