//! Settling: facts from anybody, everything else under the live lease.

use std::sync::Arc;

use caudal_core::confirm::ports::{Finish, Marked, Records, Settled};
use caudal_core::confirm::{Fact, Item, Mark, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use rusqlite::params;

use super::adopt::write_back;
use super::claim::{end_if_empty, live};
use super::later;
use super::places::{Aside, Deferred, Outcome, remove, tried};
use super::ready::{Counts, Ready, outcome, positions};
use crate::sqlite::error::store_error;
use crate::sqlite::writer::Commit;

/// `records`: where each finish's lane has its records, as far as this process was told.
pub(super) fn settle(
    commit: &Commit<'_>,
    finishes: &[Finish],
    records: &[Option<Arc<Records>>],
) -> Result<Settled, StoreError> {
    let mut settling = Settling { commit, settled: Settled::default(), counts: Counts::default() };
    for (finish, records) in finishes.iter().zip(records) {
        let lease = live(commit.conn, &finish.lease).map_err(store_error)?;
        let under = Under { finish, lives: lease.is_some(), called_at: lease.flatten(), records: records.as_deref() };
        for marked in &finish.marks {
            settling.mark(&under, marked)?;
        }
        // Items that were not marked after all keep it until it lapses.
        if finish.ends && under.lives {
            end_if_empty(commit.conn, finish.lease.number).map_err(store_error)?;
        }
    }
    settling.counts.write(commit).map_err(store_error)?;
    Ok(settling.settled)
}

/// What the marks of one finish have in common.
struct Under<'a> {
    finish: &'a Finish,
    lives: bool,
    called_at: Option<Instant>,
    records: Option<&'a Records>,
}

struct Settling<'c> {
    commit: &'c Commit<'c>,
    settled: Settled,
    counts: Counts,
}

impl Settling<'_> {
    fn mark(&mut self, under: &Under<'_>, marked: &Marked) -> Result<(), StoreError> {
        let tx = marked.item.id.to_string();
        let leased = under.lives && self.take_from_lease(under.finish.lease.number, &tx).map_err(store_error)?;
        match &marked.mark {
            Mark::Fact { fact, code, detail } => {
                let outcome = Outcome {
                    tx: &tx,
                    lane: under.finish.lease.lane.0,
                    state: fact.state(),
                    attempts: marked.item.attempts.saturating_add(1),
                    code: *code,
                    fence: under.finish.lease.number,
                    since: marked.item.since,
                    detail,
                };
                self.fact(under, &outcome, *fact, leased)
            }
            mark if leased => self.other(under, &tx, &marked.item, mark).map_err(store_error),
            _ => {
                self.settled.fenced += 1;
                Ok(())
            }
        }
    }

    fn take_from_lease(&self, lease: i64, tx: &str) -> rusqlite::Result<bool> {
        let sql = "delete from _confirm_leased where lease = ?1 and tx = ?2";
        Ok(self.commit.conn.prepare_cached(sql)?.execute(params![lease, tx])? > 0)
    }

    fn fact(&mut self, under: &Under<'_>, said: &Outcome<'_>, fact: Fact, leased: bool) -> Result<(), StoreError> {
        if !said.put(self.commit).map_err(store_error)? {
            return self.repeated(said).map_err(store_error);
        }
        self.settled.facts += 1;
        self.counts.ended(said.lane, said.state);
        // What its own lease had is nowhere else. Another's lease keeps it, and finds the outcome.
        if !leased {
            remove(self.commit.conn, said.tx).map_err(store_error)?;
        }
        write_back(self.commit.conn, under.records, said.tx, fact)
    }

    fn repeated(&mut self, said: &Outcome<'_>) -> rusqlite::Result<()> {
        match outcome(self.commit.conn, said.tx)? {
            Some(had) if had != said.state.name() => {
                self.settled.contradictions += 1;
                said.contradict(self.commit, &had)
            }
            _ => {
                self.settled.repeats += 1;
                Ok(())
            }
        }
    }

    /// A mark of what is no outcome, for an item that its lease had.
    fn other(&mut self, under: &Under<'_>, tx: &str, item: &Item, mark: &Mark) -> rusqlite::Result<()> {
        // Another worker's fact came first: it stands, and the item is done with.
        if outcome(self.commit.conn, tx)?.is_some() {
            self.settled.fenced += 1;
            return Ok(());
        }
        self.settled.moved += 1;
        let (commit, lane) = (self.commit, under.finish.lease.lane.0);
        let Item { crashes, since, .. } = *item;
        let attempts = item.attempts.saturating_add(1);
        let first_sent = |sent: bool| item.first_sent.or(under.called_at.filter(|_| sent));
        let defer = |after, sent, doubt, code, detail| {
            let (due, first_sent) = (later(commit.now, after), first_sent(sent));
            Deferred { tx, due, lane, doubt, attempts, crashes, since, first_sent, code, detail }.put(commit)
        };
        let aside = |state: State, maybe_done, code, detail| {
            let first_sent = first_sent(maybe_done);
            Aside { tx, lane, state, maybe_done, attempts, crashes, since, first_sent, code, detail }.put(commit)
        };
        let (code, detail) = match mark {
            Mark::Retry { after, sent, code, detail } => {
                defer(*after, *sent, false, *code, detail)?;
                (code, detail)
            }
            Mark::Doubt { after, code, detail } => {
                defer(*after, true, true, *code, detail)?;
                (code, detail)
            }
            Mark::Held { maybe_done, code, detail } | Mark::Dead { maybe_done, code, detail } => {
                aside(mark.state(), *maybe_done, *code, detail)?;
                (code, detail)
            }
            Mark::Release | Mark::Fact { .. } => return release(commit, tx, lane, item),
        };
        tried(commit, tx, attempts, mark.state(), *code, detail)
    }
}

fn release(commit: &Commit<'_>, tx: &str, lane: i32, item: &Item) -> rusqlite::Result<()> {
    let Item { attempts, crashes, doubt, since, first_sent, .. } = *item;
    let pos = positions(commit.conn, 1)? + 1;
    Ready { tx, lane, attempts, crashes, doubt, since, first_sent }.put(commit.conn, pos)
}
