//! What happens when the group gives us partitions or takes them: called on the polling thread, between two messages.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use caudal_core::error::{BrokerError, StoreError};
use caudal_core::ports::Positions;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::buffer::{Buffer, Lane};
use super::error::Deed;
use super::numbers::{self, begin, kept};
use super::pump::commit;
use super::said::Said;
use super::session::{ASK_WITHIN, Session};

/// How long a partition that is taken from us waits for what we have of it to be settled.
const SETTLE_WITHIN: Duration = Duration::from_secs(3);
/// How long the store may take to say where we stand; well within `max.poll.interval.ms`.
const POSITIONS_WITHIN: Duration = Duration::from_secs(60);
const STOP_CHECK: Duration = Duration::from_millis(100);

pub(super) struct Assignment {
    pub(super) session: Arc<Session>,
    pub(super) buffer: Arc<Buffer>,
    pub(super) positions: Arc<dyn Positions>,
    pub(super) cluster: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) group: Arc<str>,
    pub(super) said: Said,
    /// Where `positions` are asked.
    pub(super) runtime: Handle,
}

impl Assignment {
    /// Begins in each new partition where the store says.
    fn given(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> Result<(), BrokerError> {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let kept = kept(consumer, &self.topic, &partitions, ASK_WITHIN).map_err(|error| self.translate(&error))?;
        let ids: Vec<Uuid> = partitions.iter().map(|p| numbers::lane(&self.cluster, &self.topic, *p)).collect();
        let positions = self.positions_of(ids.clone())?;
        let mut lanes = Vec::with_capacity(partitions.len());
        for ((kept, id), position) in kept.into_iter().zip(ids).zip(positions) {
            let start = begin(position, kept);
            if start.cut {
                tracing::error!(topic = %self.topic, partition = kept.partition, position, next = kept.next,
                    "the partition ends before what was read of it: it was made anew or lost its end; reading all of it again");
            }
            let at = Offset::Offset(i64::try_from(start.at).unwrap_or(i64::MAX));
            let set = list.set_partition_offset(&self.topic, kept.partition, at);
            set.map_err(|error| self.translate(&error))?;
            lanes.push(Lane::new(id, kept.partition, start.from, start.at, start.missing));
        }
        tracing::debug!(topic = %self.topic, group = %self.group, ?partitions, "partitions are ours");
        self.buffer.assign(lanes);
        Ok(())
    }

    fn taken(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        // A partition that was lost may have another reader already.
        let patience = if consumer.assignment_lost() { Duration::ZERO } else { SETTLE_WITHIN };
        tracing::debug!(topic = %self.topic, group = %self.group, ?partitions, "partitions are taken from us");
        self.buffer.revoke(&partitions, patience);
        if let Some(orders) = self.buffer.take_commits() {
            commit(consumer, &self.topic, &orders);
        }
    }

    fn translate(&self, error: &KafkaError) -> BrokerError {
        self.session.translate(error, Deed::Consume { topic: &self.topic, group: &self.group })
    }

    /// Asks the store on the runtime's threads; this one waits for as long as the subscription is wanted.
    fn positions_of(&self, lanes: Vec<Uuid>) -> Result<Vec<Option<u64>>, BrokerError> {
        let (answer, answered) = sync_channel(1);
        let positions = self.positions.clone();
        let asking = self.runtime.spawn(async move {
            let mut all = Vec::with_capacity(lanes.len());
            for lane in lanes {
                match positions.position(lane).await {
                    Ok(position) => all.push(position),
                    Err(error) => return drop(answer.send(Err(error))),
                }
            }
            drop(answer.send(Ok(all)));
        });
        let deadline = Instant::now() + POSITIONS_WITHIN;
        loop {
            match answered.recv_timeout(STOP_CHECK) {
                Ok(answer) => return Ok(answer?),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline && !self.buffer.is_stopped() => {}
                Err(_) => {
                    asking.abort();
                    return Err(BrokerError::Position(StoreError::unavailable("the store did not say where we stand")));
                }
            }
        }
    }
}

impl ConsumerContext for Assignment {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        // The library waits for an answer to either before it goes on, even to leave the group.
        let answered: KafkaResult<()> = match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                if let Err(error) = self.given(consumer, list) {
                    self.buffer.end(error);
                    drop(list.set_all_offsets(Offset::End));
                }
                consumer.incremental_assign(list)
            }
            _ => {
                self.taken(consumer, list);
                consumer.incremental_unassign(list)
            }
        };
        if let Err(error) = answered {
            self.buffer.end(BrokerError::unavailable(error));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(topic = %self.topic, %error, "the group was not told how far we are");
        }
    }
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.said.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.said.error(error, reason);
    }
}
