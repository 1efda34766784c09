//! Transactions that commit out of the order of their positions.

use std::time::Duration;

use caudal_core::confirm::Rank;
use caudal_core::confirm::ports::{Beat, Claim, Ready};
use caudal_testkit::confirm::{Doing, Harness, LONG, claim, ids, ids_of, worker};
use caudal_testkit::postgres::client;

use crate::faults::by_way_of;
use crate::harness::open;

/// Makes a transaction pending again, at a new position, and waits to be let go.
const AGAIN: &str = "
begin;
create temp table again on commit drop as select * from _confirm_ready where tx = '$TX';
delete from _confirm_ready where tx = '$TX';
insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
select lane, rank, tx, attempts, crashes, doubt, fresh, since from again";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beat_says_where_something_was_passed_over() {
    let h = open(false).await;
    let (store, lane) = (h.store(), h.lane("default").await);
    let (late, others) = (ids(1), ids(4));
    h.enqueue(lane, &late).await;
    let owner = client(&h.url).await.expect("a connection");
    owner.batch_execute(&AGAIN.replace("$TX", &late[0].to_string())).await.expect("written, not committed");
    h.enqueue(lane, &others).await;
    let beat = |thorough| Beat { worker: worker("a"), ttl: LONG, lanes: vec![lane], promote_max: 1, thorough };
    let batch = store.take(lane).await;
    assert_eq!(ids_of(&batch), others);
    owner.batch_execute("commit").await.expect("committed");
    assert!(store.claim_as(Claim { from: batch.watermark, ..claim(lane) }).await.is_none(), "it lies before that");
    let ready = store.beat(&beat(true)).await.expect("beat").ready;
    let [Ready { missed: Some(from), rank: Rank::Usual, .. }] = ready[..] else { panic!("{ready:?}") };
    assert!(from < batch.watermark);
    // Until it is time for a look from the start again, others see what is new, and not what is late.
    assert!(store.beat(&beat(false)).await.expect("beat").ready.is_empty());
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(store.beat(&beat(false)).await.expect("beat").ready, ready);
    let found = store.claim_as(Claim { from, to: from + 1, ..claim(lane) }).await.expect("a batch");
    assert_eq!(ids_of(&found), late);
    store.assert_sound().await;
}

/// Past so much that is dead that a time limit of the server's ends it, a look from the start is not tried again at once: what has
/// lapsed, and what is due, must go on. A lock stands for what is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_look_that_took_too_long_beats_go_on_without() {
    let h = open(false).await;
    let lane = h.lane("default").await;
    let store = by_way_of(&h, format!("{}?options=-c%20lock_timeout%3D200", h.url), lane).await;
    let (late, others) = (ids(1), ids(4));
    h.enqueue(lane, &late).await;
    let owner = client(&h.url).await.expect("a connection");
    owner.batch_execute(&AGAIN.replace("$TX", &late[0].to_string())).await.expect("written, not committed");
    h.enqueue(lane, &others).await;
    assert_eq!(ids_of(&store.take(lane).await), others);
    owner.batch_execute("commit").await.expect("committed");
    let beat = |thorough| Beat { worker: worker("a"), ttl: LONG, lanes: vec![lane], promote_max: 1, thorough };
    owner.batch_execute("begin; lock table _confirm_ready in access exclusive mode").await.expect("locked");
    store.beat(&beat(true)).await.expect_err("it waited for as long as it may");
    owner.batch_execute("rollback").await.expect("let go");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(store.beat(&beat(false)).await.expect("beat").ready.is_empty(), "from the start, so soon");
    assert_eq!(store.beat(&beat(true)).await.expect("beat").places(), [(lane, Rank::Usual)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_ends_where_it_is_told_to() {
    let h = open(false).await;
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(6);
    h.enqueue(lane, &ids).await;
    let two = store.claim_as(Claim { items_max: 2, ..claim(lane) }).await.expect("a batch");
    let narrow = Claim { from: two.watermark, to: two.watermark + 3, ..claim(lane) };
    assert_eq!(ids_of(&store.claim_as(narrow.clone()).await.expect("a batch")), ids[2..5]);
    assert!(store.claim_as(narrow).await.is_none());
    assert_eq!(ids_of(&store.take(lane).await), ids[5..]);
}
