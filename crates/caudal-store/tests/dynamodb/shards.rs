//! A lane over many shards, several processes, and deaths between two writes.

use std::collections::HashSet;
use std::time::Duration;

use caudal_core::confirm::ports::{Beat, Claim, Confirm, OperateConfirmations};
use caudal_core::confirm::{Rank, State};
use caudal_testkit::confirm::{
    Doing, Harness, LONG, claim, confirmed, finish, ids, ids_of, item, part, retry, sorted, worker,
};

use crate::Dynamo;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_of_many_shards_is_claimed_once_and_whole() {
    let d = Dynamo::open(16).await;
    let (lane, all) = (d.lane("default").await, ids(120));
    d.enqueue(lane, &all).await;
    assert_eq!(d.ready(lane).await, [(lane, Rank::Usual)]);
    let mut workers = Vec::new();
    for name in ["a", "b", "c"] {
        let store = d.another().await;
        workers.push(tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(batch) = store.claim_as(Claim { items_max: 5, worker: worker(name), ..claim(lane) }).await {
                store.call(&batch, LONG).await;
                assert_eq!(store.finish(finish(&batch, &confirmed())).await.facts, batch.items.len() as u64);
                taken.extend(ids_of(&batch));
            }
            taken
        }));
    }
    let mut taken = Vec::new();
    for worker in workers {
        taken.extend(worker.await.unwrap());
    }
    // Outrun in every shard, all three may have ended early.
    while let Some(batch) = d.store().claim_as(claim(lane)).await {
        d.store().finish(finish(&batch, &confirmed())).await;
        taken.extend(ids_of(&batch));
    }
    assert_eq!(sorted(taken), sorted(all.clone()));
    let status = d.store().status("default").await;
    assert_eq!((status.enqueued, status.confirmed), (120, 120));
    d.store().assert_sound().await;
    assert_eq!(d.raw.leftovers(lane, 16).await, 0, "no lease and no batch is left behind");
    assert!(d.ready(lane).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_due_needs_no_promotion() {
    let d = Dynamo::open(4).await;
    let (store, lane, all) = (d.store(), d.lane("default").await, ids(12));
    d.enqueue(lane, &all).await;
    while let Some(batch) = store.claim_as(claim(lane)).await {
        store.call(&batch, LONG).await;
        store.finish(finish(&batch, &retry(Duration::ZERO, true))).await;
        if store.status("default").await.pending == 12 && batch.items[0].attempts > 0 {
            break;
        }
    }
    let beat = Beat { worker: worker("a"), ttl: LONG, lanes: vec![lane], promote_max: 1, thorough: true };
    let beaten = store.beat(&beat).await.unwrap();
    assert_eq!((beaten.promoted, beaten.places().as_slice()), (0, &[(lane, Rank::Usual)][..]));
    assert_eq!(store.status("default").await.pending, 12);
    store.assert_sound().await;
}

/// Suspects of all shards wait in one queue, and each is claimed under its own shard's lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspects_of_all_shards_are_found() {
    let d = Dynamo::open(8).await;
    let (store, lane, all) = (d.store(), d.lane("default").await, ids(16));
    d.enqueue(lane, &all).await;
    while let Some(batch) = store.claim_as(claim(lane)).await {
        store.call(&batch, d.ttl()).await;
    }
    for id in &all {
        store.until(lane, *id, State::Doubt).await;
    }
    assert_eq!(d.ready(lane).await, [(lane, Rank::Suspect)]);
    let mut found = HashSet::new();
    while let Some(batch) = store.claim_as(Claim { rank: Rank::Suspect, items_max: 3, ..claim(lane) }).await {
        found.extend(ids_of(&batch));
    }
    assert_eq!(found.len(), 16);
    store.assert_sound().await;
}

/// Whoever puts the items of a lapsed lease back may die after having declared it so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapse_that_was_begun_is_finished_by_the_next_beat() {
    let d = Dynamo::open(1).await;
    let (store, lane, all) = (d.store(), d.lane("default").await, ids(3));
    d.enqueue(lane, &all).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    store.finish(part(&batch.lease, &[(item(&batch, all[0]), confirmed())])).await;
    let expression = "SET leases.#n.ph = :v";
    let update = d.raw.client.update_item().table_name(&d.raw.table).update_expression(expression);
    let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let update = update.key("pk", text(&format!("LEASE#{lane}#0"))).key("sk", text("HEAD"));
    let update = update.expression_attribute_names("#n", batch.lease.number.to_string());
    update.expression_attribute_values(":v", text("lapsed-calling")).send().await.unwrap();
    assert!(
        !store.extend(std::slice::from_ref(&batch.lease), LONG).await.unwrap()[0],
        "it cannot be prolonged any more"
    );
    assert_eq!(store.look(all[1]).await.attempts, 0);
    assert!(store.claim_as(claim(lane)).await.is_none(), "not put back yet");
    assert_eq!(store.beat_as("b", &[lane]).await.lapsed, 1);
    for id in &all[1..] {
        let now = store.look(*id).await;
        assert_eq!((now.state, now.attempts, now.crashes), (State::Doubt, 1, 1));
    }
    assert_eq!(store.look(all[0]).await.state, State::Confirmed);
    assert_eq!(store.beat_as("b", &[lane]).await.lapsed, 0);
    store.assert_sound().await;
}

/// The number of a lane's shards says where its leases are, so it never changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_keeps_its_shards() {
    let d = Dynamo::open(3).await;
    let (lane, all) = (d.lane("default").await, ids(9));
    d.enqueue(lane, &all).await;
    let other = caudal_store::dynamodb::DynamoStore::open(&d.url.replace("shards=3", "shards=7")).await.unwrap();
    assert_eq!(other.ensure_lanes(&[crate::spec("payments", "default")]).await.unwrap(), [lane]);
    let mut found = Vec::new();
    while let Some(batch) = other.claim(&claim(lane)).await.unwrap() {
        found.extend(ids_of(&batch));
        assert!(d.store.begin_calls(&batch.lease, LONG).await.unwrap());
    }
    assert_eq!(sorted(found), sorted(all));
    assert_eq!(other.lanes().await.unwrap()[0].calling, 9);
}
