//! Opening what a process left behind, however it ended.
//!
//! Three facts decide. Every segment but the last was durable as a whole before the next was created. In the last one,
//! what `SYNCED` covers was acknowledged. Frames are written only after the one before is durable, so at most one frame
//! is torn and nothing follows it. Hence: a fault in an earlier segment, below `SYNCED`, or with a frame after it is
//! damage, and the topic stays closed. Any other is a frame that nobody was told of: it is cut.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::error::{Damage, OpenError, ReadError, is_full};
use super::failpoint;
use super::frame::{self, HEADER_BYTES, Life, MAGIC};
use super::marks::{Synced, SyncedFile, create_meta, read_meta, sync_dir};
use super::segment::{self, Segment, Verify, Walked, walk};

const CHUNK_BYTES: usize = 1024 * 1024;

/// A topic's log, ready to be written on.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub life: Life,
    pub segments: Vec<Arc<Segment>>,
    pub synced: Synced,
    pub synced_file: SyncedFile,
    /// Allocated bytes of the last segment.
    pub size: u64,
}

/// Opens or creates the log in `dir`. On [`OpenError::Damaged`] nothing in it was changed.
pub(crate) fn recover(topic: &str, dir: &Path, segment_bytes: u64, verify: Verify) -> Result<Recovered, OpenError> {
    let recovery = Recovery { topic, dir, segment_bytes, verify };
    std::fs::create_dir_all(dir).map_err(OpenError::io(dir))?;
    let bases = segment::list(dir).map_err(OpenError::io(dir))?;
    let life = recovery.life(!bases.is_empty())?;
    let (synced_file, synced) = SyncedFile::open(dir, life).map_err(OpenError::io(dir))?;
    if bases.is_empty() {
        return recovery.fresh(life, synced_file, synced);
    }
    let segments = bases.iter().map(|base| Segment::open(dir, *base).map(Arc::new).map_err(OpenError::io(dir)));
    let segments = segments.collect::<Result<Vec<_>, _>>()?;
    for pair in segments.windows(2) {
        recovery.check_sealed(life, &pair[0], pair[1].base)?;
    }
    recovery.last(life, segments, synced_file, synced)
}

struct Recovery<'a> {
    topic: &'a str,
    dir: &'a Path,
    segment_bytes: u64,
    verify: Verify,
}

impl Recovery<'_> {
    fn damaged(&self, damage: Damage) -> OpenError {
        OpenError::Damaged { topic: self.topic.to_owned(), dir: self.dir.to_owned(), damage }
    }

    fn failed(&self, error: ReadError) -> OpenError {
        match error {
            ReadError::Damage(damage) => self.damaged(damage),
            ReadError::Io { path, cause } => OpenError::Io { path, cause },
            ReadError::Gap(gap) => OpenError::io(self.dir)(io::Error::other(gap)),
        }
    }

    /// Reads META, or makes it where the topic is new or was not finished.
    fn life(&self, has_segments: bool) -> Result<Life, OpenError> {
        let path = self.dir.join("META");
        match read_meta(self.dir) {
            Ok(Some(life)) => Ok(life),
            Ok(None) if has_segments => {
                Err(self.damaged(Damage::new(&path, 0, "it is missing, but segments are there")))
            }
            Ok(None) => {
                let life = create_meta(self.dir).map_err(OpenError::io(&path))?;
                let parent = self.dir.parent().unwrap_or(self.dir);
                sync_dir(parent).map_err(OpenError::io(parent))?;
                Ok(life)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(self.damaged(Damage::new(&path, 0, error.to_string())))
            }
            Err(error) => Err(OpenError::Io { path, cause: error }),
        }
    }

    /// No segment: a new topic, or one whose creation was cut short.
    fn fresh(&self, life: Life, synced_file: SyncedFile, synced: Option<Synced>) -> Result<Recovered, OpenError> {
        if let Some(synced) = synced.filter(|synced| *synced != Synced::default()) {
            let path = segment::path_of(self.dir, synced.segment);
            return Err(self.damaged(Damage::new(&path, 0, "the segment is missing, but SYNCED names it")));
        }
        let synced = Synced::default();
        synced_file.store(synced).and_then(|()| synced_file.sync()).map_err(OpenError::io(self.dir))?;
        let segment = create_segment(self.dir, 0, self.segment_bytes).map_err(OpenError::io(self.dir))?;
        Ok(Recovered { life, segments: vec![Arc::new(segment)], synced, synced_file, size: self.segment_bytes })
    }

    /// An earlier segment must lead up to the next one without a fault.
    fn check_sealed(&self, life: Life, segment: &Segment, next_base: u64) -> Result<(), OpenError> {
        let walked = walk(segment, life, Some(next_base), self.verify).map_err(|error| self.failed(error))?;
        if let Some(fault) = walked.fault {
            return Err(self.damaged(Damage::new(&segment.path, walked.end, fault)));
        }
        if walked.next != next_base {
            let what = format!("it ends at offset {}, but the next segment starts at {next_base}", walked.next);
            return Err(self.damaged(Damage::new(&segment.path, walked.end, what)));
        }
        Ok(())
    }

    fn last(
        &self,
        life: Life,
        segments: Vec<Arc<Segment>>,
        synced_file: SyncedFile,
        synced: Option<Synced>,
    ) -> Result<Recovered, OpenError> {
        let last = &segments[segments.len() - 1];
        let walked = walk(last, life, None, Verify::Records).map_err(|error| self.failed(error))?;
        self.check_against_synced(last, &walked, synced)?;
        let dirty = dirty_until(&last.file, walked.end).map_err(OpenError::io(&last.path))?;
        if let Some(dirty) = dirty {
            self.check_torn(life, last, &walked, dirty, synced)?;
            cut(&last.file, walked.end).map_err(OpenError::io(&last.path))?;
            failpoint::hit("recover.after-cut");
            let (file, at, bytes) = (last.path.display(), walked.end, dirty - walked.end);
            tracing::warn!(%file, at, bytes, "cut a torn frame that was never acknowledged");
        }
        let durable = synced.filter(|synced| synced.segment == last.base).map_or(0, |synced| synced.end);
        make_durable(&last.file, durable, walked.end).map_err(OpenError::io(&last.path))?;
        failpoint::hit("recover.after-sync");
        let size = self.reallocate(last)?;
        sync_dir(self.dir).map_err(OpenError::io(self.dir))?;
        let synced = Synced { segment: last.base, end: walked.end, next: walked.next };
        synced_file.store(synced).and_then(|()| synced_file.sync()).map_err(OpenError::io(self.dir))?;
        Ok(Recovered { life, segments, synced, synced_file, size })
    }

    /// Everything that `SYNCED` covers must be there.
    fn check_against_synced(&self, last: &Segment, walked: &Walked, synced: Option<Synced>) -> Result<(), OpenError> {
        let damage = match synced {
            Some(synced) if synced.segment > last.base => {
                let path = segment::path_of(self.dir, synced.segment);
                Damage::new(&path, 0, "the segment is missing, but SYNCED names it")
            }
            Some(synced) if synced.segment == last.base && walked.end < synced.end => {
                let fault = walked.fault.unwrap_or("zeroes where a frame was acknowledged");
                Damage::new(&last.path, walked.end, fault)
            }
            Some(synced) if synced.segment == last.base && walked.end == synced.end && walked.next != synced.next => {
                Damage::new(&last.path, walked.end, "SYNCED has another offset for its end")
            }
            None => {
                let Some(fault) = walked.fault else {
                    tracing::warn!(topic = self.topic, "SYNCED is missing or damaged; the log is whole and is used");
                    return Ok(());
                };
                Damage::new(&last.path, walked.end, format!("{fault} (SYNCED cannot tell if it was acknowledged)"))
            }
            Some(_) => return Ok(()),
        };
        Err(self.damaged(damage))
    }

    /// A frame behind the fault proves that what is damaged was durable once.
    fn check_torn(
        &self,
        life: Life,
        last: &Segment,
        walked: &Walked,
        dirty: u64,
        synced: Option<Synced>,
    ) -> Result<(), OpenError> {
        let behind = frame_between(&last.file, life, walked.end + 1, dirty).map_err(OpenError::io(&last.path))?;
        let fault = walked.fault.unwrap_or("zeroes before written bytes");
        let what = match behind {
            Some(at) => format!("{fault}, and a whole frame follows at byte {at}"),
            None if synced.is_none() => format!("{fault} (SYNCED cannot tell if it was acknowledged)"),
            None => return Ok(()),
        };
        Err(self.damaged(Damage::new(&last.path, walked.end, what)))
    }

    /// Brings the last segment to its size again: creation, a cut or a copy that left out zeroes may have taken some of
    /// it. Without space it stays as it is.
    fn reallocate(&self, last: &Segment) -> Result<u64, OpenError> {
        let size = last.file.metadata().map_err(OpenError::io(&last.path))?.len();
        let wanted = size.max(self.segment_bytes);
        match segment::allocate(&last.file, wanted).and_then(|()| last.file.sync_all()) {
            Ok(()) => Ok(wanted),
            Err(error) if is_full(&error) => Ok(size),
            Err(cause) => Err(OpenError::Io { path: last.path.clone(), cause }),
        }
    }
}

/// Creates an empty segment so that after power loss it is there with its size, or not at all.
pub(crate) fn create_segment(dir: &Path, base: u64, size: u64) -> io::Result<Segment> {
    let path = segment::path_of(dir, base);
    let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    failpoint::hit("segment.after-create");
    segment::allocate(&file, size)?;
    failpoint::hit("segment.after-fallocate");
    file.sync_all()?;
    sync_dir(dir)?;
    failpoint::hit("segment.after-dir-sync");
    Ok(Segment::new(base, path, file))
}

/// End of the last byte at or after `from` that is not zero.
fn dirty_until(file: &File, from: u64) -> io::Result<Option<u64>> {
    let zeroes = vec![0; CHUNK_BYTES];
    let mut chunk = vec![0; CHUNK_BYTES];
    let (mut at, mut dirty) = (from, None);
    loop {
        let got = segment::read_up_to(file, at, &mut chunk)?;
        if got == 0 {
            return Ok(dirty);
        }
        // The comparison of slices is fast where it matters, on zeroes; the search runs on torn bytes only.
        if chunk[..got] != zeroes[..got] {
            dirty = chunk[..got].iter().rposition(|byte| *byte != 0).map(|last| at + last as u64 + 1);
        }
        at += got as u64;
    }
}

/// Position of a frame header that verifies, looked for at every byte.
fn frame_between(file: &File, life: Life, from: u64, to: u64) -> io::Result<Option<u64>> {
    let mut chunk = vec![0; CHUNK_BYTES + HEADER_BYTES];
    let mut at = from;
    while at < to {
        let got = segment::read_up_to(file, at, &mut chunk)?;
        let found = chunk[..got].windows(HEADER_BYTES).position(|window| {
            window[0] == MAGIC[0] && window.starts_with(&MAGIC) && matches!(frame::header(life, window), Ok(Some(_)))
        });
        if let Some(found) = found {
            return Ok(Some(at + found as u64));
        }
        at += CHUNK_BYTES as u64;
    }
    Ok(None)
}

/// Nothing is left after `end`, durably. The caller allocates anew.
fn cut(file: &File, end: u64) -> io::Result<()> {
    file.set_len(end)?;
    file.sync_all()
}

/// Frames that are whole but not known to be durable become so before anybody reads them: else a reader could settle an
/// offset that power loss then gives to another message. They are written again first, because after a failed fsync the
/// page cache holds bytes that it takes for clean and that the disk never got.
fn make_durable(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < to {
        let len = (to - at).min(CHUNK_BYTES as u64) as usize;
        file.read_exact_at(&mut chunk[..len], at)?;
        file.write_all_at(&chunk[..len], at)?;
        at += len as u64;
    }
    if from < to { file.sync_data() } else { Ok(()) }
}
