//! The one thread that writes a topic: group commit.
//!
//! It takes what waits, up to a frame's bounds, writes it as one frame with one write and one fdatasync, notes the new end
//! in `SYNCED`, shows it to readers and then answers every publisher. While the disk works, the next group gathers.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Instant, SystemTime};

use caudal_core::message::Message;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::error::is_full;
use super::failpoint::{self, Call};
use super::frame::{FrameBuilder, HEADER_BYTES, Header};
use super::marks::{Synced, SyncedFile, sync_dir};
use super::recover::{Recovered, create_segment};
use super::segment::{self, Segment};
use super::topic_log::{Ended, Shared};
use super::{FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, Lock, retention};

/// A larger frame buffer than this is given back after use.
const BUFFER_KEEP_BYTES: usize = 2 * FRAME_BYTES_MAX;

/// Messages of one publish that wait to be written.
#[derive(Debug)]
pub(crate) struct Request {
    pub messages: Vec<Message>,
    pub bytes: usize,
    pub done: oneshot::Sender<Result<(), Refusal>>,
    /// Given back to the queue when the request is answered.
    pub room: OwnedSemaphorePermit,
}

/// Why a publish was not taken.
#[derive(Debug, Clone)]
pub(crate) enum Refusal {
    /// No space; the log is as before and goes on.
    Full(Arc<str>),
    /// The log failed for good; whether the messages are in it is unknown.
    Failed(Arc<str>),
}

#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    requests: Receiver<Request>,
    active: Arc<Segment>,
    /// Bytes written to the active segment, and bytes it may take.
    end: u64,
    size: u64,
    next: u64,
    synced_file: SyncedFile,
    frame: Vec<u8>,
    /// Held until the last write is done.
    _lock: Arc<Lock>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, recovered: Recovered, requests: Receiver<Request>, lock: Arc<Lock>) -> Self {
        let active = recovered.segments[recovered.segments.len() - 1].clone();
        let Recovered { synced, synced_file, size, .. } = recovered;
        let (end, next) = (synced.end, synced.next);
        Self { shared, requests, active, end, size, next, synced_file, frame: Vec::new(), _lock: lock }
    }

    /// Runs until the queue is closed and empty, or the disk fails.
    pub(crate) fn run(mut self) {
        let every = self.shared.config.retention_every;
        let mut swept = Instant::now();
        loop {
            match self.requests.recv_timeout(every) {
                Ok(first) => {
                    let group = self.gather(first);
                    if let Err(reason) = self.commit(group) {
                        return self.fail(reason);
                    }
                }
                // Idle: no topic keeps memory for a burst that is over.
                Err(RecvTimeoutError::Timeout) => self.frame = Vec::new(),
                Err(RecvTimeoutError::Disconnected) => return self.shared.end(Ended::Closed),
            }
            if swept.elapsed() >= every {
                if let Err(error) = retention::sweep(&self.shared, unix_micros()) {
                    let reason = format!("retention could not sync {}: {error}", self.shared.dir.display());
                    return self.fail(reason.into());
                }
                swept = Instant::now();
            }
        }
    }

    /// What waits, up to a frame's bounds; the last request may go over them once.
    fn gather(&self, first: Request) -> Vec<Request> {
        let (mut bytes, mut messages) = (first.bytes, first.messages.len());
        let mut group = vec![first];
        while bytes < FRAME_BYTES_MAX && messages < FRAME_MESSAGES_MAX {
            let Ok(request) = self.requests.try_recv() else { break };
            bytes += request.bytes;
            messages += request.messages.len();
            group.push(request);
        }
        group
    }

    /// Writes a group and answers it. `Err` says that the log failed.
    fn commit(&mut self, group: Vec<Request>) -> Result<(), Arc<str>> {
        let (messages, waiting): (Vec<_>, Vec<_>) = group.into_iter().map(|r| (r.messages, (r.done, r.room))).unzip();
        let answer = |waiting: Vec<(oneshot::Sender<_>, OwnedSemaphorePermit)>, result: Result<(), Refusal>| {
            waiting.into_iter().for_each(|(done, room)| {
                drop(room);
                let _ = done.send(result.clone());
            });
        };
        if failpoint::planted("ack-before-fsync") {
            answer(waiting, Ok(()));
            // Long enough for a publisher to believe it.
            std::thread::sleep(std::time::Duration::from_millis(2));
            return self.write(&messages).map_err(|error| error.to_string().into());
        }
        match self.write(&messages) {
            Ok(()) => answer(waiting, Ok(())),
            Err(WriteError::Full(reason)) => {
                tracing::warn!(topic = %self.shared.topic, %reason, "no space for the embedded queue");
                answer(waiting, Err(Refusal::Full(reason.to_string().into())));
            }
            Err(WriteError::Fatal(reason)) => {
                let reason: Arc<str> = reason.into();
                self.shared.end(Ended::Failed(reason.clone()));
                answer(waiting, Err(Refusal::Failed(reason.clone())));
                return Err(reason);
            }
        }
        Ok(())
    }

    /// One frame: encoded, written, durable, noted, shown.
    fn write(&mut self, groups: &[Vec<Message>]) -> Result<(), WriteError> {
        let mut builder = FrameBuilder::new(self.shared.life, &mut self.frame, self.next);
        groups.iter().flatten().for_each(|message| builder.push(message));
        let header = builder.finish(unix_micros());
        self.make_room(header.frame_bytes())?;
        failpoint::hit("write.before");
        self.write_frame()?;
        failpoint::hit("write.after");
        failpoint::injected(Call::Fsync).and_then(|()| self.active.file.sync_data()).map_err(|error| {
            WriteError::Fatal(format!("fdatasync of {} failed: {error}", self.active.path.display()))
        })?;
        failpoint::hit("fdatasync.after");
        self.advance(&header)?;
        failpoint::hit("synced.after");
        if self.frame.capacity() > BUFFER_KEEP_BYTES {
            self.frame = Vec::new();
        }
        Ok(())
    }

    fn write_frame(&mut self) -> Result<(), WriteError> {
        let (file, at) = (&self.active.file, self.end);
        let written = match failpoint::injected(Call::Write) {
            Ok(()) => file.write_all_at(&self.frame, at),
            Err(error) => file.write_all_at(&self.frame[..self.frame.len() / 2], at).and(Err(error)),
        };
        match written {
            Ok(()) => Ok(()),
            Err(error) if is_full(&error) => Err(self.undo(error)),
            Err(error) => Err(WriteError::Fatal(format!("writing {} failed: {error}", self.active.path.display()))),
        }
    }

    /// A frame that found no space is taken back, so that the log is proven to be as before; the next one goes elsewhere.
    fn undo(&mut self, cause: io::Error) -> WriteError {
        let file = &self.active.file;
        let is_undone = file.set_len(self.end).and_then(|()| file.metadata()).is_ok_and(|meta| meta.len() == self.end);
        if !is_undone {
            return WriteError::Fatal(format!("{} is full and could not be cut back", self.active.path.display()));
        }
        self.size = self.end;
        WriteError::Full(cause)
    }

    /// Notes the frame as durable and shows it to readers.
    fn advance(&mut self, header: &Header) -> Result<(), WriteError> {
        let at = self.end;
        self.end += header.frame_bytes();
        self.next = header.next();
        self.store_synced()?;
        self.active.extend(at, header);
        self.shared.tail.send_modify(|tail| tail.next = self.next);
        Ok(())
    }

    fn store_synced(&self) -> Result<(), WriteError> {
        let synced = Synced { segment: self.active.base, end: self.end, next: self.next };
        self.synced_file.store(synced).map_err(|error| {
            WriteError::Fatal(format!("writing SYNCED in {} failed: {error}", self.shared.dir.display()))
        })
    }

    /// Makes sure that the frame fits: in what is allocated, in a larger first frame's own segment, or in a new segment.
    fn make_room(&mut self, bytes: u64) -> Result<(), WriteError> {
        debug_assert!(bytes > HEADER_BYTES as u64);
        if self.end + bytes <= self.size {
            return Ok(());
        }
        let size = bytes.max(self.shared.config.segment_bytes);
        if self.end == 0 {
            let file = &self.active.file;
            segment::allocate(file, size).map_err(|error| self.not_created(error))?;
            file.sync_all().map_err(|error| self.not_created_fatal(&error))?;
        } else {
            self.roll(size)?;
        }
        self.size = size;
        Ok(())
    }

    /// Starts a new segment. The one before is durable as a whole by now.
    fn roll(&mut self, size: u64) -> Result<(), WriteError> {
        failpoint::hit("roll.before");
        let segment = match create_segment(&self.shared.dir, self.next, size) {
            Ok(segment) => Arc::new(segment),
            Err(error) if is_full(&error) => {
                // Must not come back after power loss: smaller frames may go on in the segment before it.
                let path = segment::path_of(&self.shared.dir, self.next);
                std::fs::remove_file(path)
                    .and_then(|()| sync_dir(&self.shared.dir))
                    .map_err(|error| self.not_created_fatal(&error))?;
                return Err(WriteError::Full(error));
            }
            Err(error) => return Err(self.not_created_fatal(&error)),
        };
        self.active = segment.clone();
        self.end = 0;
        self.store_synced()?;
        self.synced_file.sync().map_err(|error| self.not_created_fatal(&error))?;
        self.shared.change_segments(|segments| segments.push(segment));
        failpoint::hit("roll.after");
        Ok(())
    }

    fn not_created(&self, error: io::Error) -> WriteError {
        if is_full(&error) { WriteError::Full(error) } else { self.not_created_fatal(&error) }
    }

    fn not_created_fatal(&self, error: &io::Error) -> WriteError {
        WriteError::Fatal(format!("making a segment in {} failed: {error}", self.shared.dir.display()))
    }

    /// Fail-stop: nothing is retried. Everybody who waits is told; later publishes find the queue closed.
    fn fail(self, reason: Arc<str>) {
        self.shared.end(Ended::Failed(reason.clone()));
        while let Ok(request) = self.requests.try_recv() {
            let _ = request.done.send(Err(Refusal::Failed(reason.clone())));
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("no space: {0}")]
    Full(#[source] io::Error),
    #[error("{0}")]
    Fatal(String),
}

/// The wall clock, for frames and for the age of segments.
fn unix_micros() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}
