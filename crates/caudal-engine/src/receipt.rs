//! "Where is my message?"

use caudal_core::dead_letter::{DeadLetterState, KeptDeadLetter};
use caudal_core::error::BrokerError;
use caudal_core::plan::{Comparison, Filter, ReadPlan, Scalar, Selected};
use caudal_core::receipt::ReceiptState;
use caudal_core::row::field;
use caudal_core::schema::{ID, KEY, PUBLISHED_AT, SOURCE, STORED_AT};
use caudal_core::time::Instant;
use futures_util::StreamExt;
use uuid::Uuid;

use crate::engine::Engine;
use crate::error::AcceptError;
use crate::progress::Now;
use crate::topic::Topic;

/// Everything known about one transaction.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub transaction_id: Uuid,
    pub topic: String,
    pub state: ReceiptState,
    pub key: Option<String>,
    pub source: Option<String>,
    pub published_at: Option<Instant>,
    pub stored_at: Option<Instant>,
    /// Dead letters that stand for this transaction, newest first. A stored transaction has some when its key was used again
    /// with other content, or when it was repaired.
    pub dead_letters: Vec<KeptDeadLetter>,
}

impl Engine {
    /// Finds a transaction: in the tables, among the dead letters, in the topics' backlogs, in this order. `topic` narrows
    /// the search. `None`: no topic of this deployment has ever answered 2xx for it.
    pub async fn receipt(&self, id: Uuid, topic: Option<&str>) -> Result<Option<Receipt>, AcceptError> {
        let topics: Vec<_> = match topic {
            Some(name) => vec![self.topic(name)?],
            None => self.topics.iter().collect(),
        };
        let dead_letters = self.store.dead_letters_of(id).await?;
        for topic in &topics {
            if let Some(mut receipt) = self.stored(topic, id).await? {
                receipt.dead_letters = dead_letters;
                return Ok(Some(receipt));
            }
        }
        for topic in topics.iter().filter(|topic| topic.config.retention.is_some()) {
            if self.store.expired_at(&topic.name, id).await?.is_some() {
                return Ok(Some(expired(topic, id, dead_letters)));
            }
        }
        if let Some(dead) = dead_letters.iter().find(|d| d.state == DeadLetterState::Dead) {
            return Ok(Some(Receipt {
                transaction_id: id,
                topic: dead.topic.clone(),
                state: ReceiptState::Dead,
                key: dead.message.key.clone(),
                source: Some(dead.message.source.clone()),
                published_at: Some(dead.message.published_at),
                stored_at: None,
                dead_letters,
            }));
        }
        for topic in &topics {
            if let Some(receipt) = self.queued(topic, id).await? {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    async fn stored(&self, topic: &Topic, id: Uuid) -> Result<Option<Receipt>, AcceptError> {
        let table = topic.table();
        let named = |name: &str| table.column(name).map(|column| Selected::column(column, name));
        let select = [KEY, SOURCE, PUBLISHED_AT, STORED_AT].into_iter().filter_map(named).collect();
        let column = table.column(ID).unwrap_or_default();
        let filter = vec![Filter::Compare { field: column.into(), op: Comparison::Eq, value: Scalar::Uuid(id) }];
        let plan = ReadPlan { select, filter, limit: Some(1), ..ReadPlan::all(table) };
        let mut rows = self.store.read(plan).await?;
        let Some(batch) = rows.next().await.transpose()?.filter(|batch| !batch.is_empty()) else { return Ok(None) };
        let fields: Vec<_> = batch.row(0).collect();
        Ok(Some(Receipt {
            transaction_id: id,
            topic: topic.name.to_string(),
            state: ReceiptState::Stored,
            key: fields[0].map(|key| field::text(key).to_owned()),
            source: fields[1].map(|source| field::text(source).to_owned()),
            published_at: fields[2].map(field::timestamp),
            stored_at: fields[3].map(field::timestamp),
            dead_letters: Vec::new(),
        }))
    }

    async fn queued(&self, topic: &Topic, id: Uuid) -> Result<Option<Receipt>, AcceptError> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let receipt = |published_at| Receipt {
            transaction_id: id,
            topic: topic.name.to_string(),
            state: ReceiptState::Queued,
            key: None,
            source: None,
            published_at: Some(published_at),
            stored_at: None,
            dead_letters: Vec::new(),
        };
        if !broker.searchable() {
            return Ok(topic.pending.find(id).map(receipt));
        }
        let found = match broker.find(&topic.name, &Now { engine: self, topic }, id).await {
            Err(BrokerError::UnknownTopic(_)) => None,
            found => found?,
        };
        Ok(found.map(|message| Receipt {
            key: message.key,
            source: Some(message.source),
            ..receipt(message.published_at)
        }))
    }
}

/// What is left to say of a record that retention has removed.
fn expired(topic: &Topic, id: Uuid, dead_letters: Vec<KeptDeadLetter>) -> Receipt {
    Receipt {
        transaction_id: id,
        topic: topic.name.to_string(),
        state: ReceiptState::Expired,
        key: None,
        source: None,
        published_at: None,
        stored_at: None,
        dead_letters,
    }
}
