//! Leases that lapse, and what comes too late.

use std::time::Duration;

use caudal_core::confirm::ports::{Batch, Claim};
use caudal_core::confirm::{Fact, LaneId, Mark, Rank, State};
use uuid::Uuid;

use super::{
    Doing, Harness, LONG, claim, confirmed, dead, doubt, fact, finish, held, ids, ids_of, item, part, retry, sorted,
    worker,
};

pub async fn uncalled_items_are_pending_again(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(2);
    h.enqueue(lane, &ids).await;
    store.claim_as(Claim { ttl: h.ttl(), ..claim(lane) }).await.expect("a batch");
    for id in &ids {
        let now = store.until(lane, *id, State::Pending).await;
        assert_eq!((now.attempts, now.crashes, now.first_sent), (0, 0, None));
    }
    store.assert_sound().await;
    let batch = store.take_when_ready(Claim { worker: worker("b"), ..claim(lane) }).await;
    assert_eq!(sorted(ids_of(&batch)), ids);
    assert!(batch.items.iter().all(|item| (item.attempts, item.crashes, item.doubt) == (0, 0, false)));
}

pub async fn called_items_are_in_doubt(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(2);
    h.enqueue(lane, &ids).await;
    let before = store.take(lane).await;
    store.call(&before, h.ttl()).await;
    let now = store.until(lane, ids[0], State::Doubt).await;
    assert_eq!((now.attempts, now.crashes), (1, 1));
    assert!(now.first_sent.is_some_and(|sent| sent >= item(&before, ids[0]).claimed), "sent after the claim: {now:?}");
    store.assert_sound().await;
    let suspects = Claim { rank: Rank::Suspect, worker: worker("b"), ..claim(lane) };
    let batch = store.take_when_ready(suspects).await;
    assert_ne!(batch.lease.number, before.lease.number);
    for item in &batch.items {
        assert_eq!((item.attempts, item.crashes, item.doubt), (1, 1, true));
        assert!(item.first_sent.is_some());
    }
    assert!(store.claim_as(claim(lane)).await.is_none(), "suspects do not come among the others");
}

pub async fn crashes_lead_to_caution(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let id = ids(1)[0];
    h.enqueue(lane, &[id]).await;
    let mut first_sent = None;
    for (crashes, rank) in [(0, Rank::Usual), (1, Rank::Suspect), (2, Rank::Alone), (3, Rank::Alone)] {
        let batch = store.take_when_ready(Claim { rank, ..claim(lane) }).await;
        let item = &batch.items[0];
        assert_eq!((item.id, item.crashes, item.attempts, item.doubt), (id, crashes, crashes, crashes > 0));
        if crashes > 0 {
            assert_eq!(item.first_sent, *first_sent.get_or_insert(item.first_sent), "the first time stays");
        }
        store.call(&batch, h.ttl()).await;
        store.until(lane, id, State::Doubt).await;
        let ready = store.beat_as("a", &[lane]).await.places();
        assert!(ready.iter().all(|ready| *ready == (lane, Rank::of(crashes + 1))), "{ready:?}");
    }
    store.assert_sound().await;
}

/// A worker that dies at item 2 of 5: what it had marked stays marked.
pub async fn only_what_was_not_marked_comes_back(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(5);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, h.ttl()).await;
    let hour = Duration::from_secs(3600);
    store
        .finish(part(&batch.lease, &[(item(&batch, ids[0]), confirmed()), (item(&batch, ids[1]), retry(hour, true))]))
        .await;
    store.finish(part(&batch.lease, &[(item(&batch, ids[2]), dead(true))])).await;
    store.until(lane, ids[4], State::Doubt).await;
    let states = [State::Confirmed, State::Retry, State::Dead, State::Doubt, State::Doubt];
    for (id, state) in ids.iter().zip(states) {
        let now = store.look(*id).await;
        assert_eq!((now.state, now.attempts, now.crashes), (state, 1, u32::from(state == State::Doubt)), "{now:?}");
    }
    let back = store.take_when_ready(Claim { rank: Rank::Suspect, ..claim(lane) }).await;
    assert_eq!(sorted(ids_of(&back)), ids[3..]);
    store.assert_sound().await;
}

/// A worker that hears from the endpoint after its lease has lapsed and others have gone on.
pub async fn late_facts_beat_every_open_state(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let later = Duration::from_secs(3600);
    for after in
        [None, Some(doubt(later)), Some(retry(later, true)), Some(held(true)), Some(dead(true)), Some(Mark::Release)]
    {
        let (id, old) = lapsed(h, lane).await;
        if let Some(mark) = &after {
            let batch = suspect(h, lane).await;
            store.finish(finish(&batch, mark)).await;
            assert!(matches!((store.look(id).await.state, mark), (State::Doubt, Mark::Release) | (_, _)));
        }
        let settled = store.finish(finish(&old, &fact(Fact::Rejected))).await;
        assert_eq!((settled.facts, settled.fenced), (1, 0), "{after:?}");
        assert_eq!(store.look(id).await.state, State::Rejected, "{after:?}");
        store.assert_sound().await;
        store.beat_as("a", &[lane]).await;
        for rank in Rank::ALL {
            let claimed = store.claim_as(Claim { rank, ..claim(lane) }).await;
            assert!(claimed.is_none(), "{after:?}: it has its outcome");
        }
        let numbers = store.status("default").await;
        assert_eq!(super::open(&numbers), 0, "{after:?}: {numbers:?}");
    }
}

pub async fn late_facts_beat_a_new_lease(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let hour = Duration::from_secs(3600);
    let marks =
        [confirmed(), fact(Fact::Rejected), retry(hour, true), doubt(hour), held(true), dead(true), Mark::Release];
    for mark in marks {
        let (id, old) = lapsed(h, lane).await;
        let new = suspect(h, lane).await;
        store.call(&new, LONG).await;
        assert_eq!(store.finish(finish(&old, &confirmed())).await.facts, 1);
        assert_eq!(store.look(id).await.state, State::Confirmed, "the outcome counts, not the lease");
        store.assert_sound().await;
        let settled = store.finish(finish(&new, &mark)).await;
        let contradicts = u64::from(mark == fact(Fact::Rejected));
        assert_eq!((settled.facts, settled.contradictions), (0, contradicts), "{mark:?}");
        assert_eq!(store.look(id).await.state, State::Confirmed, "{mark:?}");
        store.assert_sound().await;
        let numbers = store.status("default").await;
        assert_eq!(super::open(&numbers), 0, "{mark:?}: {numbers:?}");
    }
    // And when the new lease lapses there is nothing that could come back.
    let (id, old) = lapsed(h, lane).await;
    let new = suspect(h, lane).await;
    store.call(&new, h.ttl()).await;
    store.finish(finish(&old, &confirmed())).await;
    let gone = async {
        while store.beat_as("a", &[lane]).await.lapsed == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, gone).await.expect("the lease lapses");
    assert_eq!(store.look(id).await.state, State::Confirmed);
    assert_eq!(super::open(&store.status("default").await), 0);
    store.assert_sound().await;
}

pub async fn late_marks_are_refused(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let hour = Duration::from_secs(3600);
    for mark in [retry(hour, true), doubt(hour), held(true), held(false), dead(true), dead(false), Mark::Release] {
        let (id, old) = lapsed(h, lane).await;
        let before = store.look(id).await;
        let settled = store.finish(finish(&old, &mark)).await;
        assert_eq!((settled.moved, settled.fenced), (0, 1), "{mark:?}");
        assert_eq!(store.look(id).await.attempts, before.attempts, "{mark:?}");
        let new = suspect(h, lane).await;
        assert_eq!(ids_of(&new), [id], "{mark:?}: there once, and only once");
        let settled = store.finish(finish(&old, &mark)).await;
        assert_eq!((settled.moved, settled.fenced), (0, 1), "{mark:?}: not under another's lease either");
        assert_eq!(store.look(id).await.state, State::Leased);
        // Nor by one who knows the lease's number and is not its worker.
        let mut forged = finish(&new, &mark);
        forged.lease.worker = worker("somebody else");
        assert_eq!(store.finish(forged).await.fenced, 1);
        store.assert_sound().await;
        store.finish(finish(&new, &confirmed())).await;
    }
}

pub async fn a_released_item_is_not_doubled(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(2);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, h.ttl()).await;
    store.finish(part(&batch.lease, &[(item(&batch, ids[0]), Mark::Release)])).await;
    store.until(lane, ids[1], State::Doubt).await;
    assert_eq!(store.look(ids[0]).await.state, State::Pending);
    let usual = store.take(lane).await;
    assert_eq!(ids_of(&usual), ids[..1]);
    let suspects = store.take_when_ready(Claim { rank: Rank::Suspect, ..claim(lane) }).await;
    assert_eq!(ids_of(&suspects), ids[1..]);
    store.beat_as("a", &[lane]).await;
    store.assert_sound().await;
}

/// One transaction whose lease lapsed while it was being called, and the batch of the worker that lost it.
async fn lapsed(h: &impl Harness, lane: LaneId) -> (Uuid, Batch) {
    let (store, id) = (h.store(), ids(1)[0]);
    h.enqueue(lane, &[id]).await;
    let old = store.take_when_ready(claim(lane)).await;
    store.call(&old, h.ttl()).await;
    store.until(lane, id, State::Doubt).await;
    (id, old)
}

/// What worker `b` claims of the lane's suspects.
async fn suspect(h: &impl Harness, lane: LaneId) -> Batch {
    h.store().take_when_ready(Claim { rank: Rank::Suspect, worker: worker("b"), ..claim(lane) }).await
}
