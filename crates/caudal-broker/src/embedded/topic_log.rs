//! One topic: what its writer, its readers and retention share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{LaneState, TopicState};
use caudal_core::topic::TopicName;
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;

use super::error::{OpenError, ReadError};
use super::frame::{Life, record_bytes};
use super::recover::recover;
use super::segment::Segment;
use super::writer::{Refusal, Request, Writer};
use super::{EmbeddedConfig, FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, Lock};

/// What a failed log says to the whole process.
pub(crate) type Failure = watch::Sender<Option<Arc<str>>>;

/// Where the readable part of a topic ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// The offset after the last durable message.
    pub next: u64,
    /// No more will come: closed, or failed.
    pub ended: Option<Ended>,
}

#[derive(Debug, Clone)]
pub(crate) enum Ended {
    Closed,
    Failed(Arc<str>),
}

impl Ended {
    pub(crate) fn error(&self) -> BrokerError {
        match self {
            Self::Closed => BrokerError::unavailable("the embedded queue is closed"),
            Self::Failed(reason) => BrokerError::fatal(reason.as_ref()),
        }
    }
}

/// A subscription's word on what may be dropped.
#[derive(Debug)]
struct Interest {
    acked: u64,
    /// Named in the configuration: it counts whether or not anybody reads.
    is_declared: bool,
    readers: usize,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub topic: TopicName,
    pub dir: PathBuf,
    pub life: Life,
    pub config: EmbeddedConfig,
    /// Ascending and never empty; the last one is written.
    pub segments: RwLock<Vec<Arc<Segment>>>,
    pub tail: watch::Sender<Tail>,
    /// Room in the publish queue, in bytes. Closed when the log ends.
    room: Arc<Semaphore>,
    interests: Mutex<HashMap<String, Interest>>,
    failure: Arc<Failure>,
}

impl Shared {
    pub(crate) fn next(&self) -> u64 {
        self.tail.borrow().next
    }

    pub(crate) fn first(&self) -> u64 {
        self.with_segments(|segments| segments[0].base)
    }

    pub(crate) fn with_segments<T>(&self, look: impl FnOnce(&[Arc<Segment>]) -> T) -> T {
        look(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn change_segments(&self, change: impl FnOnce(&mut Vec<Arc<Segment>>)) {
        change(&mut self.segments.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The segment that holds an offset, or will when it is written. `None` below the first.
    pub(crate) fn segment_of(&self, offset: u64) -> Option<Arc<Segment>> {
        self.with_segments(|segments| {
            let after = segments.partition_point(|segment| segment.base <= offset);
            segments.get(after.checked_sub(1)?).cloned()
        })
    }

    pub(crate) fn end(&self, ended: Ended) {
        if let Ended::Failed(reason) = &ended {
            tracing::error!(topic = %self.topic, %reason, "the embedded queue failed; nothing is acknowledged any more");
            self.failure.send_if_modified(|failure| {
                let is_first = failure.is_none();
                failure.get_or_insert_with(|| reason.clone());
                is_first
            });
        }
        self.tail.send_modify(|tail| {
            tail.ended.get_or_insert(ended);
        });
        // After the reason is there: publishers who find the queue closed ask for it.
        self.room.close();
    }

    /// Why nothing can be published.
    fn refusal(&self) -> BrokerError {
        self.tail.borrow().ended.as_ref().unwrap_or(&Ended::Closed).error()
    }

    /// Registers a reader. One that the configuration does not name counts for retention only while it is open.
    pub(crate) fn join(&self, subscription: &str) {
        let start = self.first();
        let mut interests = self.interests();
        let interest = interests.entry(subscription.to_owned());
        interest.or_insert(Interest { acked: start, is_declared: false, readers: 0 }).readers += 1;
    }

    pub(crate) fn leave(&self, subscription: &str) {
        let mut interests = self.interests();
        if let Some(interest) = interests.get_mut(subscription) {
            interest.readers -= 1;
            if interest.readers == 0 && !interest.is_declared {
                interests.remove(subscription);
            }
        }
    }

    pub(crate) fn ack(&self, subscription: &str, offset: u64) {
        if let Some(interest) = self.interests().get_mut(subscription) {
            interest.acked = interest.acked.max(offset);
        }
    }

    /// Everything below this offset is settled by all. `None` when nobody has said anything.
    pub(crate) fn settled(&self) -> Option<u64> {
        self.interests().values().map(|interest| interest.acked).min()
    }

    fn interests(&self) -> std::sync::MutexGuard<'_, HashMap<String, Interest>> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> LogState {
        let next = self.next();
        self.with_segments(|segments| LogState {
            incarnation: self.life.incarnation,
            first: segments[0].base,
            next,
            bytes: segments.iter().map(|segment| segment.end()).sum(),
        })
    }
}

/// One topic's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Which life of the topic this is.
    pub incarnation: Uuid,
    /// The oldest offset still kept.
    pub first: u64,
    /// The offset that the next message gets: how many were ever published.
    pub next: u64,
    /// Bytes kept on disk.
    pub bytes: u64,
}

impl From<LogState> for TopicState {
    fn from(state: LogState) -> Self {
        let LogState { incarnation: lane, first, next, bytes } = state;
        Self { lanes: vec![LaneState { lane, first, next }], waiting: None, bytes: Some(bytes) }
    }
}

/// A damaged read as a port's error.
impl From<ReadError> for BrokerError {
    fn from(error: ReadError) -> Self {
        Self::fatal(error)
    }
}

/// A topic that is open for publishing. Dropping it ends the writer after what is queued.
#[derive(Debug)]
pub(crate) struct TopicLog {
    pub shared: Arc<Shared>,
    queue: RwLock<Option<Sender<Request>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl TopicLog {
    /// Recovers the topic's files, or creates them, and starts its writer. Blocks.
    pub(crate) fn open(
        topic: &TopicName,
        dir: PathBuf,
        config: &EmbeddedConfig,
        failure: &Arc<Failure>,
        lock: &Arc<Lock>,
    ) -> Result<Self, OpenError> {
        let recovered = recover(topic.as_str(), &dir, config.segment_bytes, config.verify)?;
        let first = recovered.segments[0].base;
        let declared = |name: &String| (name.clone(), Interest { acked: first, is_declared: true, readers: 0 });
        let shared = Arc::new(Shared {
            topic: topic.clone(),
            dir: dir.clone(),
            life: recovered.life,
            config: config.clone(),
            segments: RwLock::new(recovered.segments.clone()),
            tail: watch::Sender::new(Tail { next: recovered.synced.next, ended: None }),
            room: Arc::new(Semaphore::new(config.queue_bytes)),
            interests: Mutex::new(config.subscriptions.iter().map(declared).collect()),
            failure: failure.clone(),
        });
        let (queue, requests) = channel();
        let writer = Writer::new(shared.clone(), recovered, requests, lock.clone());
        let thread = std::thread::Builder::new().name(format!("log {topic}"));
        let writer = thread.spawn(move || writer.run()).map_err(OpenError::io(&dir))?;
        Ok(Self { shared, queue: RwLock::new(Some(queue)), writer: Mutex::new(Some(writer)) })
    }

    /// Returns when all messages are durable. They keep their order and follow one another, unless they are more than
    /// one frame holds: then other publishers' may come between, and after an error some may be in the log.
    pub(crate) async fn publish(&self, messages: Vec<Message>) -> Result<(), BrokerError> {
        let mut answers = Vec::with_capacity(1);
        for (messages, bytes) in split(messages)? {
            answers.push(self.enqueue(messages, bytes).await?);
        }
        for answer in answers {
            match answer.await {
                Ok(Ok(())) => {}
                Ok(Err(Refusal::Full(reason))) => return Err(BrokerError::Full(reason.as_ref().into())),
                Ok(Err(Refusal::Failed(reason))) => return Err(BrokerError::fatal(reason.as_ref())),
                Err(_) => return Err(self.shared.refusal()),
            }
        }
        Ok(())
    }

    /// Waits for room, which bounds bytes and messages at once: a message takes at least its share of the queue.
    async fn enqueue(
        &self,
        messages: Vec<Message>,
        bytes: usize,
    ) -> Result<oneshot::Receiver<Result<(), Refusal>>, BrokerError> {
        let config = &self.shared.config;
        let share = config.queue_bytes / config.queue_messages.max(1);
        let charge = bytes.max(messages.len() * share).clamp(1, config.queue_bytes);
        let room = self.shared.room.clone().acquire_many_owned(charge as u32).await;
        let room = room.map_err(|_| self.shared.refusal())?;
        let (done, answer) = oneshot::channel();
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let sent = queue.as_ref().map(|queue| queue.send(Request { messages, bytes, done, room }));
        match sent {
            Some(Ok(())) => Ok(answer),
            _ => Err(self.shared.refusal()),
        }
    }

    /// Writes what is queued, then ends the writer. Blocks.
    pub(crate) fn close(&self) {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = writer.join();
        }
        self.shared.end(Ended::Closed);
    }
}

/// Cuts a publish into parts that each fit one frame, with their bytes.
fn split(messages: Vec<Message>) -> Result<Vec<(Vec<Message>, usize)>, BrokerError> {
    let mut parts: Vec<(Vec<Message>, usize)> = Vec::with_capacity(1);
    let total: usize = messages.iter().map(record_bytes).sum();
    if total <= FRAME_BYTES_MAX && messages.len() <= FRAME_MESSAGES_MAX {
        return Ok(vec![(messages, total)]);
    }
    for message in messages {
        let bytes = record_bytes(&message);
        if bytes > super::MESSAGE_BYTES_MAX {
            return Err(BrokerError::fatal(format!(
                "message {} has {bytes} bytes: more than the log takes",
                message.id
            )));
        }
        match parts.last_mut() {
            Some((part, sum)) if *sum + bytes <= FRAME_BYTES_MAX && part.len() < FRAME_MESSAGES_MAX => {
                part.push(message);
                *sum += bytes;
            }
            _ => parts.push((vec![message], bytes)),
        }
    }
    Ok(parts)
}
