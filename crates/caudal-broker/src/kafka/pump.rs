//! The thread that polls for one subscription: it is a member of the consumer group, turns records into deliveries as fast
//! as they come, and stops while the buffer is full.
//!
//! Polling costs no wake-up and no task a message this way, and everything that happens to the assignment happens between two
//! messages, on this thread.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use caudal_core::error::BrokerError;
use caudal_core::message::Mark;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::assignment::Assignment;
use super::buffer::{Buffer, Orders};
use super::error::Deed;
use super::record::Origin;
use super::session::{ASK_WITHIN, Session};

/// How long an order may lie while nothing arrives.
const POLL: Duration = Duration::from_millis(100);
/// Messages after which the receiver is woken at the latest.
const ANNOUNCE_AFTER: usize = 256;
/// How long the buffer may be full before the library is told to fetch nothing; the group wants to hear from us meanwhile.
const FULL_PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Pump {
    pub(super) session: Arc<Session>,
    pub(super) buffer: Arc<Buffer>,
    pub(super) origin: Origin,
    pub(super) topic: Arc<str>,
    pub(super) group: Arc<str>,
}

impl Pump {
    /// Joins the group. The thread ends when the buffer is told to stop, and leaves the group then.
    pub(super) fn start(self, assignment: Assignment) -> Result<JoinHandle<()>, BrokerError> {
        let config = self.session.settings.consumer(&self.group);
        let consumer = config.create_with_context(assignment);
        let consumer: BaseConsumer<Assignment> = consumer.map_err(|error| self.translate(&error))?;
        consumer.subscribe(&[&self.topic]).map_err(|error| self.translate(&error))?;
        let thread = std::thread::Builder::new().name(format!("kafka {}", self.topic));
        // Leaving the group blocks, so the consumer is dropped on its own thread.
        thread.spawn(move || self.run(consumer)).map_err(BrokerError::unavailable)
    }

    fn translate(&self, error: &KafkaError) -> BrokerError {
        self.session.translate(error, Deed::Consume { topic: &self.topic, group: &self.group })
    }

    fn run(&self, consumer: BaseConsumer<Assignment>) {
        let _ended = Ended(&self.buffer);
        let mut paused = None;
        let mut unannounced = 0;
        loop {
            if let Some(orders) = self.buffer.orders() {
                if orders.stop {
                    break;
                }
                self.obey(&consumer, orders);
            }
            let mut room = true;
            match self.next(&consumer, &mut unannounced) {
                None => {}
                Some(Ok(record)) => {
                    room = self.take(&record);
                    unannounced += 1;
                }
                Some(Err(error)) => self.failed(&error),
            }
            if !room {
                self.announce(&mut unannounced);
                // While paused only partitions that are new to us bring something.
                if paused.is_some() || !self.buffer.wait_for_room(FULL_PATIENCE) {
                    paused = pause(&consumer).or(paused);
                }
            }
            if let Some(list) = paused.take_if(|_| self.buffer.is_half_empty())
                && let Err(error) = consumer.resume(&list)
            {
                self.buffer.end(self.translate(&error));
            }
        }
        drop(consumer);
        tracing::debug!(topic = %self.topic, group = %self.group, "left the consumer group");
    }

    /// Waking the receiver for each message would cost more than the message, so it is woken when there is none left at the
    /// moment, or after some.
    fn next<'c>(
        &self,
        consumer: &'c BaseConsumer<Assignment>,
        unannounced: &mut usize,
    ) -> Option<Result<BorrowedMessage<'c>, KafkaError>> {
        if *unannounced < ANNOUNCE_AFTER
            && let Some(next) = consumer.poll(Duration::ZERO)
        {
            return Some(next);
        }
        self.announce(unannounced);
        consumer.poll(POLL)
    }

    fn announce(&self, unannounced: &mut usize) {
        if std::mem::take(unannounced) > 0 {
            self.buffer.announce();
        }
    }

    fn take(&self, record: &BorrowedMessage<'_>) -> bool {
        // The buffer says where it joins.
        let mark = Mark::Tag(0);
        let offset = u64::try_from(record.offset()).unwrap_or_default();
        self.buffer.push(record.partition(), offset, self.origin.delivery(record, mark))
    }

    fn obey(&self, consumer: &BaseConsumer<Assignment>, orders: Orders) {
        commit(consumer, &self.topic, &orders.commits);
        for (partition, offset) in orders.rewinds {
            let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
            match consumer.seek(&self.topic, partition, offset, ASK_WITHIN) {
                Ok(()) => self.buffer.rewound(partition),
                Err(error) => self.buffer.end(BrokerError::unavailable(error)),
            }
        }
    }

    /// What polling reports beside messages. Anything that may have cost a message ends the subscription: the next one
    /// begins where the store says.
    fn failed(&self, error: &KafkaError) {
        use RDKafkaErrorCode as Code;
        let Some(code) = error.rdkafka_error_code() else {
            return self.buffer.end(self.translate(error));
        };
        match code {
            // One connection of several; the library makes it anew.
            Code::BrokerTransportFailure | Code::Resolve | Code::OperationTimedOut | Code::NodeUpdate => {}
            Code::PartitionEOF | Code::WaitingForCoordinator => {}
            Code::PollExceeded => {
                tracing::warn!(topic = %self.topic, "waited too long for the store and lost the partitions; joining again");
            }
            // Kept no longer, or never written: counted when the partition is assigned again.
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                self.buffer.end(BrokerError::unavailable("the position lies outside of what Kafka keeps"));
            }
            Code::NotImplemented | Code::UnsupportedCompressionType => {
                let text = "topic {} of Kafka is compressed in a way that this build cannot read";
                self.buffer.end(BrokerError::Setup(text.replace("{}", &self.topic)));
            }
            _ => {
                if matches!(code, Code::UnknownTopicOrPartition | Code::UnknownTopic) {
                    self.session.topics.forget(&self.topic);
                }
                self.buffer.end(self.translate(error));
            }
        }
    }
}

/// Whatever ends the thread ends the subscription: a receiver never waits for a thread that is gone.
struct Ended<'a>(&'a Buffer);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.end(BrokerError::unavailable("the thread that reads from Kafka has ended"));
    }
}

/// Tells the group how far we are, for tools that show lag. Nothing of ours reads it, so nobody waits for it.
pub(super) fn commit(consumer: &BaseConsumer<Assignment>, topic: &str, commits: &[(i32, u64)]) {
    let mut list = TopicPartitionList::with_capacity(commits.len());
    for (partition, offset) in commits {
        let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
        if let Err(error) = list.add_partition_offset(topic, *partition, offset) {
            tracing::debug!(%error, "an offset that cannot be committed");
        }
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        tracing::debug!(%error, "the group was not told how far we are");
    }
}

fn pause(consumer: &BaseConsumer<Assignment>) -> Option<TopicPartitionList> {
    let list = consumer.assignment().ok()?;
    consumer.pause(&list).ok()?;
    Some(list)
}
