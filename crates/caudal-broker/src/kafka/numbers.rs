//! Kafka's numbers: which lane a partition is, which offsets it keeps, and where a subscription begins in it.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::Offset;
use uuid::Uuid;

/// Names a partition of a topic of a cluster for good. The client library does not tell a topic's own id, so a topic that is
/// deleted and made anew under its old name has its old lanes; see [`begin`].
pub(super) fn lane(cluster: &str, topic: &str, partition: i32) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("kafka:{cluster}:{topic}:{partition}").as_bytes())
}

/// The offsets that a partition keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) partition: i32,
    pub(super) first: u64,
    /// One more than the last that a reader of committed records may see.
    pub(super) next: u64,
}

/// Asks for all of these partitions at once: two requests to each broker that leads some. Blocks.
pub(super) fn kept<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: &[i32],
    patience: Duration,
) -> KafkaResult<Vec<Kept>> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let ask = |offset: Offset| -> KafkaResult<Vec<(i32, u64)>> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(topic, *partition);
        }
        list.set_all_offsets(offset)?;
        let list = consumer.offsets_for_times(list, patience)?;
        list.elements().iter().map(|element| answer(element.partition(), element.offset(), element.error())).collect()
    };
    let first = ask(Offset::Beginning)?;
    let next = ask(Offset::End)?;
    let of = |list: &[(i32, u64)], partition| list.iter().find(|(p, _)| *p == partition).map(|(_, offset)| *offset);
    let unanswered = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition);
    let kept = |partition: &i32| {
        let (first, next) = of(&first, *partition).zip(of(&next, *partition))?;
        Some(Kept { partition: *partition, first, next })
    };
    partitions.iter().map(kept).collect::<Option<_>>().ok_or(unanswered)
}

fn answer(partition: i32, offset: Offset, error: KafkaResult<()>) -> KafkaResult<(i32, u64)> {
    error?;
    let offset = match offset {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    };
    Ok((partition, offset.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition))?))
}

/// Where a subscription begins in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    /// What the first delivery joins.
    pub(super) from: u64,
    /// What is fetched first.
    pub(super) at: u64,
    /// Messages that were dropped before they were read.
    pub(super) missing: u64,
    /// The store has read further than there is anything: the topic was made anew, or lost its tail.
    pub(super) cut: bool,
}

/// The group's own offset is not asked: only the store knows which rows are committed.
pub(super) fn begin(position: Option<u64>, kept: Kept) -> Begin {
    match position {
        None => Begin { from: kept.first, at: kept.first, missing: 0, cut: false },
        Some(from) if from < kept.first => Begin { from, at: kept.first, missing: kept.first - from, cut: false },
        // Everything is read again, because nothing tells where the two histories part; what is a repetition is known by
        // its id. The other way would be to lose messages silently.
        Some(from) if from > kept.next => Begin { from, at: kept.first, missing: 0, cut: true },
        Some(from) => Begin { from, at: from, missing: 0, cut: false },
    }
}

#[cfg(test)]
mod tests {
    use super::{Begin, Kept, begin, lane};

    const KEPT: Kept = Kept { partition: 0, first: 100, next: 200 };

    #[test]
    fn begins_where_the_store_says_and_counts_what_is_gone() {
        let of = |from, at, missing, cut| Begin { from, at, missing, cut };
        assert_eq!(begin(None, KEPT), of(100, 100, 0, false));
        assert_eq!(begin(Some(100), KEPT), of(100, 100, 0, false));
        assert_eq!(begin(Some(200), KEPT), of(200, 200, 0, false));
        assert_eq!(begin(Some(30), KEPT), of(30, 100, 70, false));
        assert_eq!(begin(Some(201), KEPT), of(201, 100, 0, true));
    }

    #[test]
    fn a_lane_is_one_partition_of_one_topic_of_one_cluster() {
        let names = [("c", "t", 0), ("c", "t", 1), ("c", "u", 0), ("d", "t", 0)];
        let lanes: std::collections::HashSet<_> = names.map(|(c, t, p)| lane(c, t, p)).into();
        assert_eq!(lanes.len(), names.len());
        assert_eq!(lane("c", "t", 0).to_string(), lane("c", "t", 0).to_string());
    }
}
