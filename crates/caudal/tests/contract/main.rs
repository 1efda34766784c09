//! The HTTP contract, held on both stores and in both modes by the same cases.
//!
//! `CAUDAL_CASE=text` runs only the cases whose names contain the text.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod access;
mod aws;
mod bad_input;
mod compat;
mod dead_letters;
mod evolve;
mod formats;
mod found;
mod grammar;
mod publish;
mod raw_input;
mod read;
mod retention;
mod sql;
mod tail;
mod tools;
mod webhook;

use std::pin::Pin;
use std::sync::Arc;

use caudal_testkit::api::{Api, Reply};
use caudal_testkit::postgres;
use caudal_testkit::server::Server;
use serde_json::Value;

/// Every column type, nothing required but the number.
pub(crate) const ORDERS: &str = r#"{"type": "object", "required": ["n"], "properties": {
  "n": {"type": "integer"}, "amount": {"type": "number"}, "customer": {"type": "string", "maxLength": 2000000},
  "paid": {"type": "boolean"}, "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
  "ref": {"type": "string", "format": "uuid"}, "more": {}}}"#;

/// Topics of every contract server, with their settings.
const TOPICS: &[(&str, Option<&str>, &str)] = &[
    ("notes", None, ""),
    ("events", None, ""),
    ("orders", Some(ORDERS), ""),
    ("lines", Some(ORDERS), ""),
    ("csv", Some(ORDERS), ""),
    ("bulk", Some(ORDERS), ""),
    ("redrives", Some(ORDERS), ""),
    ("strict", Some(ORDERS), "unknown_fields = \"reject\""),
    ("adds", Some(ORDERS), "unknown_fields = \"add\""),
    ("adds-one", Some(ORDERS), "unknown_fields = \"add\""),
    ("keyed", Some(ORDERS), "key = [\"n\"]"),
    ("keyed-twice", Some(ORDERS), "key = [\"customer\", \"n\"]"),
    ("table", Some(ORDERS), ""),
    ("tailed", Some(ORDERS), ""),
    ("hooks", None, webhook::STANDARD),
    ("forge", Some(ORDERS), webhook::SINGLE),
    ("queue", None, ""),
    ("typed-queue", Some(ORDERS), ""),
    ("keyed-queue", Some(ORDERS), "key = [\"n\"]"),
];

/// A server with the topics above; producers wait long, so that a busy machine does not turn a 201 into a 202.
pub(crate) fn server(store: &str, broker: &str) -> Server {
    let mut server = Server::new(env!("CARGO_BIN_EXE_caudal"))
        .unwrap()
        .store(store)
        .broker(broker)
        .env("CAUDAL_HTTP__WAIT_MS", "30000")
        .env("CAUDAL_LOG__LEVEL", "info");
    for (name, schema, settings) in TOPICS {
        server.set_topic(name, *schema, settings);
    }
    server
}

pub(crate) const SQLITE: &str = "sqlite:caudal.db";

/// What a case has to work with.
pub(crate) struct Context {
    pub(crate) server: Server,
    pub(crate) api: Api,
    pub(crate) queued: bool,
    /// The database's URL, on PostgreSQL.
    pub(crate) database: Option<String>,
    pub(crate) on_postgres: bool,
}

impl Context {
    /// Rows of a table that match a query.
    pub(crate) async fn count(&self, table: &str, query: &str) -> u64 {
        let path = format!("/rest/v1/{table}?limit=0&{query}");
        let reply = self.api.send("GET", &path, &[("prefer", "count=exact")], "").await.unwrap();
        let range = reply.header("content-range").to_owned();
        let total = range.rsplit('/').next().unwrap().parse();
        total.unwrap_or_else(|_| panic!("{path}: {} {range:?} {}", reply.status, reply.text()))
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        let reply = self.api.get(path).await.unwrap();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// Publishes one JSON document and expects a status.
    pub(crate) async fn publish(&self, topic: &str, headers: &[(&str, &str)], body: &str, status: u16) -> Reply {
        let reply = self.api.publish(topic, headers, body.to_owned()).await.unwrap();
        assert_eq!(reply.status, status, "{topic} {headers:?} {body:.200}: {}", reply.text());
        reply
    }

    /// Publishes a body of any type and expects a status.
    pub(crate) async fn send(
        &self,
        topic: &str,
        media: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
        status: u16,
    ) -> Reply {
        let mut all = vec![("content-type", media)];
        all.extend_from_slice(headers);
        let reply = self.api.post(&format!("/v1/topics/{topic}/messages"), &all, body.into()).await.unwrap();
        assert_eq!(reply.status, status, "{topic} {media} {headers:?}: {}", reply.text());
        reply
    }

    /// Waits until a transaction is in the state.
    pub(crate) async fn until(&self, id: &str, state: &str) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let reply = self.api.get(&format!("/v1/receipts/{id}")).await.unwrap();
            let receipt = reply.json();
            if receipt["state"] == state {
                return receipt;
            }
            assert!(begun.elapsed().as_secs() < 60, "{id} is not {state}: {} {}", reply.status, reply.text());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

/// The `transaction_id` of an answer.
pub(crate) fn id_of(reply: &Reply) -> String {
    reply.json()["transaction_id"].as_str().unwrap_or_else(|| panic!("no transaction_id: {}", reply.text())).to_owned()
}

type Case = (&'static str, fn(Arc<Context>) -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! cases {
    ($($module:ident: $($name:ident),+;)+) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), |cx| Box::pin($module::$name(cx)))),+),+]
    };
}

const CASES: &[Case] = cases! {
    publish: one_document, any_json, duplicates, conflicts, async_and_receipts, wait, strict, idempotency_keys,
        arrays, keys_from_columns, names_of_topics, values_survive;
    formats: ndjson, csv, cloudevents_binary, cloudevents_structured, cloudevents_batch, compressed;
    dead_letters: seven_bad_rows, by_command, by_filter, of_a_conflict;
    evolve: keeps, rejects, adds;
    read: record_and_cache, table, formats, filters, singular_and_counts, suggestions, injections, long_table;
    sql: answers, forms, mistakes, only_reads, hidden_names, in_the_path, by_command, without_end;
    compat: as_written, arn_and_slash, refusals, by_row_number;
    tail: sees_each_record_once;
    tools: publish_query_receipt, reconcile_and_metrics, probes;
    webhook: standard, several_secrets, signed_by_caudal, refused, in_one_header, bad_ones_are_kept;
    aws: publish_by_sns, publish_by_sqs, batches, fifo, repeated_by_the_sdk, names_and_attributes, refusals, limits;
};

async fn all_cases(store: &str, broker: &str) {
    let mut server = server(store, broker);
    server.start().await.unwrap();
    let on_postgres = store != SQLITE;
    let database = on_postgres.then(|| store.to_owned());
    let queued = broker.starts_with("embedded");
    let context = Arc::new(Context { api: server.api(), server, queued, database, on_postgres });
    let wanted = std::env::var("CAUDAL_CASE").unwrap_or_default();
    let mut failed = Vec::new();
    let mut run = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| name.contains(&wanted)) {
        let begun = std::time::Instant::now();
        // A task of its own, so that one failure does not hide the next.
        if tokio::spawn(case(context.clone())).await.is_err() {
            failed.push(*name);
        }
        println!("  {name} {:?}", begun.elapsed());
        run += 1;
    }
    let books = context.json("/v1/reconcile?count=exact").await;
    assert_eq!(books["unaccounted"], 0, "{books:#}");
    assert!(!context.server.log().contains(" panicked at "), "{}", context.server.log());
    println!("{store:.10} {broker} {run} cases");
    assert!(failed.is_empty(), "{store:.10} {broker}: failed {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_queued() {
    all_cases(SQLITE, "embedded:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_direct() {
    all_cases(SQLITE, "none:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_queued() {
    all_cases(&postgres::database().await.unwrap(), "embedded:").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_direct() {
    all_cases(&postgres::database().await.unwrap(), "none:").await;
}
