//! `caudal confirm cost`, from what was measured and from a file.

use std::process::Output;

use caudal_core::time::Instant;
use caudal_testkit::endpoint::Behaviour;
use caudal_testkit::postgres;
use serde_json::Value;

use crate::fleet::{Fleet, Store};
use crate::on_both_stores;

on_both_stores!(the_load_is_what_was_measured);

fn cost(fleet: &Fleet, args: &[&str]) -> Output {
    fleet.server.run(&[&["confirm", "cost"], args].concat()).unwrap()
}

fn billed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn about(got: &Value, expected: f64) {
    let got = got.as_f64().unwrap();
    assert!((got - expected).abs() < expected.abs() * 1e-6, "{got} instead of {expected}");
}

/// Moves everything that has an outcome three hours back.
async fn three_hours_ago(url: &str) {
    let Some(file) = url.strip_prefix("sqlite:") else {
        return postgres::execute(url, "update _confirm_outcomes set since = since - interval '3 hours'")
            .await
            .unwrap();
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let then = Instant::from_unix_micros(now.as_micros() as i64 - 3 * 3_600_000_000).to_string();
    let file = rusqlite::Connection::open(file).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    file.execute("update _confirm_outcomes set since = ?1", [then]).unwrap();
}

async fn the_load_is_what_was_measured(store: Store) {
    let url = store.url.clone();
    let settings = "retry = [\"503\"]\nbreaker_failures = 0\nattempts_max = 50";
    let mut fleet = Fleet::start(store, Behaviour { unavailable: 0.5, ..Behaviour::default() }, settings).await;
    let nothing = cost(&fleet, &["--json"]);
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert!(!nothing.status.success() && said.contains("--curve"), "{said}");

    fleet.enqueue(200).await;
    fleet.worker();
    fleet.assert_clean().await;
    three_hours_ago(&url).await;
    let report = billed(&cost(&fleet, &["--json", "--call-time", "250ms"]));
    let load = &report["load"];
    assert_eq!((&load["transactions"], &load["call_seconds"]), (&200.into(), &0.25.into()), "{load:#}");
    // The hours from then to the one that is running; another may have begun.
    assert!((3..=4).contains(&load["hours"].as_u64().unwrap()), "{load:#}");
    let calls = fleet.endpoint.totals().calls as f64 / 200.0;
    assert!(calls > 1.2, "{calls}");
    about(&load["calls_per_transaction"], calls);
    for bill in report["deployments"].as_array().unwrap() {
        let lines = bill["lines"].as_array().unwrap();
        about(&bill["usd_per_month"], lines.iter().map(|line| line["usd_per_month"].as_f64().unwrap()).sum());
    }
    let text = cost(&fleet, &[]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    for expected in ["container-serverless", "minutes_between_runs = 60", "NOT VERIFIED", "read 2026-"] {
        assert!(text.contains(expected), "{expected} is not in\n{text}");
    }
}

/// No store is asked. Prices and assumptions of one's own count; a price that nobody knows is a mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_curve_and_prices_of_ones_own() {
    let fleet = Fleet::start(Store::sqlite(), Behaviour::default(), "").await;
    let at = |name: &str, text: &str| {
        let file = fleet.server.home().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let curve =
        at("curve.csv", "hour,count\n2026-11-23T00:00:00Z,3600\n2026-11-23T02:00:00Z,0\n2026-11-23T03:00:00Z,3600\n");
    let price = "usd = 3\nunits = 1000\nunit = \"hours\"\nsource = \"our contract\"\n";
    let prices = at(
        "prices.toml",
        &format!("dated = \"2027-01-01\"\n[prices.vm_hour]\n{price}\n[assumptions]\nvm_disk_gb = 100\n"),
    );
    let report = billed(&cost(&fleet, &["--json", "--curve", &curve, "--prices", &prices, "--calls", "1"]));
    assert_eq!((&report["load"]["hours"], &report["load"]["transactions"]), (&4.into(), &7_200.into()));
    about(&report["load"]["transactions_per_month"], 7_200.0 / 4.0 * 730.0);
    let bills = report["deployments"].as_array().unwrap();
    let machine = bills.iter().find(|bill| bill["deployment"] == "vm").unwrap();
    about(&machine["lines"][0]["usd_per_month"], 730.0 * 0.003);
    assert_eq!(machine["lines"][1]["amount"], 100.0);
    assert_eq!(
        (&report["prices"]["dated"], &report["assumptions"]["vm_disk_gb"]),
        (&"2027-01-01".into(), &100.0.into())
    );
    let unknown = at("unknown.toml", &format!("[prices.vm_hours]\n{price}"));
    let refused = cost(&fleet, &["--curve", &curve, "--prices", &unknown]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("vm_hours") && said.contains("vm_disk_gb_month"), "{said}");
}
