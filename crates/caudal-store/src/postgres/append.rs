//! One batch, one transaction: rows, dead letters, position, ledger, drift, the end of a redrive.
//!
//! Three ways, each tried when the one before did not fit, so that the usual batch pays for nothing else:
//! * *straight*: `COPY` into the table, everything else and `COMMIT` in its wake; two round trips in all;
//! * *careful*: ask first which ids are there, compare, put only the new rows;
//! * *probing*: find the rows that the database refuses, under a savepoint that is always undone, then put the others
//!   (*thorough*: the same until a whole pass finds no more).
//!
//! Rows are never kept from inside a savepoint: their `xmin` would be a subtransaction's, which snapshots do not list, and
//! [`tail`](super::tail) could not tell when they became visible.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, Appended};
use caudal_core::rejection::Rejection;
use foldhash::HashMap;
use futures_util::future::join;

use super::PostgresStore;
use super::closing::Closing;
use super::connect::Conn;
use super::copy::{self, Put, Rows, Sending};
use super::error::{PutError, keeps_connection};
use super::existing::{self, Existing, id_of, sort};
use super::pool::Lease;
use super::retain::prepare_expired;
use crate::settle::Settled;

/// How often other writers may get ahead with the same keys before the caller hears of it.
const RACES_MAX: usize = 5;
/// Batches of a table that go the careful way first after a duplicate was seen in it.
const CAREFUL_BATCHES: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Straight,
    Careful,
    Probing,
    /// Probing again after rows were refused that looked good, row by row and before the end of the statement.
    Thorough,
}

pub(super) async fn append(store: &PostgresStore, batch: Arc<AppendBatch>) -> Result<Appended, StoreError> {
    let mut lease = store.writers.lease().await?;
    let mut way = if store.expects_duplicates(&batch) { Way::Careful } else { Way::Straight };
    let mut ordered = false;
    let mut races = 0;
    loop {
        lease.begin_work();
        match attempt(store, &mut lease, &batch, way, ordered).await {
            Ok(appended) => {
                lease.end_work();
                store.note_duplicates(&batch, &appended, CAREFUL_BATCHES);
                return Ok(appended);
            }
            Err(PutError::Refused { .. }) if way < Way::Probing => way = Way::Probing,
            Err(PutError::Refused { .. }) if way == Way::Probing => way = Way::Thorough,
            Err(PutError::Refused { rejection, .. }) => {
                lease.discard();
                return Err(StoreError::fatal(rejection.to_string()));
            }
            Err(PutError::Taken { deadlock }) if races < RACES_MAX => {
                races += 1;
                ordered |= deadlock;
                way = way.max(Way::Careful);
            }
            Err(PutError::Taken { .. }) => {
                lease.end_work();
                return Err(StoreError::unavailable("other writers keep storing the same keys"));
            }
            Err(PutError::Store(error)) => {
                if keeps_connection(&error) {
                    lease.end_work();
                } else {
                    lease.discard();
                }
                return Err(error);
            }
        }
    }
}

/// One transaction, from begin to its end: the connection is between transactions after it, or broken.
async fn attempt(
    store: &PostgresStore,
    lease: &mut Lease,
    batch: &Arc<AppendBatch>,
    way: Way,
    ordered: bool,
) -> Result<Appended, PutError> {
    let writer = format!("{}/{}", store.instance, lease.number);
    let conn = lease.conn().await.map_err(PutError::Store)?;
    let result = match way {
        Way::Straight => straight(store, conn, batch, writer).await,
        _ => careful(store, conn, batch, writer, way, ordered).await,
    };
    if let Err(PutError::Store(StoreError::Aborted { .. }) | PutError::Refused { .. } | PutError::Taken { .. }) =
        &result
    {
        // Some of these ended the transaction with their COMMIT already; a second end is only a notice.
        conn.client.batch_execute("rollback").await.map_err(PutError::of)?;
    }
    result
}

async fn straight(
    store: &PostgresStore,
    conn: &mut Conn,
    batch: &Arc<AppendBatch>,
    writer: String,
) -> Result<Appended, PutError> {
    let settled = Settled::of(batch, None).map_err(PutError::Store)?;
    let put = Put::prepare(conn, &batch.table, store.pooled).await.map_err(PutError::of)?;
    let closing = Closing::prepare(conn, batch, &settled, writer, Rows::All).await.map_err(PutError::of)?;
    let sending = copy::begin_and_start(conn, &store.begin, &put, batch, Rows::All).await.map_err(PutError::of)?;
    commit(conn, sending, closing, settled).await
}

async fn careful(
    store: &PostgresStore,
    conn: &mut Conn,
    batch: &Arc<AppendBatch>,
    writer: String,
    way: Way,
    ordered: bool,
) -> Result<Appended, PutError> {
    let put = Put::prepare(conn, &batch.table, store.pooled).await.map_err(PutError::of)?;
    let query = existing::prepare(conn, &batch.table).await.map_err(PutError::of)?;
    let expired = prepare_expired(conn, &batch.table).await.map_err(PutError::of)?;
    let fetching = Existing::fetch(conn, &query, expired.as_deref(), batch);
    let (begun, existing) = join(conn.client.batch_execute(&store.begin), fetching).await;
    begun.map_err(PutError::of)?;
    let existing = existing.map_err(PutError::of)?;

    let refused = match way {
        Way::Probing | Way::Thorough => find_refused(conn, &put, batch, &existing, way).await?,
        _ => HashMap::default(),
    };
    let mut sorted = sort(batch, &existing, &refused);
    if ordered {
        // Writers that take keys in one order wait for each other, but not in a circle.
        sorted.store.sort_by_key(|index| id_of(batch, *index));
    }
    let settled = Settled::of(batch, Some(sorted.outcomes)).map_err(PutError::Store)?;
    let rows = Rows::These(&sorted.store);
    let closing = Closing::prepare(conn, batch, &settled, writer, rows).await.map_err(PutError::of)?;
    let sending = copy::start(conn, &put, batch, rows).await.map_err(PutError::of)?;
    commit(conn, sending, closing, settled).await
}

/// The rows' end, the rest of the transaction and its commit in one round trip. When one part fails, those behind it fail
/// with it and the commit undoes everything: that is how PostgreSQL ends a failed transaction.
async fn commit(conn: &Conn, sending: Sending, closing: Closing<'_>, settled: Settled) -> Result<Appended, PutError> {
    let (put, closed) = join(copy::finish(conn, sending), closing.run(conn)).await;
    put.map_err(PutError::of)?;
    let dead_kept = closed?;
    Ok(settled.appended(dead_kept))
}

/// Puts the rows under a savepoint, range by range, until each that is refused is known. Where `COPY` names the row, one
/// try finds one row and the search goes on behind it; where it does not (checks at the end of the statement), by halves.
async fn find_refused(
    conn: &Conn,
    put: &Put,
    batch: &Arc<AppendBatch>,
    existing: &Existing,
    way: Way,
) -> Result<HashMap<usize, Rejection>, PutError> {
    let mut refused = HashMap::default();
    loop {
        let candidates = sort(batch, existing, &refused).store;
        let known = refused.len();
        let mut ranges = Vec::from([(0, candidates.len())]);
        while let Some((start, end)) = ranges.pop() {
            if start == end {
                continue;
            }
            let Some((rejection, at)) = probe(conn, put, batch, &candidates[start..end]).await? else { continue };
            match at.filter(|at| *at < end - start) {
                Some(at) => {
                    refused.insert(candidates[start + at], rejection);
                    ranges.push((start + at + 1, end));
                }
                None if end - start == 1 => {
                    refused.insert(candidates[start], rejection);
                }
                None => {
                    let middle = start.midpoint(end);
                    ranges.extend([(middle, end), (start, middle)]);
                }
            }
        }
        // A refused row leaves its id to the next of the same id, which is then a candidate that nobody tried yet. And where
        // one check names a row, those before it have not been through the checks at the end of the statement.
        if refused.len() == known || (way == Way::Probing && !has_repeats(batch, &refused)) {
            return Ok(refused);
        }
    }
}

fn has_repeats(batch: &AppendBatch, refused: &HashMap<usize, Rejection>) -> bool {
    let ids: foldhash::HashSet<_> = refused.keys().map(|index| id_of(batch, *index)).collect();
    (0..batch.rows.len()).any(|index| !refused.contains_key(&index) && ids.contains(&id_of(batch, index)))
}

/// Whether the database takes these rows; if not, why and (if it says) which. Leaves nothing behind.
async fn probe(
    conn: &Conn,
    put: &Put,
    batch: &Arc<AppendBatch>,
    rows: &[usize],
) -> Result<Option<(Rejection, Option<usize>)>, PutError> {
    let (saved, sending) =
        join(conn.client.batch_execute("savepoint probe"), copy::start(conn, put, batch, Rows::These(rows))).await;
    saved.map_err(PutError::of)?;
    let sending = sending.map_err(PutError::of)?;
    let undo = conn.client.batch_execute("rollback to savepoint probe; release savepoint probe");
    let (put, undone) = join(copy::finish(conn, sending), undo).await;
    undone.map_err(PutError::of)?;
    match put.map_err(PutError::of) {
        Ok(_) => Ok(None),
        Err(PutError::Refused { rejection, row }) => Ok(Some((rejection, row))),
        Err(other) => Err(other),
    }
}

impl PostgresStore {
    fn expects_duplicates(&self, batch: &AppendBatch) -> bool {
        let mut careful = self.careful.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match careful.get_mut(&batch.table.name) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    fn note_duplicates(&self, batch: &AppendBatch, appended: &Appended, batches: u32) {
        let seen = appended.rows.iter().flatten().any(|outcome| *outcome != RowOutcome::Stored);
        if seen {
            let mut careful = self.careful.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            careful.insert(batch.table.name.clone(), batches);
        }
    }
}
