//! Lanes that come from another store. Each call is one commit: places, records, counts and what was tried come together, so that
//! the audit is right after every one of them.

use std::sync::Arc;

use caudal_core::confirm::ports::Records;
use caudal_core::confirm::transfer::{Carried, ImportTransactions};
use caudal_core::confirm::{LaneId, State};
use caudal_core::error::StoreError;
use rusqlite::{Connection, OptionalExtension, params};

use super::ready::{Counts, Ready, outcome, positions};
use super::{Lane, places, records};
use crate::moving::{adopts, not_paused};
use crate::settle::without_nul;
use crate::sqlite::SqliteStore;
use crate::sqlite::error::store_error;
use crate::sqlite::writer::Commit;

#[async_trait::async_trait]
impl ImportTransactions for SqliteStore {
    async fn import(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError> {
        self.bring(lane, rows, Bring::New).await
    }

    async fn renew(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError> {
        self.bring(lane, rows, Bring::Renewed).await
    }
}

/// Which of the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bring {
    /// Those that are not there.
    New,
    /// Those that are there without an outcome.
    Renewed,
}

impl SqliteStore {
    async fn bring(&self, lane: LaneId, rows: &[Carried], which: Bring) -> Result<u64, StoreError> {
        let (lane, rows): (Lane, Arc<[Carried]>) = (self.told.known(lane)?, rows.into());
        self.writer.share(rows.len(), move |commit| bring(commit, &lane, &rows, which)).await
    }
}

fn bring(commit: &Commit<'_>, lane: &Lane, rows: &[Carried], which: Bring) -> Result<u64, StoreError> {
    let Records::Topic(table) = &*lane.records else { return Err(adopts(lane.topic.as_str())) };
    let paused = "select paused_at is not null from _confirm_lanes where lane = ?1";
    let paused = commit.conn.prepare_cached(paused).and_then(|mut sql| sql.query_row([lane.id.0], |row| row.get(0)));
    if !paused.map_err(store_error)? {
        return Err(not_paused(lane.topic.as_str()));
    }
    let mut moved = Vec::with_capacity(rows.len());
    for row in rows {
        if is_wanted(commit.conn, &row.id.to_string(), which).map_err(store_error)? {
            moved.push(row);
        }
    }
    records::put(commit, table, &lane.topic, &moved)?;
    place(commit, lane.id, &moved, which).map_err(store_error)?;
    // Of all of them: an answer may have come against an outcome that was there before.
    rows.iter().try_for_each(|row| contradict(commit.conn, row)).map_err(store_error)?;
    Ok(moved.len() as u64)
}

fn is_wanted(conn: &Connection, tx: &str, which: Bring) -> rusqlite::Result<bool> {
    let ended = outcome(conn, tx)?.is_some();
    let open = "select 1 from _confirm_ready where tx = ?1 union all select 1 from _confirm_deferred where tx = ?1
                union all select 1 from _confirm_aside where tx = ?1
                union all select 1 from _confirm_leases c cross join _confirm_leased l on l.lease = c.lease and l.tx = ?1";
    let is_open = conn.prepare_cached(open)?.query_row([tx], |_| Ok(())).optional()?.is_some();
    Ok(match which {
        Bring::New => !ended && !is_open,
        Bring::Renewed => !ended && is_open,
    })
}

/// Each into its place, in the order given.
fn place(commit: &Commit<'_>, lane: LaneId, rows: &[&Carried], which: Bring) -> rusqlite::Result<()> {
    let (mut counts, mut pos) = (Counts::default(), positions(commit.conn, rows.len())?);
    for row in rows {
        let tx = row.id.to_string();
        if which == Bring::Renewed {
            places::remove(commit.conn, &tx)?;
            commit.conn.prepare_cached("delete from _confirm_tried where tx = ?1")?.execute([&tx])?;
        }
        pos += 1;
        put(commit, lane.0, &tx, row, pos)?;
        let sql = "insert into _confirm_tried (tx, attempt, at, state, code, detail) values (?1, ?2, ?3, ?4, ?5, ?6)";
        for tried in row.tried.iter().rev() {
            let (at, detail) = (tried.at.to_string(), without_nul(&tried.detail));
            let values = params![tx, tried.attempt, at, tried.state.name(), tried.code, detail];
            commit.conn.prepare_cached(sql)?.execute(values)?;
        }
        if which == Bring::New {
            counts.enqueued(lane.0);
        }
        if row.state.is_outcome() {
            counts.ended(lane.0, row.state);
        }
    }
    counts.write(commit)
}

fn put(commit: &Commit<'_>, lane: i32, tx: &str, row: &Carried, pos: i64) -> rusqlite::Result<()> {
    let Carried { attempts, crashes, since, first_sent, code, state, .. } = *row;
    let detail = row.detail.as_str();
    // When it came there, by the other store's clock.
    let then = Commit { now: row.at.unwrap_or(since), ..*commit };
    match state {
        State::Retry | State::Doubt => {
            let (due, doubt) = (row.due.unwrap_or(since), state == State::Doubt);
            places::Deferred { tx, due, lane, doubt, attempts, crashes, since, first_sent, code, detail }.put(commit)
        }
        State::Held | State::Dead => {
            let maybe_done = row.maybe_done;
            places::Aside { tx, lane, state, maybe_done, attempts, crashes, since, first_sent, code, detail }.put(&then)
        }
        State::Confirmed | State::Rejected | State::Void => {
            places::Outcome { tx, lane, state, attempts, code, fence: 0, since, detail }.put(&then).map(drop)
        }
        State::Pending | State::Leased | State::Calling => {
            Ready { tx, lane, attempts, crashes, doubt: false, since, first_sent }.put(commit.conn, pos)
        }
    }
}

/// Only against an outcome that stands.
fn contradict(conn: &Connection, row: &Carried) -> rusqlite::Result<()> {
    let sql = "insert into _confirm_contradictions (tx, had, got, code, detail, fence, at)
               select ?1, state, ?2, ?3, ?4, 0, ?5 from _confirm_outcomes where tx = ?1 and state <> ?2
               on conflict (tx, got) do nothing";
    for said in &row.contradictions {
        let values = params![
            row.id.to_string(),
            said.got.state().name(),
            said.code,
            without_nul(&said.detail),
            said.at.to_string()
        ];
        conn.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}
