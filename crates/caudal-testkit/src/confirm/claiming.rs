//! Lanes, claims, leases, workers.

use std::time::Duration;

use caudal_core::confirm::ports::{Claim, LaneSpec, Records};
use caudal_core::confirm::{Rank, State};
use caudal_core::schema::RecordSchema;
use futures_util::StreamExt;

use super::{Doing, Harness, LONG, TOPIC, claim, confirmed, finish, ids, ids_of, sorted, topic, worker};

pub async fn lanes_keep_their_numbers(h: &impl Harness) {
    let (one, two) = (h.lane("default").await, h.lane("urgent").await);
    let elsewhere = h.lane_of("refunds", "default").await;
    assert!(one != two && one != elsewhere && two != elsewhere);
    let records = Records::Topic(RecordSchema::untyped(TOPIC, false).table);
    let spec = |name: &str| LaneSpec { topic: topic(), name: name.into(), records: records.clone() };
    let again = h.another().await.ensure_lanes(&[spec("urgent"), spec("default")]).await.expect("lanes");
    assert_eq!(again, [two, one], "known lanes keep their numbers, and come in the order asked for");
}

pub async fn items_come_oldest_first_and_whole(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    assert!(store.claim_as(claim(lane)).await.is_none());
    let ids = ids(5);
    for id in &ids {
        h.enqueue(lane, &[*id]).await;
    }
    let first = store.claim_as(Claim { items_max: 2, ..claim(lane) }).await.expect("a batch");
    assert_eq!(ids_of(&first), ids[..2], "the oldest first, and no more than asked for");
    let rest = store.take(lane).await;
    assert_eq!(ids_of(&rest), ids[2..]);
    assert!(store.claim_as(claim(lane)).await.is_none());
    assert_eq!((first.lease.lane, &*first.lease.worker), (lane, "a"));
    for item in first.items.iter().chain(&rest.items) {
        assert_eq!((item.attempts, item.crashes, item.doubt, item.first_sent), (0, 0, false, None));
        assert!(item.since <= item.claimed, "{item:?}");
        let record: serde_json::Value = serde_json::from_slice(&item.record).expect("a record is JSON");
        assert_eq!(record["_id"], item.id.to_string(), "{record}");
    }
    assert_eq!(store.look(ids[0]).await.state, State::Leased);
    store.assert_sound().await;
}

pub async fn nothing_is_claimed_twice(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(200);
    h.enqueue(lane, &ids).await;
    let workers = ["a", "b", "c", "d"].map(|name| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            let mut numbers = Vec::new();
            let mut misses = 0;
            // Others may have locked what is there for a moment, so one empty answer says little.
            while misses < 3 {
                let asked = Claim { items_max: 7, worker: worker(name), ..claim(lane) };
                match store.claim_as(asked).await {
                    Some(batch) => {
                        numbers.push(batch.lease.number);
                        taken.extend(ids_of(&batch));
                    }
                    None => misses += 1,
                }
            }
            (taken, numbers)
        })
    });
    let (mut taken, mut numbers) = (Vec::new(), Vec::new());
    for worker in workers {
        let (some, leases) = worker.await.expect("worker");
        taken.extend(some);
        numbers.extend(leases);
    }
    assert_eq!(sorted(taken), sorted(ids), "everything once");
    let leases = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), leases, "no lease's number is used twice");
}

pub async fn the_watermark_skips_only_what_is_taken(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(6);
    h.enqueue(lane, &ids[..4]).await;
    let first = store.claim_as(Claim { items_max: 2, ..claim(lane) }).await.expect("a batch");
    let second = store.claim_as(Claim { from: first.watermark, items_max: 2, ..claim(lane) }).await.expect("a batch");
    assert_eq!(ids_of(&second), ids[2..4]);
    assert!(store.claim_as(Claim { from: second.watermark, ..claim(lane) }).await.is_none());
    h.enqueue(lane, &ids[4..]).await;
    let third = store.claim_as(Claim { from: second.watermark, ..claim(lane) }).await.expect("a batch");
    assert_eq!(ids_of(&third), ids[4..]);
    store.finish(finish(&first, &caudal_core::confirm::Mark::Release)).await;
    let swept = store.claim_as(Claim { from: 0, ..claim(lane) }).await.expect("a sweep finds all");
    assert_eq!(sorted(ids_of(&swept)), ids[..2]);
}

pub async fn paused_lanes_give_nothing(h: &impl Harness) {
    let (store, lane, other) = (h.store(), h.lane("default").await, h.lane("urgent").await);
    h.enqueue(lane, &ids(1)).await;
    h.enqueue(other, &ids(1)).await;
    assert_eq!(store.pause(&topic(), Some("default"), "the bank is away").await.expect("pause"), 1);
    assert_eq!(store.pause(&topic(), Some("unheard-of"), "").await.expect("pause"), 0);
    assert!(store.claim_as(claim(lane)).await.is_none());
    let beaten = store.beat_as("a", &[lane, other]).await;
    assert_eq!((beaten.places().as_slice(), beaten.paused.as_slice()), (&[(other, Rank::Usual)][..], &[lane][..]));
    assert_eq!(store.status("default").await.paused.as_deref(), Some("the bank is away"));
    assert_eq!(store.status("urgent").await.paused, None);
    assert_eq!(store.pause(&topic(), None, "all of it").await.expect("pause"), 1, "the other one was running");
    assert!(store.claim_as(claim(other)).await.is_none());
    assert_eq!(h.another().await.resume(&topic(), None).await.expect("resume"), 2);
    assert_eq!(store.resume(&topic(), None).await.expect("resume"), 0);
    let running = store.take(lane).await;
    store.take(other).await;
    // What was claimed before a pause ends as it does.
    store.pause(&topic(), None, "again").await.expect("pause");
    store.call(&running, LONG).await;
    assert_eq!(store.finish(finish(&running, &confirmed())).await.facts, 1);
}

pub async fn calls_begin_durably(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(2);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    store.call(&batch, h.ttl()).await;
    for id in &ids {
        assert_eq!(h.another().await.look(*id).await.state, State::Calling);
    }
    store.until(lane, ids[0], State::Doubt).await;
    assert!(!store.begin_calls(&batch.lease, LONG).await.expect("begin calls"), "it has lapsed: nobody may be called");
}

pub async fn leases_are_prolonged(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(2);
    let mut batches = Vec::new();
    for id in &ids {
        h.enqueue(lane, &[*id]).await;
        batches.push(store.claim_as(Claim { ttl: h.ttl(), ..claim(lane) }).await.expect("a batch"));
    }
    assert_eq!(store.extend(&[batches[0].lease.clone()], LONG).await.expect("extend"), [true]);
    store.until(lane, ids[1], State::Pending).await;
    assert_eq!(store.look(ids[0]).await.state, State::Leased, "prolonged, so not lapsed with the other");
    let both = [batches[1].lease.clone(), batches[0].lease.clone()];
    assert_eq!(store.extend(&both, LONG).await.expect("extend"), [false, true], "in the order asked for");
    assert!(store.extend(&[], LONG).await.expect("extend").is_empty());
}

pub async fn workers_are_counted(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    assert_eq!(store.beat_as("a", &[lane]).await.workers, 1);
    assert_eq!(store.beat_as("a", &[lane]).await.workers, 1);
    assert_eq!(h.another().await.beat_as("b", &[lane]).await.workers, 2);
    store.leave("b").await.expect("leave");
    store.leave("never came").await.expect("leave");
    assert_eq!(store.beat_as("a", &[lane]).await.workers, 1);
    let short = super::Beat { worker: worker("c"), ttl: h.ttl(), lanes: vec![lane], promote_max: 10, thorough: true };
    assert_eq!(store.beat(&short).await.expect("beat").workers, 2);
    let silent = async {
        while store.beat_as("a", &[lane]).await.workers > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, silent).await.expect("a worker that stays silent counts no longer");
}

pub async fn another_process_is_woken(h: &impl Harness) {
    let (store, other) = (h.store(), h.another().await);
    let mut woken = store.woken();
    let waking = async {
        loop {
            other.wake().await.expect("wake");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        // It may end where nobody can be told.
        _ = woken.next() => {}
        () = waking => unreachable!(),
        () = tokio::time::sleep(super::PATIENCE) => panic!("neither woken nor told that this cannot be"),
    }
}
