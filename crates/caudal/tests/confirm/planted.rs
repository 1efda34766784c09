//! Bugs that are planted for the oracle to find: if it finds nothing, it would find nothing real either.

use std::time::Duration;

use caudal_testkit::endpoint::Behaviour;

use crate::fleet::{Fleet, Store};
use crate::on_all_stores;

on_all_stores!(
    a_mark_before_the_answer_is_noticed,
    a_resend_after_retention_is_noticed,
    calls_without_a_fence_are_noticed,
);

async fn a_mark_before_the_answer_is_noticed(store: Store) {
    let behaviour = Behaviour { declines: 0.5, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, "").await;
    fleet.enqueue(40).await;
    fleet.worker_env("CAUDAL_PLANT", "mark-before-answer");
    fleet.worker();
    fleet.settled().await;
    let wrong = fleet.judge().await.expect_err("declined transactions are confirmed");
    assert!(wrong.contains("confirmed"), "{wrong}");
}

async fn a_resend_after_retention_is_noticed(store: Store) {
    let behaviour =
        Behaviour { drops_after: 0.7, retention_ms: Some(500), answers_probes: false, ..Behaviour::default() };
    let settings = "key_retention = \"500ms\"\nbackoff = \"1s\"\nbackoff_max = \"1s\"\nbreaker_failures = 0";
    let mut fleet = Fleet::start(store, behaviour, settings).await;
    fleet.enqueue(40).await;
    fleet.worker_env("CAUDAL_PLANT", "resend-after-retention");
    fleet.worker();
    fleet.settled().await;
    assert!(fleet.endpoint.totals().doubles > 0, "{:?}", fleet.endpoint.totals());
    fleet.judge().await.expect_err("something was done twice");
}

/// A worker sleeps between its claim and its calls, and calls all the same when it wakes up.
async fn calls_without_a_fence_are_noticed(store: Store) {
    let slow = Behaviour { honours_keys: false, delays: 1.0, delay_ms: 50, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, slow, "concurrency = 2\nprobe_url = \"${endpoint}/payments/${key}\"").await;
    fleet.enqueue(40).await;
    fleet.worker_env("CAUDAL_PLANT", "fence-off");
    fleet.worker();
    fleet.reach(&["calling"], 1).await;
    fleet.workers[0].freeze().unwrap();
    fleet.clear_worker_env();
    fleet.worker();
    tokio::time::sleep(fleet.lapse()).await;
    fleet.workers[0].thaw().unwrap();
    fleet.settled().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(fleet.endpoint.totals().doubles > 0, "{:?}", fleet.endpoint.totals());
    fleet.judge().await.expect_err("something was done twice");
}
