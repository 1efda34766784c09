//! How far the store is behind a topic, for accounting and receipts.

use async_trait::async_trait;
use caudal_core::error::{BrokerError, StoreError};
use caudal_core::ports::Positions;
use uuid::Uuid;

use crate::engine::Engine;
use crate::error::AcceptError;
use crate::topic::Topic;

/// A topic's place in its broker and in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Messages ever published and how many of them are settled, where the broker numbers them.
    pub numbered: Option<Numbered>,
    /// How many wait to be stored, as far as the broker tells.
    pub backlog: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbered {
    pub published: u64,
    pub position: u64,
}

/// Reads positions once, without patience: whoever asks wants an answer now.
pub(crate) struct Now<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) topic: &'a Topic,
}

#[async_trait]
impl Positions for Now<'_> {
    async fn position(&self, lane: Uuid) -> Result<Option<u64>, StoreError> {
        self.engine.store.position(&self.topic.name, &self.engine.config.subscription, lane).await
    }
}

impl Engine {
    /// How far the store is behind the topic; `None` without a broker.
    pub async fn progress(&self, topic: &Topic) -> Result<Option<Progress>, AcceptError> {
        let Some(broker) = &self.broker else { return Ok(None) };
        let state = match broker.topic_state(&topic.name, &self.config.subscription).await {
            Ok(state) => state,
            // Nothing was published yet.
            Err(BrokerError::UnknownTopic(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut numbered: Option<Numbered> = None;
        for lane in &state.lanes {
            let committed = Now { engine: self, topic }.position(lane.lane).await?;
            let sum = numbered.get_or_insert(Numbered { published: 0, position: 0 });
            sum.published += lane.next;
            sum.position += committed.unwrap_or(lane.first);
        }
        let backlog = numbered.map(|n| n.published.saturating_sub(n.position)).or(state.waiting);
        if let Some(backlog) = backlog {
            topic.metrics.set_backlog(backlog);
        }
        Ok(Some(Progress { numbered, backlog, bytes: state.bytes }))
    }
}
