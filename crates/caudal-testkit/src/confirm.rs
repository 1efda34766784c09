//! What every store of confirmations must do, run identically against each.
//!
//! A store's tests say how to open one ([`Harness`]) and call [`confirm_conformance!`](crate::confirm_conformance), which makes
//! one test a case.
//!
//! Nothing here waits for a clock to show a time: what lapses or becomes due is waited for, beat by beat, until it has.

pub mod auditing;
pub mod claiming;
pub mod lapsing;
pub mod mixing;
pub mod moving;
pub mod operating;
pub mod settling;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::confirm::ports::{
    Batch, Beat, Beaten, Claim, Confirm, Confirmation, Finish, LaneStatus, Lease, Marked, OperateConfirmations, Settled,
};
use caudal_core::confirm::{Fact, Item, LaneId, Mark, Rank, State};
use caudal_core::topic::TopicName;
use uuid::Uuid;

/// Everything a store does for confirmations.
pub trait ConfirmStore: Confirm + OperateConfirmations {}

impl<T: Confirm + OperateConfirmations> ConfirmStore for T {}

/// The topic that the lanes of the suite belong to unless a case says otherwise.
pub const TOPIC: &str = "payments";

/// A store to test, empty and migrated, and what the suite must do to it from outside. A store that spreads a lane over shards
/// is opened so that a single worker's claim from 0 finds whatever is in the lane.
#[async_trait]
pub trait Harness: Send + Sync {
    fn store(&self) -> Arc<dyn ConfirmStore>;

    /// The same data as another process sees it.
    async fn another(&self) -> Arc<dyn ConfirmStore>;

    /// Makes the topic and the lane known.
    async fn lane_of(&self, topic: &str, lane: &str) -> LaneId;

    /// Stores a record for each id and makes it pending, in this order, in one transaction where the store has such.
    async fn enqueue(&self, lane: LaneId, ids: &[Uuid]);

    /// Damages the data behind the store's back; `false` where this store cannot be damaged in that way.
    async fn damage(&self, damage: Damage) -> bool;

    /// The shortest time for which a lease is worth having.
    fn ttl(&self) -> Duration {
        Duration::from_millis(100)
    }

    async fn lane(&self, lane: &str) -> LaneId {
        self.lane_of(TOPIC, lane).await
    }
}

/// What may befall a store, for its audit to find.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// A pending transaction is not pending any more, nor anything else.
    Lose(Uuid),
    /// A pending transaction is held as well.
    Double(LaneId, Uuid),
    /// An outcome for what was never stored.
    Stray(LaneId, Uuid),
}

/// One test a case, each with a harness of its own from `$open`, an `async fn() -> impl Harness`.
#[macro_export]
macro_rules! confirm_conformance {
    ($open:path) => {
        $crate::confirm_conformance!($open;
            claiming: lanes_keep_their_numbers, items_come_oldest_first_and_whole, nothing_is_claimed_twice,
                the_watermark_skips_only_what_is_taken, paused_lanes_give_nothing, calls_begin_durably,
                leases_are_prolonged, workers_are_counted, another_process_is_woken;
            settling: every_mark_leads_to_its_state, settling_again_changes_nothing, the_first_fact_stands,
                due_items_come_back_and_no_sooner, promotion_is_bounded, the_first_time_of_sending_is_kept,
                attempts_are_counted, an_end_loses_nothing, many_leases_settle_at_once, odd_details_are_kept;
            lapsing: uncalled_items_are_pending_again, called_items_are_in_doubt, crashes_lead_to_caution,
                only_what_was_not_marked_comes_back, late_facts_beat_every_open_state, late_facts_beat_a_new_lease,
                late_marks_are_refused, a_released_item_is_not_doubled;
            operating: only_what_was_surely_not_sent_is_voided, dead_and_held_are_redriven, people_resolve,
                numbers_add_up, attempts_that_failed_are_listed, facts_about_the_void_contradict;
            auditing: an_orderly_store_is_sound, what_is_lost_is_named, what_is_double_is_named, what_is_stray_is_named,
                arrivals_are_counted_by_the_hour;
            mixing: random_work_conserves_everything, concurrent_workers_conserve_everything;
        );
    };
    ($open:path; $($module:ident: $($case:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let harness = $open().await;
                $crate::confirm::$module::$case(&harness).await;
            }
        )+)+
    };
}

/// Longer than any test takes.
pub const LONG: Duration = Duration::from_secs(600);
/// How long something that must come is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::now_v7()).collect()
}

pub fn topic() -> TopicName {
    TopicName::parse(TOPIC).expect("a topic name")
}

pub fn worker(name: &str) -> Arc<str> {
    Arc::from(name)
}

/// A claim of worker `a` for all there is, under a lease that does not lapse by itself.
pub fn claim(lane: LaneId) -> Claim {
    Claim { lane, rank: Rank::Usual, from: 0, to: i64::MAX, items_max: 1000, ttl: LONG, worker: worker("a") }
}

pub fn confirmed() -> Mark {
    fact(Fact::Confirmed)
}

pub fn fact(fact: Fact) -> Mark {
    Mark::Fact { fact, code: Some(200), detail: "the bank's word".into() }
}

pub fn retry(after: Duration, sent: bool) -> Mark {
    Mark::Retry { after, sent, code: Some(503), detail: "busy".into() }
}

pub fn doubt(after: Duration) -> Mark {
    Mark::Doubt { after, code: None, detail: "no answer in time".into() }
}

pub fn held(maybe_done: bool) -> Mark {
    Mark::Held { maybe_done, code: Some(422), detail: "the key was used before".into() }
}

pub fn dead(maybe_done: bool) -> Mark {
    Mark::Dead { maybe_done, code: Some(500), detail: "given up".into() }
}

/// One mark for all items, which ends the lease.
pub fn finish(batch: &Batch, mark: &Mark) -> Finish {
    let marks = batch.items.iter().map(|item| Marked { item: item.clone(), mark: mark.clone() });
    Finish { lease: batch.lease.clone(), marks: marks.collect(), ends: true }
}

/// Marks for some items, which leave the lease as it is.
pub fn part(lease: &Lease, marks: &[(&Item, Mark)]) -> Finish {
    let marks = marks.iter().map(|(item, mark)| Marked { item: (*item).clone(), mark: mark.clone() });
    Finish { lease: lease.clone(), marks: marks.collect(), ends: false }
}

/// What the cases do to a store, with the errors unwrapped.
#[async_trait]
pub trait Doing {
    /// Claims all there is in a lane; there must be something.
    async fn take(&self, lane: LaneId) -> Batch;
    async fn claim_as(&self, claim: Claim) -> Option<Batch>;
    /// Flips a batch to calling, with a lease of `ttl`.
    async fn call(&self, batch: &Batch, ttl: Duration);
    async fn finish(&self, finish: Finish) -> Settled;
    async fn beat_as(&self, worker: &str, lanes: &[LaneId]) -> Beaten;
    async fn look(&self, id: Uuid) -> Confirmation;
    /// Beats until the transaction is in `state`.
    async fn until(&self, lane: LaneId, id: Uuid, state: State) -> Confirmation;
    /// Beats until something can be claimed at this rank, and claims it.
    async fn take_when_ready(&self, claim: Claim) -> Batch;
    async fn status(&self, lane: &str) -> LaneStatus;
    async fn assert_sound(&self);
}

#[async_trait]
impl Doing for Arc<dyn ConfirmStore> {
    async fn take(&self, lane: LaneId) -> Batch {
        self.claim_as(claim(lane)).await.expect("something to claim")
    }

    async fn claim_as(&self, claim: Claim) -> Option<Batch> {
        self.claim(&claim).await.expect("claim")
    }

    async fn call(&self, batch: &Batch, ttl: Duration) {
        assert!(self.begin_calls(&batch.lease, ttl).await.expect("begin calls"), "the lease lives");
    }

    async fn finish(&self, finish: Finish) -> Settled {
        self.settle(&[finish]).await.expect("settle")
    }

    async fn beat_as(&self, worker: &str, lanes: &[LaneId]) -> Beaten {
        let beat =
            Beat { worker: Arc::from(worker), ttl: LONG, lanes: lanes.to_vec(), promote_max: 1000, thorough: true };
        self.beat(&beat).await.expect("beat")
    }

    async fn look(&self, id: Uuid) -> Confirmation {
        self.confirmation(id).await.expect("confirmation").expect("a transaction that is known")
    }

    async fn until(&self, lane: LaneId, id: Uuid, state: State) -> Confirmation {
        let waiting = async {
            loop {
                self.beat_as("housekeeper", &[lane]).await;
                let now = self.look(id).await;
                if now.state == state {
                    return now;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("{id} should be {state:?}, but is {:?}", self.look(id).await),
        }
    }

    async fn take_when_ready(&self, claim: Claim) -> Batch {
        let waiting = async {
            loop {
                self.beat_as("housekeeper", &[claim.lane]).await;
                if let Some(batch) = self.claim_as(claim.clone()).await {
                    return batch;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("nothing became pending")
    }

    async fn status(&self, lane: &str) -> LaneStatus {
        let lanes = self.lanes().await.expect("lanes");
        lanes.into_iter().find(|status| status.topic == TOPIC && status.lane == lane).expect("the lane's numbers")
    }

    async fn assert_sound(&self) {
        for audit in self.verify().await.expect("verify") {
            assert!(audit.is_sound(), "{audit:?}");
        }
        for status in self.lanes().await.expect("lanes") {
            assert_eq!(open(&status) + outcomes(&status), status.enqueued, "{status:?}");
        }
    }
}

/// How many transactions of a lane are not at their end.
pub fn open(status: &LaneStatus) -> u64 {
    status.pending + status.leased + status.calling + status.retry + status.doubt + status.held + status.dead
}

pub fn outcomes(status: &LaneStatus) -> u64 {
    status.confirmed + status.rejected + status.void
}

/// The ids of a batch, sorted, to compare what was claimed regardless of order.
pub fn sorted(ids: impl IntoIterator<Item = Uuid>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = ids.into_iter().collect();
    ids.sort();
    ids
}

pub fn ids_of(batch: &Batch) -> Vec<Uuid> {
    batch.items.iter().map(|item| item.id).collect()
}

/// The batch's item with this id.
pub fn item(batch: &Batch, id: Uuid) -> &Item {
    batch.items.iter().find(|item| item.id == id).expect("an item of the batch")
}
