//! Marks: what each leads to, and that none counts twice.

use std::time::Duration;

use caudal_core::confirm::ports::{Claim, Finish, Marked};
use caudal_core::confirm::{Fact, Mark, Rank, State};

use super::{
    Beat, Doing, Harness, LONG, claim, confirmed, dead, doubt, fact, finish, held, ids, ids_of, item, part, retry,
    worker,
};

const HOUR: Duration = Duration::from_secs(3600);

pub async fn every_mark_leads_to_its_state(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let marks = [
        fact(Fact::Confirmed),
        fact(Fact::Rejected),
        retry(HOUR, true),
        retry(HOUR, false),
        doubt(HOUR),
        held(true),
        held(false),
        dead(true),
        dead(false),
        Mark::Release,
    ];
    let ids = ids(marks.len());
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let marked =
        ids.iter().zip(&marks).map(|(id, mark)| Marked { item: item(&batch, *id).clone(), mark: mark.clone() });
    let settled = store.finish(Finish { lease: batch.lease.clone(), marks: marked.collect(), ends: true }).await;
    assert_eq!((settled.facts, settled.moved, settled.fenced), (2, 8, 0));
    assert_eq!((settled.repeats, settled.contradictions), (0, 0));
    for (id, mark) in ids.iter().zip(&marks) {
        let now = h.another().await.look(*id).await;
        let released = matches!(mark, Mark::Release);
        assert_eq!((now.state, now.attempts), (mark.state(), u32::from(!released)), "{mark:?}");
        assert_eq!((now.topic.as_str(), now.lane.as_str(), now.crashes), (super::TOPIC, "default", 0));
        let may_be_done = matches!(mark, Mark::Held { maybe_done: true, .. } | Mark::Dead { maybe_done: true, .. });
        assert_eq!(now.maybe_done, may_be_done, "{mark:?}");
        let sent = may_be_done || matches!(mark, Mark::Retry { sent: true, .. } | Mark::Doubt { .. });
        assert!(mark.state().is_outcome() || now.first_sent.is_some() == sent, "{mark:?}: {now:?}");
        assert_eq!(now.due.is_some(), matches!(now.state, State::Retry | State::Doubt), "{mark:?}");
        if let Mark::Retry { code, detail, .. } | Mark::Held { code, detail, .. } | Mark::Dead { code, detail, .. } =
            mark
        {
            assert_eq!((now.code, &now.detail), (*code, detail));
        }
    }
    store.assert_sound().await;
    let again = store.take(lane).await;
    assert_eq!(ids_of(&again), ids[9..], "only what was released can be claimed");
}

pub async fn settling_again_changes_nothing(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let marks =
        [confirmed(), fact(Fact::Rejected), retry(HOUR, true), doubt(HOUR), held(true), dead(false), Mark::Release];
    for ends in [true, false] {
        let ids = ids(marks.len());
        h.enqueue(lane, &ids).await;
        let batch = store.take_when_ready(claim(lane)).await;
        store.call(&batch, LONG).await;
        let marked = ids.iter().zip(&marks);
        let marked = marked.map(|(id, mark)| Marked { item: item(&batch, *id).clone(), mark: mark.clone() }).collect();
        let finish = Finish { lease: batch.lease.clone(), marks: marked, ends };
        let first = store.finish(finish.clone()).await;
        assert_eq!((first.facts, first.moved), (2, 5));
        let (numbers, before) = (store.status("default").await, store.look(ids[2]).await);
        for _ in 0..2 {
            let again = h.another().await.finish(finish.clone()).await;
            assert_eq!((again.facts, again.repeats, again.contradictions, again.moved), (0, 2, 0, 0), "ends: {ends}");
        }
        assert_eq!(store.look(ids[2]).await, before);
        let mut now = store.status("default").await;
        now.oldest_pending_seconds = numbers.oldest_pending_seconds;
        assert_eq!(now, numbers);
        store.assert_sound().await;
        // Whatever the repeat did, what was released is there once.
        let released = store.take_when_ready(claim(lane)).await;
        assert_eq!(ids_of(&released), ids[6..]);
        store.finish(super::finish(&released, &confirmed())).await;
    }
    assert_eq!(store.settle(&[]).await.expect("settle"), Default::default());
}

pub async fn the_first_fact_stands(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(2);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let say = |first, second| part(&batch.lease, &[(item(&batch, ids[0]), first), (item(&batch, ids[1]), second)]);
    let settled = store.finish(say(confirmed(), fact(Fact::Rejected))).await;
    assert_eq!((settled.facts, settled.repeats, settled.contradictions), (2, 0, 0));
    for _ in 0..2 {
        let settled = store.finish(say(confirmed(), confirmed())).await;
        assert_eq!((settled.facts, settled.repeats, settled.contradictions), (0, 1, 1));
    }
    assert_eq!(store.look(ids[0]).await.state, State::Confirmed);
    assert_eq!(store.look(ids[1]).await.state, State::Rejected, "the first one stands");
    assert_eq!(store.status("default").await.contradictions, 1, "kept once, however often it is said");
    let audits = store.verify().await.expect("verify");
    let contradicted: Vec<_> = audits.iter().flat_map(|audit| audit.contradicted.clone()).collect();
    assert_eq!(contradicted, ids[1..]);
    store.assert_sound().await;
    // Twice within one call, too.
    let other = super::ids(1);
    h.enqueue(lane, &other).await;
    let batch = store.take_when_ready(claim(lane)).await;
    let both = part(&batch.lease, &[(&batch.items[0], confirmed()), (&batch.items[0], fact(Fact::Rejected))]);
    let settled = store.finish(both).await;
    assert_eq!((settled.facts, settled.contradictions), (1, 1));
    assert_eq!(store.look(other[0]).await.state, State::Confirmed);
}

pub async fn due_items_come_back_and_no_sooner(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(3);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    assert_eq!(store.beat_as("a", &[lane]).await.next_due, None);
    store.finish(part(&batch.lease, &[(item(&batch, ids[0]), retry(HOUR, true))])).await;
    let beaten = store.beat_as("a", &[lane]).await;
    assert_eq!((beaten.promoted, beaten.ready.len()), (0, 0));
    let next = beaten.next_due.expect("something is due later");
    assert!(next > HOUR / 2 && next <= HOUR, "{next:?}");
    let soon = part(&batch.lease, &[(item(&batch, ids[1]), retry(Duration::from_millis(30), true))]);
    store.finish(soon).await;
    store.finish(part(&batch.lease, &[(item(&batch, ids[2]), doubt(Duration::from_millis(30)))])).await;
    store.until(lane, ids[1], State::Pending).await;
    let mut back = Vec::new();
    while back.len() < 2 {
        back.extend(store.take_when_ready(Claim { worker: worker("b"), ..claim(lane) }).await.items);
    }
    back.sort_by_key(|item| item.id);
    assert_eq!([back[0].id, back[1].id], [ids[1], ids[2]]);
    for (item, in_doubt) in back.iter().zip([false, true]) {
        assert_eq!((item.attempts, item.crashes, item.doubt), (1, 0, in_doubt));
        assert!(item.first_sent.is_some_and(|sent| item.since <= sent && sent <= item.claimed), "{item:?}");
    }
    assert_eq!(store.look(ids[0]).await.state, State::Retry);
    store.assert_sound().await;
}

pub async fn promotion_is_bounded(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    h.enqueue(lane, &ids(5)).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    store.finish(finish(&batch, &retry(Duration::ZERO, true))).await;
    let mut promoted = Vec::new();
    let beat = Beat { worker: worker("a"), ttl: LONG, lanes: vec![lane], promote_max: 2, thorough: true };
    let waiting = async {
        while promoted.iter().sum::<u64>() < 5 {
            let beaten = store.beat(&beat).await.expect("beat");
            promoted.push(beaten.promoted);
            assert_eq!(
                beaten.places(),
                if promoted.iter().sum::<u64>() > 0 { vec![(lane, Rank::Usual)] } else { vec![] }
            );
        }
    };
    tokio::time::timeout(super::PATIENCE, waiting).await.expect("all are promoted in the end");
    assert!(promoted.iter().all(|n| *n <= 2), "{promoted:?}");
    assert_eq!(store.status("default").await.pending, 5);
    store.assert_sound().await;
}

pub async fn the_first_time_of_sending_is_kept(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let id = ids(1);
    h.enqueue(lane, &id).await;
    let mut first = None;
    for (round, mark) in [(0, retry(Duration::ZERO, false)), (1, retry(Duration::ZERO, true))] {
        let batch = store.take_when_ready(claim(lane)).await;
        assert_eq!((batch.items[0].attempts, batch.items[0].first_sent), (round, None));
        store.call(&batch, LONG).await;
        store.finish(finish(&batch, &mark)).await;
    }
    for round in 2..5 {
        let batch = store.take_when_ready(claim(lane)).await;
        let sent = batch.items[0].first_sent.expect("it was sent");
        assert_eq!(*first.get_or_insert(sent), sent, "the first time stays");
        assert_eq!(batch.items[0].attempts, round);
        store.call(&batch, LONG).await;
        store
            .finish(finish(&batch, &if round % 2 == 0 { doubt(Duration::ZERO) } else { retry(Duration::ZERO, false) }))
            .await;
    }
    let batch = store.take_when_ready(claim(lane)).await;
    store.call(&batch, LONG).await;
    store.finish(finish(&batch, &held(true))).await;
    assert_eq!(store.look(id[0]).await.first_sent, first);
}

/// A release spends nothing; a mark that was made without a call comes with the item as the engine wants it counted.
pub async fn attempts_are_counted(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let id = ids(1);
    h.enqueue(lane, &id).await;
    for (mark, attempts) in [
        (Mark::Release, 0),
        (retry(Duration::ZERO, true), 1),
        (Mark::Release, 1),
        (doubt(Duration::ZERO), 2),
        (Mark::Release, 2),
    ] {
        let batch = store.take_when_ready(claim(lane)).await;
        store.call(&batch, LONG).await;
        store.finish(finish(&batch, &mark)).await;
        let now = store.look(id[0]).await;
        assert_eq!((now.attempts, now.crashes), (attempts, 0), "{mark:?}");
    }
    assert_eq!(store.look(id[0]).await.state, State::Doubt, "a release leaves it in doubt");
    let batch = store.take_when_ready(claim(lane)).await;
    assert!(batch.items[0].doubt, "a release leaves it in doubt");
    store.finish(finish(&batch, &confirmed())).await;
    let now = store.look(id[0]).await;
    assert_eq!((now.state, now.attempts), (State::Confirmed, 3), "the call that found out is counted");
}

/// A worker that believes it has marked everything, and has not, loses nothing.
pub async fn an_end_loses_nothing(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(4);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, h.ttl()).await;
    store.finish(part(&batch.lease, &[(item(&batch, ids[0]), confirmed())])).await;
    let end = part(&batch.lease, &[(item(&batch, ids[1]), confirmed()), (item(&batch, ids[2]), held(true))]);
    store.finish(Finish { ends: true, ..end }).await;
    store.assert_sound().await;
    store.until(lane, ids[3], State::Doubt).await;
    store.assert_sound().await;
    // And facts told in several parts end it well.
    let more = super::ids(3);
    h.enqueue(lane, &more).await;
    let batch = store.take_when_ready(claim(lane)).await;
    store.call(&batch, LONG).await;
    for id in &more[..2] {
        store.finish(part(&batch.lease, &[(item(&batch, *id), confirmed())])).await;
    }
    store.finish(Finish { ends: true, ..part(&batch.lease, &[(item(&batch, more[2]), confirmed())]) }).await;
    assert_eq!(store.extend(&[batch.lease], LONG).await.expect("extend"), [false], "the lease has ended");
    store.assert_sound().await;
}

pub async fn many_leases_settle_at_once(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let mut finishes = Vec::new();
    for n in 0..6u64 {
        h.enqueue(lane, &ids(3)).await;
        let ttl = if n == 5 { h.ttl() } else { LONG };
        let batch = store.take(lane).await;
        store.call(&batch, ttl).await;
        finishes.push(finish(&batch, &if n % 2 == 0 { confirmed() } else { held(false) }));
    }
    store.until(lane, finishes[5].marks[0].item.id, State::Doubt).await;
    let settled = store.settle(&finishes).await.expect("settle");
    assert_eq!((settled.facts, settled.moved, settled.fenced), (9, 6, 3), "each by its own lease");
    let now = store.status("default").await;
    assert_eq!((now.confirmed, now.held, now.doubt, now.enqueued), (9, 6, 3, 18));
    store.assert_sound().await;
}

/// What an endpoint says may hold anything.
pub async fn odd_details_are_kept(h: &impl Harness) {
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(3);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let odd = || "a\0b ‘ñ’ \u{1F980} \\ \" '".to_owned();
    let marks = [
        Mark::Fact { fact: Fact::Confirmed, code: None, detail: odd() },
        Mark::Held { maybe_done: true, code: Some(u16::MAX), detail: odd() },
        Mark::Retry { after: Duration::from_secs(1 << 40), sent: true, code: None, detail: odd() },
    ];
    let marked = batch.items.iter().zip(marks).map(|(item, mark)| Marked { item: item.clone(), mark }).collect();
    store.finish(Finish { lease: batch.lease, marks: marked, ends: true }).await;
    for id in ids {
        let detail = store.look(id).await.detail;
        assert!(detail.contains("b ‘ñ’ \u{1F980} \\ \" '"), "{detail:?}");
    }
    store.assert_sound().await;
}
