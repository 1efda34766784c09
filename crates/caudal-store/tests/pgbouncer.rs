//! The conformance suite through PgBouncer in transaction mode.

use std::sync::{Arc, OnceLock};

use caudal_core::ports::Catalogue;
use caudal_store::postgres::{PostgresConfig, PostgresStore};
use caudal_testkit::postgres::{PgBouncer, database, execute};
use caudal_testkit::store::Fixture;

fn port_and_name(url: &str) -> (u16, String) {
    let (authority, name) = url.rsplit_once('/').expect("a database in the URL");
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port in the URL");
    (port, name.to_owned())
}

fn bouncer(server_port: u16) -> &'static PgBouncer {
    static SHARED: OnceLock<PgBouncer> = OnceLock::new();
    SHARED.get_or_init(|| PgBouncer::start(server_port).expect("pgbouncer"))
}

async fn open() -> Fixture {
    let direct = database().await.expect("a database");
    let (port, name) = port_and_name(&direct);
    let mut config =
        PostgresConfig { transaction_pooling: true, ..PostgresConfig::new(bouncer(port).url(&name), "test") };
    // The tests' own user is one.
    config.analysts.refuse_superuser = false;
    let store = PostgresStore::connect(config).await.expect("connect");
    store.migrate().await.expect("migrate");
    let database = direct.clone();
    let run = move |sql: String| {
        let url = database.clone();
        Box::pin(async move { execute(&url, &sql).await.expect("statements") }) as _
    };
    let refuse_negative = move |table: String, column: String| {
        let url = direct.clone();
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
