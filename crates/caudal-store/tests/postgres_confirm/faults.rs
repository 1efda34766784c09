//! Connections and backends that die in the middle.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_core::confirm::ports::{Beat, Claim, Confirm, Finish, LaneSpec, Marked, Records};
use caudal_core::confirm::{LaneId, Mark, Rank, State};
use caudal_core::error::StoreError;
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use caudal_testkit::chance::Chance;
use caudal_testkit::confirm::{
    ConfirmStore, Doing, Harness, LONG, claim, confirmed, doubt, fact, finish, ids, item, retry, worker,
};
use caudal_testkit::postgres::client;
use caudal_testkit::store::topic;
use uuid::Uuid;

use crate::harness::{Sql, open};
use crate::lossy::Lossy;

/// A store that reaches the same database by another way.
pub(crate) async fn by_way_of(h: &Sql, url: String, lane: LaneId) -> Arc<dyn ConfirmStore> {
    let store = PostgresStore::connect(PostgresConfig::new(url, "other")).await.expect("connect");
    let spec = LaneSpec { topic: topic("payments"), name: "default".into(), records: Records::Topic(h.table(lane)) };
    assert_eq!(store.ensure_lanes(&[spec]).await.expect("lanes"), [lane]);
    Arc::new(store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_repeated_without_effect() {
    let h = open(false).await;
    let lane = h.lane("default").await;
    let proxy = Lossy::before(&h.url).await;
    let store = by_way_of(&h, proxy.url(&h.url), lane).await;
    let ids = ids(6);
    h.enqueue(lane, &ids).await;
    let batch = store.take(lane).await;
    store.call(&batch, LONG).await;
    let hour = Duration::from_secs(3600);
    let marks = [confirmed(), confirmed(), retry(hour, true), doubt(hour), Mark::Release, confirmed()];
    let marks = ids.iter().zip(marks).map(|(id, mark)| Marked { item: item(&batch, *id).clone(), mark });
    let finish = Finish { lease: batch.lease.clone(), marks: marks.collect(), ends: true };
    proxy.arm();
    let lost = store.settle(std::slice::from_ref(&finish)).await.expect_err("the connection was cut");
    assert!(matches!(lost, StoreError::Unavailable(_)) && proxy.has_cut(), "{lost}");
    let numbers = h.store().status("default").await;
    assert_eq!((numbers.confirmed, numbers.retry, numbers.doubt, numbers.pending), (3, 1, 1, 1), "it was committed");
    let again = store.finish(finish).await;
    assert_eq!((again.facts, again.repeats, again.moved, again.fenced), (0, 3, 0, 3));
    assert_eq!(h.store().status("default").await.pending, 1);
    h.store().assert_sound().await;
    // A beat that lapsed and promoted without hearing of it does neither twice.
    let batch = store.take(lane).await;
    store.call(&batch, Duration::from_millis(1)).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    proxy.arm();
    let beat = Beat { worker: worker("a"), ttl: LONG, lanes: vec![lane], promote_max: 10, thorough: true };
    store.beat(&beat).await.expect_err("the connection was cut");
    let beaten = store.beat_as("a", &[lane]).await;
    assert_eq!((beaten.lapsed, beaten.promoted, beaten.places()), (0, 0, vec![(lane, Rank::Suspect)]));
    let now = store.look(batch.items[0].id).await;
    assert_eq!((now.state, now.crashes), (State::Doubt, 1));
    store.assert_sound().await;
}

/// Says it again until it is heard, as whoever uses a store must.
async fn heard<T, F: Future<Output = Result<T, StoreError>>>(mut ask: impl FnMut() -> F) -> T {
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

type Said = HashMap<Uuid, State>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_backends_lose_and_double_nothing() {
    let h = open(false).await;
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(4000);
    h.enqueue(lane, &ids).await;
    let done = Arc::new(AtomicBool::new(false));
    let (mut chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    let workers: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| tokio::spawn(work(store.clone(), lane, name, Chance::new(chance.next_u64()), done.clone())))
        .into();
    let killer = client(&h.url).await.expect("client");
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(25)).await;
        let kill = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name like 'caudal %'";
        killer.batch_execute(kill).await.expect("kill");
    }
    done.store(true, Ordering::Relaxed);
    let mut said = Said::new();
    for worker in workers {
        for (id, state) in worker.await.expect("worker") {
            assert_eq!(*said.entry(id).or_insert(state), state, "all workers say the same of one transaction");
        }
    }
    assert!(!said.is_empty());
    let again = h.another().await;
    again.assert_sound().await;
    // Whatever was said and settled stands; nothing else does.
    let mut open = 0;
    for id in &ids {
        let now = again.look(*id).await;
        match said.get(id) {
            Some(state) => assert_eq!(now.state, *state, "{now:?}"),
            None => {
                assert!(!now.state.is_outcome(), "nobody said so: {now:?}");
                open += 1;
            }
        }
    }
    let numbers = again.status("default").await;
    assert_eq!((numbers.enqueued, caudal_testkit::confirm::open(&numbers), numbers.contradictions), (4000, open, 0));
}

/// Claims, calls and settles; what it says of a transaction depends on the transaction alone. Returns what it said.
async fn work(
    store: Arc<dyn ConfirmStore>,
    lane: LaneId,
    name: &'static str,
    mut chance: Chance,
    done: Arc<AtomicBool>,
) -> Said {
    let mut said = Said::new();
    let ttl = Duration::from_millis(200);
    while !done.load(Ordering::Relaxed) {
        let beat = Beat { worker: worker(name), ttl, lanes: vec![lane], promote_max: 100, thorough: true };
        heard(|| store.beat(&beat)).await;
        let rank = *chance.pick(&Rank::ALL);
        let asked = Claim { rank, items_max: 20, ttl, worker: worker(name), ..claim(lane) };
        let Some(batch) = heard(|| store.claim(&asked)).await else { continue };
        if !heard(|| store.begin_calls(&batch.lease, ttl)).await || chance.one_in(10) {
            continue;
        }
        let marks = batch.items.iter().map(|item| {
            let mark = match chance.between(0, 5) {
                0 => retry(Duration::from_millis(10), true),
                1 => Mark::Release,
                _ if item.id.as_u128().is_multiple_of(3) => fact(caudal_core::confirm::Fact::Rejected),
                _ => confirmed(),
            };
            if let Mark::Fact { fact, .. } = &mark {
                said.insert(item.id, fact.state());
            }
            Marked { item: item.clone(), mark }
        });
        let finish = [Finish { lease: batch.lease.clone(), marks: marks.collect(), ends: true }];
        heard(|| store.settle(&finish)).await;
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_was_deleted_is_held_and_hurts_nobody() {
    let h = open(false).await;
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(3);
    h.enqueue(lane, &ids).await;
    h.execute(&format!("delete from payments where _id = '{}'", ids[1])).await;
    let batch = store.take(lane).await;
    assert_eq!(caudal_testkit::confirm::ids_of(&batch), [ids[0], ids[2]]);
    let now = store.look(ids[1]).await;
    assert_eq!((now.state, now.maybe_done, now.attempts), (State::Held, false, 0));
    assert!(now.detail.contains("payments"), "{now:?}");
    store.call(&batch, LONG).await;
    assert_eq!(store.finish(finish(&batch, &confirmed())).await.facts, 2);
    let numbers = store.status("default").await;
    assert_eq!((numbers.confirmed, numbers.held, numbers.leased + numbers.calling), (2, 1, 0));
}
