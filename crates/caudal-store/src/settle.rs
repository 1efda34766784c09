//! From the outcomes of rows to what one commit must keep: dead letters, a tally, the end of a redrive.

use caudal_core::dead_letter::{DeadLetter, base64, payload_as_text};
use caudal_core::error::StoreError;
use caudal_core::json;
use caudal_core::outcome::{RowOutcome, Tally};
use caudal_core::ports::{AppendBatch, Appended, OnBadRow};
use caudal_core::topic::Identity;

/// What the commit of one batch holds besides its rows.
#[derive(Debug)]
pub(crate) struct Settled {
    rows: Option<Vec<RowOutcome>>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Everything but the dead letters, which the database counts: one kept before is a duplicate.
    pub(crate) counted: Tally,
    /// The outcome to write on the dead letter that this batch repairs, if it did.
    pub(crate) redriven: Option<&'static str>,
}

impl Settled {
    /// `outcomes`: one a row, or `None` when every row is stored. Fails when the batch must be taken whole and cannot.
    pub(crate) fn of(batch: &AppendBatch, outcomes: Option<Vec<RowOutcome>>) -> Result<Self, StoreError> {
        let mut counted = Tally { accepted: batch.accepted(), rejected: batch.rejected, ..Tally::default() };
        let mut dead = batch.dead.clone();
        let mut bad = false;
        let Some(outcomes) = outcomes else {
            counted.stored = batch.rows.len() as u64;
            let redriven = (batch.redrives.is_some() && counted.stored > 0).then_some("stored");
            return Ok(Self { rows: None, dead, counted, redriven });
        };
        let identity = Identity::of(&batch.topic);
        for (row, outcome) in outcomes.iter().enumerate() {
            match outcome {
                RowOutcome::Stored => counted.stored += 1,
                RowOutcome::Duplicate => counted.duplicate += 1,
                RowOutcome::Bad(rejection) => {
                    bad = true;
                    match batch.on_bad_row {
                        OnBadRow::Abort => return Err(StoreError::Aborted { row, rejection: rejection.clone() }),
                        OnBadRow::Report => counted.rejected += 1,
                        OnBadRow::DeadLetter => {
                            dead.push(DeadLetter::new(&identity, batch.message(row), rejection.clone()));
                        }
                    }
                }
            }
        }
        let whole = outcomes.iter().all(|o| *o == RowOutcome::Stored);
        let outcome = if counted.stored > 0 { "stored" } else { "duplicate" };
        let redriven = (batch.redrives.is_some() && !bad && !outcomes.is_empty()).then_some(outcome);
        Ok(Self { rows: (!whole).then_some(outcomes), dead, counted, redriven })
    }

    /// The answer, once the database has said how many dead letters were new.
    pub(crate) fn appended(self, dead_kept: u64) -> Appended {
        Appended { tally: self.tally(dead_kept), rows: self.rows }
    }

    pub(crate) fn tally(&self, dead_kept: u64) -> Tally {
        let mut tally = self.counted;
        tally.dead += dead_kept;
        tally.duplicate += self.dead.len() as u64 - dead_kept;
        tally
    }
}

/// A dead letter in the shape both stores can hold whatever the producer sent: nothing here may be refused, or one bad
/// message would block its topic.
#[derive(Debug)]
pub(crate) struct KeptText {
    pub(crate) key: Option<String>,
    pub(crate) source: String,
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    pub(crate) pointer: String,
    pub(crate) payload: String,
    pub(crate) encoding: &'static str,
    pub(crate) attributes: Option<String>,
}

impl KeptText {
    pub(crate) fn of(letter: &DeadLetter) -> Self {
        let (payload, encoding) = payload_as_text(&letter.message.body);
        Self {
            key: letter.message.key.as_deref().map(without_nul),
            source: without_nul(&letter.message.source),
            reason: letter.rejection.code.name(),
            detail: without_nul(&letter.rejection.detail),
            pointer: without_nul(&letter.rejection.pointer),
            payload: payload.into_owned(),
            encoding,
            attributes: letter.message.attributes.as_deref().map(attributes_as_json),
        }
    }
}

pub(crate) fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Attributes as JSON that both stores take; bytes that are none are kept whole, in base64.
fn attributes_as_json(attributes: &[u8]) -> String {
    match json::check(attributes) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("{{\"base64\":\"{}\"}}", base64(attributes)),
    }
}
