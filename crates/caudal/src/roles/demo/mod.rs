//! The demo: real flights, synthetic payments, and what to open.

mod bank;

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use caudal_probe::Client;

use super::client::progress;
use crate::confirming::Confirm;
use crate::secret::SecretUrl;
use crate::settings::{Settings, Topic};

const FLIGHTS: &str = include_str!("../../../../../examples/flights/flights.sample.ndjson");
const FLIGHTS_SCHEMA: &str = include_str!("../../../../../examples/flights/flights.schema.json");
const PAYMENTS: &str = include_str!("../../../../../examples/payments/payments.sample.ndjson");
const PAYMENTS_SCHEMA: &str = include_str!("../../../../../examples/payments/payments.schema.json");
/// Lines of one request: small enough that the bar moves.
const LINES: usize = 250;

/// Adds the demo's topics unless the configuration has topics of these names, and opens the bank that confirms its payments.
pub(crate) async fn add_topics(settings: &mut Settings) -> Result<()> {
    let key = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let demo = [
        ("flights", FLIGHTS_SCHEMA, key(&["time_hour", "carrier", "flight", "origin"])),
        ("payments", PAYMENTS_SCHEMA, key(&["payment_id"])),
    ];
    for (name, schema, key) in demo {
        if !settings.topics.contains_key(name) {
            let confirm = if name == "payments" { Some(confirmed_by(&bank::open().await?)) } else { None };
            let topic = Topic { built_in: Some(schema), key, confirm, ..Topic::default() };
            settings.topics.insert(name.to_owned(), topic);
        }
    }
    Ok(())
}

fn confirmed_by(bank: &str) -> Confirm {
    Confirm {
        url: Some(SecretUrl::new(format!("{bank}/payments"))),
        probe_url: Some(SecretUrl::new(format!("{bank}/payments/${{key}}"))),
        rejected: vec!["402".to_owned()],
        retry: vec!["429".to_owned(), "503".to_owned()],
        key_retention: Some("1h".to_owned()),
        timeout: "1s".to_owned(),
        ..Confirm::default()
    }
}

/// Shows payments being confirmed, until all are or it takes too long to watch.
pub(crate) async fn watch_confirmations(url: &str, key: Option<String>) -> Result<()> {
    let client = Client::new(url, key)?;
    let bar = progress(None, "payments confirmed");
    let mut lane = serde_json::Value::Null;
    for _ in 0..100 {
        let lanes = client.get("/v1/confirmations/lanes").await?.json()?;
        lane = lanes["lanes"][0].clone();
        let count = |state: &str| lane[state].as_u64().unwrap_or_default();
        bar.set_length(count("enqueued"));
        bar.set_position(count("confirmed") + count("rejected"));
        if ["pending", "leased", "calling", "retry", "doubt"].iter().all(|state| count(state) == 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bar.finish_and_clear();
    let number = |state: &str| lane[state].as_u64().unwrap_or_default();
    println!(
        "  payments: {} confirmed by the demo's bank, {} declined, {} on their way",
        number("confirmed"),
        number("rejected"),
        number("enqueued") - number("confirmed") - number("rejected")
    );
    Ok(())
}

/// Publishes the samples over HTTP, as anybody would.
pub(crate) async fn load(url: &str, key: Option<String>) -> Result<()> {
    println!();
    let client = Client::new(url, key)?;
    for (topic, sample) in [("flights", FLIGHTS), ("payments", PAYMENTS)] {
        let lines: Vec<&str> = sample.lines().collect();
        let bar = progress(Some(lines.len() as u64), topic);
        let (mut stored, mut duplicate) = (0, 0);
        for chunk in lines.chunks(LINES) {
            let body = Bytes::from(chunk.join("\n"));
            let prefer = [("prefer", "return=minimal, wait=30".to_owned())];
            let answer = client.publish(topic, "application/x-ndjson", &prefer, body).await?.json()?;
            stored += answer["stored"].as_u64().unwrap_or_default();
            duplicate += answer["duplicate"].as_u64().unwrap_or_default();
            bar.inc(chunk.len() as u64);
        }
        bar.finish_and_clear();
        println!("  {topic}: {} messages, {stored} stored, {duplicate} there before", lines.len());
    }
    Ok(())
}

/// Prints commands that work as they stand.
pub(crate) async fn print_what_to_open(url: &str, key: Option<String>) -> Result<()> {
    let client = Client::new(url, key)?;
    let row = client.get("/rest/v1/flights?select=_id,carrier,flight&limit=1").await?.json()?;
    let id = row[0]["_id"].as_str().context("the sample flights are not there")?.to_owned();
    let out = format!(
        r#"
Open {url} in a browser, or try:

  curl '{url}/rest/v1/flights?select=carrier,flight,origin,dest,distance&order=distance.desc&limit=3'
  curl '{url}/v1/topics/flights/messages/{id}'
  curl '{url}/v1/receipts/{id}'

  curl -X POST '{url}/v1/topics/payments/messages' -H 'Content-Type: application/json' \
    -d '{{"payment_id":"p-1","account":"ES-0001","amount_cents":1250,"currency":"EUR","created_at":"2026-01-02T03:04:05Z"}}'

  curl '{url}/v1/confirmations?select=_id,state,attempts,code,detail&order=attempts.desc&limit=3'
  curl '{url}/v1/confirmations/lanes'           # payments, by where their confirmation stands

  curl -X POST '{url}/ingresar-datos' -H 'Content-Type: application/json' \
    -d '{{"topic_arn":"data-ingestion-topic","message":"Este es un mensaje de prueba"}}'
  curl '{url}/data/1'

  curl -N '{url}/v1/topics/flights/stream'      # follow new flights
  curl '{url}/v1/reconcile'                     # every message accounted for
"#
    );
    std::io::stdout().write_all(out.as_bytes())?;
    Ok(())
}
