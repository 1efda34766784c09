//! Workers that die, sleep, or run on other clocks; databases that go away.

use std::time::Duration;

use caudal_testkit::disk::SmallDisk;
use caudal_testkit::endpoint::Behaviour;
use caudal_testkit::postgres::{self, Postgres};
use caudal_testkit::server::Server;

use crate::fleet::{Fleet, Store};
use crate::on_all_stores;

on_all_stores!(
    dead_before_the_call_costs_no_attempt,
    a_kill_at_every_step_leaves_one_outcome_each,
    dead_in_the_middle_of_a_batch,
    a_zombie_may_only_report_facts,
    many_workers_never_share_a_transaction,
    poison_is_found_and_set_aside,
    clocks_of_workers_do_not_matter,
    a_drain_gives_back_what_it_did_not_call_for,
);

const ASKS: &str = "probe_url = \"${endpoint}/payments/${key}\"\nkey_retention = \"1h\"";

/// Answers come in while nothing can be written down. They wait for space, and nobody is called again for what is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_waited_out() {
    let disk = SmallDisk::mount(16).unwrap();
    let slow = Behaviour { delays: 1.0, delay_ms: 400, ..Behaviour::default() };
    let settings = format!("{ASKS}\nconcurrency = 10\ntimeout = \"5s\"");
    let mut fleet = Fleet::start(Store::sqlite_in(disk.path()), slow, &settings).await;
    fleet.enqueue(100).await;
    fleet.worker();
    while fleet.endpoint.totals().calls < 10 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    disk.fill();
    tokio::time::sleep(fleet.lapse()).await;
    let confirmed = fleet.count(&["confirmed"]).await;
    assert!(confirmed < fleet.endpoint.totals().effects, "{confirmed}: nothing can be written");
    let log = fleet.workers[0].log();
    assert!(log.contains("disk is full"), "{log}");
    disk.free().unwrap();
    fleet.assert_clean().await;
    let totals = fleet.endpoint.totals();
    assert_eq!((fleet.count(&["confirmed"]).await, totals.effects, totals.doubles), (100, 100, 0));
}

/// A transaction that had its position long before others, and committed long after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_late_is_confirmed() {
    let mut fleet = Fleet::start(Store::postgres().await, Behaviour::default(), ASKS).await;
    let late = fleet.enqueue(1).await[0];
    let owner = postgres::client(&fleet.store.url).await.unwrap();
    let again = format!(
        "begin;
         create temp table again on commit drop as select * from _confirm_ready where tx = '{late}';
         delete from _confirm_ready where tx = '{late}';
         insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
         select lane, rank, tx, attempts, crashes, doubt, fresh, since from again"
    );
    owner.batch_execute(&again).await.unwrap();
    fleet.worker();
    // For longer than what is late is asked for without having been seen.
    for round in 1..=8 {
        fleet.enqueue(10).await;
        fleet.reach(&["confirmed"], 10 * round).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    owner.batch_execute("commit").await.unwrap();
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().effects), (81, 81));
}

/// Waits for the failpoint to end the last worker.
async fn dies(fleet: &mut Fleet) {
    let worker = fleet.workers.last_mut().unwrap();
    assert!(worker.wait(Duration::from_secs(20)).await.unwrap().is_some(), "the failpoint was not passed");
    fleet.workers.pop();
}

/// Died after the claim, before anything was sent: pending again, and nobody was called.
async fn dead_before_the_call_costs_no_attempt(store: Store) {
    let mut fleet = Fleet::start(store, Behaviour::default(), ASKS).await;
    fleet.enqueue(20).await;
    fleet.worker_env("CAUDAL_FAILPOINT", "confirm.claimed:1");
    fleet.worker();
    dies(&mut fleet).await;
    assert_eq!(fleet.endpoint.totals().calls, 0);
    // Of a table with shards, those of one.
    let leased = fleet.count(&["leased"]).await;
    assert!(leased == 20 || (fleet.is_apart() && leased > 0), "{:#}", fleet.lane().await);
    // A worker that does nothing but beat, because the lane is paused: the lease lapses into pending, not into doubt.
    fleet.clear_worker_env();
    let pause = fleet.server.run(&["confirm", "pause", "payments", "--reason", "to look"]).unwrap();
    assert!(pause.status.success(), "{}", String::from_utf8_lossy(&pause.stderr));
    fleet.worker();
    fleet.reach(&["pending"], 20).await;
    assert!(fleet.states().await.values().all(|row| row["attempts"] == 0 && row["crashes"] == 0));
    assert!(fleet.server.run(&["confirm", "resume", "payments"]).unwrap().status.success());
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().calls), (20, 20));
}

/// Every step around a batch, early and late in it.
async fn a_kill_at_every_step_leaves_one_outcome_each(store: Store) {
    // What a worker died of goes one by one, which takes its time on an emulator.
    let (count, middle, late) =
        if store.apart().is_some() { (40, "call:17", "answered:25") } else { (100, "call:37", "answered:60") };
    let mut fleet = Fleet::start(store, Behaviour { declines: 0.1, ..Behaviour::default() }, ASKS).await;
    let places = ["claimed:1", "begun:1", "call:1", middle, "answered:1", late, "settling:1", "settled:1"];
    for (round, place) in places.into_iter().enumerate() {
        fleet.enqueue(count).await;
        fleet.worker_env("CAUDAL_FAILPOINT", format!("confirm.{place}"));
        fleet.worker();
        dies(&mut fleet).await;
        fleet.clear_worker_env();
        fleet.worker();
        fleet.assert_clean().await;
        assert_eq!(fleet.count(&["confirmed", "rejected"]).await, (count * (round + 1)) as u64, "after {place}");
        fleet.kill_workers();
    }
    let totals = fleet.endpoint.totals();
    assert_eq!((totals.doubles, totals.effects + totals.declined), (0, (count * places.len()) as u64));
}

/// Only what was not marked comes back: everything else keeps its one call.
async fn dead_in_the_middle_of_a_batch(store: Store) {
    let settings = format!("{ASKS}\nconcurrency = 1");
    let mut fleet = Fleet::start(store, Behaviour::default(), &settings).await;
    fleet.enqueue(100).await;
    fleet.worker_env("CAUDAL_FAILPOINT", "confirm.call:38");
    fleet.worker();
    dies(&mut fleet).await;
    let calls_before = fleet.endpoint.totals().calls;
    assert_eq!(calls_before, 37);
    fleet.clear_worker_env();
    fleet.worker();
    fleet.assert_clean().await;
    // What had been answered and marked is not asked for again; the rest is probed, then called.
    let totals = fleet.endpoint.totals();
    assert_eq!((totals.effects, totals.doubles), (100, 0));
    assert!(totals.calls <= 100, "{totals:?}: a probe finds what was done");
}

/// A worker that slept through its lease wakes up: its facts are taken, and it calls nobody any more.
async fn a_zombie_may_only_report_facts(store: Store) {
    let slow = Behaviour { delays: 1.0, delay_ms: 300, ..Behaviour::default() };
    let settings = format!("{ASKS}\nconcurrency = 4\ntimeout = \"5s\"");
    let mut fleet = Fleet::start(store, slow, &settings).await;
    fleet.enqueue(40).await;
    fleet.worker();
    fleet.reach(&["calling"], 1).await;
    fleet.workers[0].freeze().unwrap();
    fleet.worker();
    tokio::time::sleep(fleet.lapse()).await;
    fleet.workers[0].thaw().unwrap();
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().doubles), (40, 0));
}

async fn many_workers_never_share_a_transaction(store: Store) {
    let mut fleet =
        Fleet::start(store, Behaviour { honours_keys: false, ..Behaviour::default() }, "batch_max = 20").await;
    let many = fleet.few(2_000);
    fleet.enqueue(many).await;
    for _ in 0..6 {
        fleet.worker();
    }
    fleet.assert_clean().await;
    // This endpoint honours no key: two calls would be two effects.
    let totals = fleet.endpoint.totals();
    assert_eq!((totals.calls, totals.effects, totals.doubles), (many as u64, many as u64, 0));
}

/// One transaction kills whoever calls for it. Its neighbours are confirmed, it is dead, and nobody else is blamed.
async fn poison_is_found_and_set_aside(store: Store) {
    let mut fleet = Fleet::start(store, Behaviour::default(), ASKS).await;
    let ids = fleet.enqueue(60).await;
    let poison = ids[17];
    fleet.worker_env("CAUDAL_POISON", poison.to_string());
    let patience = fleet.lapse() * 2;
    for _ in 0..12 {
        fleet.worker();
        let ended = fleet.workers[0].wait(patience).await.unwrap();
        match ended {
            Some(_) => fleet.workers.clear(),
            None => break,
        }
    }
    fleet.assert_clean().await;
    let states = fleet.states().await;
    assert_eq!(states[&poison]["state"], "dead", "{}", states[&poison]);
    let others = states.iter().filter(|(id, _)| **id != poison);
    assert!(others.clone().all(|(_, row)| row["state"] == "confirmed"), "{states:#?}");
}

/// An hour behind, an hour ahead: leases are kept by the store's clock and the worker's own stopwatch.
async fn clocks_of_workers_do_not_matter(store: Store) {
    let mut fleet =
        Fleet::start(store, Behaviour { honours_keys: false, ..Behaviour::default() }, "batch_max = 20").await;
    let many = fleet.few(400);
    fleet.enqueue(many).await;
    for shift in ["-1h", "+1h", "+0"] {
        fleet.worker_env("LD_PRELOAD", faketime());
        fleet.worker_env("FAKETIME", shift);
        // The stopwatch of the system stays what it is.
        fleet.worker_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        fleet.worker();
    }
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().calls), (many as u64, many as u64));
}

fn faketime() -> String {
    let library = |machine: &str| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1");
    let found = [library("x86_64"), library("aarch64")].into_iter().find(|path| std::path::Path::new(path).exists());
    found.expect("libfaketime is missing; install it with: apt-get install -y faketime")
}

async fn a_drain_gives_back_what_it_did_not_call_for(store: Store) {
    let slow = Behaviour { delays: 1.0, delay_ms: 100, ..Behaviour::default() };
    let mut fleet = Fleet::start(store, slow, "concurrency = 4\nlease = \"60s\"").await;
    fleet.enqueue(fleet.few(200)).await;
    fleet.worker();
    fleet.reach(&["confirmed"], 4).await;
    let ended = fleet.workers[0].stop().await.unwrap();
    assert!(ended.success());
    let lane = fleet.lane().await;
    assert_eq!((&lane["leased"], &lane["calling"], &lane["doubt"]), (&0.into(), &0.into(), &0.into()), "{lane:#}");
    assert!(lane["pending"].as_u64().unwrap() > 0);
    fleet.judge().await.unwrap();
    assert_eq!(fleet.endpoint.totals().calls, fleet.count(&["confirmed"]).await);
}

/// The database stops without a word in the middle of everything, and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_goes_away_and_comes_back() {
    let server = Postgres::start().unwrap();
    let url = postgres::create_database(&server.url()).await.unwrap();
    let store = Store::of(url);
    let mut fleet = Fleet::start(store, Behaviour { delays: 1.0, delay_ms: 5, ..Behaviour::default() }, ASKS).await;
    fleet.enqueue(3_000).await;
    fleet.worker();
    fleet.worker();
    for confirmed in [300, 900, 1_500] {
        fleet.reach(&["confirmed"], confirmed).await;
        server.stop_immediate().unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.start_again().unwrap();
        ready(&fleet.server).await;
    }
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().doubles), (3_000, 0));
}

async fn ready(server: &Server) {
    while server.api().get("/readyz").await.map_or(0, |reply| reply.status) != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every connection to the database is cut, again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_are_killed_all_the_time() {
    let url = postgres::database().await.unwrap();
    let mut fleet = Fleet::start(Store::of(url.clone()), Behaviour::default(), ASKS).await;
    fleet.enqueue(3_000).await;
    fleet.worker();
    fleet.worker();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        postgres::execute(&url, cut).await.unwrap();
    }
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().doubles), (3_000, 0));
}

/// No request to DynamoDB comes through for a while, whatever it was for.
#[cfg(feature = "dynamodb")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dynamodb_goes_away_and_comes_back() {
    let slow = Behaviour { delays: 1.0, delay_ms: 20, ..Behaviour::default() };
    let settings = format!("{ASKS}\nconcurrency = 4\nbatch_max = 10");
    let mut fleet = Fleet::start(Store::dynamodb().await, slow, &settings).await;
    fleet.enqueue(150).await;
    fleet.worker();
    fleet.worker();
    for confirmed in [20, 60, 100] {
        fleet.reach(&["confirmed"], confirmed).await;
        fleet.table().road.cut();
        tokio::time::sleep(Duration::from_secs(1)).await;
        fleet.table().road.mend().unwrap();
        ready(&fleet.server).await;
    }
    fleet.assert_clean().await;
    assert_eq!((fleet.count(&["confirmed"]).await, fleet.endpoint.totals().doubles), (150, 0));
}
