//! Looking for a message in the backlog. Kafka has no index by our ids, so this reads; it gives up after a while.

use std::time::{Duration, Instant};

use caudal_core::message::{Mark, Message};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::record::{self, Origin};
use super::said::Said;

/// How long a search may take. A message that is further back than this reads is not found.
const SEARCH_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// A part of a partition that is to be searched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub(super) partition: i32,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Blocks.
pub(super) fn find(
    consumer: &BaseConsumer<Said>,
    topic: &str,
    origin: &Origin,
    mut stretches: Vec<Stretch>,
    id: Uuid,
) -> KafkaResult<Option<Message>> {
    let deadline = Instant::now() + SEARCH_WITHIN;
    stretches.retain(|stretch| stretch.from < stretch.to);
    let mut list = TopicPartitionList::with_capacity(stretches.len());
    for stretch in &stretches {
        let from = Offset::Offset(i64::try_from(stretch.from).unwrap_or(i64::MAX));
        list.add_partition_offset(topic, stretch.partition, from)?;
    }
    if stretches.is_empty() {
        return Ok(None);
    }
    consumer.assign(&list)?;
    while !stretches.is_empty() && Instant::now() < deadline {
        let record = match consumer.poll(POLL) {
            None => continue,
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::BrokerTransportFailure))) => continue,
            Some(record) => record?,
        };
        if record::is_ours(&record, id) {
            return Ok(Some(origin.delivery(&record, Mark::Tag(0)).message));
        }
        let next = u64::try_from(record.offset()).unwrap_or_default() + 1;
        stretches.retain(|stretch| stretch.partition != record.partition() || next < stretch.to);
    }
    Ok(None)
}
