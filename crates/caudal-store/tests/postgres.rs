//! The conformance suite against PostgreSQL.

use std::sync::Arc;

use caudal_core::ports::Catalogue;
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use caudal_testkit::postgres::{database, execute};
use caudal_testkit::store::Fixture;

async fn open() -> Fixture {
    let url = database().await.expect("a database");
    let mut config = PostgresConfig::new(&url, "test");
    // The tests' own user is one.
    config.analysts.refuse_superuser = false;
    let store = PostgresStore::connect(config).await.expect("connect");
    store.migrate().await.expect("migrate");
    let database = url.clone();
    let run = move |sql: String| {
        let url = database.clone();
        Box::pin(async move { execute(&url, &sql).await.expect("statements") }) as _
    };
    let refuse_negative = move |table: String, column: String| {
        let url = url.clone();
        Box::pin(async move {
            let sql = format!("alter table \"{table}\" add check (\"{column}\" >= 0)");
            execute(&url, &sql).await.expect("constraint");
        }) as _
    };
    Fixture {
        store: Arc::new(store),
        refuse_negative: Box::new(refuse_negative),
        execute: Box::new(run),
        schema: "public",
        keep: Box::new(()),
    }
}

caudal_testkit::store_conformance!(open);
