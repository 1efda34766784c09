//! Claims, and the life of their leases.

use std::time::Duration;

use bytes::Bytes;
use caudal_core::confirm::ports::{Adopt, Batch, Claim, Lease, Records};
use caudal_core::confirm::{Item, State};
use caudal_core::error::StoreError;
use caudal_core::json;
use caudal_core::row::RowBatch;
use caudal_core::schema::{Column, EXTRA, ID, Table};
use caudal_core::time::Instant;
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::later;
use crate::sqlite::error::{found_error, store_error};
use crate::sqlite::operate::{Text, instant};
use crate::sqlite::sql::quoted;
use crate::sqlite::values::push_row;
use crate::sqlite::writer::Commit;

pub(super) fn claim(commit: &Commit<'_>, asked: &Claim, records: &Records) -> Result<Option<Batch>, StoreError> {
    let mut from = asked.from;
    loop {
        let Some((number, watermark)) = take(commit, asked, from).map_err(store_error)? else { return Ok(None) };
        let found = Found::read(commit, number, records)?;
        for (item, why) in &found.held {
            set_aside(commit, asked.lane.0, number, item, why).map_err(store_error)?;
        }
        if !found.items.is_empty() {
            let lease = Lease { lane: asked.lane, number, worker: asked.worker.clone() };
            return Ok(Some(Batch { lease, items: found.items, watermark }));
        }
        end_if_empty(commit.conn, number).map_err(store_error)?;
        from = watermark;
    }
}

/// Moves pending items under a new lease; returns its number and the last position among them.
fn take(commit: &Commit<'_>, asked: &Claim, from: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    let (conn, lane, rank) = (commit.conn, asked.lane.0, asked.rank.number());
    let sql = "select exists (select 1 from _confirm_lanes where lane = ?1 and paused_at is null)
                  and exists (select 1 from _confirm_ready where lane = ?1 and rank = ?2 and pos > ?3 and pos <= ?4)";
    if !conn.prepare_cached(sql)?.query_row(params![lane, rank, from, asked.to], |row| row.get(0))? {
        return Ok(None);
    }
    let sql = "insert into _confirm_leases (worker, until, lane, phase) values (?1, ?2, ?3, 'leased') returning lease";
    let until = later(commit.now, asked.ttl).to_string();
    let number: i64 = conn.prepare_cached(sql)?.query_row(params![&*asked.worker, until, lane], |row| row.get(0))?;
    let sql = "insert into _confirm_leased (lease, tx, pos, attempts, crashes, doubt, since, first_sent)
               select ?1, tx, pos, attempts, crashes, doubt, since, first_sent from _confirm_ready
                where lane = ?2 and rank = ?3 and pos > ?4 and pos <= ?6 order by pos limit ?5";
    let items_max = asked.items_max.max(1) as i64;
    conn.prepare_cached(sql)?.execute(params![number, lane, rank, from, items_max, asked.to])?;
    let sql = "select max(pos) from _confirm_leased where lease = ?1";
    let last: i64 = conn.prepare_cached(sql)?.query_row([number], |row| row.get(0))?;
    let sql = "delete from _confirm_ready where lane = ?1 and rank = ?2 and pos > ?3 and pos <= ?4";
    conn.prepare_cached(sql)?.execute(params![lane, rank, from, last])?;
    Ok(Some((number, last)))
}

/// The items of a lease with their records, in the order of their positions; and those that nobody may be called for, with why.
struct Found {
    items: Vec<Item>,
    held: Vec<(Item, String)>,
}

/// What is there of a record.
const GONE: u8 = 0;
const CHANGED: u8 = 1;
const WAITS: u8 = 2;

impl Found {
    fn read(commit: &Commit<'_>, lease: i64, records: &Records) -> Result<Self, StoreError> {
        let (table, sql, pending) = match records {
            Records::Topic(table) => (table, of_topic_sql(table), None),
            Records::Adopted(adopt) => (&adopt.table, of_adopted_sql(adopt), Some(&adopt.pending)),
        };
        let failed = |error| if table.schema.is_some() { found_error(error) } else { store_error(error) };
        let mut statement = commit.conn.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params![lease, pending]).map_err(failed)?;
        let mut found = Self { items: Vec::new(), held: Vec::new() };
        while let Some(row) = rows.next().map_err(failed)? {
            let mut item = item(row, commit.now).map_err(store_error)?;
            match row.get(6).map_err(store_error)? {
                GONE => {
                    found
                        .held
                        .push((item, format!("its record is not in {} any more: it was deleted there", table.name)));
                }
                // What may have been done has to be found out, whatever its owner thinks of it.
                CHANGED if !item.doubt => {
                    let why = "is not waiting any more: its owner changed it before it was called for";
                    found.held.push((item, format!("its row in {} {why}", table.name)));
                }
                _ => {
                    item.record = record(row, 7, table)?;
                    found.items.push(item);
                }
            }
        }
        Ok(found)
    }
}

pub(super) fn columns_sql(table: &Table) -> String {
    table.columns.iter().map(|column| format!(", r.{}", quoted(&column.name))).collect()
}

const ITEM: &str = "l.tx, l.attempts, l.crashes, l.doubt, l.since, l.first_sent";

fn of_topic_sql(table: &Table) -> String {
    format!(
        "select {ITEM}, iif(r.{ID} is null, {GONE}, {WAITS}){} from _confirm_leased l left join {} r on r.{ID} = l.tx
          where l.lease = ?1 and ?2 is null order by l.pos",
        columns_sql(table),
        quoted(&table.name)
    )
}

fn of_adopted_sql(adopt: &Adopt) -> String {
    let (key, state) = (quoted(&adopt.key), quoted(&adopt.state));
    format!(
        "select {ITEM}, iif(r.{key} is null, {GONE}, iif(r.{state} = ?2, {WAITS}, {CHANGED})){}
           from _confirm_leased l left join _confirm_adopted a on a.tx = l.tx
           left join {} r on r.{key} = a.key where l.lease = ?1 order by l.pos",
        columns_sql(&adopt.table),
        quoted(&adopt.table.name)
    )
}

fn item(row: &Row<'_>, now: Instant) -> rusqlite::Result<Item> {
    Ok(Item {
        id: row.get::<_, Text<Uuid>>(0)?.0,
        attempts: row.get(1)?,
        crashes: row.get(2)?,
        doubt: row.get(3)?,
        since: instant(row, 4)?,
        first_sent: row.get::<_, Option<Text<Instant>>>(5)?.map(|sent| sent.0),
        claimed: now,
        record: Bytes::new(),
    })
}

/// The row as a JSON object, without an `_extra` that holds nothing.
pub(super) fn record(row: &Row<'_>, first: usize, table: &Table) -> Result<Bytes, StoreError> {
    let nothing = |(at, column): (usize, &Column)| {
        column.name == EXTRA && row.get_ref(first + at).is_ok_and(|value| value == rusqlite::types::ValueRef::Null)
    };
    // `_extra` is the last column where there is one.
    let empty = table.columns.iter().enumerate().next_back().is_some_and(nothing);
    let columns = &table.columns[..table.columns.len() - usize::from(empty)];
    let mut one = RowBatch::default();
    push_row(&mut one, row, first, columns.iter())?;
    let mut out = Vec::with_capacity(one.byte_len() * 2);
    json::write_row(&mut out, columns, one.row(0));
    Ok(out.into())
}

/// A person has to look.
fn set_aside(commit: &Commit<'_>, lane: i32, lease: i64, item: &Item, why: &str) -> rusqlite::Result<()> {
    let tx = item.id.to_string();
    let sql = "delete from _confirm_leased where lease = ?1 and tx = ?2";
    commit.conn.prepare_cached(sql)?.execute(params![lease, tx])?;
    super::places::Aside {
        tx: &tx,
        lane,
        state: State::Held,
        maybe_done: item.doubt,
        attempts: item.attempts,
        crashes: item.crashes,
        since: item.since,
        first_sent: item.first_sent,
        code: None,
        detail: why,
    }
    .put(commit)
}

/// Whether the lease lives, and if so when its calls began: `Some(None)` before they did.
pub(super) fn live(conn: &Connection, lease: &Lease) -> rusqlite::Result<Option<Option<Instant>>> {
    let sql = "select called_at from _confirm_leases where lease = ?1 and worker = ?2 and lane = ?3";
    let values = params![lease.number, &*lease.worker, lease.lane.0];
    let called = |row: &Row<'_>| Ok(row.get::<_, Option<Text<Instant>>>(0)?.map(|at| at.0));
    conn.prepare_cached(sql)?.query_row(values, called).optional()
}

/// A lease under which nothing is left has no purpose.
pub(super) fn end_if_empty(conn: &Connection, lease: i64) -> rusqlite::Result<()> {
    let sql = "delete from _confirm_leases where lease = ?1
                  and not exists (select 1 from _confirm_leased where lease = ?1)";
    conn.prepare_cached(sql)?.execute([lease])?;
    Ok(())
}

pub(super) fn begin_calls(commit: &Commit<'_>, lease: &Lease, ttl: Duration) -> rusqlite::Result<bool> {
    let sql = "update _confirm_leases set phase = 'calling', called_at = coalesce(called_at, ?4), until = ?5
                where lease = ?1 and worker = ?2 and lane = ?3";
    let (now, until) = (commit.now.to_string(), later(commit.now, ttl).to_string());
    let values = params![lease.number, &*lease.worker, lease.lane.0, now, until];
    Ok(commit.conn.prepare_cached(sql)?.execute(values)? > 0)
}

pub(super) fn extend(commit: &Commit<'_>, leases: &[Lease], ttl: Duration) -> rusqlite::Result<Vec<bool>> {
    let sql = "update _confirm_leases set until = ?4 where lease = ?1 and worker = ?2 and lane = ?3";
    let until = later(commit.now, ttl).to_string();
    let one = |lease: &Lease| {
        let values = params![lease.number, &*lease.worker, lease.lane.0, until];
        Ok(commit.conn.prepare_cached(sql)?.execute(values)? > 0)
    };
    leases.iter().map(one).collect()
}
