//! Random work, from a printed seed: whatever happens in whatever order, every transaction ends once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use caudal_core::confirm::ports::{Acted, Beat, Claim, Finish, Marked};
use caudal_core::confirm::{Fact, Item, LaneId, Mark, Rank, State};
use uuid::Uuid;

use super::{ConfirmStore, Doing, Harness, claim, confirmed, dead, doubt, fact, finish, held, ids, retry, worker};
use crate::chance::Chance;

const STEPS: usize = 400;

/// What a worker believes it has: maybe for long not any more.
struct Held {
    batch: super::Batch,
    unmarked: Vec<Item>,
}

struct Mix<'h, H> {
    h: &'h H,
    store: Arc<dyn ConfirmStore>,
    lane: LaneId,
    chance: Chance,
    ids: Vec<Uuid>,
    held: Vec<Held>,
    last: Option<Finish>,
    /// The outcome that must stand: the first that was settled.
    outcomes: HashMap<Uuid, State>,
}

pub async fn random_work_conserves_everything(h: &impl Harness) {
    let (chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    let (store, lane) = (h.store(), h.lane("default").await);
    let mut mix = Mix {
        h,
        store: store.clone(),
        lane,
        chance,
        ids: Vec::new(),
        held: Vec::new(),
        last: None,
        outcomes: HashMap::new(),
    };
    mix.enqueue().await;
    for step in 0..STEPS {
        mix.step().await;
        if step % 20 == 19 {
            store.assert_sound().await;
        }
    }
    store.resume(&super::topic(), None).await.expect("resume");
    drain(&store, lane, &mix.ids).await;
    store.assert_sound().await;
    for id in &mix.ids {
        let now = store.look(*id).await;
        let expected = mix.outcomes.get(id).copied().unwrap_or(State::Confirmed);
        assert_eq!(now.state, expected, "{now:?}");
    }
    assert!(mix.outcomes.len() >= 10, "something happened: {} outcomes", mix.outcomes.len());
}

impl<H: Harness> Mix<'_, H> {
    async fn step(&mut self) {
        match self.chance.between(0, 20) {
            0 | 1 => self.enqueue().await,
            2..6 => self.claim().await,
            6 | 7 => self.begin_calls().await,
            8..13 => self.settle().await,
            13 => self.settle_again().await,
            14 | 15 => self.beat().await,
            16 => self.extend().await,
            17 | 18 => self.operate().await,
            _ => tokio::time::sleep(self.ttl() / 4).await,
        }
    }

    fn ttl(&mut self) -> Duration {
        self.h.ttl() * (1 + 4 * u32::from(self.chance.one_in(2)))
    }

    async fn enqueue(&mut self) {
        let new = ids(self.chance.between(1, 10) as usize);
        self.h.enqueue(self.lane, &new).await;
        self.ids.extend(new);
    }

    async fn claim(&mut self) {
        let rank = *self.chance.pick(&[Rank::Usual, Rank::Usual, Rank::Suspect, Rank::Alone]);
        let worker = worker(["a", "b", "c"][self.chance.between(0, 3) as usize]);
        let asked =
            Claim { rank, items_max: self.chance.between(1, 12) as usize, ttl: self.ttl(), worker, ..claim(self.lane) };
        if let Some(batch) = self.store.claim_as(asked).await {
            assert!(!batch.items.is_empty());
            for item in &batch.items {
                assert!(!self.outcomes.contains_key(&item.id), "claimed although it has an outcome: {item:?}");
            }
            let unmarked = batch.items.clone();
            self.held.push(Held { batch, unmarked });
        }
    }

    async fn begin_calls(&mut self) {
        let ttl = self.ttl();
        if let Some(held) = pick(&mut self.chance, &mut self.held) {
            self.store.begin_calls(&held.batch.lease, ttl).await.expect("begin calls");
        }
    }

    async fn extend(&mut self) {
        let ttl = self.ttl();
        let leases: Vec<_> = self.held.iter().map(|held| held.batch.lease.clone()).collect();
        assert_eq!(self.store.extend(&leases, ttl).await.expect("extend").len(), leases.len());
    }

    /// Marks some items of a lease that may have lapsed long ago.
    async fn settle(&mut self) {
        let Some(at) = (!self.held.is_empty()).then(|| self.chance.between(0, self.held.len() as u64) as usize) else {
            return;
        };
        let count = 1 + self.chance.between(0, self.held[at].unmarked.len() as u64) as usize;
        let some: Vec<Item> = self.held[at].unmarked.drain(..count).collect();
        let marks = some.into_iter().map(|item| Marked { mark: self.mark(), item }).collect();
        let ends = self.held[at].unmarked.is_empty();
        let finish = Finish { lease: self.held[at].batch.lease.clone(), marks, ends };
        let settled = self.store.finish(finish.clone()).await;
        let mut first = 0;
        for marked in &finish.marks {
            if let Mark::Fact { fact, .. } = marked.mark {
                first += u64::from(!self.outcomes.contains_key(&marked.item.id));
                self.outcomes.entry(marked.item.id).or_insert(fact.state());
            }
        }
        assert_eq!(settled.facts, first, "{finish:?}");
        if ends {
            self.held.swap_remove(at);
        }
        self.last = Some(finish);
    }

    fn mark(&mut self) -> Mark {
        let after = Duration::from_millis(self.chance.between(0, 60));
        match self.chance.between(0, 10) {
            0..3 => confirmed(),
            3 => fact(Fact::Rejected),
            4 | 5 => retry(after, self.chance.one_in(2)),
            6 => doubt(after),
            7 => held(self.chance.one_in(2)),
            8 => dead(self.chance.one_in(2)),
            _ => Mark::Release,
        }
    }

    /// The answer was lost, so the worker says it once more.
    async fn settle_again(&mut self) {
        let Some(finish) = self.last.clone() else { return };
        let settled = self.store.finish(finish).await;
        assert_eq!((settled.facts, settled.moved), (0, 0), "a repeat changes nothing");
    }

    async fn beat(&mut self) {
        let promote_max = self.chance.between(1, 50) as usize;
        let worker = worker(["a", "b", "c"][self.chance.between(0, 3) as usize]);
        let beat = Beat { worker, ttl: self.h.ttl(), lanes: vec![self.lane], promote_max, thorough: true };
        self.store.beat(&beat).await.expect("beat");
    }

    async fn operate(&mut self) {
        let id = *self.chance.pick(&self.ids);
        let known = self.outcomes.get(&id).copied();
        let (acted, outcome) = match self.chance.between(0, 8) {
            0 | 1 => (self.store.void(id, "random").await.expect("void"), Some(State::Void)),
            2 | 3 => (self.store.redrive(id).await.expect("redrive"), None),
            4 => (self.store.resolve(id, Fact::Rejected, "random").await.expect("resolve"), Some(State::Rejected)),
            5 => {
                self.store.pause(&super::topic(), None, "random").await.expect("pause");
                return;
            }
            _ => {
                self.store.resume(&super::topic(), None).await.expect("resume");
                return;
            }
        };
        assert_ne!(acted, Acted::Unknown);
        if acted == Acted::Done {
            assert_eq!(known, None, "what has an outcome is not to be changed");
            if let Some(outcome) = outcome {
                self.outcomes.insert(id, outcome);
            }
        }
    }
}

fn pick<'a, T>(chance: &mut Chance, from: &'a mut [T]) -> Option<&'a mut T> {
    let at = chance.between(0, from.len() as u64) as usize;
    from.get_mut(at)
}

/// Confirms everything that is open until nothing is.
async fn drain(store: &Arc<dyn ConfirmStore>, lane: LaneId, ids: &[Uuid]) {
    let draining = async {
        loop {
            store.beat_as("drain", &[lane]).await;
            for rank in Rank::ALL {
                while let Some(batch) = store.claim_as(Claim { rank, worker: worker("drain"), ..claim(lane) }).await {
                    store.call(&batch, super::LONG).await;
                    store.finish(finish(&batch, &confirmed())).await;
                }
            }
            let now = store.status("default").await;
            assert_eq!(now.enqueued, ids.len() as u64);
            match super::open(&now) {
                0 => return,
                open if open == now.held + now.dead => resolve_all(store, ids).await,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, draining).await.expect("all leases lapse and everything becomes due");
}

/// Several workers at once, each with leases that lapse under it, in each other's way as much as can be.
pub async fn concurrent_workers_conserve_everything(h: &impl Harness) {
    let (mut chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    let (store, lane) = (h.store(), h.lane("default").await);
    let ids = ids(600);
    h.enqueue(lane, &ids).await;
    // What was said of each, by whoever.
    let said: Arc<Mutex<HashMap<Uuid, Vec<State>>>> = Arc::default();
    let mut workers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        let store = if name == "a" { store.clone() } else { h.another().await };
        let (chance, said, ttl) = (Chance::new(chance.next_u64()), said.clone(), h.ttl());
        workers.push(tokio::spawn(work(store, lane, name, chance, said, ttl)));
    }
    for worker in workers {
        worker.await.expect("worker");
    }
    store.assert_sound().await;
    drain(&store, lane, &ids).await;
    store.assert_sound().await;
    let now = store.status("default").await;
    assert_eq!(super::outcomes(&now), ids.len() as u64, "{now:?}");
    let said = std::mem::take(&mut *said.lock().expect("what was said"));
    for (id, said) in said.iter() {
        let now = store.look(*id).await;
        assert!(said.contains(&now.state), "{now:?} is none of {said:?}");
    }
}

async fn work(
    store: Arc<dyn ConfirmStore>,
    lane: LaneId,
    name: &'static str,
    mut chance: Chance,
    said: Arc<Mutex<HashMap<Uuid, Vec<State>>>>,
    ttl: Duration,
) {
    for _ in 0..60 {
        if chance.one_in(3) {
            let beat = Beat { worker: worker(name), ttl, lanes: vec![lane], promote_max: 100, thorough: true };
            store.beat(&beat).await.expect("beat");
        }
        let rank = *chance.pick(&[Rank::Usual, Rank::Usual, Rank::Suspect, Rank::Alone]);
        let asked = Claim { rank, items_max: 12, ttl, worker: worker(name), ..claim(lane) };
        let Some(batch) = store.claim_as(asked).await else { continue };
        if chance.one_in(8) || !store.begin_calls(&batch.lease, ttl).await.expect("begin calls") {
            continue;
        }
        if chance.one_in(6) {
            tokio::time::sleep(ttl * 2).await;
        }
        let mut marks: Vec<Marked> = Vec::new();
        for item in &batch.items {
            let mark = match chance.between(0, 8) {
                0..4 => confirmed(),
                4 => fact(Fact::Rejected),
                5 => retry(Duration::from_millis(chance.between(0, 20)), true),
                6 => doubt(Duration::ZERO),
                _ => Mark::Release,
            };
            if let Mark::Fact { fact, .. } = &mark {
                said.lock().expect("what was said").entry(item.id).or_default().push(fact.state());
            }
            marks.push(Marked { item: item.clone(), mark });
        }
        // Not in the order of the claim: whoever settles groups what comes in.
        marks.sort_by_key(|_| chance.next_u64());
        let finish = Finish { lease: batch.lease, marks, ends: true };
        store.settle(std::slice::from_ref(&finish)).await.expect("settle");
        if chance.one_in(5) {
            let again = store.settle(&[finish]).await.expect("settle");
            assert_eq!((again.facts, again.moved), (0, 0), "a repeat changes nothing");
        }
    }
}

/// Ends what only a person can end.
async fn resolve_all(store: &Arc<dyn ConfirmStore>, ids: &[Uuid]) {
    for id in ids {
        let now = store.look(*id).await;
        if matches!(now.state, State::Held | State::Dead) {
            assert_eq!(store.resolve(*id, Fact::Confirmed, "by hand").await.expect("resolve"), Acted::Done);
        }
    }
}
