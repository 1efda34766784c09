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
use super::readers::Reader;
use super::sql::quoted;
use super::writer::now;

/// The first rows in order of storing, with their age told. The newest row stays in any case: SQLite gives the numbers of the last
/// rows out again when they are gone, and live tails go by them.
///
/// A record whose confirmation is open stays, too: what was stored since the topic has lanes, or came with one, and has no outcome.
fn rows_sql(table: &Table) -> String {
    let name = quoted(&table.name);
    format!(
        "select _id, {STORED_AT} < ?1,
                ({STORED_AT} >= coalesce((select min(since) from _confirm_lanes where topic = ?2), 'x')
                  or exists (select 1 from _confirm_brought b where b.tx = t._id))
                and not exists (select 1 from _confirm_outcomes o where o.tx = t._id)
           from {name} t where rowid < (select max(rowid) from {name}) order by rowid"
    )
}

/// Ids of rows that may leave, the oldest first. Ends at the first row that is too young.
fn old_rows(
    reader: &Reader,
    table: &Table,
    topic: &str,
    before: &str,
    rows_max: usize,
) -> rusqlite::Result<Vec<String>> {
    let mut statement = reader.conn.prepare_cached(&rows_sql(table))?;
    let mut rows = statement.query(params![before, topic])?;
    let mut ids = Vec::new();
    while let Some(row) = rows.next()? {
        let (old, open): (bool, bool) = (row.get(1)?, row.get(2)?);
        if !old || ids.len() == rows_max {
            break;
        }
        if !open {
            ids.push(row.get(0)?);
        }
    }
    Ok(ids)
}

fn expire(conn: &mut Connection, table: &Table, topic: &str, ids: &[String]) -> rusqlite::Result<u64> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let delete = format!("delete from {} where _id = ?1", quoted(&table.name));
    let keep = "insert into _expired (topic, _id, expired_at) values (?1, ?2, ?3)
                on conflict (_id) do update set expired_at = excluded.expired_at";
    let at = now().to_string();
    let mut gone = 0;
    for id in ids {
        // Another process's sweep may have been here since the rows were looked for.
        if transaction.prepare_cached(&delete)?.execute([id])? > 0 {
            transaction.prepare_cached(keep)?.execute(params![topic, id, at])?;
            gone += 1;
        }
    }
    let count = "insert into _retention (topic, expired) values (?1, ?2)
                 on conflict (topic) do update set expired = expired + excluded.expired";
    transaction.prepare_cached(count)?.execute(params![topic, gone])?;
    transaction.commit()?;
    Ok(gone as u64)
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
        let (looked_in, of) = (table.clone(), topic.clone());
        // By a reader: records that stay because they are open may be many, and the writer has other work.
        let look = move |reader: &Reader| old_rows(reader, &looked_in, &of, &before, rows_max).map_err(store_error);
        let ids = self.points.ask(look).await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let work = move |conn: &mut Connection| expire(conn, &table, &topic, &ids).map_err(store_error);
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
