//! The receiving side of a subscription.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Marks};
use caudal_core::ports::Subscription;

use super::buffer::Buffer;

/// Deliveries of the partitions that the consumer group gives us.
pub(super) struct KafkaSubscription {
    buffer: Arc<Buffer>,
}

impl KafkaSubscription {
    pub(super) fn new(buffer: Arc<Buffer>) -> Self {
        Self { buffer }
    }
}

impl Drop for KafkaSubscription {
    fn drop(&mut self) {
        self.buffer.stop();
    }
}

#[async_trait]
impl Subscription for KafkaSubscription {
    async fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.buffer.receive(messages_max, bytes_max).await
    }

    /// The store has the position already; the group is only told.
    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError> {
        self.buffer.settle(settled)
    }

    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        self.buffer.rewind(unsettled, after)
    }
}
