//! Retention: old rows leave in short transactions between the writer's others, and their keys stay behind in `_expired`.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::schema::{STORED_AT, Table};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::sql::quoted;
use super::writer::now;

/// Among the first rows in order of storing, those that are old. The newest row stays in any case: SQLite gives the numbers of the
/// last rows out again when they are gone, and live tails go by them.
fn old_rows_sql(table: &Table) -> String {
    let name = quoted(&table.name);
    format!(
        "select _id from (select rowid as number, _id, {STORED_AT} as at from {name} order by rowid limit ?2)
          where at < ?1 and number < (select max(rowid) from {name})"
    )
}

fn expire(conn: &mut Connection, table: &Table, topic: &str, before: &str, rows_max: i64) -> rusqlite::Result<u64> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let ids: Vec<String> = transaction
        .prepare_cached(&old_rows_sql(table))?
        .query_map(params![before, rows_max], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let delete = format!("delete from {} where _id = ?1", quoted(&table.name));
    let keep = "insert into _expired (topic, _id, expired_at) values (?1, ?2, ?3)
                on conflict (_id) do update set expired_at = excluded.expired_at";
    let at = now().to_string();
    for id in &ids {
        transaction.prepare_cached(&delete)?.execute([id])?;
        transaction.prepare_cached(keep)?.execute(params![topic, id, at])?;
    }
    let count = "insert into _retention (topic, expired) values (?1, ?2)
                 on conflict (topic) do update set expired = expired + excluded.expired";
    transaction.prepare_cached(count)?.execute(params![topic, ids.len() as i64])?;
    transaction.commit()?;
    Ok(ids.len() as u64)
}

/// Whether a row under this id has left the table.
pub(super) fn is_expired(conn: &Connection, id: Uuid) -> rusqlite::Result<bool> {
    let sql = "select exists (select 1 from _expired where _id = ?1)";
    conn.prepare_cached(sql)?.query_row([id.to_string()], |row| row.get(0))
}

impl SqliteStore {
    pub(super) async fn expire_rows(
        &self,
        table: &Arc<Table>,
        topic: &TopicName,
        before: Instant,
        rows_max: usize,
    ) -> Result<u64, StoreError> {
        let (table, topic, before) = (table.clone(), topic.to_string(), before.to_string());
        let work =
            move |conn: &mut Connection| expire(conn, &table, &topic, &before, rows_max as i64).map_err(store_error);
        self.writer.run(work).await
    }

    pub(super) async fn forget_keys(
        &self,
        topic: &TopicName,
        before: Instant,
        keys_max: usize,
    ) -> Result<u64, StoreError> {
        let (topic, before) = (topic.to_string(), before.to_string());
        let sql = "delete from _expired where _id in (
                     select _id from _expired where topic = ?1 and expired_at < ?2 order by expired_at limit ?3)";
        let work = move |conn: &mut Connection| {
            let gone = conn.execute(sql, params![topic, before, keys_max as i64]).map_err(store_error)?;
            Ok(gone as u64)
        };
        self.writer.run(work).await
    }

    pub(super) async fn expired_of(&self, topic: &TopicName) -> Result<u64, StoreError> {
        let topic = topic.to_string();
        let sql = "select expired from _retention where topic = ?1";
        let count: Option<i64> = self
            .points
            .ask(move |reader| reader.conn.query_row(sql, [topic], |row| row.get(0)).optional().map_err(store_error))
            .await?;
        Ok(count.unwrap_or_default() as u64)
    }

    pub(super) async fn expired_when(&self, topic: &TopicName, id: Uuid) -> Result<Option<Instant>, StoreError> {
        let (topic, id) = (topic.to_string(), id.to_string());
        let sql = "select expired_at from _expired where topic = ?1 and _id = ?2";
        let at: Option<String> = self
            .points
            .ask(move |reader| {
                reader.conn.query_row(sql, [topic, id], |row| row.get(0)).optional().map_err(store_error)
            })
            .await?;
        Ok(at.and_then(|at| Instant::parse(&at)))
    }
}
