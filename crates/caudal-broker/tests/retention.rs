//! What retention takes, and what it never does.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::path::Path;
use std::time::Duration;

use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig, LogState, LogSubscription};
use caudal_core::ports::{Broker, Publish};
use caudal_testkit::broker::{messages, next, receive, topic};

fn config() -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: 4096,
        retention_age: Duration::ZERO,
        retention_every: Duration::from_millis(10),
        subscriptions: vec!["store".to_owned(), "audit".to_owned()],
        ..EmbeddedConfig::default()
    }
}

async fn open(dir: &Path, config: EmbeddedConfig) -> EmbeddedBroker {
    EmbeddedBroker::open(dir, config).await.expect("it opens")
}

/// The topic once its sweeps have come to rest: each segment that goes costs an fsync, which a busy disk draws out.
async fn state(broker: &EmbeddedBroker) -> LogState {
    let now = async || broker.log_state(&topic("t")).expect("the topic is known");
    let mut seen = now().await;
    let mut unchanged = 0;
    while unchanged < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let later = now().await;
        unchanged = if later == seen { unchanged + 1 } else { 0 };
        seen = later;
    }
    seen
}

async fn filled(broker: &EmbeddedBroker) -> (LogSubscription, LogSubscription) {
    for start in (0..400).step_by(4) {
        broker.publish(&topic("t"), messages(start..start + 4)).await.expect("publish works");
    }
    let store = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
    let audit = broker.open_subscription(&topic("t"), "audit").await.expect("subscribe works");
    (store, audit)
}

#[tokio::test]
async fn segments_go_when_all_have_acked_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path(), config()).await;
    let (store, mut audit) = filled(&broker).await;
    let full = state(&broker).await;
    assert_eq!((full.first, full.next), (0, 400));
    store.ack_to(400).expect("ack works");
    assert_eq!(state(&broker).await, full, "audit has acked nothing");
    audit.ack_to(200).expect("ack works");
    let half = state(&broker).await;
    assert!(half.first > 100 && half.first <= 200, "the first offset is {}", half.first);
    assert_eq!(half.next, 400);
    assert!(half.bytes < full.bytes);

    audit.seek(half.first).await.expect("what is kept can be read");
    let kept = receive(&mut audit, (400 - half.first) as usize).await;
    assert_eq!(next(&kept[0]), half.first + 1);
    let gap = audit.seek(half.first - 1).await.expect_err("it is gone").to_string();
    assert!(gap.contains(&format!("starts at {}", half.first)), "{gap}");
    assert_eq!(broker.find_from(&topic("t"), 0, messages(0..1)[0].id).await.expect("find works"), None);
    broker.close().await.expect("close works");

    let broker = open(dir.path(), config()).await;
    assert_eq!(state(&broker).await, half, "after a restart nothing goes until it is acked again");
    let mut late = broker.open_subscription(&topic("t"), "store").await.expect("subscribe works");
    assert_eq!(next(&receive(&mut late, 1).await[0]), half.first + 1, "it starts where the topic does");
}

#[tokio::test]
async fn what_is_young_and_small_stays() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let keep = EmbeddedConfig { retention_age: Duration::from_secs(3600), ..config() };
    let broker = open(dir.path(), keep.clone()).await;
    let (store, audit) = filled(&broker).await;
    store.ack_to(400).expect("ack works");
    audit.ack_to(400).expect("ack works");
    let kept = state(&broker).await;
    assert_eq!(kept.first, 0);
    drop((store, audit));
    broker.close().await.expect("close works");

    let small = EmbeddedConfig { retention_bytes: 10_000, ..keep };
    let broker = open(dir.path(), small).await;
    for name in ["store", "audit"] {
        let subscription = broker.open_subscription(&topic("t"), name).await.expect("subscribe works");
        subscription.ack_to(400).expect("ack works");
    }
    let kept = state(&broker).await;
    assert!(kept.first > 0 && kept.bytes <= 10_000, "{kept:?}");
}

#[tokio::test]
async fn an_undeclared_reader_holds_segments_while_it_is_open() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path(), EmbeddedConfig { subscriptions: vec!["store".to_owned()], ..config() }).await;
    let (store, audit) = filled(&broker).await;
    store.ack_to(400).expect("ack works");
    assert_eq!(state(&broker).await.first, 0);
    drop(audit);
    assert!(state(&broker).await.first > 300);
}

#[tokio::test]
async fn without_any_subscription_nothing_goes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path(), EmbeddedConfig { subscriptions: Vec::new(), ..config() }).await;
    drop(filled(&broker).await);
    assert_eq!(state(&broker).await.first, 0);
}

#[tokio::test]
async fn a_file_that_is_gone_already_is_no_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path(), config()).await;
    let (store, audit) = filled(&broker).await;
    std::fs::remove_file(dir.path().join("t").join(format!("{:020}.log", 0))).expect("the test removes it");
    store.ack_to(400).expect("ack works");
    audit.ack_to(400).expect("ack works");
    assert!(state(&broker).await.first > 300);
    broker.publish(&topic("t"), messages(400..401)).await.expect("publish works");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_retention_overtakes_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let broker = open(dir.path(), config()).await;
    let (store, audit) = filled(&broker).await;
    let last = messages(399..400).remove(0);
    for offset in 0..=400 {
        store.ack_to(offset).expect("ack works");
        audit.ack_to(offset).expect("ack works");
        let found = broker.find_from(&topic("t"), 0, last.id).await.expect("find works");
        assert_eq!(found.as_ref(), Some(&last));
    }
}
