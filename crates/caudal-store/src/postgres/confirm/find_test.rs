//! One transaction among many that are pending is found by its id, and the first of them without the others: by the blocks that
//! PostgreSQL touches for it.

use caudal_core::ports::Catalogue;
use caudal_testkit::postgres::{client, database};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::operate::Typed;
use super::super::{PostgresConfig, PostgresStore};
use super::claim::{CLAIM, CLAIM_TYPES};
use super::operate::{ONE, RESOLVE, VOID};

/// Their table has some five hundred blocks.
const PENDING: u32 = 50_000;
/// From about here on PostgreSQL would rather collect and sort what it takes for three rows.
const JUST_CAME: u32 = 300_000;
/// The index, the row, the view's other places, and what is written.
const BLOCKS_MAX: u64 = 100;

const FILL: &str = "
insert into _confirm_lanes (topic, name, adopts) values ('payments', 'default', false);
insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
  select l.lane, 0, gen_random_uuid(), 0, 0, false, true, clock_timestamp()
  from _confirm_lanes l, generate_series(1, $PENDING)";

#[tokio::test]
async fn a_pending_transaction_is_found_without_looking_at_all() {
    let url = database().await.expect("a database");
    let store = PostgresStore::connect(PostgresConfig::new(&url, "test")).await.expect("connect");
    store.migrate().await.expect("migrate");
    let client = client(&url).await.expect("a connection");
    client.batch_execute(&FILL.replace("$PENDING", &PENDING.to_string())).await.expect("filled");
    client.batch_execute("analyze").await.expect("analysed");
    // As the store's own connections have it.
    client.batch_execute("set enable_seqscan = off; set jit = off").await.expect("set");
    let ids = client.query("select tx from _confirm_ready order by pos offset 30000 limit 2", &[]).await.expect("ids");
    let [one, two]: [Uuid; 2] = [0, 1].map(|n| ids[n].get(0));
    let (attempts, since) = (0, std::time::SystemTime::UNIX_EPOCH);
    let resolve: [Typed<'_>; 8] = [
        (&two, Type::UUID),
        (&"confirmed", Type::TEXT),
        (&"seen", Type::TEXT),
        (&"payments", Type::TEXT),
        (&attempts, Type::INT4),
        (&since, Type::TIMESTAMPTZ),
        (&"default", Type::TEXT),
        (&"test", Type::TEXT),
    ];
    let asked: [(&str, &[Typed<'_>]); 3] = [
        (ONE, &[(&one, Type::UUID)]),
        (VOID, &[(&one, Type::UUID), (&"wrong", Type::TEXT), (&"test", Type::TEXT)]),
        (RESOLVE, &resolve),
    ];
    for (sql, params) in asked {
        let plan = client.query_typed(&format!("explain (analyze, buffers, timing off) {sql}"), params).await;
        let plan: Vec<String> = plan.expect("explained").iter().map(|row| row.get(0)).collect();
        let blocks = blocks(&plan);
        println!("{blocks} blocks");
        assert!(blocks <= BLOCKS_MAX, "{blocks} blocks: {plan:#?}");
    }
}

/// Of a table that was just filled nothing is known until it is analysed, which may take a minute.
#[tokio::test]
async fn the_first_are_claimed_without_looking_at_all() {
    let url = database().await.expect("a database");
    let store = PostgresStore::connect(PostgresConfig::new(&url, "test")).await.expect("connect");
    store.migrate().await.expect("migrate");
    let client = client(&url).await.expect("a connection");
    client.batch_execute("alter table _confirm_ready set (autovacuum_enabled = false)").await.expect("altered");
    client.batch_execute(&FILL.replace("$PENDING", &JUST_CAME.to_string())).await.expect("filled");
    client.batch_execute("set enable_seqscan = off; set jit = off").await.expect("set");
    client.batch_execute(&store.begin_in_order()).await.expect("begun");
    let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
        [&1i32, &0i16, &0i64, &1_000i64, &"w", &1_000_000i64, &i64::MAX];
    let params: Vec<Typed<'_>> = values.into_iter().zip(CLAIM_TYPES).collect();
    let plan = client.query_typed(&format!("explain (analyze, buffers, timing off) {CLAIM}"), &params).await;
    let plan: Vec<String> = plan.expect("explained").iter().map(|row| row.get(0)).collect();
    let has = |what: &str| plan.iter().any(|line| line.contains(what));
    assert!(has("Index Scan using _confirm_ready_pkey") && !has("Sort Key: _confirm_ready.pos"), "{plan:#?}");
}

/// As long as somebody holds an old snapshot, what was taken stays in the way.
#[tokio::test]
async fn between_two_positions_no_more_is_passed_than_lies_there() {
    let url = database().await.expect("a database");
    let store = PostgresStore::connect(PostgresConfig::new(&url, "test")).await.expect("connect");
    store.migrate().await.expect("migrate");
    let (owner, client) = (client(&url).await.expect("a connection"), client(&url).await.expect("a connection"));
    client.batch_execute(&FILL.replace("$PENDING", &PENDING.to_string())).await.expect("filled");
    client.batch_execute("analyze").await.expect("analysed");
    owner.batch_execute("begin isolation level repeatable read; select from _confirm_lanes").await.expect("held");
    client.batch_execute("delete from _confirm_ready").await.expect("taken");
    client.batch_execute("set enable_seqscan = off; set jit = off").await.expect("set");
    client.batch_execute(&store.begin_in_order()).await.expect("begun");
    let passed = async |to: i64| {
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
            [&1i32, &0i16, &0i64, &1_000i64, &"w", &1_000_000i64, &to];
        let params: Vec<Typed<'_>> = values.into_iter().zip(CLAIM_TYPES).collect();
        let plan = client.query_typed(&format!("explain (analyze, buffers, timing off) {CLAIM}"), &params).await;
        blocks(&plan.expect("explained").iter().map(|row| row.get(0)).collect::<Vec<String>>())
    };
    let (all, some) = (passed(i64::MAX).await, passed(500).await);
    println!("{all} blocks of all, {some} of the first 500");
    assert!(some * 20 < all, "{some} of {all}");
}

/// Those of the whole statement, which its first line on buffers counts.
fn blocks(plan: &[String]) -> u64 {
    let line = plan.iter().find(|line| line.trim_start().starts_with("Buffers:")).expect("buffers");
    let number = |key: &str| -> u64 {
        let rest = line.split_once(key).map_or("", |(_, rest)| rest);
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
    };
    number("shared hit=") + number("read=")
}
