//! Making transactions pending, and the counts beside them.

use caudal_core::confirm::{Rank, State};
use caudal_core::error::StoreError;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, Lanes};
use caudal_core::row::field;
use caudal_core::time::Instant;
use rusqlite::{Connection, params};

use crate::sqlite::error::store_error;
use crate::sqlite::writer::Commit;

/// A transaction as it waits.
#[derive(Debug)]
pub(super) struct Ready<'a> {
    pub(super) tx: &'a str,
    pub(super) lane: i32,
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    pub(super) doubt: bool,
    pub(super) since: Instant,
    pub(super) first_sent: Option<Instant>,
}

impl<'a> Ready<'a> {
    pub(super) fn fresh(tx: &'a str, lane: i32, now: Instant) -> Self {
        Self { tx, lane, attempts: 0, crashes: 0, doubt: false, since: now, first_sent: None }
    }

    pub(super) fn put(&self, conn: &Connection, pos: i64) -> rusqlite::Result<()> {
        let sql = "insert into _confirm_ready (lane, rank, pos, tx, attempts, crashes, doubt, since, first_sent)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
        conn.prepare_cached(sql)?.execute(params![
            self.lane,
            Rank::of(self.crashes).number(),
            pos,
            self.tx,
            self.attempts,
            self.crashes,
            self.doubt,
            self.since.to_string(),
            self.first_sent.map(|sent| sent.to_string()),
        ])?;
        Ok(())
    }
}

/// Gives out so many positions; returns the one before the first.
pub(super) fn positions(conn: &Connection, count: usize) -> rusqlite::Result<i64> {
    let sql = "update _confirm_positions set last = last + ?1 returning last - ?1";
    conn.prepare_cached(sql)?.query_row([count as i64], |row| row.get(0))
}

/// What a transaction adds to the counts of its lanes.
#[derive(Debug, Default)]
pub(super) struct Counts(Vec<(i32, Added)>);

#[derive(Debug, Default, Clone, Copy)]
struct Added {
    enqueued: i64,
    confirmed: i64,
    rejected: i64,
    void: i64,
}

impl Counts {
    pub(super) fn enqueued(&mut self, lane: i32) {
        self.of(lane).enqueued += 1;
    }

    pub(super) fn ended(&mut self, lane: i32, outcome: State) {
        let added = self.of(lane);
        match outcome {
            State::Confirmed => added.confirmed += 1,
            State::Rejected => added.rejected += 1,
            _ => added.void += 1,
        }
    }

    fn of(&mut self, lane: i32) -> &mut Added {
        let at = self.0.iter().position(|(known, _)| *known == lane).unwrap_or_else(|| {
            self.0.push((lane, Added::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    pub(super) fn write(self, commit: &Commit<'_>) -> rusqlite::Result<()> {
        let sql = "insert into _confirm_counts (lane, writer, enqueued, confirmed, rejected, void)
                   values (?1, ?2, ?3, ?4, ?5, ?6)
                   on conflict (lane, writer) do update set
                     enqueued = enqueued + excluded.enqueued, confirmed = confirmed + excluded.confirmed,
                     rejected = rejected + excluded.rejected, void = void + excluded.void";
        for (lane, added) in self.0 {
            let Added { enqueued, confirmed, rejected, void } = added;
            let values = params![lane, commit.instance, enqueued, confirmed, rejected, void];
            commit.conn.prepare_cached(sql)?.execute(values)?;
        }
        Ok(())
    }
}

/// Makes the rows of a batch that were stored pending in their lanes; `outcomes` as the append found them.
pub(in crate::sqlite) fn enqueue(
    commit: &Commit<'_>,
    batch: &AppendBatch,
    outcomes: Option<&[RowOutcome]>,
) -> Result<(), StoreError> {
    if batch.lanes == Lanes::None || batch.rows.is_empty() {
        return Ok(());
    }
    rows(commit, batch, outcomes).map_err(store_error)
}

fn rows(commit: &Commit<'_>, batch: &AppendBatch, outcomes: Option<&[RowOutcome]>) -> rusqlite::Result<()> {
    let mut counts = Counts::default();
    let mut pos = positions(commit.conn, batch.rows.len())?;
    for (index, mut row) in batch.rows.rows().enumerate() {
        let stored = outcomes.is_none_or(|outcomes| outcomes[index] == RowOutcome::Stored);
        let (true, Some(lane)) = (stored, batch.lanes.of(index)) else { continue };
        let tx = row.next().flatten().map(field::uuid).unwrap_or_default().to_string();
        // A key that retention has forgotten is stored once more, and is not confirmed once more.
        if batch.table.expires.is_some() && outcome(commit.conn, &tx)?.is_some() {
            continue;
        }
        pos += 1;
        Ready::fresh(&tx, lane.0, commit.now).put(commit.conn, pos)?;
        counts.enqueued(lane.0);
    }
    counts.write(commit)
}

/// How a transaction ended, if it did.
pub(super) fn outcome(conn: &Connection, tx: &str) -> rusqlite::Result<Option<String>> {
    use rusqlite::OptionalExtension;
    let sql = "select state from _confirm_outcomes where tx = ?1";
    conn.prepare_cached(sql)?.query_row([tx], |row| row.get(0)).optional()
}
