//! A great many transactions, workers that are killed all the time, connections that are cut, answers that lie in ten ways.
//!
//! `CAUDAL_SOAK_CONFIRM=1000000` runs the whole of it, best with a release build in `CAUDAL_TEST_BINARY`; without it, a sample.

use std::time::Duration;

use caudal_testkit::chance::Chance;
use caudal_testkit::endpoint::Behaviour;
use caudal_testkit::postgres;

use crate::fleet::{Fleet, Store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_nothing_done_twice() {
    let count: usize = std::env::var("CAUDAL_SOAK_CONFIRM").ok().and_then(|n| n.parse().ok()).unwrap_or(6_000);
    let (workers, kills, cuts) = if count > 100_000 { (8, 100, 50) } else { (3, 6, 4) };
    let (mut chance, seed) = Chance::from_environment();
    println!("CAUDAL_SEED={seed}");
    let url = postgres::database().await.unwrap();
    let settings = "probe_url = \"${endpoint}/payments/${key}\"\nkey_retention = \"6h\"\nretry = [\"429\", \"503\"]\n\
                    attempts_max = 60\nlease = \"2s\"\nbreaker_failures = 0";
    let mut fleet = Fleet::start(Store::of(url.clone()), Behaviour::hostile(seed), settings).await;
    fleet.enqueue(count).await;
    for _ in 0..workers {
        fleet.worker();
    }
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid() order by random() limit 3";
    let every = if count > 100_000 { 1_500 } else { 250 };
    let (mut killed, mut cuts_made, mut zombies) = (0, 0, 0);
    while killed < kills || cuts_made < cuts {
        tokio::time::sleep(Duration::from_millis(chance.between(every / 2, every))).await;
        let at = chance.between(0, fleet.workers.len() as u64 - 1) as usize;
        match chance.between(0, 3) {
            0 if cuts_made < cuts => {
                postgres::execute(&url, cut).await.unwrap();
                cuts_made += 1;
            }
            1 => {
                // A zombie: sleeps through its lease, and wakes up while another has its work.
                fleet.workers[at].freeze().unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                let sleeper = fleet.workers.swap_remove(at);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    sleeper.thaw().unwrap();
                    tokio::time::sleep(Duration::from_secs(3)).await;
                });
                fleet.worker();
                zombies += 1;
            }
            _ if killed < kills => {
                fleet.workers.swap_remove(at).kill().unwrap();
                fleet.worker();
                killed += 1;
            }
            _ => {}
        }
    }
    fleet.assert_clean_within(Duration::from_secs(1_800)).await;
    let (totals, lane) = (fleet.endpoint.totals(), fleet.lane().await);
    println!(
        "{count} transactions, {killed} kills, {zombies} zombies, {cuts_made} times connections were cut: {lane:#} {totals:?}"
    );
    assert_eq!(totals.doubles, 0);
    let ended = fleet.count(&["confirmed", "rejected", "held", "dead"]).await;
    assert_eq!((ended, &lane["enqueued"]), (count as u64, &(count as u64).into()), "{lane:#}");
}
