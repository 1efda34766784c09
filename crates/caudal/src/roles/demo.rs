//! The demo: real flights, synthetic payments, and what to open.

use std::io::Write;

use anyhow::{Context, Result};
use bytes::Bytes;
use caudal_probe::Client;

use super::client::progress;
use crate::settings::{Settings, Topic};

const FLIGHTS: &str = include_str!("../../../../examples/flights/flights.sample.ndjson");
const FLIGHTS_SCHEMA: &str = include_str!("../../../../examples/flights/flights.schema.json");
const PAYMENTS: &str = include_str!("../../../../examples/payments/payments.sample.ndjson");
const PAYMENTS_SCHEMA: &str = include_str!("../../../../examples/payments/payments.schema.json");
/// Lines of one request: small enough that the bar moves.
const LINES: usize = 250;

/// Adds the demo's topics unless the configuration has topics of these names.
pub(crate) fn add_topics(settings: &mut Settings) {
    let key = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    let demo = [
        ("flights", FLIGHTS_SCHEMA, key(&["time_hour", "carrier", "flight", "origin"])),
        ("payments", PAYMENTS_SCHEMA, key(&["payment_id"])),
    ];
    for (name, schema, key) in demo {
        let topic = Topic { built_in: Some(schema), key, ..Topic::default() };
        settings.topics.entry(name.to_owned()).or_insert(topic);
    }
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
