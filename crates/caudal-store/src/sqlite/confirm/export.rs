//! Lanes as another store reads them, part by part.

use caudal_core::confirm::ports::Records;
use caudal_core::confirm::transfer::{Carried, Contradiction, ExportTransactions, Page, Standing, TRIED_MAX};
use caudal_core::confirm::{Fact, LaneId, State};
use caudal_core::error::StoreError;
use caudal_core::schema::{ID, Table};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row, ToSql, params};
use uuid::Uuid;

use super::claim::{columns_sql, record};
use super::operate::{maybe_instant, read_tried};
use crate::moving::Place;
use crate::sqlite::SqliteStore;
use crate::sqlite::error::store_error;
use crate::sqlite::operate::{Text, instant};
use crate::sqlite::sql::quoted;

/// The parts of a lane, each with the same columns.
macro_rules! part {
    (aside) => {
        "select tx, state, attempts, crashes, maybe_done, since, first_sent, null, at, code, detail, 0, 0
           from _confirm_aside where lane = ?1"
    };
    (deferred) => {
        "select tx, iif(doubt, 'doubt', 'retry'), attempts, crashes, 0, since, first_sent, due, null, code, detail, 0, 0
           from _confirm_deferred where lane = ?1"
    };
    (ready) => {
        "select tx, iif(doubt, 'doubt', 'pending'), attempts, crashes, 0, since, first_sent, null, null, null, '', rank, pos
           from _confirm_ready where lane = ?1"
    };
    (ended) => {
        "select tx, state, attempts, 0, 0, since, null, null, at, code, detail, 0, 0
           from _confirm_outcomes where lane = ?1"
    };
}

const ASIDE: &str = concat!(part!(aside), " and tx > ?2 order by tx limit ?3");
const DEFERRED: &str = concat!(part!(deferred), " and tx > ?2 order by tx limit ?3");
const READY: &str = concat!(part!(ready), " and (rank, pos) > (?2, ?4) order by rank, pos limit ?3");
const ENDED: &str = concat!(part!(ended), " and tx > ?2 order by tx limit ?3");

const FIND: &str = concat!(
    part!(aside),
    " and tx = ?2 union all ",
    part!(deferred),
    " and tx = ?2 union all ",
    part!(ready),
    " and tx = ?2 union all ",
    part!(ended),
    " and tx = ?2"
);

#[async_trait::async_trait]
impl ExportTransactions for SqliteStore {
    async fn standing(&self, lane: LaneId) -> Result<Standing, StoreError> {
        let sql = "select topic, paused_at is not null, (select count(*) from _confirm_leases c where c.lane = l.lane)
                     from _confirm_lanes l where lane = ?1";
        let read = |row: &Row<'_>| {
            Ok(Standing { topic: row.get(0)?, paused: row.get(1)?, leases: row.get::<_, i64>(2)? as u64 })
        };
        let work = move |conn: &Connection| conn.prepare_cached(sql)?.query_row([lane.0], read).optional();
        let found = self.points.ask(move |reader| work(&reader.conn).map_err(store_error)).await?;
        found.ok_or_else(|| StoreError::Asked(format!("there is no lane {lane}")))
    }

    async fn page(&self, lane: LaneId, after: Option<&str>, rows_max: usize) -> Result<Page, StoreError> {
        let (known, place) = (self.told.known(lane)?, Place::parse(after)?);
        self.points.ask(move |reader| page(&reader.conn, lane, &known.records, place, rows_max.max(1))).await
    }

    async fn find(&self, lane: LaneId, ids: &[Uuid]) -> Result<Vec<Carried>, StoreError> {
        let (known, ids) = (self.told.known(lane)?, ids.to_vec());
        self.points.ask(move |reader| find(&reader.conn, lane, &known.records, &ids)).await
    }
}

fn page(conn: &Connection, lane: LaneId, records: &Records, place: Place, rows_max: usize) -> Result<Page, StoreError> {
    let snapshot = conn.unchecked_transaction().map_err(store_error)?;
    let limit = rows_max as i64;
    let rows = match place {
        Place::Aside(tx) => rows(&snapshot, ASIDE, params![lane.0, tx.to_string(), limit]),
        Place::Deferred(tx) => rows(&snapshot, DEFERRED, params![lane.0, tx.to_string(), limit]),
        Place::Ready(rank, pos) => rows(&snapshot, READY, params![lane.0, rank, limit, pos]),
        Place::Ended(tx) => rows(&snapshot, ENDED, params![lane.0, tx.to_string(), limit]),
    };
    let mut rows = rows.map_err(store_error)?;
    let next = match rows.last().filter(|_| rows.len() >= rows_max) {
        Some((last, rank, pos)) => Some(match place {
            Place::Aside(_) => Place::Aside(last.id),
            Place::Deferred(_) => Place::Deferred(last.id),
            Place::Ready(..) => Place::Ready(*rank, *pos),
            Place::Ended(_) => Place::Ended(last.id),
        }),
        None => place.next_part(),
    };
    let mut with = With::of(&snapshot, records)?;
    rows.iter_mut().try_for_each(|(row, ..)| with.all(row))?;
    let rows = rows.into_iter().map(|(row, ..)| row).collect();
    Ok(Page { rows, next: next.map(|place| place.to_string()) })
}

fn find(conn: &Connection, lane: LaneId, records: &Records, ids: &[Uuid]) -> Result<Vec<Carried>, StoreError> {
    let snapshot = conn.unchecked_transaction().map_err(store_error)?;
    let mut with = With::of(&snapshot, records)?;
    let mut all = Vec::with_capacity(ids.len());
    for id in ids {
        for (mut row, ..) in rows(&snapshot, FIND, params![lane.0, id.to_string()]).map_err(store_error)? {
            with.all(&mut row)?;
            all.push(row);
        }
    }
    Ok(all)
}

fn rows(conn: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<Vec<(Carried, i16, i64)>> {
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params, |row| Ok((carried(row)?, row.get(11)?, row.get(12)?)))?;
    rows.collect()
}

fn carried(row: &Row<'_>) -> rusqlite::Result<Carried> {
    Ok(Carried {
        id: row.get::<_, Text<Uuid>>(0)?.0,
        state: row.get::<_, Text<State>>(1)?.0,
        attempts: row.get(2)?,
        crashes: row.get(3)?,
        maybe_done: row.get(4)?,
        since: instant(row, 5)?,
        first_sent: maybe_instant(row, 6)?,
        due: maybe_instant(row, 7)?,
        at: maybe_instant(row, 8)?,
        code: row.get(9)?,
        detail: row.get(10)?,
        tried: Vec::new(),
        contradictions: Vec::new(),
        record: None,
    })
}

/// What belongs to a transaction and is not where it stands.
struct With<'c> {
    tried: CachedStatement<'c>,
    contradictions: CachedStatement<'c>,
    record: CachedStatement<'c>,
    table: &'c Table,
}

impl<'c> With<'c> {
    fn of(conn: &'c Connection, records: &'c Records) -> Result<Self, StoreError> {
        let tried =
            "select attempt, at, state, code, detail from _confirm_tried where tx = ?1 order by number desc limit ?2";
        let contradictions = "select got, at, code, detail from _confirm_contradictions where tx = ?1 order by got";
        let (table, record) = match records {
            Records::Topic(table) => {
                let from = format!("from {} r where r.{ID} = ?1", quoted(&table.name));
                (table, format!("select r.{ID}{} {from}", columns_sql(table)))
            }
            Records::Adopted(adopt) => {
                let from = format!("from _confirm_adopted a join {} r", quoted(&adopt.table.name));
                let on = format!("on r.{} = a.key where a.tx = ?1", quoted(&adopt.key));
                (&adopt.table, format!("select a.tx{} {from} {on}", columns_sql(&adopt.table)))
            }
        };
        let prepare = |sql: &str| conn.prepare_cached(sql).map_err(store_error);
        Ok(Self { tried: prepare(tried)?, contradictions: prepare(contradictions)?, record: prepare(&record)?, table })
    }

    fn all(&mut self, row: &mut Carried) -> Result<(), StoreError> {
        let id = row.id.to_string();
        row.tried = listed(&mut self.tried, &[&id, &(TRIED_MAX as i64)], read_tried).map_err(store_error)?;
        row.contradictions = listed(&mut self.contradictions, &[&id], contradiction).map_err(store_error)?;
        let mut found = self.record.query([&id]).map_err(store_error)?;
        if let Some(found) = found.next().map_err(store_error)? {
            row.record = Some(record(found, 1, self.table)?);
        }
        Ok(())
    }
}

fn listed<T>(
    statement: &mut CachedStatement<'_>,
    params: &[&dyn ToSql],
    read: fn(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    statement.query_map(params, read)?.collect()
}

fn contradiction(row: &Row<'_>) -> rusqlite::Result<Contradiction> {
    let got = match row.get::<_, Text<State>>(0)?.0 {
        State::Rejected => Fact::Rejected,
        _ => Fact::Confirmed,
    };
    Ok(Contradiction { got, at: instant(row, 1)?, code: row.get(2)?, detail: row.get(3)? })
}
