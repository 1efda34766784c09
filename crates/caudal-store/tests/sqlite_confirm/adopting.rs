//! Tables that somebody else writes.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::ports::{Adopt, Batch, Claim, LaneSpec, Records};
use caudal_core::confirm::{Fact, LaneId, Rank, State};
use caudal_core::error::StoreError;
use caudal_core::ports::Catalogue;
use caudal_testkit::confirm::{
    ConfirmStore, Doing, Harness, LONG, claim, confirmed, doubt, fact, finish, item, part, worker,
};
use caudal_testkit::store::topic;

use crate::harness::{Sql, open};

/// A table as a script keeps it: a key of `ty`, an amount, a state.
fn owned(h: &Sql, ty: &str, keys: &[&str]) {
    let rows: Vec<String> =
        keys.iter().map(|key| format!("('{}', 12.50, 'waiting')", key.replace('\'', "''"))).collect();
    h.execute(&format!(
        "create table transfers (ref {ty} primary key, amount numeric(10, 2), state text not null);
         insert into transfers values {}",
        rows.join(", ")
    ));
}

async fn adopting(h: &Sql) -> LaneId {
    let relations = h.store.relations(&["main".into()]).await.expect("relations");
    let table = relations.table(Some("main"), "transfers").expect("the table").clone();
    let adopt = Adopt {
        table,
        key: "ref".into(),
        state: "state".into(),
        pending: "waiting".into(),
        confirmed: Some("paid".into()),
        rejected: Some("refused".into()),
    };
    let spec =
        LaneSpec { topic: topic("payments"), name: "default".into(), records: Records::Adopted(Arc::new(adopt)) };
    h.ensure(spec).await
}

fn states(h: &Sql) -> Vec<String> {
    let conn = h.connect();
    let mut statement = conn.prepare("select state from transfers order by ref").expect("prepare");
    let states = statement.query_map([], |row| row.get(0)).expect("query");
    states.collect::<Result<_, _>>().expect("states")
}

/// In the order of the keys.
async fn take_all(store: &Arc<dyn ConfirmStore>, lane: LaneId, ttl: Duration) -> Batch {
    let batch = store.claim_as(Claim { ttl, ..claim(lane) }).await.expect("a batch");
    store.call(&batch, ttl).await;
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_rows_are_found_once_and_written_back() {
    let h = open().await;
    owned(&h, "integer", &["1", "2", "3", "4", "5"]);
    h.execute("update transfers set state = 'paid' where ref = 4");
    let (store, lane) = (h.store(), adopting(&h).await);
    assert_eq!(store.adopt(lane, 2).await.expect("adopt"), 2, "no more than asked for");
    assert_eq!(store.adopt(lane, 100).await.expect("adopt"), 2);
    assert_eq!(store.adopt(lane, 100).await.expect("adopt"), 0, "each is found once");
    store.assert_sound().await;
    let batch = take_all(&store, lane, LONG).await;
    let records: Vec<serde_json::Value> =
        batch.items.iter().map(|item| serde_json::from_slice(&item.record).expect("a record")).collect();
    assert_eq!(records[0], serde_json::json!({"ref": 1, "amount": 12.5, "state": "waiting"}));
    assert_eq!(records.iter().map(|record| record["ref"].clone()).collect::<Vec<_>>(), [1, 2, 3, 5]);
    // Meanwhile its owner changes one: that stays as it is, and the outcome stands all the same.
    h.execute("update transfers set state = 'cancelled' where ref = 2");
    let [one, two, three, _] = &batch.items[..] else { panic!("four of them") };
    let marks = [(one, confirmed()), (two, confirmed()), (three, fact(Fact::Rejected))];
    assert_eq!(store.finish(part(&batch.lease, &marks)).await.facts, 3);
    assert_eq!(states(&h), ["paid", "cancelled", "refused", "paid", "waiting"]);
    assert_eq!(store.look(two.id).await.state, State::Confirmed);
    // A repeat, and an answer that contradicts, change nothing there.
    let contradicted = store.finish(part(&batch.lease, &[(three, confirmed())])).await;
    assert_eq!(contradicted.contradictions, 1);
    assert_eq!(states(&h)[2], "refused");
    assert_eq!(store.adopt(lane, 100).await.expect("adopt"), 0);
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_facts_and_peoples_words_are_written_back_too() {
    let h = open().await;
    owned(&h, "text", &["a'1", "a\"2"]);
    let (store, lane) = (h.store(), adopting(&h).await);
    store.adopt(lane, 100).await.expect("adopt");
    let old = take_all(&store, lane, h.ttl()).await;
    // `'` comes after `"`.
    let [one, two] = [1, 0].map(|at: usize| old.items[at].id);
    store.until(lane, one, State::Doubt).await;
    let new = store.take_when_ready(Claim { rank: Rank::Suspect, worker: worker("b"), ..claim(lane) }).await;
    assert!(new.items.iter().all(|item| item.doubt && !item.record.is_empty()));
    assert_eq!(store.finish(part(&old.lease, &[(item(&old, one), confirmed())])).await.facts, 1);
    assert_eq!(states(&h), ["waiting", "paid"]);
    h.another().await.resolve(two, Fact::Rejected, "the bank's letter").await.expect("resolve");
    assert_eq!(states(&h), ["refused", "paid"]);
    let settled = store.finish(finish(&new, &confirmed())).await;
    assert_eq!((settled.facts, settled.repeats, settled.contradictions), (0, 1, 1));
    assert_eq!(states(&h), ["refused", "paid"]);
    store.assert_sound().await;
}

/// Nobody is called for what its owner took back before; what may have been done is found out all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_owner_took_back_is_held() {
    let h = open().await;
    owned(&h, "integer", &["1", "2", "3"]);
    let (store, lane) = (h.store(), adopting(&h).await);
    store.adopt(lane, 100).await.expect("adopt");
    let first = store.claim_as(Claim { items_max: 1, ..claim(lane) }).await.expect("a batch");
    store.call(&first, LONG).await;
    store.finish(finish(&first, &doubt(Duration::ZERO))).await;
    h.execute(
        "update transfers set state = 'cancelled' where ref in (1, 2); delete from transfers where ref = 3;
         insert into transfers values (4, 1, 'waiting')",
    );
    store.adopt(lane, 100).await.expect("adopt");
    // The first two that are claimed have nobody to be called for, so the claim goes on.
    let batch = store.claim_as(Claim { items_max: 2, ..claim(lane) }).await.expect("a batch");
    assert_eq!(batch.items.len(), 1, "what is left to call for");
    let numbers = store.status("default").await;
    assert_eq!((numbers.held, numbers.leased, numbers.doubt), (2, 1, 1));
    let in_doubt = store.take_when_ready(claim(lane)).await;
    assert_eq!((in_doubt.items[0].id, in_doubt.items[0].doubt), (first.items[0].id, true));
    store.assert_sound().await;
}

/// A table that does not take what is written back keeps its own transactions from ending, and nobody else's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_refuses_hurts_nobody_else() {
    let h = open().await;
    owned(&h, "integer", &["1", "2"]);
    h.execute(
        "create trigger stubborn before update on transfers when old.ref = 2 begin select raise(abort, 'closed'); end",
    );
    let (store, lane) = (h.store(), adopting(&h).await);
    store.adopt(lane, 100).await.expect("adopt");
    let batch = take_all(&store, lane, LONG).await;
    let says = |at: usize| [part(&batch.lease, &[(&batch.items[at], confirmed())])];
    let (says_one, says_two) = (says(0), says(1));
    let (one, two) = tokio::join!(store.settle(&says_one), store.settle(&says_two));
    assert_eq!(one.expect("settle").facts, 1);
    assert!(matches!(two, Err(StoreError::Setup(_))), "{two:?}");
    assert_eq!(states(&h), ["paid", "waiting"]);
    assert_eq!(store.look(batch.items[1].id).await.state, State::Calling);
    h.execute("drop trigger stubborn");
    assert_eq!(store.settle(&says_two).await.expect("settle").facts, 1);
    assert_eq!(states(&h), ["paid", "paid"]);
    store.assert_sound().await;
}
