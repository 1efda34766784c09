//! The audit: quiet over what is in order, and naming what is not.

use std::time::Duration;

use caudal_core::confirm::ports::{Arrivals, LaneAudit};
use caudal_core::confirm::{Fact, Rank};
use caudal_core::error::StoreError;
use uuid::Uuid;

use super::{
    Claim, ConfirmStore, Damage, Doing, Harness, LONG, TOPIC, claim, confirmed, dead, doubt, fact, held, ids, item,
    part, retry,
};

async fn audit(store: &std::sync::Arc<dyn ConfirmStore>, lane: &str) -> LaneAudit {
    let audits = store.verify().await.expect("verify");
    audits.into_iter().find(|audit| audit.topic == TOPIC && audit.lane == lane).expect("the lane's audit")
}

pub async fn an_orderly_store_is_sound(h: &impl Harness) {
    let (store, lane, _) = (h.store(), h.lane("default").await, h.lane("urgent").await);
    let hour = Duration::from_secs(3600);
    let ids = ids(20);
    h.enqueue(lane, &ids).await;
    let batch = store.claim_as(Claim { items_max: 12, ..claim(lane) }).await.expect("a batch");
    store.call(&batch, LONG).await;
    let marks = [confirmed(), fact(Fact::Rejected), retry(hour, true), doubt(hour), held(true), dead(true)];
    for (id, mark) in ids.iter().zip(marks) {
        store.finish(part(&batch.lease, &[(item(&batch, *id), mark)])).await;
    }
    store.finish(part(&batch.lease, &[(item(&batch, ids[0]), fact(Fact::Rejected))])).await;
    store.void(ids[15], "").await.expect("void");
    let audit = audit(&h.another().await, "default").await;
    assert!(audit.is_sound(), "{audit:?}");
    assert_eq!((audit.enqueued, audit.outcomes, audit.open), (20, 3, 17));
    assert_eq!(audit.contradicted, ids[..1]);
    store.assert_sound().await;
}

pub async fn what_is_lost_is_named(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(3);
    h.enqueue(lane, &ids).await;
    if !h.damage(Damage::Lose(ids[1])).await {
        return;
    }
    let audit = audit(&store, "default").await;
    assert_eq!(audit.lost, ids[1..2]);
    assert!(!audit.is_sound() && audit.twice.is_empty() && audit.stray.is_empty(), "{audit:?}");
}

pub async fn what_is_double_is_named(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(3);
    h.enqueue(lane, &ids).await;
    if !h.damage(Damage::Double(lane, ids[2])).await {
        return;
    }
    let audit = audit(&store, "default").await;
    assert_eq!(audit.twice, ids[2..]);
    assert!(!audit.is_sound() && audit.lost.is_empty() && audit.stray.is_empty(), "{audit:?}");
    let claimed: usize = match store.claim_as(Claim { rank: Rank::Usual, ..claim(lane) }).await {
        Some(batch) => batch.items.len(),
        None => 0,
    };
    assert!(claimed >= 2, "the others go on");
}

pub async fn what_is_stray_is_named(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    h.enqueue(lane, &ids(2)).await;
    let stray = Uuid::now_v7();
    if !h.damage(Damage::Stray(lane, stray)).await {
        return;
    }
    let audit = audit(&store, "default").await;
    assert_eq!(audit.stray, [stray]);
    assert!(!audit.is_sound() && audit.lost.is_empty() && audit.twice.is_empty(), "{audit:?}");
}

/// A store that cannot count says so.
pub async fn arrivals_are_counted_by_the_hour(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(10);
    h.enqueue(lane, &ids).await;
    let batch = store.claim_as(Claim { items_max: 6, ..claim(lane) }).await.expect("a batch");
    store.call(&batch, LONG).await;
    for (id, mark) in ids.iter().zip([confirmed(), fact(Fact::Rejected), retry(Duration::ZERO, true), dead(true)]) {
        store.finish(part(&batch.lease, &[(item(&batch, *id), mark)])).await;
    }
    let arrivals = match store.arrivals(1).await {
        Err(StoreError::Asked(why)) => return assert!(why.contains("cannot count"), "{why}"),
        arrivals => arrivals.expect("arrivals"),
    };
    // Two, if the hour has just struck.
    assert!((1..=2).contains(&arrivals.len()), "{arrivals:?}");
    let total = |of: fn(&Arrivals) -> u64| arrivals.iter().map(of).sum::<u64>();
    assert_eq!((total(|a| a.transactions), total(|a| a.settled), total(|a| a.calls)), (10, 2, 2));
    for arrived in &arrivals {
        assert_eq!(arrived.hour.unix_micros() % 3_600_000_000, 0, "{arrivals:?}");
    }
    let since = store.look(ids[0]).await.since;
    let within = |a: &Arrivals| (0..3_600_000_000).contains(&(since.unix_micros() - a.hour.unix_micros()));
    assert!(arrivals.iter().any(within), "{since} in {arrivals:?}");
}
