//! Sending dead letters back: idempotent, and settled in the same commit as the row.

use caudal_core::dead_letter::{DeadLetterState, KeptDeadLetter};
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::OnBadRow;
use caudal_core::rejection::Rejection;
use uuid::Uuid;

use crate::building::{Arrived, Building};
use crate::engine::Engine;
use crate::error::AcceptError;
use crate::settle;

/// How a redrive ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redriven {
    /// There is a row now.
    Stored { topic: String, transaction_id: Uuid },
    /// The key was there with the same content.
    Duplicate { topic: String, transaction_id: Uuid },
    /// Still bad: it stays a dead letter, with the new reason.
    StillBad(Rejection),
    /// It had been redriven before; nothing was done.
    Already { outcome: String },
}

impl Engine {
    /// Sends one dead letter back into its topic. `None`: there is no such dead letter.
    pub async fn redrive(&self, id: Uuid) -> Result<Option<Redriven>, AcceptError> {
        let Some(dead) = self.store.dead_letter(id).await? else { return Ok(None) };
        if dead.state == DeadLetterState::Redriven {
            return Ok(Some(Redriven::Already { outcome: dead.outcome.unwrap_or_default() }));
        }
        let topic = self.topic(&dead.topic)?;
        let KeptDeadLetter { message, .. } = dead;
        let (id_before, published_at) = (message.id, message.published_at);
        let mut building = Building::new(topic, OnBadRow::Report);
        // With the topic's own key columns the repaired payload decides the identity anew; otherwise it keeps its own.
        let keeps_id = topic.encoder().schema.key.is_empty();
        let arrived = keeps_id.then_some(Arrived { id: Some(id_before), published_at });
        if let Err(rejection) = building.push(topic, message.into(), arrived) {
            return self.still_bad(id, rejection).await;
        }
        let mut sealed = building.seal(topic, &*self.store).await?;
        if let Some(dead) = sealed.batch.dead.pop() {
            return self.still_bad(id, dead.rejection).await;
        }
        sealed.batch.redrives = Some(id);
        let transaction_id = Building::row_ids(&sealed.batch).next().unwrap_or(id_before);
        let in_flight = topic.metrics.accept(1);
        let patience = Some(self.config.store_patience);
        let appended = settle::append(&*self.store, topic, sealed.batch.into(), in_flight, patience).await?;
        let topic = topic.name.to_string();
        match settle::outcome(&appended, 0) {
            RowOutcome::Stored => Ok(Some(Redriven::Stored { topic, transaction_id })),
            RowOutcome::Duplicate => Ok(Some(Redriven::Duplicate { topic, transaction_id })),
            RowOutcome::Bad(rejection) => self.still_bad(id, rejection).await,
        }
    }

    async fn still_bad(&self, id: Uuid, rejection: Rejection) -> Result<Option<Redriven>, AcceptError> {
        let Rejection { code, pointer, detail } = &rejection;
        self.store.redrive_failed(id, code.name(), detail, pointer).await?;
        Ok(Some(Redriven::StillBad(rejection)))
    }
}
