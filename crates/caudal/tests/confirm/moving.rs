//! Transactions that move to another store while some of them are confirmed, and back: by the real program, with DynamoDB on moto.

use std::process::Output;
use std::time::{Duration, Instant};

use caudal_core::confirm::ports::OperateConfirmations;
use caudal_testkit::endpoint::Behaviour;
use caudal_testkit::server::Server;
use serde_json::{Value, json};

use crate::fleet::{Fleet, Store, key_of};
use crate::on_both_stores;
use crate::table::Table;

on_both_stores!(a_third_is_confirmed_in_each_store, what_differs_is_an_exit_code, what_cannot_move_is_said);

/// Slow enough to be stopped in the middle; what a killed worker was calling for is asked for.
const SETTINGS: &str =
    "probe_url = \"${endpoint}/payments/${key}\"\nkey_retention = \"1h\"\nconcurrency = 2\nbatch_max = 4";

fn moved(server: &Server, to: &str, more: &[&str]) -> (Option<i32>, Value, String) {
    let Output { status, stdout, stderr } =
        server.run(&[&["confirm", "move", "--to", to, "--json"], more].concat()).unwrap();
    (status.code(), serde_json::from_slice(&stdout).unwrap_or_default(), String::from_utf8_lossy(&stderr).into_owned())
}

async fn a_third_is_confirmed_in_each_store(store: Store) {
    let slow = Behaviour { delays: 1.0, delay_ms: 30, declines: 0.1, ..Behaviour::default() };
    let (sql, table) = (store.url.clone(), Table::new().await);
    let mut fleet = Fleet::start(store, slow, SETTINGS).await;
    let ids = fleet.enqueue(90).await;
    fleet.worker();
    fleet.reach(&["confirmed", "rejected"], 30).await;
    // Killed with calls under way: the move waits until they have lapsed, and takes them along as doubts.
    fleet.kill_workers();
    let (code, report, said) = moved(&fleet.configured(), &table.url, &["--resume"]);
    assert_eq!(code, Some(0), "{report} {said}");
    let lane = &report["lanes"][0];
    assert_eq!((&lane["transactions"], &lane["copied"], &report["same"]), (&json!(90), &json!(90), &json!(true)));
    assert!(fleet.lane().await["paused"].as_str().unwrap().contains(&table.url[..20]), "{:#}", fleet.lane().await);
    // A worker of the old store does nothing any more; one of the new store goes on.
    fleet.worker();
    fleet.worker_env("CAUDAL_CONFIRM__STORE", &table.url);
    fleet.worker();
    let begun = Instant::now();
    while table.lane().await.confirmed + table.lane().await.rejected < 60 {
        assert!(begun.elapsed() < Duration::from_secs(90), "{:?}\n{}", table.lane().await, fleet.workers[1].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    fleet.kill_workers();
    let there = fleet.configured();
    let (code, report, said) = moved(&there, &sql, &["--resume"]);
    assert_eq!(code, Some(0), "{report} {said}");
    let lane = &report["lanes"][0];
    assert_eq!((&lane["transactions"], &lane["copied"]), (&json!(90), &json!(0)), "{report}");
    assert!(lane["renewed"].as_u64() >= Some(20), "what was confirmed there: {report}");
    assert!(there.run(&["confirm", "verify"]).unwrap().status.success(), "in DynamoDB, too");
    fleet.clear_worker_env();
    fleet.worker();
    fleet.assert_clean().await;
    let totals = fleet.endpoint.totals();
    assert_eq!(fleet.count(&["confirmed", "rejected"]).await, 90, "{:#}", fleet.lane().await);
    assert_eq!((totals.doubles, totals.effects + totals.declined), (0, 90), "{totals:?}");
    for id in ids {
        let did = fleet.endpoint.effects(key_of(id)).expect("the endpoint's books have it");
        assert!(did.effects == 1 || (did.effects == 0 && did.declined), "{id}: {did:?}");
    }
}

async fn what_differs_is_an_exit_code(store: Store) {
    let table = Table::new().await;
    let fleet = Fleet::start(store, Behaviour::default(), SETTINGS).await;
    let ids = fleet.enqueue(5).await;
    assert_eq!(moved(&fleet.configured(), &table.url, &[]).0, Some(0));
    let fact = caudal_core::confirm::Fact::Confirmed;
    table.store.resolve(ids[3], fact, "behind its back").await.unwrap();
    let (code, report, said) = moved(&fleet.configured(), &table.url, &["--resume"]);
    assert_eq!(code, Some(1), "{report} {said}");
    assert_eq!(report["lanes"][0]["differences"], json!([{ "transaction_id": ids[3], "in": "state" }]));
    assert!(table.lane().await.paused.is_some(), "nothing goes on where something differs");
    let told = fleet.configured().run(&["confirm", "move", "--to", &table.url]).unwrap();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(text.contains(&format!("{} differs: state", ids[3])) && text.contains("NOT the same"), "{text}");
}

async fn what_cannot_move_is_said(store: Store) {
    let (sql, table) = (store.url.clone(), Table::new().await);
    let fleet = Fleet::start(store, Behaviour::default(), SETTINGS).await;
    let refused = |to: &str, more: &[&str]| {
        let (code, report, said) = moved(&fleet.configured(), to, more);
        assert_eq!((code, report), (Some(1), Value::Null), "{said}");
        said
    };
    assert!(refused(&sql, &[]).contains("already"));
    assert!(refused("ftp://elsewhere", &[]).contains("sqlite:"));
    assert!(refused(&table.url, &["--topic", "refunds"]).contains("[payments]"));
    assert!(fleet.lane().await["paused"].is_null(), "nothing was begun");
    // A worker that died in the middle, and no time for its lease to end.
    let mut worker = fleet.configured();
    fleet.enqueue(3).await;
    worker.set_env("CAUDAL_FAILPOINT", "confirm.claimed:1");
    worker.spawn().unwrap();
    assert!(worker.wait(Duration::from_secs(20)).await.unwrap().is_some());
    let said = refused(&table.url, &["--wait", "1ms"]);
    assert!(said.contains("still under way") && said.contains("payments/default"), "{said}");
    assert_eq!(moved(&fleet.configured(), &table.url, &[]).0, Some(0));
    assert_eq!(table.lane().await.pending, 3);
}
