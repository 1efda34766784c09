//! A batch in the making: records become rows or dead letters, in order, until the batch is full and sealed.

use std::sync::Arc;

use bytes::Bytes;
use caudal_core::dead_letter::DeadLetter;
use caudal_core::encode::{Drift, Encoder, Incoming};
use caudal_core::error::StoreError;
use caudal_core::limits::{BATCH_BYTES_MAX, BATCH_ROWS_MAX};
use caudal_core::message::Message;
use caudal_core::ports::{AppendBatch, Body, OnBadRow, Store};
use caudal_core::rejection::Rejection;
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::UnknownFields;
use caudal_core::time::Instant;
use uuid::Uuid;

use crate::clock;
use crate::evolve;
use crate::plant;
use crate::topic::Topic;

/// A record as a producer or a broker handed it over.
#[derive(Debug, Clone)]
pub struct Record {
    /// The key its producer gave.
    pub key: Option<String>,
    pub source: Arc<str>,
    /// One JSON object.
    pub attributes: Option<Bytes>,
    pub body: Bytes,
    /// Set when whoever split the request into records could not read this one.
    pub fault: Option<Rejection>,
}

impl From<Message> for Record {
    /// The id and the time are the caller's to keep ([`Arrived`]).
    fn from(message: Message) -> Self {
        let Message { key, source, attributes, body, .. } = message;
        Self { key, source: source.into(), attributes, body, fault: None }
    }
}

/// The identity of a record that came through a broker.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// `None` for a message that Caudal did not accept: its key decides.
    pub(crate) id: Option<Uuid>,
    pub(crate) published_at: Instant,
}

/// Where a record of the batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The next row.
    Row,
    /// The next dead letter.
    Dead,
}

#[derive(Debug)]
pub(crate) struct Building {
    encoder: Arc<Encoder>,
    pub(crate) batch: AppendBatch,
    /// One entry a record, in order.
    pub(crate) entries: Vec<Entry>,
    drift: Drift,
    bytes: usize,
}

impl Building {
    pub(crate) fn new(topic: &Topic, on_bad_row: OnBadRow) -> Self {
        let encoder = topic.encoder();
        let batch = AppendBatch::new(encoder.schema.table.clone(), topic.name.clone(), on_bad_row);
        Self { encoder, batch, entries: Vec::new(), drift: Drift::default(), bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Records and bytes that may still come in.
    pub(crate) fn room(&self) -> (usize, usize) {
        (BATCH_ROWS_MAX.saturating_sub(self.entries.len()), BATCH_BYTES_MAX.saturating_sub(self.bytes))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Takes one record. A bad one becomes a dead letter of this batch, and its rejection is returned as well.
    pub(crate) fn push(&mut self, topic: &Topic, record: Record, arrived: Option<Arrived>) -> Result<(), Rejection> {
        let published_at = arrived.as_ref().map_or_else(clock::now, |a| a.published_at);
        let id = arrived.and_then(|a| a.id);
        self.bytes += record.body.len() + 64;
        match self.encode(topic, &record, id, published_at) {
            Ok(()) => {
                self.entries.push(Entry::Row);
                self.batch.bodies.push(Body { body: record.body, attributes: record.attributes });
                Ok(())
            }
            Err(rejection) => {
                self.bury(record, id, published_at, rejection.clone());
                Err(rejection)
            }
        }
    }

    fn encode(
        &mut self,
        topic: &Topic,
        record: &Record,
        id: Option<Uuid>,
        published_at: Instant,
    ) -> Result<(), Rejection> {
        if let Some(fault) = &record.fault {
            return Err(fault.clone());
        }
        topic.validate(&record.body)?;
        let incoming = Incoming {
            id: id.or_else(|| plant::stray_id(published_at)),
            key: record.key.as_deref(),
            source: &record.source,
            published_at,
            attributes: record.attributes.as_deref(),
            body: &record.body,
        };
        let fresh = || clock::fresh_id(published_at);
        self.encoder.encode(&incoming, fresh, &mut self.batch.rows, &mut self.drift).map(drop)
    }

    fn bury(&mut self, record: Record, id: Option<Uuid>, published_at: Instant, rejection: Rejection) {
        let id = id.unwrap_or_else(|| provisional_id(&self.encoder, record.key.as_deref(), published_at));
        let message = Message {
            id,
            key: record.key,
            source: record.source.to_string(),
            published_at,
            attributes: record.attributes,
            body: record.body,
        };
        self.batch.dead.push(DeadLetter::new(&self.encoder.identity, message, rejection));
        self.entries.push(Entry::Dead);
    }

    /// The ids of the rows, in order.
    pub(crate) fn row_ids(batch: &AppendBatch) -> impl Iterator<Item = Uuid> + '_ {
        batch.rows.rows().map(|mut row| row.next().flatten().map(field::uuid).unwrap_or_default())
    }

    /// Finishes the batch. When the topic adds unknown fields as columns and new ones were met, the table is changed first
    /// and the rows are written again in its new shape.
    pub(crate) async fn seal(mut self, topic: &Topic, store: &dyn Store) -> Result<Self, StoreError> {
        let drift = std::mem::take(&mut self.drift);
        if !drift.is_empty() {
            self.batch.drift = drift.into_notes();
            if self.encoder.schema.unknown == UnknownFields::Add
                && let Some(encoder) = evolve::add_columns(topic, store, &self.batch.drift).await?
            {
                self.encode_again(encoder);
            }
        }
        topic.assign_lanes(&mut self.batch)?;
        Ok(self)
    }

    /// Writes every row anew with a changed schema; a row that does not fit it becomes a dead letter in its place.
    fn encode_again(&mut self, encoder: Arc<Encoder>) {
        let (topic, on_bad_row) = (self.batch.topic.clone(), self.batch.on_bad_row);
        let new = AppendBatch::new(encoder.schema.table.clone(), topic, on_bad_row);
        let old = std::mem::replace(&mut self.batch, new);
        self.batch.drift = old.drift.clone();
        self.batch.rows = RowBatch::with_capacity(old.rows.len(), old.rows.byte_len() * 2);
        let mut dead = old.dead.iter().cloned();
        let mut row = 0;
        for entry in &mut self.entries {
            if *entry == Entry::Dead {
                self.batch.dead.extend(dead.next());
                continue;
            }
            let message = old.message(row);
            row += 1;
            let incoming = Incoming {
                id: Some(message.id),
                key: message.key.as_deref(),
                source: &message.source,
                published_at: message.published_at,
                attributes: message.attributes.as_deref(),
                body: &message.body,
            };
            let mut seen = Drift::default();
            match encoder.encode(&incoming, Uuid::nil, &mut self.batch.rows, &mut seen) {
                Ok(_) => self.batch.bodies.push(Body { body: message.body, attributes: message.attributes }),
                Err(rejection) => {
                    *entry = Entry::Dead;
                    self.batch.dead.push(DeadLetter::new(&encoder.identity, message, rejection));
                }
            }
        }
        self.encoder = encoder;
    }
}

/// The id of a record that is bad before its key is known: from the producer's key where that decides, else a new one.
pub(crate) fn provisional_id(encoder: &Encoder, key: Option<&str>, published_at: Instant) -> Uuid {
    match key {
        Some(key) if encoder.schema.key.is_empty() => encoder.identity.transaction_id(key),
        _ => clock::fresh_id(published_at),
    }
}
