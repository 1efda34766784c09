//! How a publish becomes durable: an idempotent producer with `acks=all`, shared by all publishes. Each hands its messages
//! over at once and waits until the last of them is confirmed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caudal_core::message::Message;
use rdkafka::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::record;
use super::said::Said;
use super::settings::{CONFIRM_WITHIN_MS, RECORD_BYTES_MAX, Settings};

/// How long a publish may take in all: waiting for room in the producer, then for the word of the brokers.
const PUBLISH_WITHIN: Duration = Duration::from_millis(2 * CONFIRM_WITHIN_MS);
const ROOM_PAUSE: Duration = Duration::from_millis(2);
/// Messages handed over before other tasks get a turn.
const AT_ONCE: usize = 500;

/// Why a publish failed.
#[derive(Debug)]
pub(super) enum Failure {
    Kafka(KafkaError),
    Unconfirmed,
}

pub(super) struct Producer {
    native: ThreadedProducer<Reports>,
}

impl Producer {
    pub(super) fn new(settings: &Settings, said: Said) -> KafkaResult<Self> {
        Ok(Self { native: ThreadedProducer::from_config_and_context(&settings.producer(), Reports(said))? })
    }

    pub(super) fn client(&self) -> &rdkafka::client::Client<Reports> {
        self.native.client()
    }

    /// Why the producer cannot be used any more, if it cannot: every message after that fails for a lesser reason.
    pub(super) fn broken(&self) -> Option<KafkaError> {
        self.client().fatal_error().map(|(code, _)| KafkaError::MessageProduction(code))
    }

    /// Waits until all that was handed over is confirmed or has failed. Blocks.
    pub(super) fn finish(&self) {
        let _ = self.native.flush(Duration::from_millis(CONFIRM_WITHIN_MS));
    }

    /// Messages of one key keep their order: they go to one partition through one queue, which a retry does not reorder.
    pub(super) async fn publish(&self, topic: &str, messages: &[Message]) -> Result<(), Failure> {
        if let Some(too_large) = messages.iter().find(|message| record::bytes_of(message) > RECORD_BYTES_MAX) {
            tracing::debug!(bytes = too_large.body.len(), "larger than the producer takes");
            // Before any of its neighbours is sent: a refusal has no effect.
            return Err(Failure::Kafka(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)));
        }
        let deadline = Instant::now() + PUBLISH_WITHIN;
        let group = Arc::new(Group::default());
        for (count, message) in (1..).zip(messages) {
            group.left.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.hand_over(topic, message, &group, deadline).await {
                return Err(Failure::Kafka(error));
            }
            if count % AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        group.confirm(None);
        if tokio::time::timeout_at(deadline, group.done.notified()).await.is_err() {
            return Err(Failure::Unconfirmed);
        }
        let failure = group.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), |code| Err(Failure::Kafka(KafkaError::MessageProduction(code))))
    }

    /// Puts a message into the producer's queue; waits while that is full.
    async fn hand_over(
        &self,
        topic: &str,
        message: &Message,
        group: &Arc<Group>,
        deadline: Instant,
    ) -> Result<(), KafkaError> {
        let mut record =
            BaseRecord::with_opaque_to(topic, group.clone()).payload(&*message.body).headers(record::headers(message));
        record.key = message.key.as_deref();
        loop {
            record = match self.native.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record))
                    if Instant::now() < deadline =>
                {
                    record
                }
                Err((error, _)) => return Err(error),
            };
            tokio::time::sleep(ROOM_PAUSE).await;
        }
    }
}

/// The messages of one publish.
#[derive(Debug)]
pub(super) struct Group {
    /// Not confirmed yet, and one for the publish itself while it hands messages over.
    left: AtomicUsize,
    failure: Mutex<Option<RDKafkaErrorCode>>,
    done: Notify,
}

impl Default for Group {
    fn default() -> Self {
        Self { left: AtomicUsize::new(1), failure: Mutex::default(), done: Notify::new() }
    }
}

impl Group {
    fn confirm(&self, failure: Option<RDKafkaErrorCode>) {
        if failure.is_some() {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }
}

/// Delivery reports, called on the producer's thread.
pub(super) struct Reports(Said);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Group>;

    fn delivery(&self, report: &DeliveryResult<'_>, group: Arc<Group>) {
        let failure = report.as_ref().err();
        group.confirm(failure.map(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)));
    }
}
