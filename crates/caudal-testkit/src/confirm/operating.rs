//! What people may do, what they may not, and the numbers that they look at.

use std::time::Duration;

use caudal_core::confirm::machine::void_refusal;
use caudal_core::confirm::ports::{Acted, Claim};
use caudal_core::confirm::{Fact, LaneId, Mark, Rank, State};
use uuid::Uuid;

use super::{Doing, Harness, LONG, claim, confirmed, dead, doubt, fact, finish, held, ids, item, part, retry, worker};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn only_what_was_surely_not_sent_is_voided(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    assert_eq!(store.void(Uuid::now_v7(), "").await.expect("void"), Acted::Unknown);
    for (mark, allowed) in [
        (Mark::Release, true),
        (retry(HOUR, true), true),
        (retry(HOUR, false), true),
        (held(false), true),
        (dead(false), true),
        (held(true), false),
        (dead(true), false),
        (doubt(HOUR), false),
        (doubt(Duration::ZERO), false),
        (confirmed(), false),
        (fact(Fact::Rejected), false),
    ] {
        let id = marked(h, lane, &mark).await;
        if mark == doubt(Duration::ZERO) {
            // Pending again, and still not known to be undone.
            store.beat_as("a", &[lane]).await;
        }
        let before = store.look(id).await;
        let acted = h.another().await.void(id, "ordered twice").await.expect("void");
        let after = store.look(id).await;
        if allowed {
            assert_eq!((acted, after.state), (Acted::Done, State::Void), "{mark:?}");
            assert!(after.detail.contains("ordered twice"), "{after:?}");
            refused(store.void(id, "again").await.expect("void"), State::Void, false);
        } else {
            refused(acted, before.state, before.maybe_done);
            assert_eq!(after, before, "{mark:?}");
            store.resolve(id, Fact::Confirmed, "to end it").await.expect("resolve");
        }
        store.beat_as("a", &[lane]).await;
        assert!(store.claim_as(claim(lane)).await.is_none(), "{mark:?}: nothing of it is left to claim");
        store.assert_sound().await;
    }
    let id = ids(1)[0];
    h.enqueue(lane, &[id]).await;
    let batch = store.take_when_ready(claim(lane)).await;
    refused(store.void(id, "").await.expect("void"), State::Leased, false);
    store.call(&batch, LONG).await;
    refused(store.void(id, "").await.expect("void"), State::Calling, false);
}

pub async fn dead_and_held_are_redriven(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    assert_eq!(store.redrive(Uuid::now_v7()).await.expect("redrive"), Acted::Unknown);
    for (mark, in_doubt) in [(dead(false), false), (dead(true), true), (held(false), false), (held(true), true)] {
        let id = marked(h, lane, &mark).await;
        let sent = store.look(id).await.first_sent;
        assert_eq!(store.redrive(id).await.expect("redrive"), Acted::Done);
        let now = store.look(id).await;
        assert_eq!(now.state, if in_doubt { State::Doubt } else { State::Pending }, "{mark:?}");
        assert!(matches!(store.redrive(id).await.expect("redrive"), Acted::Refused(why) if !why.is_empty()));
        let batch = store.take_when_ready(claim(lane)).await;
        let item = item(&batch, id);
        assert_eq!((item.attempts, item.crashes, item.doubt, item.first_sent), (0, 0, in_doubt, sent), "{mark:?}");
        store.finish(finish(&batch, &confirmed())).await;
        assert!(matches!(store.redrive(id).await.expect("redrive"), Acted::Refused(_)));
        store.assert_sound().await;
    }
    for mark in [Mark::Release, retry(HOUR, true), doubt(HOUR)] {
        let id = marked(h, lane, &mark).await;
        let before = store.look(id).await;
        assert!(matches!(store.redrive(id).await.expect("redrive"), Acted::Refused(_)), "{mark:?}");
        assert_eq!(store.look(id).await, before);
        store.resolve(id, Fact::Confirmed, "to end it").await.expect("resolve");
    }
    // What a worker died of three times is tried again, too, and on its own.
    let id = ids(1)[0];
    h.enqueue(lane, &[id]).await;
    let batch = store.take_when_ready(claim(lane)).await;
    store.call(&batch, h.ttl()).await;
    store.until(lane, id, State::Doubt).await;
    let batch = store.take_when_ready(Claim { rank: Rank::Suspect, ..claim(lane) }).await;
    store.finish(finish(&batch, &dead(true))).await;
    assert_eq!(store.redrive(id).await.expect("redrive"), Acted::Done);
    let ready = store.beat_as("a", &[lane]).await.places();
    assert_eq!(ready.len(), 1, "{ready:?}");
    let batch = store.take_when_ready(Claim { rank: ready[0].1, ..claim(lane) }).await;
    assert_eq!((batch.items[0].crashes, batch.items[0].doubt), (0, true));
}

pub async fn people_resolve(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    assert_eq!(store.resolve(Uuid::now_v7(), Fact::Confirmed, "").await.expect("resolve"), Acted::Unknown);
    for mark in [Mark::Release, retry(HOUR, true), doubt(HOUR), held(true), held(false), dead(true), dead(false)] {
        let id = marked(h, lane, &mark).await;
        assert_eq!(store.resolve(id, Fact::Rejected, "the bank's letter").await.expect("resolve"), Acted::Done);
        let now = store.look(id).await;
        assert_eq!(now.state, State::Rejected, "{mark:?}");
        assert!(now.detail.contains("the bank's letter"), "{now:?}");
        for fact in [Fact::Rejected, Fact::Confirmed] {
            assert!(matches!(store.resolve(id, fact, "").await.expect("resolve"), Acted::Refused(_)), "{mark:?}");
        }
        assert_eq!(store.look(id).await, now);
        assert!(store.claim_as(claim(lane)).await.is_none());
        store.assert_sound().await;
    }
    // Under a lease, too: what the worker hears later is compared with it.
    let id = ids(1)[0];
    h.enqueue(lane, &[id]).await;
    let batch = store.take_when_ready(claim(lane)).await;
    store.call(&batch, LONG).await;
    assert_eq!(store.resolve(id, Fact::Confirmed, "seen at the bank").await.expect("resolve"), Acted::Done);
    assert_eq!(store.look(id).await.state, State::Confirmed);
    let settled = store.finish(finish(&batch, &fact(Fact::Rejected))).await;
    assert_eq!((settled.facts, settled.contradictions), (0, 1));
    assert_eq!(store.look(id).await.state, State::Confirmed);
    store.assert_sound().await;
}

pub async fn numbers_add_up(h: &impl Harness) {
    let (store, lane, urgent) = (h.store(), h.lane("default").await, h.lane("urgent").await);
    assert_eq!(store.status("default").await.enqueued, 0);
    let ids = ids(12);
    h.enqueue(lane, &ids[..8]).await;
    h.enqueue(urgent, &ids[8..11]).await;
    let batch = store.take(lane).await;
    let at = |n: usize| item(&batch, ids[n]);
    store.call(&batch, LONG).await;
    let marks = [
        (at(0), confirmed()),
        (at(1), fact(Fact::Rejected)),
        (at(2), retry(HOUR, true)),
        (at(3), doubt(HOUR)),
        (at(4), held(true)),
        (at(5), dead(false)),
    ];
    store.finish(part(&batch.lease, &marks)).await;
    h.enqueue(lane, &ids[11..]).await;
    store.take(urgent).await;
    let now = h.another().await.status("default").await;
    assert_eq!(
        (now.enqueued, now.pending, now.leased, now.calling, now.retry, now.doubt),
        (9, 1, 0, 2, 1, 1),
        "{now:?}"
    );
    assert_eq!((now.held, now.dead, now.confirmed, now.rejected, now.void), (1, 1, 1, 1, 0), "{now:?}");
    assert!(now.oldest_pending_seconds.is_some());
    let now = store.status("urgent").await;
    assert_eq!((now.enqueued, now.leased, super::open(&now)), (3, 3, 3), "{now:?}");
    assert_eq!(now.oldest_pending_seconds, None, "none waits");
    store.void(ids[11], "").await.expect("void");
    let now = store.status("default").await;
    assert_eq!((now.pending, now.void, now.contradictions), (0, 1, 0));
    assert!(store.confirmation(Uuid::now_v7()).await.expect("confirmation").is_none());
    store.assert_sound().await;
}

pub async fn attempts_that_failed_are_listed(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let id = ids(1)[0];
    h.enqueue(lane, &[id]).await;
    for mark in [retry(Duration::ZERO, true), doubt(Duration::ZERO), dead(true)] {
        let batch = store.take_when_ready(claim(lane)).await;
        store.call(&batch, LONG).await;
        store.finish(finish(&batch, &mark)).await;
    }
    store.redrive(id).await.expect("redrive");
    let history = store.look(id).await.history;
    let seen: Vec<_> = history.iter().filter(|tried| !tried.detail.contains("redriven")).collect();
    let states: Vec<State> = seen.iter().map(|tried| tried.state).collect();
    assert_eq!(states, [State::Dead, State::Doubt, State::Retry], "newest first: {history:?}");
    assert_eq!(seen.iter().map(|tried| tried.attempt).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!((seen[2].code, seen[2].detail.as_str()), (Some(503), "busy"));
    assert!(history.windows(2).all(|pair| pair[0].at >= pair[1].at));
    for _ in 0..60 {
        let batch = store.take_when_ready(claim(lane)).await;
        store.finish(finish(&batch, &retry(Duration::ZERO, true))).await;
    }
    assert_eq!(store.look(id).await.history.len(), 50);
    let batch = store.take_when_ready(claim(lane)).await;
    store.finish(finish(&batch, &confirmed())).await;
    assert_eq!(store.look(id).await.history.len(), 50, "what led to the outcome stays");
}

/// Somebody called it off, and the endpoint did it all the same: what was called off stays so, and is alarming.
pub async fn facts_about_the_void_contradict(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let id = ids(1)[0];
    h.enqueue(lane, &[id]).await;
    let batch = store.claim_as(Claim { ttl: h.ttl(), worker: worker("zombie"), ..claim(lane) }).await.expect("a batch");
    store.until(lane, id, State::Pending).await;
    assert_eq!(store.void(id, "ordered twice").await.expect("void"), Acted::Done);
    let settled = store.finish(finish(&batch, &confirmed())).await;
    assert_eq!((settled.facts, settled.contradictions), (0, 1));
    assert_eq!(store.look(id).await.state, State::Void);
    assert_eq!(store.status("default").await.contradictions, 1);
    store.assert_sound().await;
}

/// A transaction that a call left with this mark.
async fn marked(h: &impl Harness, lane: LaneId, mark: &Mark) -> Uuid {
    let (store, id) = (h.store(), ids(1)[0]);
    h.enqueue(lane, &[id]).await;
    let batch = store.take_when_ready(claim(lane)).await;
    assert_eq!(batch.items.len(), 1, "the lane was empty");
    store.call(&batch, LONG).await;
    store.finish(finish(&batch, mark)).await;
    id
}

fn refused(acted: Acted, state: State, maybe_done: bool) {
    let Acted::Refused(why) = acted else { panic!("{state:?} should not be voided: {acted:?}") };
    let reason = void_refusal(state, maybe_done).expect("the machine refuses it");
    assert!(why.contains(reason), "{why:?} should say {reason:?}");
}
