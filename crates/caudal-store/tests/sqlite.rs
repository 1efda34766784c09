//! The conformance suite against SQLite, and what is SQLite's alone.

use std::sync::Arc;

use caudal_core::ports::Catalogue;
use caudal_store::sqlite::{SqliteConfig, SqliteStore};
use caudal_testkit::store::Fixture;

async fn open() -> Fixture {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("test.db");
    let store = SqliteStore::open(SqliteConfig::new(&path, "test")).expect("open");
    store.migrate().await.expect("migrate");
    let refuse_negative = move |table: String, column: String| {
        let path = path.clone();
        Box::pin(async move {
            let sql = format!(
                "create trigger \"refuse {table}\" before insert on \"{table}\" when new.\"{column}\" < 0
                 begin select raise(abort, 'negative'); end"
            );
            rusqlite::Connection::open(&path).expect("open").execute_batch(&sql).expect("trigger");
        }) as _
    };
    Fixture { store: Arc::new(store), refuse_negative: Box::new(refuse_negative), keep: Box::new(dir) }
}

caudal_testkit::store_conformance!(open);
