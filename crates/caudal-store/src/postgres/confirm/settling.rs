//! What settling writes, column by column, as `unnest` takes it.

use caudal_core::confirm::ports::Lease;
use caudal_core::confirm::{Item, Mark, State};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::wire::Stamp;
use super::{int, micros};
use crate::settle::without_nul;

/// Facts, in the order in which they were given.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) txs: Vec<Uuid>,
    lanes: Vec<i32>,
    states: Vec<&'static str>,
    attempts: Vec<i32>,
    codes: Vec<Option<i32>>,
    pub(super) fences: Vec<i64>,
    sinces: Vec<Stamp>,
    details: Vec<String>,
}

impl Facts {
    pub(super) const TYPES: [Type; 8] = [
        Type::UUID_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT4_ARRAY,
        Type::INT4_ARRAY,
        Type::INT8_ARRAY,
        Type::TIMESTAMPTZ_ARRAY,
        Type::TEXT_ARRAY,
    ];

    /// For a statement that counts them, too.
    pub(super) const TYPES_AND_WRITER: [Type; 9] = {
        let [a, b, c, d, e, f, g, h] = Self::TYPES;
        [a, b, c, d, e, f, g, h, Type::TEXT]
    };

    pub(super) fn push(&mut self, lease: &Lease, item: &Item, state: State, code: Option<u16>, detail: &str) {
        self.txs.push(item.id);
        self.lanes.push(lease.lane.0);
        self.states.push(state.name());
        self.attempts.push(int(item.attempts.saturating_add(1)));
        self.codes.push(code.map(i32::from));
        self.fences.push(lease.number);
        self.sinces.push(Stamp(item.since));
        self.details.push(without_nul(detail));
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 8] {
        [&self.txs, &self.lanes, &self.states, &self.attempts, &self.codes, &self.fences, &self.sinces, &self.details]
    }

    pub(super) fn params_and<'a>(&'a self, writer: &'a (dyn ToSql + Sync)) -> [&'a (dyn ToSql + Sync); 9] {
        let [a, b, c, d, e, f, g, h] = self.params();
        [a, b, c, d, e, f, g, h, writer]
    }
}

/// Items on their way to where they wait: what their marks make of them, under a lease that lives.
#[derive(Default)]
pub(super) struct Moves {
    pub(super) txs: Vec<Uuid>,
    lanes: Vec<i32>,
    states: Vec<&'static str>,
    ranks: Vec<i16>,
    attempts: Vec<i32>,
    crashes: Vec<i32>,
    doubts: Vec<bool>,
    sinces: Vec<Stamp>,
    first_sents: Vec<Option<Stamp>>,
    /// A request left for the endpoint: now, where nobody knows when.
    sents: Vec<bool>,
    afters: Vec<i64>,
    codes: Vec<Option<i32>>,
    details: Vec<String>,
}

/// The lease that an item leaves.
pub(super) struct Leaving {
    pub(super) lane: i32,
    pub(super) rank: i16,
    pub(super) called_at: Option<Stamp>,
}

impl Moves {
    pub(super) const TYPES: [Type; 13] = [
        Type::UUID_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT4_ARRAY,
        Type::INT4_ARRAY,
        Type::BOOL_ARRAY,
        Type::TIMESTAMPTZ_ARRAY,
        Type::TIMESTAMPTZ_ARRAY,
        Type::BOOL_ARRAY,
        Type::INT8_ARRAY,
        Type::INT4_ARRAY,
        Type::TEXT_ARRAY,
    ];

    /// `called`: a call was made, and counts. A fact is none of these.
    pub(super) fn push(&mut self, from: &Leaving, item: &Item, mark: &Mark, called: bool) {
        let (sent, doubt, after) = match mark {
            Mark::Fact { .. } => return,
            Mark::Retry { after, sent, .. } => (*sent, false, micros(*after)),
            Mark::Doubt { after, .. } => (true, true, micros(*after)),
            Mark::Held { maybe_done, .. } | Mark::Dead { maybe_done, .. } => (*maybe_done, *maybe_done, 0),
            Mark::Release => (false, item.doubt, 0),
        };
        let (code, detail) = match mark {
            Mark::Fact { code, detail, .. }
            | Mark::Retry { code, detail, .. }
            | Mark::Doubt { code, detail, .. }
            | Mark::Held { code, detail, .. }
            | Mark::Dead { code, detail, .. } => (*code, detail.as_str()),
            Mark::Release => (None, ""),
        };
        let spent = u32::from(called && *mark != Mark::Release);
        let first_sent = item.first_sent.map(Stamp);
        self.txs.push(item.id);
        self.lanes.push(from.lane);
        self.states.push(mark.state().name());
        self.ranks.push(from.rank);
        self.attempts.push(int(item.attempts.saturating_add(spent)));
        self.crashes.push(int(item.crashes));
        self.doubts.push(doubt);
        self.sinces.push(Stamp(item.since));
        self.first_sents.push(first_sent.or(from.called_at.filter(|_| sent)));
        self.sents.push(sent);
        self.afters.push(after);
        self.codes.push(code.map(i32::from));
        self.details.push(without_nul(detail));
    }

    pub(super) fn params(&self) -> [&(dyn ToSql + Sync); 13] {
        [
            &self.txs,
            &self.lanes,
            &self.states,
            &self.ranks,
            &self.attempts,
            &self.crashes,
            &self.doubts,
            &self.sinces,
            &self.first_sents,
            &self.sents,
            &self.afters,
            &self.codes,
            &self.details,
        ]
    }
}
