//! Lanes that move from one store to another, and come back: run with every pair of stores that matters.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::ports::{Acted, Claim, Confirmation, Finish, Marked};
use caudal_core::confirm::transfer::{ImportTransactions, Transferred, transfer};
use caudal_core::confirm::{Fact, LaneId, Mark, Rank, State};
use caudal_core::error::StoreError;
use uuid::Uuid;

use super::{
    ConfirmStore, Doing, Harness, LONG, claim, confirmed, dead, doubt, fact, finish, held, ids, ids_of, item, part,
    retry, sorted, topic,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A store from which lanes can be moved, and to which.
pub trait Movable: Harness {
    fn mover(&self) -> Arc<dyn ImportTransactions>;
}

/// One test a case, each from a store of its own from `$from` to one from `$to`.
#[macro_export]
macro_rules! moving_conformance {
    ($from:path => $to:path) => {
        $crate::moving_conformance!($from => $to; every_state_arrives, an_interrupted_move_goes_on,
            what_did_not_arrive_as_it_was_is_named, a_lane_in_use_does_not_move, a_lane_comes_back_with_what_was_done);
    };
    ($from:path => $to:path; $($case:ident),+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (from, to) = ($from().await, $to().await);
                $crate::confirm::moving::$case(&from, &to).await;
            }
        )+
    };
}

pub async fn pause(h: &impl Harness) {
    h.store().pause(&topic(), None, "moving").await.expect("pause");
}

pub async fn resume(h: &impl Harness) {
    h.store().resume(&topic(), None).await.expect("resume");
}

/// Moves the lane `default`, both ends paused.
pub async fn moved(from: &impl Movable, to: &impl Movable) -> Result<Transferred, StoreError> {
    let (here, there) = (from.lane("default").await, to.lane("default").await);
    transfer((&*from.mover(), here), (&*to.mover(), there), |_| {}).await
}

/// Thirteen transactions that stand everywhere a transaction can, one of them contradicted; and others in another lane.
pub async fn filled(h: &impl Harness) -> (LaneId, Vec<Uuid>) {
    let (store, lane, ids) = (h.store(), h.lane("default").await, ids(13));
    h.enqueue(h.lane("urgent").await, &self::ids(3)).await;
    h.enqueue(lane, &ids[..12]).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let marks = [
        confirmed(),
        fact(Fact::Rejected),
        retry(HOUR, true),
        retry(HOUR, false),
        doubt(HOUR),
        held(true),
        held(false),
        dead(true),
        dead(false),
        Mark::Release,
        Mark::Release,
        Mark::Release,
    ];
    let marks: Vec<_> = ids.iter().zip(marks).map(|(id, mark)| (item(&batch, *id), mark)).collect();
    store.finish(Finish { ends: true, ..part(&batch.lease, &marks) }).await;
    store.finish(part(&batch.lease, &[(item(&batch, ids[0]), fact(Fact::Rejected))])).await;
    store.void(ids[9], "ordered twice").await.expect("void");
    // One that a worker died of.
    let batch = store.take_when_ready(Claim { items_max: 1, ..claim(lane) }).await;
    store.call(&batch, h.ttl()).await;
    store.until(lane, batch.items[0].id, State::Doubt).await;
    h.enqueue(lane, &ids[12..]).await;
    (lane, ids)
}

pub async fn every_state_arrives(from: &impl Movable, to: &impl Movable) {
    let (_, ids) = filled(from).await;
    pause(from).await;
    to.lane("default").await;
    pause(to).await;
    let done = moved(from, to).await.expect("moved");
    assert_eq!((done.rows, done.copied, done.outcomes), (13, 13, 3));
    assert_eq!(done.differences, []);
    let again = moved(from, to).await.expect("moved");
    assert_eq!((again.copied, again.renewed, again.differences.len()), (0, 0, 0), "repeated, it changes nothing");
    assert_same(from, to, &ids).await;
    assert_eq!(to.store().status("default").await.contradictions, 1);
    // And it goes on there: what waits is claimed, the rest is due later or a person's.
    resume(to).await;
    let lane = to.lane("default").await;
    let mut claimed = Vec::new();
    for rank in Rank::ALL {
        to.store().beat_as("a", &[lane]).await;
        while let Some(batch) = to.store().claim_as(Claim { rank, ..claim(lane) }).await {
            to.store().call(&batch, LONG).await;
            assert_eq!(to.store().finish(finish(&batch, &confirmed())).await.facts, batch.items.len() as u64);
            claimed.extend(ids_of(&batch));
        }
    }
    assert_eq!(sorted(claimed), ids[10..]);
    to.store().assert_sound().await;
}

/// Both stores say the same of every transaction, and their numbers are the same.
pub async fn assert_same(from: &impl Movable, to: &impl Movable, ids: &[Uuid]) {
    for id in ids {
        let (was, is) = (from.store().look(*id).await, to.store().look(*id).await);
        assert_eq!(essence(&was), essence(&is));
        if was.state == State::Retry {
            assert_eq!(was.due, is.due);
        }
    }
    let mut before = from.store().status("default").await;
    let mut now = to.store().status("default").await;
    (before.oldest_pending_seconds, now.oldest_pending_seconds) = (None, None);
    (before.paused, now.paused) = (None, None);
    assert_eq!(before, now);
    to.store().assert_sound().await;
}

/// What every store keeps of a transaction, whatever its state.
fn essence(one: &Confirmation) -> impl PartialEq + std::fmt::Debug {
    let ended = one.state.is_outcome();
    let first_sent = one.first_sent.filter(|_| !ended);
    let crashes = if ended { 0 } else { one.crashes };
    let what = (one.state, one.attempts, crashes, one.maybe_done, one.since, first_sent);
    let aside = ended || matches!(one.state, State::Held | State::Dead);
    (what, aside.then(|| (one.at, one.code, one.detail.clone())), one.history.clone())
}

pub async fn an_interrupted_move_goes_on(from: &impl Movable, to: &impl Movable) {
    let (lane, ids) = filled(from).await;
    pause(from).await;
    let there = to.lane("default").await;
    pause(to).await;
    // Parts of a few rows, the second of them twice, and then nothing more: whoever moved it died.
    let (mut after, mut copied) = (None, 0);
    for _ in 0..3 {
        let page = from.mover().page(lane, after.as_deref(), 2).await.expect("a page");
        copied += to.mover().import(there, &page.rows).await.expect("import");
        assert_eq!(to.mover().import(there, &page.rows).await.expect("import"), 0);
        to.store().assert_sound().await;
        after = page.next;
    }
    let done = moved(from, to).await.expect("moved");
    assert_eq!((done.rows, done.copied, done.differences.len()), (13, 13 - copied, 0));
    assert_same(from, to, &ids).await;
}

pub async fn what_did_not_arrive_as_it_was_is_named(from: &impl Movable, to: &impl Movable) {
    let (all, stray) = (ids(3), ids(1));
    from.enqueue(from.lane("default").await, &all).await;
    let lane_there = to.lane("default").await;
    pause(from).await;
    pause(to).await;
    moved(from, to).await.expect("moved");
    to.store().resolve(all[1], Fact::Confirmed, "behind its back").await.expect("resolve");
    to.enqueue(lane_there, &stray).await;
    let done = moved(from, to).await.expect("moved");
    assert_eq!(done.differences, [(all[1], "state"), (stray[0], "only there")]);
    assert_eq!(to.store().look(all[1]).await.state, State::Confirmed, "what is there is left as it is");
    assert!(to.damage(super::Damage::Lose(all[2])).await);
    let named = to.store().verify().await.expect("verify").iter().any(|audit| !audit.is_sound());
    assert!(named, "a transaction that was moved in is looked for like any other");
}

pub async fn a_lane_in_use_does_not_move(from: &impl Movable, to: &impl Movable) {
    let (lane, there) = (from.lane("default").await, to.lane("default").await);
    let refunds = to.lane_of("refunds", "default").await;
    from.enqueue(lane, &ids(4)).await;
    let (here, mover) = (from.mover(), to.mover());
    let refused = async |to: LaneId| match transfer((&*here, lane), (&*mover, to), |_| {}).await {
        Err(StoreError::Asked(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(refunds).await.contains("other keys"));
    assert!(refused(there).await.contains("not paused"));
    pause(from).await;
    assert!(refused(there).await.contains("goes to is not paused"));
    resume(from).await;
    let batch = from.store().take(lane).await;
    pause(from).await;
    pause(to).await;
    assert!(refused(there).await.contains("1 open leases"));
    from.store().finish(finish(&batch, &confirmed())).await;
    assert_eq!(moved(from, to).await.expect("moved").copied, 4);
}

/// There and back: what was done meanwhile comes along, and what is newer is never overwritten by what is older.
pub async fn a_lane_comes_back_with_what_was_done(from: &impl Movable, to: &impl Movable) {
    let all = ids(7);
    from.enqueue(from.lane("default").await, &all).await;
    let lane = to.lane("default").await;
    pause(from).await;
    pause(to).await;
    moved(from, to).await.expect("moved");
    resume(to).await;
    let marks = [confirmed(), fact(Fact::Rejected), retry(HOUR, true), held(true), doubt(HOUR)];
    marked(&to.store(), lane, all.iter().copied().zip(marks).collect()).await;
    assert_eq!(to.store().void(all[6], "ordered twice").await.expect("void"), Acted::Done);
    pause(to).await;
    let back = moved(to, from).await.expect("moved");
    assert_eq!((back.rows, back.copied, back.renewed, back.differences), (7, 0, 6, vec![]));
    assert_same(to, from, &all).await;
    let again = moved(to, from).await.expect("moved");
    assert_eq!((again.renewed, again.differences.len()), (0, 0));
    // It goes on here; the other store's word is old now.
    resume(from).await;
    let lane = from.lane("default").await;
    marked(&from.store(), lane, HashMap::from([(all[5], retry(HOUR, true))])).await;
    from.store().resolve(all[2], Fact::Confirmed, "by telephone").await.expect("resolve");
    pause(from).await;
    let old = moved(to, from).await.expect("moved");
    let mut named: Vec<Uuid> = old.differences.iter().map(|(id, _)| *id).collect();
    named.sort();
    assert_eq!((old.renewed, named), (0, vec![all[2], all[5]]));
    assert_eq!(from.store().look(all[2]).await.state, State::Confirmed);
    assert_eq!(from.store().look(all[5]).await.attempts, 1);
    from.store().assert_sound().await;
}

/// Claims all there is and marks it; what is not named is released.
async fn marked(store: &Arc<dyn ConfirmStore>, lane: LaneId, marks: HashMap<Uuid, Mark>) {
    let mut batches = Vec::new();
    while let Some(batch) = store.claim_as(claim(lane)).await {
        store.call(&batch, LONG).await;
        batches.push(batch);
    }
    for batch in &batches {
        let mark = |id| marks.get(&id).cloned().unwrap_or(Mark::Release);
        let marks = batch.items.iter().map(|item| Marked { item: item.clone(), mark: mark(item.id) });
        store.finish(Finish { lease: batch.lease.clone(), marks: marks.collect(), ends: true }).await;
    }
}
