//! Endpoints that fail, forget, contradict themselves, or say what nobody understands.

use std::time::Duration;

use caudal_testkit::endpoint::Behaviour;

use crate::fleet::{Fleet, Store};
use crate::on_all_stores;

on_all_stores!(
    a_lost_answer_is_asked_for,
    a_lost_answer_is_sent_again_under_the_same_key,
    without_key_or_probe_doubt_is_held,
    a_forgotten_key_is_never_sent_again,
    hostile_answers_all_end_well,
    an_outage_spends_no_attempts,
    contradictions_are_kept_and_the_first_stands,
    what_nobody_declared_is_held,
    a_new_worker_begins_with_its_share,
    retry_after_is_kept,
);

const ASKS: &str = "probe_url = \"${endpoint}/payments/${key}\"";

/// Done, and the answer lost: the probe finds it.
async fn a_lost_answer_is_asked_for(store: Store) {
    let behaviour = Behaviour { drops_after: 1.0, honours_keys: false, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, &format!("{ASKS}\nbreaker_failures = 0")).await;
    fleet.enqueue(50).await;
    fleet.worker();
    fleet.assert_clean().await;
    let totals = fleet.endpoint.totals();
    assert_eq!((fleet.count(&["confirmed"]).await, totals.calls, totals.doubles), (50, 50, 0));
    assert!(totals.probes >= 50);
}

async fn a_lost_answer_is_sent_again_under_the_same_key(store: Store) {
    let behaviour = Behaviour { delays: 0.3, delay_ms: 900, answers_probes: false, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, "key_retention = \"1h\"\nbreaker_failures = 0").await;
    fleet.enqueue(40).await;
    fleet.worker();
    fleet.assert_clean().await;
    let totals = fleet.endpoint.totals();
    assert_eq!((fleet.count(&["confirmed"]).await, totals.effects, totals.doubles), (40, 40, 0));
    assert!(totals.calls > 40, "{totals:?}: the delay is longer than the time limit");
}

/// Nothing may be sent twice that could be done twice.
async fn without_key_or_probe_doubt_is_held(store: Store) {
    let behaviour = Behaviour { drops_after: 0.5, honours_keys: false, answers_probes: false, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, "breaker_failures = 0").await;
    fleet.enqueue(60).await;
    fleet.worker();
    fleet.assert_clean().await;
    let totals = fleet.endpoint.totals();
    assert_eq!((totals.calls, totals.effects, totals.doubles), (60, 60, 0));
    assert!(
        fleet.count(&["held"]).await > 5 && fleet.count(&["held", "confirmed"]).await == 60,
        "{:#}",
        fleet.lane().await
    );
    assert!(fleet.states().await.values().filter(|row| row["state"] == "held").all(|row| row["maybe_done"] == true));
}

/// The endpoint remembers a key for two seconds, and says so; the answers come only after that.
async fn a_forgotten_key_is_never_sent_again(store: Store) {
    let behaviour =
        Behaviour { drops_after: 1.0, retention_ms: Some(2_000), answers_probes: false, ..Behaviour::default() };
    let settings = "key_retention = \"2s\"\nbackoff = \"3s\"\nbackoff_max = \"3s\"\nbreaker_failures = 0";
    let mut fleet = Fleet::start(store, behaviour, settings).await;
    fleet.enqueue(30).await;
    fleet.worker();
    fleet.settled().await;
    assert_eq!(fleet.endpoint.totals().doubles, 0, "{:?}", fleet.endpoint.totals());
    fleet.judge().await.unwrap();
    assert_eq!(fleet.count(&["held", "confirmed"]).await, 30);
    assert!(fleet.count(&["held"]).await > 0, "{:#}", fleet.lane().await);
}

async fn hostile_answers_all_end_well(store: Store) {
    let settings = format!("{ASKS}\nkey_retention = \"1h\"\nretry = [\"429\", \"503\"]\nattempts_max = 30");
    let mut fleet = Fleet::start(store, Behaviour::hostile(7), &settings).await;
    let many = fleet.few(3_000) as u64;
    fleet.enqueue(many as usize).await;
    fleet.worker();
    fleet.worker();
    fleet.assert_clean().await;
    let totals = fleet.endpoint.totals();
    assert_eq!(totals.doubles, 0, "{totals:?}");
    let lane = fleet.lane().await;
    // A redirect is no answer that anybody declared: those wait for a person.
    let held = lane["held"].as_u64().unwrap();
    assert_eq!(fleet.count(&["confirmed", "rejected"]).await + held, many, "{lane:#}");
    // Some of the faults are rare.
    let faults = if many < 3_000 { 5 } else { 10 };
    assert!(held < 60 && totals.faults.len() >= faults, "{lane:#} {totals:?}");
}

/// Everything answers 503 for a while: the breaker opens, and attempts are not spent on it.
async fn an_outage_spends_no_attempts(store: Store) {
    let settings = "retry = [\"503\"]\nattempts_max = 4\nbreaker_failures = 5\nbreaker_pause = \"500ms\"\n\
                    breaker_pause_max = \"500ms\"\nconcurrency = 2\nbatch_max = 10";
    let mut fleet = Fleet::start(store, Behaviour::default(), settings).await;
    fleet.endpoint.fail_for(Duration::from_secs(6), 503);
    let many = fleet.few(500);
    fleet.enqueue(many).await;
    fleet.worker();
    fleet.assert_clean().await;
    assert_eq!(
        (fleet.count(&["confirmed"]).await, fleet.count(&["dead"]).await),
        (many as u64, 0),
        "{:#}",
        fleet.lane().await
    );
}

/// The endpoint confirms and later says the opposite. What was said first stands; what came after raises an alarm.
async fn contradictions_are_kept_and_the_first_stands(store: Store) {
    let slow = Behaviour { lies: 1.0, delays: 1.0, delay_ms: 2_500, ..Behaviour::default() };
    // The first one's calls wait for as long as the second takes, which an emulator makes long.
    let settings = "key_retention = \"1h\"\ntimeout = \"10m\"\nconcurrency = 50";
    let mut fleet = Fleet::start(store, slow, settings).await;
    fleet.enqueue(20).await;
    fleet.worker();
    // The first worker sleeps through its lease with answers on their way; the second asks again, once all is done, and hears the
    // opposite.
    while fleet.endpoint.totals().calls < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fleet.workers[0].freeze().unwrap();
    while fleet.endpoint.totals().effects < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fleet.worker();
    fleet.reach(&["confirmed", "rejected"], 20).await;
    let before = fleet.states().await;
    fleet.workers[0].thaw().unwrap();
    for _ in 0..200 {
        if fleet.lane().await["contradictions"].as_u64() > Some(0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(fleet.lane().await["contradictions"].as_u64() > Some(0), "{:#}", fleet.lane().await);
    assert_eq!(fleet.states().await, before, "an outcome changed");
}

/// What an endpoint takes at a time is shared: whoever comes later begins with its own part, not with all of it.
async fn a_new_worker_begins_with_its_share(store: Store) {
    let slow = Behaviour { delays: 1.0, delay_ms: 300, ..Behaviour::default() };
    let settings = format!("{ASKS}\nconcurrency = 8\ntimeout = \"10s\"");
    let mut fleet = Fleet::start(store, slow, &settings).await;
    fleet.enqueue(400).await;
    for calls in [24, 72] {
        fleet.worker();
        while fleet.endpoint.totals().calls < calls {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    // The first one's eight, which were under way, and the second one's half.
    let at_once = fleet.endpoint.totals().at_once_max;
    assert!((8..=12).contains(&at_once), "{at_once}");
}

async fn what_nobody_declared_is_held(store: Store) {
    let mut fleet = Fleet::start(store, Behaviour { redirects: 1.0, ..Behaviour::default() }, ASKS).await;
    fleet.enqueue(10).await;
    fleet.worker();
    fleet.assert_clean().await;
    let states = fleet.states().await;
    assert!(states.values().all(|row| row["state"] == "held" && row["code"] == 307), "{states:#?}");
    assert!(states.values().all(|row| row["detail"].as_str().unwrap().contains("redirects are not followed")));
    assert_eq!(fleet.endpoint.totals().calls, 10);
}

async fn retry_after_is_kept(store: Store) {
    let behaviour = Behaviour { too_many: 1.0, retry_after_seconds: 3_600, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, behaviour, "").await;
    fleet.enqueue(10).await;
    fleet.worker();
    fleet.reach(&["retry"], 10).await;
    for row in fleet.states().await.values() {
        let day =
            |at: &serde_json::Value| caudal_core::time::Instant::parse(at.as_str().unwrap()).unwrap().unix_millis();
        let pause = day(&row["due"]) - day(&row["since"]);
        assert!(pause >= 3_600_000 && row["code"] == 429, "{row}");
    }
}
