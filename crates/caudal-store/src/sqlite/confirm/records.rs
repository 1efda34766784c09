//! The records of transactions that come from another store, as an append would have written them: in the topic's table, counted as
//! stored. They keep the time at which they were stored there, because it is part of what an endpoint was or will be sent.

use std::sync::Arc;

use caudal_core::confirm::transfer::Carried;
use caudal_core::error::StoreError;
use caudal_core::json::read_record;
use caudal_core::outcome::Tally;
use caudal_core::ports::{AppendBatch, OnBadRow};
use caudal_core::schema::{Column, ID, STORED_AT, Table};
use caudal_core::topic::TopicName;
use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::moving::no_record;
use crate::sqlite::append::{count, insert_sql, put as put_row};
use crate::sqlite::error::{refusal, store_error};
use crate::sqlite::numbers;
use crate::sqlite::retain::is_expired;
use crate::sqlite::sql::quoted;
use crate::sqlite::writer::Commit;

/// Writes those records that are not there; they count as accepted and stored.
pub(super) fn put(
    commit: &Commit<'_>,
    table: &Arc<Table>,
    topic: &TopicName,
    rows: &[&Carried],
) -> Result<(), StoreError> {
    let mut batch = AppendBatch::new(table.clone(), topic.clone(), OnBadRow::Report);
    let (mut stored, mut left) = (Vec::new(), 0);
    for row in rows {
        if is_there(commit.conn, table, row.id).map_err(store_error)? {
            continue;
        }
        match &row.record {
            Some(record) => {
                let at = read_record(&mut batch.rows, table, record, (row.id, row.since));
                stored.push((row.id, at.map_err(|why| no_record(row.id, &table.name, &why))?.to_string()));
            }
            None if row.state.is_outcome() => {
                leave(commit, topic, row.id).map_err(store_error)?;
                left += 1;
            }
            None => {}
        }
    }
    write(commit, &batch, &stored)?;
    let new = stored.len() as u64 + left;
    match new {
        0 => Ok(()),
        new => {
            let tally = Tally { accepted: new, stored: new, ..Tally::default() };
            count(commit.conn, &batch, commit.instance, tally).map(drop).map_err(store_error)
        }
    }
}

/// In the table, or among what left it.
fn is_there(conn: &Connection, table: &Table, id: Uuid) -> rusqlite::Result<bool> {
    let sql = format!("select exists (select 1 from {} where {ID} = ?1)", quoted(&table.name));
    let there: bool = conn.prepare_cached(&sql)?.query_row([id.to_string()], |row| row.get(0))?;
    Ok(there || is_expired(conn, id)?)
}

fn write(commit: &Commit<'_>, batch: &AppendBatch, stored: &[(Uuid, String)]) -> Result<(), StoreError> {
    let (conn, table) = (commit.conn, &*batch.table);
    let columns: Vec<&Column> = table.written().collect();
    for (index, (id, stored_at)) in stored.iter().enumerate() {
        let number = numbers::skipped(conn, table).map_err(store_error)?;
        let mut insert = conn.prepare_cached(&insert_sql(table, number.is_some())).map_err(store_error)?;
        put_row(&mut insert, &columns, batch, index, stored_at, number).map_err(|error| match refusal(&error) {
            Some(rejection) => no_record(*id, &table.name, &rejection.to_string()),
            None => store_error(error),
        })?;
        numbers::keep(conn, table).map_err(store_error)?;
        bring(conn, table, *id).map_err(store_error)?;
    }
    Ok(())
}

/// Stored before the topic had lanes here, and to be confirmed all the same.
fn bring(conn: &Connection, table: &Table, id: Uuid) -> rusqlite::Result<()> {
    let sql = format!(
        "insert into _confirm_brought (tx) select {ID} from {}
          where {ID} = ?1 and {STORED_AT} < (select min(since) from _confirm_lanes where topic = ?2)
         on conflict (tx) do nothing",
        quoted(&table.name)
    );
    conn.prepare_cached(&sql)?.execute(params![id.to_string(), table.name]).map(drop)
}

/// What has its outcome and whose record has left: as if it had been here and left.
fn leave(commit: &Commit<'_>, topic: &TopicName, id: Uuid) -> rusqlite::Result<()> {
    let keep = "insert into _expired (topic, _id, expired_at) values (?1, ?2, ?3)";
    commit.conn.prepare_cached(keep)?.execute(params![topic.as_str(), id.to_string(), commit.now.to_string()])?;
    let count = "insert into _retention (topic, expired) values (?1, 1)
                 on conflict (topic) do update set expired = expired + 1";
    commit.conn.prepare_cached(count)?.execute([topic.as_str()])?;
    Ok(())
}
