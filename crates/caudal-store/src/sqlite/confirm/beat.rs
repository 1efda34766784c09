//! A worker's beat: who is alive, what has lapsed, what is due.

use caudal_core::confirm::ports::{Beat, Beaten, Ready};
use caudal_core::confirm::{LaneId, Rank, State};
use caudal_core::time::Instant;
use rusqlite::{OptionalExtension, Row, params};

use super::ready::positions;
use super::{between, later};
use crate::sqlite::operate::{Text, instant};
use crate::sqlite::writer::Commit;

pub(super) fn beat(commit: &Commit<'_>, beat: &Beat) -> rusqlite::Result<Beaten> {
    let mut beaten = Beaten { workers: count_in(commit, beat)?, lapsed: lapse(commit)?, ..Beaten::default() };
    let mut left = beat.promote_max;
    for lane in &beat.lanes {
        let promoted = promote(commit, *lane, left)?;
        left -= promoted;
        beaten.promoted += promoted as u64;
        match is_paused(commit, *lane)? {
            true => beaten.paused.push(*lane),
            false => beaten.ready.extend(ranks(commit, *lane)?.into_iter().map(|rank| Ready {
                lane: *lane,
                rank,
                missed: None,
            })),
        }
        let next = next_due(commit, *lane)?.map(|due| between(commit.now, due));
        beaten.next_due = [beaten.next_due, next].into_iter().flatten().min();
    }
    Ok(beaten)
}

/// Notes the worker as alive for a quarter longer than it asked for, so that a beat soon after need not write: what writes nothing
/// waits for no disk.
fn count_in(commit: &Commit<'_>, beat: &Beat) -> rusqlite::Result<u32> {
    let until = |worker: &str| {
        let sql = "select until from _confirm_workers where worker = ?1";
        commit.conn.prepare_cached(sql)?.query_row([worker], |row| instant(row, 0)).optional()
    };
    let now = commit.now.to_string();
    let known = until(&beat.worker)?.filter(|until| *until <= later(commit.now, beat.ttl.saturating_mul(2)));
    if known.is_none_or(|until| until < later(commit.now, beat.ttl)) {
        let sql = "insert into _confirm_workers (worker, until) values (?1, ?2)
                   on conflict (worker) do update set until = excluded.until";
        let until = later(commit.now, beat.ttl.saturating_add(beat.ttl / 4)).to_string();
        commit.conn.prepare_cached(sql)?.execute(params![&*beat.worker, until])?;
        commit.conn.prepare_cached("delete from _confirm_workers where until <= ?1")?.execute([&now])?;
    }
    let sql = "select count(*) from _confirm_workers where until > ?1";
    commit.conn.prepare_cached(sql)?.query_row([&now], |row| row.get(0))
}

struct Lapsed {
    lease: i64,
    lane: i32,
    worker: String,
    /// When calls began, if they did.
    called_at: Option<Instant>,
}

/// Ends all leases that have lapsed, whosever they were.
fn lapse(commit: &Commit<'_>) -> rusqlite::Result<u64> {
    let sql = "select lease, lane, worker, called_at from _confirm_leases where until <= ?1";
    let read = |row: &Row<'_>| {
        let called_at = row.get::<_, Option<Text<Instant>>>(3)?.map(|at| at.0);
        Ok(Lapsed { lease: row.get(0)?, lane: row.get(1)?, worker: row.get(2)?, called_at })
    };
    let mut statement = commit.conn.prepare_cached(sql)?;
    let lapsed: Vec<Lapsed> = statement.query_map([commit.now.to_string()], read)?.collect::<Result<_, _>>()?;
    for lease in &lapsed {
        match lease.called_at {
            Some(called_at) => to_doubt(commit, lease, called_at)?,
            None => to_ready(commit, lease)?,
        }
        commit.conn.prepare_cached("delete from _confirm_leased where lease = ?1")?.execute([lease.lease])?;
        commit.conn.prepare_cached("delete from _confirm_leases where lease = ?1")?.execute([lease.lease])?;
    }
    Ok(lapsed.len() as u64)
}

const NO_OUTCOME: &str = "not exists (select 1 from _confirm_outcomes o where o.tx = l.tx)";

/// Nothing was called for them.
fn to_ready(commit: &Commit<'_>, lapsed: &Lapsed) -> rusqlite::Result<()> {
    let sql = "select count(*) from _confirm_leased where lease = ?1";
    let items: i64 = commit.conn.prepare_cached(sql)?.query_row([lapsed.lease], |row| row.get(0))?;
    let base = positions(commit.conn, items as usize)?;
    let sql = format!(
        "insert into _confirm_ready (lane, rank, pos, tx, attempts, crashes, doubt, since, first_sent)
         select ?2, min(crashes, 2), ?3 + row_number() over (order by pos), tx, attempts, crashes, doubt, since, first_sent
           from _confirm_leased l where lease = ?1 and {NO_OUTCOME}"
    );
    commit.conn.prepare_cached(&sql)?.execute(params![lapsed.lease, lapsed.lane, base])?;
    Ok(())
}

fn to_doubt(commit: &Commit<'_>, lapsed: &Lapsed, called_at: Instant) -> rusqlite::Result<()> {
    let detail = format!("worker {} was gone while it was being called for", lapsed.worker);
    let (now, called_at) = (commit.now.to_string(), called_at.to_string());
    let sql = format!(
        "insert into _confirm_tried (tx, attempt, at, state, detail)
         select tx, attempts + 1, ?2, ?3, ?4 from _confirm_leased l where lease = ?1 and {NO_OUTCOME} order by pos"
    );
    let values = params![lapsed.lease, now, State::Doubt.name(), detail];
    commit.conn.prepare_cached(&sql)?.execute(values)?;
    let sql = format!(
        "insert into _confirm_deferred (tx, due, lane, doubt, attempts, crashes, since, first_sent, detail)
         select tx, ?2, ?3, 1, attempts + 1, crashes + 1, since, coalesce(first_sent, ?4), ?5
           from _confirm_leased l where lease = ?1 and {NO_OUTCOME}"
    );
    let values = params![lapsed.lease, now, lapsed.lane, called_at, detail];
    commit.conn.prepare_cached(&sql)?.execute(values)?;
    Ok(())
}

/// Makes the first of those that are due pending; returns how many.
fn promote(commit: &Commit<'_>, lane: LaneId, most: usize) -> rusqlite::Result<usize> {
    let now = commit.now.to_string();
    let due = "select tx from _confirm_deferred where lane = ?1 and due <= ?2 order by due, tx limit ?3";
    let sql = format!("select count(*) from ({due})");
    let most = most.min(i64::MAX as usize) as i64;
    let count: i64 = commit.conn.prepare_cached(&sql)?.query_row(params![lane.0, now, most], |row| row.get(0))?;
    if count == 0 {
        return Ok(0);
    }
    let base = positions(commit.conn, count as usize)?;
    let sql = format!(
        "insert into _confirm_ready (lane, rank, pos, tx, attempts, crashes, doubt, since, first_sent)
         select lane, min(crashes, 2), ?4 + row_number() over (order by due, tx), tx, attempts, crashes, doubt, since, first_sent
           from _confirm_deferred where tx in ({due})"
    );
    commit.conn.prepare_cached(&sql)?.execute(params![lane.0, now, most, base])?;
    let sql = format!("delete from _confirm_deferred where tx in ({due})");
    commit.conn.prepare_cached(&sql)?.execute(params![lane.0, now, most])
}

fn is_paused(commit: &Commit<'_>, lane: LaneId) -> rusqlite::Result<bool> {
    let sql = "select exists (select 1 from _confirm_lanes where lane = ?1 and paused_at is not null)";
    commit.conn.prepare_cached(sql)?.query_row([lane.0], |row| row.get(0))
}

fn ranks(commit: &Commit<'_>, lane: LaneId) -> rusqlite::Result<Vec<Rank>> {
    let sql = "select exists (select 1 from _confirm_ready where lane = ?1 and rank = ?2)";
    let mut statement = commit.conn.prepare_cached(sql)?;
    let mut ready = Vec::new();
    for rank in Rank::ALL {
        if statement.query_row(params![lane.0, rank.number()], |row| row.get(0))? {
            ready.push(rank);
        }
    }
    Ok(ready)
}

fn next_due(commit: &Commit<'_>, lane: LaneId) -> rusqlite::Result<Option<Instant>> {
    let sql = "select min(due) from _confirm_deferred where lane = ?1";
    let due = |row: &Row<'_>| Ok(row.get::<_, Option<Text<Instant>>>(0)?.map(|due| due.0));
    commit.conn.prepare_cached(sql)?.query_row([lane.0], due)
}
