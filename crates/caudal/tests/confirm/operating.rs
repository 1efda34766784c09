//! What people do: look, pause, call off, send back, find out, and run it by the clock.

use caudal_testkit::endpoint::Behaviour;
use serde_json::Value;

use crate::fleet::{Fleet, Store};
use crate::on_both_stores;

on_both_stores!(
    paused_lanes_wait,
    only_what_was_never_sent_can_be_voided,
    dead_ones_are_redriven_under_the_same_key,
    a_person_resolves_what_is_held,
    a_run_by_the_clock_ends,
    receipts_show_the_confirmation,
);

fn run(fleet: &Fleet, args: &[&str]) -> (Option<i32>, String) {
    let output = fleet.server.run(args).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

async fn paused_lanes_wait(store: Store) {
    let mut fleet = Fleet::start(store, Behaviour::default(), "").await;
    assert_eq!(run(&fleet, &["confirm", "pause", "payments", "--reason", "maintenance at the bank"]).0, Some(0));
    fleet.worker();
    fleet.enqueue(10).await;
    let (_, status) = run(&fleet, &["confirm", "status"]);
    assert!(status.contains("maintenance at the bank"), "{status}");
    let (code, text) = run(&fleet, &["confirm", "pause", "payments", "--lane", "urgnet", "--reason", "x"]);
    assert!(code == Some(3) && text.contains("it has default"), "{code:?} {text}");
    assert_eq!(fleet.endpoint.totals().calls, 0);
    assert_eq!(run(&fleet, &["confirm", "resume", "payments"]).0, Some(0));
    fleet.assert_clean().await;
    assert_eq!(fleet.count(&["confirmed"]).await, 10);
}

async fn only_what_was_never_sent_can_be_voided(store: Store) {
    let behaviour = Behaviour { drops_after: 1.0, honours_keys: false, answers_probes: false, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, "breaker_failures = 0").await;
    let ids = fleet.enqueue(2).await;
    let (first, second) = (ids[0].to_string(), ids[1].to_string());
    let (code, text) = run(&fleet, &["confirm", "void", &first, "--reason", "the customer withdrew"]);
    assert_eq!(code, Some(0), "{text}");
    fleet.worker();
    fleet.reach(&["held"], 1).await;
    let (code, text) = run(&fleet, &["confirm", "void", &second, "--reason", "no"]);
    assert!(code == Some(4) && text.contains("may have been done"), "{code:?} {text}");
    let (code, _) = run(&fleet, &["confirm", "void", "018f0000-0000-7000-8000-000000000000", "--reason", "no"]);
    assert_eq!(code, Some(3));
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["void"]).await, fleet.endpoint.totals().calls), (1, 1));
}

async fn dead_ones_are_redriven_under_the_same_key(store: Store) {
    let settings = "retry = [\"503\"]\nattempts_max = 2\nbreaker_failures = 0";
    let mut fleet = Fleet::start(store, Behaviour { unavailable: 1.0, ..Behaviour::default() }, settings).await;
    fleet.enqueue(15).await;
    fleet.worker();
    fleet.reach(&["dead"], 15).await;
    fleet.endpoint.set(Behaviour::default());
    let (_, counted) = run(&fleet, &["confirm", "redrive", "topic=eq.payments", "--dry-run", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&counted).unwrap()["matching"], 15, "{counted}");
    let (code, text) = run(&fleet, &["confirm", "redrive", "topic=eq.payments", "--json"]);
    assert_eq!((code, &serde_json::from_str::<Value>(&text).unwrap()["redriven"]), (Some(0), &15.into()), "{text}");
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().keys), (15, 15));
}

async fn a_person_resolves_what_is_held(store: Store) {
    let behaviour = Behaviour { drops_after: 1.0, honours_keys: false, answers_probes: false, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, "breaker_failures = 0").await;
    let id = fleet.enqueue(1).await[0].to_string();
    fleet.worker();
    fleet.reach(&["held"], 1).await;
    let resolve = ["confirm", "resolve", &id, "--as", "confirmed", "--reason", "the statement of 3 May"];
    assert_eq!(run(&fleet, &resolve).0, Some(0));
    let (code, text) = run(&fleet, &["confirm", "resolve", &id, "--as", "rejected", "--reason", "no"]);
    assert_eq!(code, Some(4), "{text}");
    let (_, shown) = run(&fleet, &["confirm", "show", &id]);
    assert!(shown.contains("confirmed") && shown.contains("the statement of 3 May"), "{shown}");
    fleet.assert_clean().await;
}

async fn a_run_by_the_clock_ends(store: Store) {
    let fleet = Fleet::start(store, Behaviour::default(), "").await;
    fleet.enqueue(300).await;
    let (code, text) = run(&fleet, &["confirm", "once", "--json"]);
    let report: Value = serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default();
    assert_eq!((code, &report["confirmed"], &report["cut_short"]), (Some(0), &300.into(), &false.into()), "{text}");
    fleet.assert_clean().await;
    let (code, text) = run(&fleet, &["confirm", "once", "--json"]);
    assert!(code == Some(0) && text.contains("\"confirmed\":0"), "{text}");
}

async fn receipts_show_the_confirmation(store: Store) {
    let mut fleet = Fleet::start(store, Behaviour::default(), "").await;
    let id = fleet.enqueue(1).await[0];
    let receipt = async || fleet.api().get(&format!("/v1/receipts/{id}")).await.unwrap().json();
    assert_eq!(receipt().await["confirmation"]["state"], "pending");
    fleet.worker();
    fleet.assert_clean().await;
    let api = fleet.api();
    let confirmed = api.get(&format!("/v1/receipts/{id}")).await.unwrap().json();
    assert_eq!(confirmed["confirmation"]["state"], "confirmed", "{confirmed:#}");
}
