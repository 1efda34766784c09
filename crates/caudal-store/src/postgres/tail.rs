//! New records in the order they became visible, none skipped and none twice, whatever order transactions commit in.
//!
//! A mark holds the snapshot of the last poll. A record is new when its transaction is not visible in that snapshot but is
//! in the present one; PostgreSQL itself decides both. `_stored_at` only narrows the search: a transaction stamps its rows
//! when it begins, so one that commits late carries an old stamp, and the search starts [`LATE_COMMIT_MAX`] before the last
//! poll.
//!
//! A poll that finds more than its limit pages through the present snapshot by (`_stored_at`, `_id`): the mark then holds
//! both snapshots and the last record given out.

use std::fmt;
use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::ports::TailMark;
use caudal_core::row::RowBatch;
use caudal_core::schema::{ID, STORED_AT, Table};
use caudal_core::time::Instant;
use futures_util::future::join4;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::PostgresStore;
use super::connect::Conn;
use super::error::{keeps_connection, store_error};
use super::sql::{column_list, quoted};
use super::wire::{Stamp, push_row};

/// How long before its commit a transaction may have begun and still be seen: microseconds. Statements of ours are bounded
/// far below it.
pub(super) const LATE_COMMIT_MAX: i64 = 120_000_000;

/// What a [`TailMark`] says, `since|searched_from[|until|stored_at|id]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    /// Everything visible in this snapshot was given out.
    pub(super) since: String,
    /// When that snapshot was taken.
    pub(super) taken_at: Instant,
    /// Under way through a later snapshot.
    pub(super) within: Option<Within>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Within {
    until: String,
    until_taken_at: Instant,
    last: (Instant, Uuid),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.since, self.taken_at.0)?;
        match &self.within {
            Some(w) => write!(f, "|{}|{}|{}|{}", w.until, w.until_taken_at.0, w.last.0.0, w.last.1),
            None => Ok(()),
        }
    }
}

impl Mark {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('|');
        let since = parts.next()?.to_owned();
        let taken_at = Instant(parts.next()?.parse().ok()?);
        let within = match parts.next() {
            None => None,
            Some(until) => Some(Within {
                until: until.to_owned(),
                until_taken_at: Instant(parts.next()?.parse().ok()?),
                last: (Instant(parts.next()?.parse().ok()?), parts.next()?.parse().ok()?),
            }),
        };
        Some(Self { since, taken_at, within })
    }
}

pub(super) async fn tail(
    store: &PostgresStore,
    table: &Arc<Table>,
    from: Option<TailMark>,
    limit: usize,
) -> Result<(RowBatch, TailMark), StoreError> {
    let mark = match from {
        Some(mark) => {
            let parsed = Mark::parse(&mark.0);
            Some(
                parsed
                    .ok_or_else(|| StoreError::Setup("this place in the stream is not one of PostgreSQL's".into()))?,
            )
        }
        None => None,
    };
    let mut lease = store.askers.lease().await?;
    lease.begin_work();
    let conn = lease.conn().await?;
    let result = poll(conn, table, mark, limit.max(1)).await;
    if result.as_ref().is_err_and(|error| !keeps_connection(error)) {
        lease.discard();
    }
    lease.end_work();
    result.map(|(rows, mark)| (rows, TailMark(mark.to_string())))
}

pub(super) const PRESENT: &str = "select pg_current_snapshot()::text, now()";

async fn poll(
    conn: &mut Conn,
    table: &Table,
    mark: Option<Mark>,
    limit: usize,
) -> Result<(RowBatch, Mark), StoreError> {
    let present = conn.prepare(PRESENT, &[]).await.map_err(store_error)?;
    let Some(mark) = mark else {
        let row = conn.query(&present, &[]).await.map_err(store_error)?;
        let (since, taken_at) = snapshot(&row)?;
        return Ok((RowBatch::default(), Mark { since, taken_at, within: None }));
    };
    let new = conn.prepare(&new_rows_sql(table), &TYPES).await.map_err(store_error)?;
    let begin = "begin transaction isolation level repeatable read read only";
    let search_from = Stamp(Instant(mark.taken_at.0 - LATE_COMMIT_MAX));
    let until = mark.within.as_ref().map(|w| w.until.as_str());
    let (last_at, last_id) = match &mark.within {
        Some(w) => (Some(Stamp(w.last.0)), Some(w.last.1)),
        None => (None, None),
    };
    let fetch = limit as i64 + 1;
    let (begun, now, rows, ended) = join4(
        conn.client.batch_execute(begin),
        conn.query(&present, &[]),
        conn.query(&new, &[&mark.since, &search_from, &until, &last_at, &last_id, &fetch]),
        conn.client.batch_execute("commit"),
    )
    .await;
    begun.map_err(store_error)?;
    let (now, rows) = (now.map_err(store_error)?, rows.map_err(store_error)?);
    ended.map_err(store_error)?;

    let mut batch = RowBatch::default();
    for row in rows.iter().take(limit) {
        push_row(&mut batch, row, 2).map_err(store_error)?;
    }
    let (until, until_taken_at) = match mark.within {
        Some(w) => (w.until, w.until_taken_at),
        None => snapshot(&now)?,
    };
    if rows.len() <= limit {
        return Ok((batch, Mark { since: until, taken_at: until_taken_at, within: None }));
    }
    let last = &rows[limit - 1];
    let at: Stamp = last.try_get(0).map_err(store_error)?;
    let last = (at.0, last.try_get(1).map_err(store_error)?);
    Ok((batch, Mark { within: Some(Within { until, until_taken_at, last }), ..mark }))
}

const TYPES: [Type; 6] = [Type::TEXT, Type::TIMESTAMPTZ, Type::TEXT, Type::TIMESTAMPTZ, Type::UUID, Type::INT8];

/// The transaction that wrote a row of `t`, given `p.top` ([`TOP`]). `xmin` has 32 bits, snapshots 64: the missing ones are those
/// that put it at or below the present.
pub(super) const XID: &str = "(p.top - ((p.top - t.xmin::text::int8) & 4294967295))::text::xid8";
pub(super) const TOP: &str = "select pg_snapshot_xmax(pg_current_snapshot())::text::int8 as top";

fn new_rows_sql(table: &Table) -> String {
    let columns = column_list(table.columns.iter().map(|c| c.name.as_str()));
    format!(
        "select {STORED_AT}, {ID}, {columns} from (
           select t.*, {XID} as caudal_xid
           from {} t, ({TOP}) p
           where t.{STORED_AT} >= $2 and ($4::timestamptz is null or (t.{STORED_AT}, t.{ID}) > ($4, $5))
         ) r
         where not pg_visible_in_snapshot(r.caudal_xid, $1::text::pg_snapshot)
           and ($3::text is null or pg_visible_in_snapshot(r.caudal_xid, $3::text::pg_snapshot))
         order by {STORED_AT}, {ID} limit $6",
        quoted(&table.name)
    )
}

pub(super) fn snapshot(rows: &[tokio_postgres::Row]) -> Result<(String, Instant), StoreError> {
    let row = rows.first().ok_or_else(|| StoreError::fatal("PostgreSQL gave no snapshot"))?;
    let at: Stamp = row.try_get(1).map_err(store_error)?;
    Ok((row.try_get(0).map_err(store_error)?, at.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_their_text() {
        let last = (Instant(-5), Uuid::from_u128(7));
        let within = Within { until: "12:20:13,15".into(), until_taken_at: Instant(99), last };
        for within in [None, Some(within)] {
            let mark = Mark { since: "10:20:10,14,15".into(), taken_at: Instant(42), within };
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
        for text in ["", "10:20:", "10:20:|x", "10:20:|1|2", "10:20:|1|10:20:|3|4|no"] {
            assert_eq!(Mark::parse(text), None, "{text}");
        }
    }
}
