//! `caudal lambda`, run as Lambda runs it by cargo-lambda's runtime emulator, with events of the shapes that AWS documents.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod http;
mod life;
mod queue;

use caudal_testkit::lambda::Function;
use caudal_testkit::postgres;
use serde_json::Value;

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_caudal");
pub(crate) const ORDERS: &str = r#"{"type": "object", "required": ["n"], "properties": {
  "n": {"type": "integer"}, "customer": {"type": "string"}}}"#;
pub(crate) const FILES: &[(&str, &str)] = &[("orders.schema.json", ORDERS)];

/// One of the events in this folder.
macro_rules! event {
    ($name:literal) => {
        serde_json::from_str::<serde_json::Value>(include_str!(concat!($name, ".json"))).unwrap()
    };
}
pub(crate) use event;

/// What a function's environment says: two topics, a database.
pub(crate) fn environment(store: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("CAUDAL_STORE__URL", store),
        ("CAUDAL_TOPICS__ORDERS__SCHEMA", "orders.schema.json"),
        ("CAUDAL_TOPICS__PAYMENTS__SCHEMA", "orders.schema.json"),
        ("CAUDAL_TOPICS__PAYMENTS__CONSUME_FROM", "payments.fifo"),
    ]
}

/// A function over a database of its own, and that database.
pub(crate) struct Deployed {
    pub(crate) function: Function,
    pub(crate) database: tokio_postgres::Client,
}

impl Deployed {
    pub(crate) async fn new(more: &[(&'static str, &str)]) -> Self {
        Self::over(&postgres::database().await.unwrap(), more).await
    }

    pub(crate) async fn over(store: &str, more: &[(&'static str, &str)]) -> Self {
        let environment = [environment(store), more.to_vec()].concat();
        let function = Function::start(BINARY, FILES, &environment).await.unwrap();
        Self { function, database: postgres::client(store).await.unwrap() }
    }

    /// For tests whose subject is not who is let in.
    pub(crate) async fn open() -> Self {
        Self::new(&[OPEN]).await
    }

    /// The answer to an event.
    pub(crate) async fn answer(&self, event: &Value) -> Value {
        self.function.invoke(event).await.unwrap().answer()
    }

    /// The first column of the rows that SQL finds, as text.
    pub(crate) async fn column(&self, sql: &str) -> Vec<String> {
        let rows = self.database.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_default()).collect()
    }

    pub(crate) async fn customers(&self, table: &str) -> Vec<String> {
        self.column(&format!("select customer from {table} order by n")).await
    }

    /// Accepted = stored + duplicate + rejected + dead, and the tables hold what was stored.
    pub(crate) async fn balances(&self) {
        let reply = self.function.api().get("/v1/reconcile?count=exact").await.unwrap();
        assert_eq!((reply.status, &reply.json()["unaccounted"]), (200, &0.into()), "{}", reply.text());
    }
}

pub(crate) const OPEN: (&str, &str) = ("CAUDAL_HTTP__ALLOW_ANYONE_WITHOUT_A_KEY", "true");
