//! What a confirmation is worth, by the server's real settings.

use caudal_core::message::Durability;
use caudal_testkit::redis::Redis;

use super::{open, sentence};

#[tokio::test(flavor = "multi_thread")]
async fn classes_of_real_servers() {
    for (settings, class, says) in [
        ("", Durability::Power, "appendfsync always"),
        ("appendfsync everysec", Durability::Process, "up to a second"),
        ("appendfsync no", Durability::Process, "appendfsync no"),
        ("no-appendfsync-on-rewrite yes", Durability::Process, "no-appendfsync-on-rewrite no"),
        ("appendonly no", Durability::Unknown, "append-only file"),
        ("maxmemory 1gb\nmaxmemory-policy allkeys-lru", Durability::Unknown, "noeviction"),
        ("rename-command CONFIG \"\"", Durability::Unknown, "does not let Caudal read its settings"),
        ("user default on nopass ~* +@all -config", Durability::Unknown, "+config|get"),
    ] {
        let server = Redis::with(settings).expect("a server");
        let probe = open(server.url()).await.probe(&[]).await.expect("probe works");
        assert_eq!(probe.durability, class, "{settings}: {probe:?}");
        assert!(probe.reasons[0].contains(says), "{settings}: {probe:?}");
        assert!(probe.product.starts_with("Redis "), "{probe:?}");
    }
}

/// A replica takes no writes, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn replicas() {
    let primary = Redis::start().expect("a server");
    let port = primary.url().rsplit(':').next().map(str::to_owned).expect("a port");
    let replica = Redis::with(&format!("replicaof 127.0.0.1 {port}")).expect("a server");
    let deadline = std::time::Instant::now() + caudal_testkit::broker::PATIENCE;
    loop {
        let probe = open(primary.url()).await.probe(&[]).await.expect("probe works");
        if probe.reasons.iter().any(|reason| reason.contains("1 replicas") && reason.contains("WAIT")) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{probe:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let refused =
        open(replica.url()).await.publish(&super::fresh("replica"), caudal_testkit::broker::messages(0..1)).await;
    assert!(matches!(refused, Err(caudal_core::error::BrokerError::Unavailable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_full_is_said_so() {
    let server = Redis::with("maxmemory 3mb\nmaxmemory-policy noeviction").expect("a server");
    let broker = open(server.url()).await;
    let topic = super::fresh("full");
    for round in 0.. {
        let messages = caudal_testkit::broker::messages(round * 1000..(round + 1) * 1000);
        match broker.publish(&topic, messages).await {
            Ok(()) => assert!(round < 1000, "it never fills"),
            Err(caudal_core::error::BrokerError::Full(cause)) => {
                assert!(cause.to_string().contains("OOM"), "{cause}");
                break;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_kind_is_named() {
    let server = caudal_testkit::redis::shared().expect("a server");
    let topic = super::fresh("string");
    let _: () = super::ask(&server.url(), redis::cmd("SET").arg(super::key(&topic)).arg("text")).await;
    let refused = sentence(open(server.url()).await.publish(&topic, caudal_testkit::broker::messages(0..1)).await);
    assert!(refused.contains(&super::key(&topic)) && refused.contains("publish_to"), "{refused}");
}
