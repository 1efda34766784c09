//! Where transactions stand, and what people do about them.

use std::collections::BTreeMap;

use caudal_core::confirm::machine::void_refusal;
use caudal_core::confirm::ports::{Acted, Confirmation, LaneStatus, Tried};
use caudal_core::confirm::transfer::TRIED_MAX;
use caudal_core::confirm::{Fact, LaneId, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use super::adopt::write_back;
use super::places::{Outcome, remove, tried};
use super::ready::{Counts, Ready, positions};
use super::{Told, between};
use crate::sqlite::error::store_error;
use crate::sqlite::operate::{Text, instant};
use crate::sqlite::writer::{Commit, now};

impl FromSql for Text<State> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        State::parse(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

pub(super) fn maybe_instant(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Instant>> {
    Ok(row.get::<_, Option<Text<Instant>>>(index)?.map(|at| at.0))
}

/// A transaction with the number of its lane.
fn standing(conn: &Connection, id: Uuid) -> rusqlite::Result<Option<(LaneId, Confirmation)>> {
    let sql = "select lane_number, topic, lane, state, attempts, crashes, maybe_done, since, first_sent, due, at, code, detail
                 from _confirmations where _id = ?1 limit 1";
    let read = |row: &Row<'_>| {
        let confirmation = Confirmation {
            id,
            topic: row.get(1)?,
            lane: row.get(2)?,
            state: row.get::<_, Text<State>>(3)?.0,
            attempts: row.get(4)?,
            crashes: row.get(5)?,
            maybe_done: row.get(6)?,
            since: instant(row, 7)?,
            first_sent: maybe_instant(row, 8)?,
            due: maybe_instant(row, 9)?,
            at: maybe_instant(row, 10)?,
            code: row.get(11)?,
            detail: row.get(12)?,
            history: Vec::new(),
        };
        Ok((LaneId(row.get(0)?), confirmation))
    };
    conn.prepare_cached(sql)?.query_row([id.to_string()], read).optional()
}

pub(super) fn confirmation(conn: &Connection, id: Uuid) -> rusqlite::Result<Option<Confirmation>> {
    let snapshot = conn.unchecked_transaction()?;
    let Some((_, mut found)) = standing(&snapshot, id)? else { return Ok(None) };
    let sql = "select attempt, at, state, code, detail from _confirm_tried where tx = ?1 order by number desc limit ?2";
    let mut statement = snapshot.prepare_cached(sql)?;
    found.history =
        statement.query_map(params![id.to_string(), TRIED_MAX as i64], read_tried)?.collect::<Result<_, _>>()?;
    Ok(Some(found))
}

/// Attempt, time, state, code, detail.
pub(super) fn read_tried(row: &Row<'_>) -> rusqlite::Result<Tried> {
    Ok(Tried {
        attempt: row.get(0)?,
        at: instant(row, 1)?,
        state: row.get::<_, Text<State>>(2)?.0,
        code: row.get(3)?,
        detail: row.get(4)?,
    })
}

pub(super) fn void(commit: &Commit<'_>, id: Uuid, reason: &str) -> rusqlite::Result<Acted> {
    let Some((lane, found)) = standing(commit.conn, id)? else { return Ok(Acted::Unknown) };
    if let Some(why) = void_refusal(found.state, found.maybe_done) {
        return Ok(Acted::Refused(why.to_owned()));
    }
    end(commit, lane, &found, State::Void, reason)?;
    Ok(Acted::Done)
}

pub(super) fn resolve(
    commit: &Commit<'_>,
    told: &Told,
    id: Uuid,
    fact: Fact,
    reason: &str,
) -> Result<Acted, StoreError> {
    let Some((lane, found)) = standing(commit.conn, id).map_err(store_error)? else { return Ok(Acted::Unknown) };
    if found.state.is_outcome() {
        return Ok(Acted::Refused(format!("it is {} already, and that never changes", found.state.name())));
    }
    end(commit, lane, &found, fact.state(), reason).map_err(store_error)?;
    write_back(commit.conn, told.records(lane).as_deref(), &id.to_string(), fact)?;
    Ok(Acted::Done)
}

/// Gives an open transaction its outcome, by a person's word. A lease that has it keeps it, and finds the outcome.
fn end(commit: &Commit<'_>, lane: LaneId, found: &Confirmation, state: State, reason: &str) -> rusqlite::Result<()> {
    let tx = found.id.to_string();
    remove(commit.conn, &tx)?;
    let Confirmation { attempts, since, .. } = *found;
    Outcome { tx: &tx, lane: lane.0, state, attempts, code: None, fence: 0, since, detail: reason }.put(commit)?;
    let mut counts = Counts::default();
    counts.ended(lane.0, state);
    counts.write(commit)
}

pub(super) fn redrive(commit: &Commit<'_>, id: Uuid) -> rusqlite::Result<Acted> {
    let Some((lane, found)) = standing(commit.conn, id)? else { return Ok(Acted::Unknown) };
    if !matches!(found.state, State::Dead | State::Held) {
        let why = format!("it is {}: only what is dead or held can be redriven", found.state.name());
        return Ok(Acted::Refused(why));
    }
    let (tx, doubt) = (id.to_string(), found.maybe_done);
    remove(commit.conn, &tx)?;
    // Its deadline runs anew, or it would be given up again at once. What may have been done keeps its times: how long the endpoint
    // remembers it is reckoned from them.
    let since = if doubt { found.since } else { commit.now };
    let (lane, first_sent) = (lane.0, found.first_sent);
    let ready = Ready { tx: &tx, lane, attempts: 0, crashes: 0, doubt, since, first_sent };
    ready.put(commit.conn, positions(commit.conn, 1)? + 1)?;
    let state = if doubt { State::Doubt } else { State::Pending };
    tried(commit, &tx, found.attempts, state, None, &format!("redriven: it was {}", found.state.name()))?;
    Ok(Acted::Done)
}

/// All numbers of one moment. What ended is counted where it is written, because outcomes are many and stay; what is open is
/// counted here.
pub(super) fn lanes(conn: &Connection) -> rusqlite::Result<Vec<LaneStatus>> {
    let snapshot = conn.unchecked_transaction()?;
    let mut lanes = named(&snapshot)?;
    each(&snapshot, &mut lanes, COUNTED, |lane, row| {
        let count = |index| row.get::<_, i64>(index).map(|n| n as u64);
        (lane.enqueued, lane.confirmed, lane.rejected, lane.void) = (count(1)?, count(2)?, count(3)?, count(4)?);
        Ok(())
    })?;
    each(&snapshot, &mut lanes, OPEN, |lane, row| {
        let count: i64 = row.get(2)?;
        let of = match row.get::<_, Text<State>>(1)?.0 {
            State::Pending => &mut lane.pending,
            State::Leased => &mut lane.leased,
            State::Calling => &mut lane.calling,
            State::Retry => &mut lane.retry,
            State::Doubt => &mut lane.doubt,
            State::Held => &mut lane.held,
            State::Dead => &mut lane.dead,
            State::Confirmed | State::Rejected | State::Void => return Ok(()),
        };
        *of += count as u64;
        Ok(())
    })?;
    each(&snapshot, &mut lanes, CONTRADICTED, |lane, row| {
        lane.contradictions = row.get::<_, i64>(1)? as u64;
        Ok(())
    })?;
    let now = now();
    each(&snapshot, &mut lanes, OLDEST, |lane, row| {
        lane.oldest_pending_seconds = Some(between(instant(row, 1)?, now).as_secs());
        Ok(())
    })?;
    Ok(lanes.into_values().collect())
}

const COUNTED: &str =
    "select lane, sum(enqueued), sum(confirmed), sum(rejected), sum(void) from _confirm_counts group by lane";
const OPEN: &str = "
    select lane, iif(doubt, 'doubt', 'pending'), count(*) from _confirm_ready group by 1, 2
    union all select lane, iif(doubt, 'doubt', 'retry'), count(*) from _confirm_deferred group by 1, 2
    union all select lane, state, count(*) from _confirm_aside group by 1, 2
    union all select c.lane, c.phase, count(*) from _confirm_leases c cross join _confirm_leased l on l.lease = c.lease
               where not exists (select 1 from _confirm_outcomes o where o.tx = l.tx) group by 1, 2";
const CONTRADICTED: &str = "
    select o.lane, count(distinct c.tx) from _confirm_contradictions c join _confirm_outcomes o on o.tx = c.tx group by 1";
const OLDEST: &str = "select lane, min(since) from _confirm_ready group by lane";

fn named(conn: &Connection) -> rusqlite::Result<BTreeMap<i32, LaneStatus>> {
    let sql = "select lane, topic, name, iif(paused_at is null, null, coalesce(paused_reason, '')) from _confirm_lanes";
    let mut statement = conn.prepare_cached(sql)?;
    let lanes = statement.query_map([], |row| {
        let status = LaneStatus { topic: row.get(1)?, lane: row.get(2)?, paused: row.get(3)?, ..LaneStatus::default() };
        Ok((row.get(0)?, status))
    })?;
    lanes.collect()
}

/// Runs a query whose first column is the lane.
fn each(
    conn: &Connection,
    lanes: &mut BTreeMap<i32, LaneStatus>,
    sql: &str,
    read: impl Fn(&mut LaneStatus, &Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(lane) = lanes.get_mut(&row.get(0)?) {
            read(lane, row)?;
        }
    }
    Ok(())
}
