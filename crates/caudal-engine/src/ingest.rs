//! Taking messages in.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::encode::{Drift, Encoder, Incoming};
use caudal_core::message::Message;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{Broker, DriftNote};
use caudal_core::rejection::Rejection;
use caudal_core::row::RowBatch;
use caudal_core::schema::{Table, UnknownFields};
use caudal_core::time::Instant;
use uuid::Uuid;

pub use crate::building::Record;
use crate::building::provisional_id;
use crate::clock;
use crate::engine::Engine;
use crate::error::AcceptError;
use crate::evolve;
use crate::intake::{Intake, Verdict, VerdictState};
use crate::plant;
use crate::topic::Topic;

/// How the producer wants to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// As soon as the message is durable in the topic (`Prefer: respond-async`).
    WhenQueued,
    /// When the row is there, or after this long with what is true then (`Prefer: wait=N`).
    WhenStored(Duration),
}

impl Engine {
    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Result<&Arc<Topic>, AcceptError> {
        self.topics.get(name).ok_or_else(|| AcceptError::UnknownTopic(name.to_owned()))
    }

    /// Starts taking in a request of many records. `strict`: all of them or none, in one transaction.
    pub fn intake(self: &Arc<Self>, topic: &str, answer: Answer, strict: bool) -> Result<Intake, AcceptError> {
        let topic = self.topic(topic)?.clone();
        Ok(Intake::new(self.clone(), topic, answer, strict))
    }

    /// Takes in one message. A bad one is refused with no effect.
    pub async fn accept(&self, topic: &str, record: Record, answer: Answer) -> Result<Verdict, AcceptError> {
        let topic = self.topic(topic)?;
        let at = clock::now();
        let one = self.encode_one(topic, &record, at).await.inspect_err(|_| topic.metrics.rejected(1))?;
        let _running = match record.key.is_some() {
            true => Some(self.keys.enter(one.id).ok_or(AcceptError::KeyInFlight)?),
            false => None,
        };
        if self.broker.is_some() {
            Box::pin(self.publish_one(topic, record, one, at, answer)).await
        } else {
            let outcome = self.group(topic)?.store(one.row, one.table, one.drift).await?;
            verdict(one.id, outcome, None)
        }
    }

    async fn publish_one(
        &self,
        topic: &Topic,
        record: Record,
        one: One,
        at: Instant,
        answer: Answer,
    ) -> Result<Verdict, AcceptError> {
        let Some(broker) = &self.broker else { return Err(AcceptError::Overloaded) };
        let dead_letter = topic.encoder().identity.dead_letter_id(one.id, &record.body);
        let message = Message {
            id: one.id,
            key: one.key,
            source: record.source.to_string(),
            published_at: at,
            attributes: record.attributes,
            body: record.body,
        };
        let Answer::WhenStored(bound) = answer else {
            broker.publish(&topic.name, vec![message]).await?;
            return Ok(queued(&**broker, topic, one.id, at));
        };
        let told = self.waiters.wait_for(&topic.name, &message);
        let published = broker.publish(&topic.name, vec![message]).await;
        let outcome = match published {
            Ok(()) => tokio::time::timeout(bound, told).await,
            Err(error) => {
                self.waiters.forget(one.id);
                return Err(error.into());
            }
        };
        match outcome {
            Ok(Ok(outcome)) => verdict(one.id, outcome, Some(dead_letter)),
            _ => {
                self.waiters.forget(one.id);
                Ok(queued(&**broker, topic, one.id, at))
            }
        }
    }

    /// Checks and encodes one record, with the table grown first when the topic adds unknown fields.
    async fn encode_one(&self, topic: &Topic, record: &Record, at: Instant) -> Result<One, AcceptError> {
        if let Some(fault) = &record.fault {
            return Err(AcceptError::rejected(fault.clone()));
        }
        let mut encoder = topic.encoder();
        let mut drift = Drift::default();
        let mut one = encode(topic, &encoder, record, at, &mut drift).map_err(|r| refused(&encoder, record, at, r))?;
        let drift = drift.into_notes();
        // Behind a broker it is the worker that changes the table: accepting must not need the store.
        if !drift.is_empty()
            && self.broker.is_none()
            && encoder.schema.unknown == UnknownFields::Add
            && let Some(grown) = Box::pin(evolve::add_columns(topic, &*self.store, &drift)).await?
        {
            encoder = grown;
            let mut seen = Drift::default();
            one = encode(topic, &encoder, record, at, &mut seen).map_err(|r| refused(&encoder, record, at, r))?;
        }
        let (row, id, key) = one;
        Ok(One { row, id, key, drift, table: encoder.schema.table.clone() })
    }
}

/// One message, encoded.
struct One {
    row: RowBatch,
    id: Uuid,
    key: Option<String>,
    drift: Vec<DriftNote>,
    table: Arc<Table>,
}

fn encode(
    topic: &Topic,
    encoder: &Encoder,
    record: &Record,
    at: Instant,
    drift: &mut Drift,
) -> Result<(RowBatch, Uuid, Option<String>), Rejection> {
    topic.validate(&record.body)?;
    let mut row = RowBatch::with_capacity(1, record.body.len() + 128);
    let incoming = Incoming {
        id: plant::stray_id(at),
        key: record.key.as_deref(),
        source: &record.source,
        published_at: at,
        attributes: record.attributes.as_deref(),
        body: &record.body,
    };
    let encoded = encoder.encode(&incoming, || clock::fresh_id(at), &mut row, drift)?;
    Ok((row, encoded.id, encoded.key))
}

fn refused(encoder: &Encoder, record: &Record, at: Instant, rejection: Rejection) -> AcceptError {
    let id = provisional_id(encoder, record.key.as_deref(), at);
    AcceptError::Rejected { index: 0, rejection, transaction_id: Some(id), dead_letter: None }
}

fn queued(broker: &dyn Broker, topic: &Topic, id: Uuid, at: Instant) -> Verdict {
    if !broker.searchable() {
        topic.pending.remember([id], at);
    }
    Verdict { index: 0, transaction_id: id, state: VerdictState::Queued, rejection: None, dead_letter: None }
}

/// `dead_letter`: what a bad message has become, where it is not simply refused.
fn verdict(id: Uuid, outcome: RowOutcome, dead_letter: Option<Uuid>) -> Result<Verdict, AcceptError> {
    let state = match outcome {
        RowOutcome::Stored => VerdictState::Stored,
        RowOutcome::Duplicate => VerdictState::Duplicate,
        RowOutcome::Bad(rejection) => {
            return Err(AcceptError::Rejected { index: 0, rejection, transaction_id: Some(id), dead_letter });
        }
    };
    Ok(Verdict { index: 0, transaction_id: id, state, rejection: None, dead_letter: None })
}
