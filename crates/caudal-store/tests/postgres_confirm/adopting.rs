//! Tables that somebody else writes.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::confirm::ports::{Adopt, Batch, Claim, Confirm, LaneSpec, OperateConfirmations, Records};
use caudal_core::confirm::{Fact, LaneId, Rank, State};
use caudal_core::schema::{Column, ColumnType, Table};
use caudal_testkit::confirm::{ConfirmStore, Doing, Harness, LONG, claim, confirmed, fact, finish, item, part, worker};
use caudal_testkit::postgres::client;
use caudal_testkit::store::topic;

use crate::harness::{Sql, open};

/// A table as a script keeps it: a key of `ty`, an amount, a state that is an enumeration.
async fn owned(h: &Sql, ty: &str, keys: &[&str]) {
    let rows: Vec<String> =
        keys.iter().map(|key| format!("('{}', 12.50, 'waiting')", key.replace('\'', "''"))).collect();
    h.execute(&format!(
        "create schema bank;
         create type bank.progress as enum ('waiting', 'paid', 'refused', 'cancelled');
         create table bank.transfers (ref {ty} primary key, amount numeric(10, 2), state bank.progress not null);
         insert into bank.transfers values {}",
        rows.join(", ")
    ))
    .await;
}

async fn adopting(h: &Sql, ty: ColumnType, declared: Option<&str>) -> LaneId {
    let columns = vec![
        Column::found("ref", ty, false, declared.map(Into::into)),
        Column::found("amount", ColumnType::Text, true, Some("numeric(10,2)".into())),
        Column::found("state", ColumnType::Text, false, Some("bank.progress".into())),
    ];
    let adopt = Adopt {
        table: Arc::new(Table::found("bank", "transfers", columns, vec![0])),
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

async fn states(h: &Sql) -> Vec<String> {
    let rows = client(&h.url).await.expect("client");
    let rows = rows.query("select state::text from bank.transfers order by ref", &[]).await.expect("states");
    rows.iter().map(|row| row.get(0)).collect()
}

/// In the order of the keys.
async fn take_all(store: &Arc<dyn ConfirmStore>, lane: LaneId, ttl: Duration) -> Batch {
    let batch = store.claim_as(Claim { ttl, ..claim(lane) }).await.expect("a batch");
    store.call(&batch, ttl).await;
    batch
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pending_rows_are_found_once_and_written_back() {
    let h = open(false).await;
    owned(&h, "bigint", &["1", "2", "3", "4", "5"]).await;
    h.execute("update bank.transfers set state = 'paid' where ref = 4").await;
    let (store, lane) = (h.store(), adopting(&h, ColumnType::Int8, None).await);
    assert_eq!(store.adopt(lane, 2).await.expect("adopt"), 2, "no more than asked for");
    assert_eq!(store.adopt(lane, 100).await.expect("adopt"), 2);
    assert_eq!(store.adopt(lane, 100).await.expect("adopt"), 0, "each is found once");
    store.assert_sound().await;
    let batch = take_all(&store, lane, LONG).await;
    let records: Vec<serde_json::Value> =
        batch.items.iter().map(|item| serde_json::from_slice(&item.record).expect("a record")).collect();
    assert_eq!(records[0], serde_json::json!({"ref": 1, "amount": "12.50", "state": "waiting"}));
    assert_eq!(records.iter().map(|record| record["ref"].clone()).collect::<Vec<_>>(), [1, 2, 3, 5]);
    // Meanwhile its owner changes one: that stays as it is, and the outcome stands all the same.
    h.execute("update bank.transfers set state = 'cancelled' where ref = 2").await;
    let [one, two, three, _] = &batch.items[..] else { panic!("four of them") };
    let marks = [(one, confirmed()), (two, confirmed()), (three, fact(Fact::Rejected))];
    assert_eq!(store.finish(part(&batch.lease, &marks)).await.facts, 3);
    assert_eq!(states(&h).await, ["paid", "cancelled", "refused", "paid", "waiting"]);
    assert_eq!(store.look(two.id).await.state, State::Confirmed);
    // A repeat, and an answer that contradicts, change nothing there.
    let contradicted = store.finish(part(&batch.lease, &[(three, confirmed())])).await;
    assert_eq!(contradicted.contradictions, 1);
    assert_eq!(states(&h).await[2], "refused");
    assert_eq!(store.adopt(lane, 100).await.expect("adopt"), 0);
    store.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_facts_and_peoples_words_are_written_back_too() {
    let h = open(false).await;
    owned(&h, "uuid", &["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"]).await;
    let (store, lane) = (h.store(), adopting(&h, ColumnType::Uuid, None).await);
    store.adopt(lane, 100).await.expect("adopt");
    let old = take_all(&store, lane, h.ttl()).await;
    let [one, two] = [0, 1].map(|at: usize| old.items[at].id);
    store.until(lane, one, State::Doubt).await;
    let new = store.take_when_ready(Claim { rank: Rank::Suspect, worker: worker("b"), ..claim(lane) }).await;
    assert!(new.items.iter().all(|item| item.doubt && !item.record.is_empty()));
    assert_eq!(store.finish(part(&old.lease, &[(item(&old, one), confirmed())])).await.facts, 1);
    assert_eq!(states(&h).await, ["paid", "waiting"]);
    store.resolve(two, Fact::Rejected, "the bank's letter").await.expect("resolve");
    assert_eq!(states(&h).await, ["paid", "refused"]);
    let settled = store.finish(finish(&new, &confirmed())).await;
    assert_eq!((settled.facts, settled.repeats, settled.contradictions), (0, 1, 1));
    assert_eq!(states(&h).await, ["paid", "refused"]);
    store.assert_sound().await;
}

/// The same rows are the same transactions in a database that knows nothing of the first one: so is the key at the endpoint.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_keep_their_transactions_in_another_database() {
    let mut seen = Vec::new();
    for declared in [None, Some("character varying(20)")] {
        let h = open(false).await;
        owned(&h, "varchar(20)", &["A-1", "O'Neil \"x\""]).await;
        let lane = adopting(&h, ColumnType::Text, declared).await;
        h.store.adopt(lane, 100).await.expect("adopt");
        let batch = take_all(&h.store(), lane, LONG).await;
        let ids = caudal_testkit::confirm::ids_of(&batch);
        h.store().finish(finish(&batch, &confirmed())).await;
        assert_eq!(states(&h).await, ["paid", "paid"]);
        assert!(h.store.verify().await.expect("verify").iter().all(|audit| audit.is_sound()));
        seen.push(ids);
    }
    assert_eq!(seen[0], seen[1]);
}
