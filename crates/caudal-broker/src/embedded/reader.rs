//! Reading the log: only what is durable, every record verified.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Mark, Marks, Message, Origin, Step};
use caudal_core::ports::Subscription;
use tokio::sync::watch;
use uuid::Uuid;

use super::error::{Damage, Gap, ReadError};
use super::frame::{self, HEADER_BYTES, PREFIX_BYTES, Record};
use super::segment::{self, Segment};
use super::topic_log::{Shared, Tail};

/// Bytes read at once. Bodies are slices of what was read, so a message that is kept keeps at most this alive.
const CHUNK_BYTES: u64 = 1024 * 1024;

/// A place in the log, and the bytes around it.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    /// Offset of the message to read next.
    pub next: u64,
    segment: Arc<Segment>,
    /// Where in the segment it is, or its frame's header when `left` is zero.
    at: u64,
    /// Messages left in the frame, and where it ends.
    left: u32,
    frame_end: u64,
    chunk: Bytes,
    chunk_at: u64,
}

impl Cursor {
    /// Goes to an offset between the topic's first and next. Blocks.
    pub(crate) fn seek(shared: &Shared, offset: u64) -> Result<Self, ReadError> {
        let next = shared.next();
        if offset > next {
            return Err(Gap::Beyond { wanted: offset, next }.into());
        }
        let Some(segment) = shared.segment_of(offset) else {
            return Err(Gap::Dropped { wanted: offset, first: shared.first() }.into());
        };
        let (first, at) = segment.floor(offset);
        let mut cursor = Self { next: first, segment, at, left: 0, frame_end: 0, chunk: Bytes::new(), chunk_at: 0 };
        while cursor.next < offset {
            cursor.skip_towards(shared, offset)?;
        }
        Ok(cursor)
    }

    /// Leaves out one frame if it ends at or before `offset`, else one message.
    fn skip_towards(&mut self, shared: &Shared, offset: u64) -> Result<(), ReadError> {
        if self.left == 0 {
            self.enter_frame(shared)?;
            if self.next + u64::from(self.left) <= offset {
                self.next += u64::from(self.left);
                self.at = self.frame_end;
                self.left = 0;
                return Ok(());
            }
        }
        self.take(shared, |_, _| Ok(()))
    }

    /// Bytes of the next message's record, which must be durable. Not verified yet.
    fn upcoming_bytes(&mut self, shared: &Shared) -> Result<u64, ReadError> {
        if self.left == 0 {
            self.enter_frame(shared)?;
        }
        Ok(frame::record_len(&self.bytes(PREFIX_BYTES as u64)?))
    }

    /// Reads the next message, which must be durable.
    pub(crate) fn take<T>(
        &mut self,
        shared: &Shared,
        look: impl FnOnce(Record<'_>, &Bytes) -> Result<T, frame::Fault>,
    ) -> Result<T, ReadError> {
        let len = self.upcoming_bytes(shared)?;
        let at = self.at;
        if at + len > self.frame_end {
            return Err(Damage::new(&self.segment.path, at, "a record is longer than its frame").into());
        }
        let bytes = self.bytes(len)?;
        let record = frame::record(shared.life, &bytes, self.next);
        let found = record.and_then(|record| look(record, &bytes)).map_err(ReadError::fault(&self.segment.path, at))?;
        self.at += len;
        self.left -= 1;
        self.next += 1;
        if self.left == 0 && self.at != self.frame_end {
            return Err(Damage::new(&self.segment.path, self.at, "a frame is longer than its records").into());
        }
        Ok(found)
    }

    /// Reads the header of the frame that starts with `next`, in the next segment if this one is at its end.
    fn enter_frame(&mut self, shared: &Shared) -> Result<(), ReadError> {
        if self.at >= self.segment.end() {
            let following = shared.segment_of(self.next).filter(|segment| segment.base == self.next);
            let Some(following) = following.filter(|segment| segment.end() > 0) else {
                let first = shared.first();
                if self.next < first {
                    return Err(Gap::Dropped { wanted: self.next, first }.into());
                }
                return Err(Damage::new(&self.segment.path, self.at, "it ends before its last message").into());
            };
            self.segment = following;
            self.at = 0;
            self.chunk = Bytes::new();
        }
        let at = self.at;
        let bytes = self.bytes(HEADER_BYTES as u64)?;
        let header = frame::header(shared.life, &bytes).map_err(ReadError::fault(&self.segment.path, at))?;
        let Some(header) = header.filter(|header| header.base == self.next) else {
            return Err(Damage::new(&self.segment.path, at, "the frame that belongs here is missing").into());
        };
        self.frame_end = at + header.frame_bytes();
        self.left = header.count;
        self.at += HEADER_BYTES as u64;
        Ok(())
    }

    /// `len` bytes from here, out of the chunk or a new one.
    fn bytes(&mut self, len: u64) -> Result<Bytes, ReadError> {
        let chunk_end = self.chunk_at + self.chunk.len() as u64;
        if self.at < self.chunk_at || self.at + len > chunk_end {
            let durable = self.segment.end().saturating_sub(self.at);
            let mut chunk = vec![0; len.max(durable.min(CHUNK_BYTES)) as usize];
            let got = segment::read_up_to(&self.segment.file, self.at, &mut chunk);
            let got = got.map_err(ReadError::io(&self.segment.path))?;
            if (got as u64) < len {
                return Err(
                    Damage::new(&self.segment.path, self.at, "the file is shorter than what was written").into()
                );
            }
            chunk.truncate(got);
            self.chunk = chunk.into();
            self.chunk_at = self.at;
        }
        let from = (self.at - self.chunk_at) as usize;
        Ok(self.chunk.slice(from..from + len as usize))
    }
}

/// Reads messages up to the offset `until`, within both bounds. Blocks.
fn read(
    shared: &Shared,
    cursor: &mut Cursor,
    until: u64,
    messages_max: usize,
    bytes_max: usize,
) -> Result<Vec<Delivery>, ReadError> {
    let mut deliveries = Vec::new();
    let mut bytes = 0;
    while cursor.next < until && deliveries.len() < messages_max.max(1) {
        bytes += cursor.upcoming_bytes(shared)?;
        if bytes > bytes_max as u64 && !deliveries.is_empty() {
            break;
        }
        let message = cursor.take(shared, |record, bytes| record.message(bytes))?;
        let mark = Mark::Position { lane: shared.life.incarnation, from: cursor.next - 1, to: cursor.next };
        deliveries.push(Delivery::new(message, Origin::Accepted, mark));
    }
    Ok(deliveries)
}

/// Looks through the backlog for an id. Blocks.
pub(crate) fn find(shared: &Shared, from: u64, id: Uuid) -> Result<Option<Message>, BrokerError> {
    let until = shared.next();
    let mut from = from;
    loop {
        match find_between(shared, from, until, id) {
            // Nothing holds retention back for a search: it goes on where the log starts now.
            Err(ReadError::Gap(Gap::Dropped { first, .. })) => from = first,
            found => return Ok(found?),
        }
    }
}

fn find_between(shared: &Shared, from: u64, until: u64, id: Uuid) -> Result<Option<Message>, ReadError> {
    if from >= until {
        return Ok(None);
    }
    let mut cursor = Cursor::seek(shared, from)?;
    while cursor.next < until {
        let found =
            cursor.take(shared, |record, bytes| (record.id() == id).then(|| record.message(bytes)).transpose())?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// One reader of one topic.
#[derive(Debug)]
pub struct LogSubscription {
    shared: Arc<Shared>,
    name: String,
    /// Where it stands in the log; made on the first receive.
    cursor: Option<Cursor>,
    next: u64,
    tail: watch::Receiver<Tail>,
}

impl LogSubscription {
    pub(crate) fn new(shared: Arc<Shared>, name: &str) -> Self {
        shared.join(name);
        let (next, tail) = (shared.first(), shared.tail.subscribe());
        Self { shared, name: name.to_owned(), cursor: None, next, tail }
    }

    /// Waits until the message at `next` is durable; says how far all is.
    async fn readable(&mut self) -> Result<u64, BrokerError> {
        let next = self.next;
        let tail = self.tail.wait_for(|tail| tail.next > next || tail.ended.is_some()).await;
        let tail = tail.map_err(|_| BrokerError::unavailable("the embedded queue is closed"))?;
        match &tail.ended {
            Some(ended) if tail.next <= next => Err(ended.error()),
            _ => Ok(tail.next),
        }
    }

    /// Which life of the topic this reads.
    pub fn incarnation(&self) -> Uuid {
        self.shared.life.incarnation
    }

    /// Goes to an offset. An offset that is no longer kept is an error that names the gap.
    pub async fn seek(&mut self, offset: u64) -> Result<(), BrokerError> {
        let shared = self.shared.clone();
        let cursor = blocking(move || Ok(Cursor::seek(&shared, offset)?)).await?;
        self.next = cursor.next;
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Settles everything before `offset`, which lets retention drop it.
    pub fn ack_to(&self, offset: u64) -> Result<(), BrokerError> {
        let next = self.shared.next();
        if offset > next {
            return Err(BrokerError::fatal(Gap::Beyond { wanted: offset, next }));
        }
        self.shared.ack(&self.name, offset);
        Ok(())
    }

    /// The only lane's step among the marks; tags and other lanes are not ours.
    fn step(&self, marks: &Marks) -> Option<Step> {
        marks.steps.iter().find(|step| step.lane == self.incarnation()).copied()
    }
}

impl Drop for LogSubscription {
    fn drop(&mut self) {
        self.shared.leave(&self.name);
    }
}

#[async_trait]
impl Subscription for LogSubscription {
    async fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let until = self.readable().await?;
        // The cursor is cloned and put back only when the read is done: a receive that is dropped half way loses nothing.
        let (shared, cursor, next) = (self.shared.clone(), self.cursor.clone(), self.next);
        let (cursor, deliveries) = blocking(move || {
            let mut cursor = cursor.map_or_else(|| Cursor::seek(&shared, next), Ok)?;
            let deliveries = read(&shared, &mut cursor, until, messages_max, bytes_max)?;
            Ok((cursor, deliveries))
        })
        .await?;
        self.next = cursor.next;
        self.cursor = Some(cursor);
        Ok(deliveries)
    }

    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError> {
        self.step(settled).map_or(Ok(()), |step| self.ack_to(step.to))
    }

    async fn nack(&mut self, unsettled: &Marks, _after: Duration) -> Result<(), BrokerError> {
        match self.step(unsettled) {
            Some(step) => self.seek(step.from).await,
            None => Ok(()),
        }
    }
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is going down.
        Err(error) if error.is_cancelled() => Err(BrokerError::unavailable(error)),
        Err(error) => Err(BrokerError::fatal(error)),
    }
}
