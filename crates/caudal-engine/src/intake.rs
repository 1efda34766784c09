//! Taking in many records of one request: batched, pipelined, in memory that does not grow with the request.

use std::collections::VecDeque;
use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use caudal_core::message::Message;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, Broker, OnBadRow};
use caudal_core::rejection::Rejection;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::building::{Building, Entry, Record};
use crate::clock;
use crate::engine::Engine;
use crate::error::AcceptError;
use crate::ingest::Answer;
use crate::settle;
use crate::topic::Topic;

/// Batches of one request under way at once: one is committed while the next is read and another waits.
const BATCHES_RUNNING_MAX: usize = 2;
/// Verdicts that a report holds one by one; of a longer request, the good ones beyond are only counted.
pub const VERDICTS_MAX: usize = 10_000;

/// How one record of a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerdictState {
    Stored,
    Queued,
    Duplicate,
    Dead,
    Rejected,
}

impl VerdictState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Queued => "queued",
            Self::Duplicate => "duplicate",
            Self::Dead => "dead",
            Self::Rejected => "rejected",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The record's place in the request, from 0.
    pub index: u64,
    pub transaction_id: Uuid,
    pub state: VerdictState,
    pub rejection: Option<Box<Rejection>>,
    /// The dead letter it became.
    pub dead_letter: Option<Uuid>,
}

/// What became of a request's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub stored: u64,
    pub queued: u64,
    pub duplicate: u64,
    pub dead: u64,
    pub verdicts: Vec<Verdict>,
    /// Verdicts left out of `verdicts`; each was stored, queued or a duplicate unless there are more than
    /// [`VERDICTS_MAX`] others.
    pub omitted: u64,
}

impl Report {
    pub fn total(&self) -> u64 {
        self.stored + self.queued + self.duplicate + self.dead
    }

    fn add(&mut self, verdict: Verdict) {
        match verdict.state {
            VerdictState::Stored => self.stored += 1,
            VerdictState::Queued => self.queued += 1,
            VerdictState::Duplicate => self.duplicate += 1,
            VerdictState::Dead | VerdictState::Rejected => self.dead += 1,
        }
        let exception = verdict.rejection.is_some() && self.verdicts.len() < 2 * VERDICTS_MAX;
        if verdict.index < VERDICTS_MAX as u64 || exception {
            self.verdicts.push(verdict);
        } else {
            self.omitted += 1;
        }
    }
}

/// What a running batch comes back with: its own part of the report.
type Running = JoinHandle<Result<Done, AcceptError>>;

#[derive(Debug)]
struct Done {
    verdicts: Vec<Verdict>,
    /// The rows did not come within the producer's wait: the rest of the request need not wait either.
    late: bool,
}

/// One request's way in. Push every record, then finish. Dropping it forgets what was not handed to the store yet, and
/// nobody was told that it was taken.
#[derive(Debug)]
pub struct Intake {
    engine: Arc<Engine>,
    topic: Arc<Topic>,
    answer: Answer,
    strict: bool,
    building: Building,
    /// Index of the first record in `building`.
    first: u64,
    running: VecDeque<Running>,
    report: Report,
}

impl Intake {
    pub(crate) fn new(engine: Arc<Engine>, topic: Arc<Topic>, answer: Answer, strict: bool) -> Self {
        let building = Building::new(&topic, on_bad_row(strict));
        Self { engine, topic, answer, strict, building, first: 0, running: VecDeque::new(), report: Report::default() }
    }

    /// Takes the next record. Waits while earlier batches are under way: this is what keeps memory flat.
    ///
    /// # Errors
    /// With `strict`, the first bad record ends the request, and nothing of it is kept.
    pub async fn push(&mut self, record: Record) -> Result<(), AcceptError> {
        let pushed = self.building.push(&self.topic, record, None);
        if self.strict {
            if let Err(rejection) = pushed {
                let index = self.building.len() - 1;
                self.topic.metrics.rejected(self.building.len() as u64);
                let transaction_id = self.building.batch.dead.last().map(|dead| dead.message.id);
                return Err(AcceptError::Rejected { index, rejection, transaction_id, dead_letter: None });
            }
            if self.building.is_full() {
                return Err(AcceptError::TooLarge { max: BATCH_ROWS_MAX, bytes_max: BATCH_BYTES_MAX });
            }
        } else if self.building.is_full() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Hands over what is left and waits for everything.
    pub async fn finish(mut self) -> Result<Report, AcceptError> {
        if self.building.len() > 0 {
            self.flush().await?;
        }
        while !self.running.is_empty() {
            self.collect().await?;
        }
        Ok(std::mem::take(&mut self.report))
    }

    async fn flush(&mut self) -> Result<(), AcceptError> {
        while self.running.len() >= BATCHES_RUNNING_MAX {
            self.collect().await?;
        }
        let mut next = Building::new(&self.topic, on_bad_row(self.strict));
        if self.building.is_full() {
            next.batch.rows.reserve_like(&self.building.batch.rows);
        }
        let full = std::mem::replace(&mut self.building, next);
        let first = self.first;
        self.first += full.len() as u64;
        let (engine, topic, answer) = (self.engine.clone(), self.topic.clone(), self.answer);
        // Its own task: the commit goes on and is accounted for even when the client goes away.
        self.running.push_back(tokio::spawn(async move {
            match engine.broker.clone() {
                Some(broker) => publish(&engine, &*broker, &topic, full, first, answer).await,
                None => commit(&engine, &topic, full, first).await,
            }
        }));
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), AcceptError> {
        let Some(running) = self.running.pop_front() else { return Ok(()) };
        let done = running.await.map_err(|e| AcceptError::Store(StoreError::fatal(e)))??;
        done.verdicts.into_iter().for_each(|verdict| self.report.add(verdict));
        if done.late {
            self.answer = Answer::WhenQueued;
        }
        Ok(())
    }
}

/// So that a receipt knows of them.
fn remember(broker: &dyn Broker, topic: &Topic, ids: Vec<Uuid>) {
    if !broker.searchable() {
        topic.pending.remember(ids, clock::now());
    }
}

fn on_bad_row(strict: bool) -> OnBadRow {
    if strict { OnBadRow::Abort } else { OnBadRow::DeadLetter }
}

async fn commit(engine: &Engine, topic: &Topic, building: Building, first: u64) -> Result<Done, AcceptError> {
    let store = &*engine.store;
    let Building { batch, entries, .. } = building.seal(topic, store).await?;
    if batch.on_bad_row == OnBadRow::Abort
        && let Some(dead) = batch.dead.first()
    {
        let index = entries.iter().position(|e| *e == Entry::Dead).unwrap_or_default();
        let (rejection, id) = (dead.rejection.clone(), dead.message.id);
        return Err(AcceptError::Rejected { index, rejection, transaction_id: Some(id), dead_letter: None });
    }
    let batch = Arc::new(batch);
    let in_flight = topic.metrics.accept(batch.accepted());
    match settle::append(store, topic, batch.clone(), in_flight, Some(engine.config.store_patience)).await {
        Ok(appended) => {
            let verdicts = verdicts(topic, &batch, &entries, first, |row| state(settle::outcome(&appended, row)));
            Ok(Done { verdicts, late: false })
        }
        Err(StoreError::Aborted { row, rejection }) => {
            let transaction_id = Building::row_ids(&batch).nth(row);
            Err(AcceptError::Rejected { index: row, rejection, transaction_id, dead_letter: None })
        }
        Err(error) => Err(error.into()),
    }
}

/// Publishes every record, the bad ones too: the worker that stores the good ones is the one that can keep a dead letter.
async fn publish(
    engine: &Engine,
    broker: &dyn Broker,
    topic: &Topic,
    building: Building,
    first: u64,
    answer: Answer,
) -> Result<Done, AcceptError> {
    let Building { batch, entries, .. } = building;
    let messages = messages(&batch, &entries);
    let Answer::WhenStored(bound) = answer else {
        let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
        broker.publish(&topic.name, messages).await?;
        remember(broker, topic, ids);
        let verdicts = verdicts(topic, &batch, &entries, first, |_| (VerdictState::Queued, None));
        return Ok(Done { verdicts, late: false });
    };
    let ids: Vec<Uuid> = messages.iter().map(|message| message.id).collect();
    let wait = |message: &Message| engine.waiters.wait_for(&topic.name, message);
    let mut told: Vec<_> = messages.iter().map(wait).collect();
    let published = broker.publish(&topic.name, messages).await;
    // The dead ones are waited for as well: the answer names dead letters that its reader can then find.
    let mut outcomes: Vec<Option<RowOutcome>> = vec![None; ids.len()];
    let mut late = false;
    if published.is_ok() {
        let deadline = tokio::time::Instant::now() + bound;
        for (told, outcome) in told.iter_mut().zip(&mut outcomes) {
            match tokio::time::timeout_at(deadline, told).await {
                Ok(told) => *outcome = told.ok(),
                Err(_) => late = true,
            }
        }
    }
    drop(told);
    if late || published.is_err() {
        ids.iter().for_each(|id| engine.waiters.forget(*id));
    }
    published?;
    if late {
        remember(broker, topic, ids);
    }
    let rows: Vec<usize> = (0..entries.len()).filter(|i| entries[*i] == Entry::Row).collect();
    let of_row = |row: usize| outcomes[rows[row]].clone().map_or((VerdictState::Queued, None), state);
    Ok(Done { verdicts: verdicts(topic, &batch, &entries, first, of_row), late })
}

/// The messages of a batch in record order.
fn messages(batch: &AppendBatch, entries: &[Entry]) -> Vec<Message> {
    let mut dead = batch.dead.iter();
    let mut rows = 0..batch.rows.len();
    let message = |entry: &Entry| match entry {
        Entry::Row => rows.next().map(|row| batch.message(row)),
        Entry::Dead => dead.next().map(|dead| dead.message.clone()),
    };
    entries.iter().filter_map(message).collect()
}

fn state(outcome: RowOutcome) -> (VerdictState, Option<Rejection>) {
    match outcome {
        RowOutcome::Stored => (VerdictState::Stored, None),
        RowOutcome::Duplicate => (VerdictState::Duplicate, None),
        RowOutcome::Bad(rejection) => (VerdictState::Dead, Some(rejection)),
    }
}

/// The verdicts of a batch in record order; `of_row` says how each row ended.
fn verdicts(
    topic: &Topic,
    batch: &AppendBatch,
    entries: &[Entry],
    first: u64,
    of_row: impl Fn(usize) -> (VerdictState, Option<Rejection>),
) -> Vec<Verdict> {
    let identity = topic.encoder().identity;
    let mut dead = batch.dead.iter();
    let mut ids = Building::row_ids(batch).enumerate();
    let verdict = |(i, entry): (usize, &Entry)| {
        let index = first + i as u64;
        match entry {
            Entry::Dead => dead.next().map(|dead| Verdict {
                index,
                transaction_id: dead.message.id,
                state: VerdictState::Dead,
                rejection: Some(Box::new(dead.rejection.clone())),
                dead_letter: Some(dead.id),
            }),
            Entry::Row => ids.next().map(|(row, id)| {
                let (state, rejection) = of_row(row);
                let dead_letter = rejection.is_some().then(|| identity.dead_letter_id(id, &batch.bodies[row].body));
                Verdict { index, transaction_id: id, state, rejection: rejection.map(Box::new), dead_letter }
            }),
        }
    };
    entries.iter().enumerate().filter_map(verdict).collect()
}
