//! A lane that moves from one table to another, and back.

use std::time::Duration;

use caudal_core::confirm::ports::OperateConfirmations;
use caudal_core::confirm::transfer::{ExportTransactions, transfer};
use caudal_core::confirm::{Fact, LaneId, State};
use caudal_core::error::StoreError;
use caudal_testkit::confirm::{
    Doing, Harness, LONG, claim, confirmed, dead, doubt, fact, finish, held, ids, ids_of, item, part, retry, sorted,
    topic,
};
use uuid::Uuid;

use crate::Dynamo;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_moves_there_and_back_row_for_row() {
    let (here, there, back) = (Dynamo::open(1).await, Dynamo::open(5).await, Dynamo::open(2).await);
    let (lane, ids) = filled(&here).await;
    let (lane_there, lane_back) = (there.lane("default").await, back.lane("default").await);
    for d in [&here, &there, &back] {
        d.store.pause(&topic(), None, "moving").await.unwrap();
    }
    let mut seen = 0;
    let done = transfer((&*here.store, lane), (&*there.store, lane_there), |rows| seen = rows).await.unwrap();
    assert_eq!((done.rows, done.copied, done.outcomes, seen), (10, 10, 2, 10));
    assert_eq!(done.differences, []);
    let again = transfer((&*here.store, lane), (&*there.store, lane_there), |_| {}).await.unwrap();
    assert_eq!((again.rows, again.copied, again.differences.len()), (10, 0, 0), "repeated, it changes nothing");
    let done = transfer((&*there.store, lane_there), (&*back.store, lane_back), |_| {}).await.unwrap();
    assert_eq!((done.copied, done.differences.len()), (10, 0));
    for id in &ids {
        let (was, is) = (here.store().look(*id).await, back.store().look(*id).await);
        assert_eq!((was.state, was.attempts, was.crashes), (is.state, is.attempts, is.crashes));
        assert_eq!((was.since, was.first_sent, was.due), (is.since, is.first_sent, is.due));
        assert_eq!(
            (was.code, was.detail, was.history, was.maybe_done),
            (is.code, is.detail, is.history, is.maybe_done)
        );
    }
    assert_eq!(here.store().status("default").await.contradictions, 1);
    let mut numbers = back.store().status("default").await;
    numbers.oldest_pending_seconds = None;
    let mut before = here.store().status("default").await;
    before.oldest_pending_seconds = None;
    assert_eq!(numbers, before);
    back.store().assert_sound().await;
    // And it goes on there.
    back.store.resume(&topic(), None).await.unwrap();
    let mut claimed = Vec::new();
    while let Some(batch) = back.store().claim_as(claim(lane_back)).await {
        back.store().call(&batch, LONG).await;
        assert_eq!(back.store().finish(finish(&batch, &confirmed())).await.facts, batch.items.len() as u64);
        claimed.extend(ids_of(&batch));
    }
    assert_eq!(sorted(claimed), ids[8..]);
}

/// Ten transactions that stand everywhere a transaction can, one of them contradicted; and others in another lane.
async fn filled(d: &Dynamo) -> (LaneId, Vec<Uuid>) {
    let (store, lane, ids) = (d.store(), d.lane("default").await, ids(10));
    d.enqueue(d.lane("urgent").await, &self::ids(3)).await;
    d.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let release = caudal_core::confirm::Mark::Release;
    let marks = [
        confirmed(),
        fact(Fact::Rejected),
        retry(HOUR, true),
        retry(HOUR, false),
        doubt(HOUR),
        held(true),
        dead(true),
        dead(false),
        release.clone(),
        release,
    ];
    let marks: Vec<_> = ids.iter().zip(marks).map(|(id, mark)| (item(&batch, *id), mark)).collect();
    let mut end = part(&batch.lease, &marks);
    end.ends = true;
    store.finish(end).await;
    store.finish(part(&batch.lease, &[(item(&batch, ids[0]), fact(Fact::Rejected))])).await;
    (lane, ids)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_in_use_does_not_move() {
    let (here, there) = (Dynamo::open(2).await, Dynamo::open(2).await);
    let (lane, lane_there) = (here.lane("default").await, there.lane("default").await);
    let refunds = there.lane_of("refunds", "default").await;
    here.enqueue(lane, &ids(4)).await;
    let refused = async |to: LaneId| match transfer((&*here.store, lane), (&*there.store, to), |_| {}).await {
        Err(StoreError::Asked(why)) => why,
        other => panic!("{other:?}"),
    };
    assert!(refused(refunds).await.contains("other keys"));
    assert!(refused(lane_there).await.contains("not paused"));
    let batch = here.store().take(lane).await;
    for d in [&here, &there] {
        d.store.pause(&topic(), None, "moving").await.unwrap();
    }
    assert!(refused(lane_there).await.contains("1 open leases"));
    here.store().finish(finish(&batch, &confirmed())).await;
    assert_eq!(transfer((&*here.store, lane), (&*there.store, lane_there), |_| {}).await.unwrap().copied, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_did_not_arrive_as_it_was_is_named() {
    let (here, there) = (Dynamo::open(1).await, Dynamo::open(1).await);
    let (lane, lane_there) = (here.lane("default").await, there.lane("default").await);
    let (all, stray) = (ids(3), ids(1));
    here.enqueue(lane, &all).await;
    for d in [&here, &there] {
        d.store.pause(&topic(), None, "moving").await.unwrap();
    }
    transfer((&*here.store, lane), (&*there.store, lane_there), |_| {}).await.unwrap();
    there.store.resolve(all[1], Fact::Confirmed, "behind its back").await.unwrap();
    there.enqueue(lane_there, &stray).await;
    let done = transfer((&*here.store, lane), (&*there.store, lane_there), |_| {}).await.unwrap();
    assert_eq!(done.differences, [(all[1], "state"), (stray[0], "only there")]);
    assert_eq!(there.store().look(all[1]).await.state, State::Confirmed, "what is there is left as it is");
    assert_eq!(here.store.standing(lane).await.unwrap().topic, "payments");
}
