//! Where transactions are that nobody can claim: deferred, aside, ended.

use caudal_core::confirm::State;
use caudal_core::time::Instant;
use rusqlite::{Connection, params};

use crate::settle::without_nul;
use crate::sqlite::writer::Commit;

/// A transaction that is due again.
#[derive(Debug)]
pub(super) struct Deferred<'a> {
    pub(super) tx: &'a str,
    pub(super) due: Instant,
    pub(super) lane: i32,
    pub(super) doubt: bool,
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    pub(super) since: Instant,
    pub(super) first_sent: Option<Instant>,
    pub(super) code: Option<u16>,
    pub(super) detail: &'a str,
}

impl Deferred<'_> {
    pub(super) fn put(&self, commit: &Commit<'_>) -> rusqlite::Result<()> {
        let sql =
            "insert into _confirm_deferred (tx, due, lane, doubt, attempts, crashes, since, first_sent, code, detail)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        commit.conn.prepare_cached(sql)?.execute(params![
            self.tx,
            self.due.to_string(),
            self.lane,
            self.doubt,
            self.attempts,
            self.crashes,
            self.since.to_string(),
            self.first_sent.map(|sent| sent.to_string()),
            self.code,
            without_nul(self.detail),
        ])?;
        Ok(())
    }
}

/// A transaction that is dead, or held for a person.
#[derive(Debug)]
pub(super) struct Aside<'a> {
    pub(super) tx: &'a str,
    pub(super) lane: i32,
    pub(super) state: State,
    pub(super) maybe_done: bool,
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    pub(super) since: Instant,
    pub(super) first_sent: Option<Instant>,
    pub(super) code: Option<u16>,
    pub(super) detail: &'a str,
}

impl Aside<'_> {
    pub(super) fn put(&self, commit: &Commit<'_>) -> rusqlite::Result<()> {
        let sql = "insert into _confirm_aside
                     (tx, lane, state, maybe_done, attempts, crashes, since, first_sent, code, detail, at)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        commit.conn.prepare_cached(sql)?.execute(params![
            self.tx,
            self.lane,
            self.state.name(),
            self.maybe_done,
            self.attempts,
            self.crashes,
            self.since.to_string(),
            self.first_sent.map(|sent| sent.to_string()),
            self.code,
            without_nul(self.detail),
            commit.now.to_string(),
        ])?;
        Ok(())
    }
}

/// How a transaction ended.
#[derive(Debug)]
pub(super) struct Outcome<'a> {
    pub(super) tx: &'a str,
    pub(super) lane: i32,
    pub(super) state: State,
    pub(super) attempts: u32,
    pub(super) code: Option<u16>,
    /// The lease that reported it; 0: a person did.
    pub(super) fence: i64,
    pub(super) since: Instant,
    pub(super) detail: &'a str,
}

impl Outcome<'_> {
    /// Whether it is the first one for its transaction, and so stands.
    pub(super) fn put(&self, commit: &Commit<'_>) -> rusqlite::Result<bool> {
        let sql = "insert into _confirm_outcomes (tx, lane, state, attempts, code, fence, since, at, detail)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) on conflict (tx) do nothing";
        let written = commit.conn.prepare_cached(sql)?.execute(params![
            self.tx,
            self.lane,
            self.state.name(),
            self.attempts,
            self.code,
            self.fence,
            self.since.to_string(),
            commit.now.to_string(),
            without_nul(self.detail),
        ])?;
        Ok(written > 0)
    }

    /// Keeps it as what contradicts the outcome that stands; once, however often it is said.
    pub(super) fn contradict(&self, commit: &Commit<'_>, had: &str) -> rusqlite::Result<()> {
        let sql = "insert into _confirm_contradictions (tx, had, got, code, detail, fence, at)
                   values (?1, ?2, ?3, ?4, ?5, ?6, ?7) on conflict (tx, got) do nothing";
        commit.conn.prepare_cached(sql)?.execute(params![
            self.tx,
            had,
            self.state.name(),
            self.code,
            without_nul(self.detail),
            self.fence,
            commit.now.to_string(),
        ])?;
        Ok(())
    }
}

/// Notes what was no outcome.
pub(super) fn tried(
    commit: &Commit<'_>,
    tx: &str,
    attempt: u32,
    state: State,
    code: Option<u16>,
    detail: &str,
) -> rusqlite::Result<()> {
    let sql = "insert into _confirm_tried (tx, attempt, at, state, code, detail) values (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![tx, attempt, commit.now.to_string(), state.name(), code, without_nul(detail)];
    commit.conn.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Takes a transaction from wherever it waits outside a lease.
pub(super) fn remove(conn: &Connection, tx: &str) -> rusqlite::Result<()> {
    for sql in [
        "delete from _confirm_ready where tx = ?1",
        "delete from _confirm_deferred where tx = ?1",
        "delete from _confirm_aside where tx = ?1",
    ] {
        conn.prepare_cached(sql)?.execute([tx])?;
    }
    Ok(())
}
