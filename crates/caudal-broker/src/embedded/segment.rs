//! One file of the log.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;

use super::error::ReadError;
use super::failpoint::{self, Call};
use super::frame::{self, Fault, HEADER_BYTES, Header, Life};

/// A place in the index for every so many bytes: a seek reads at most this much in vain (or one frame).
const INDEX_STEP_BYTES: u64 = 64 * 1024;
const ZEROES_BYTES: usize = 1024 * 1024;

/// A segment whose frames are known up to `end`.
#[derive(Debug)]
pub(crate) struct Segment {
    pub base: u64,
    pub path: PathBuf,
    pub file: File,
    /// Bytes that are durable; readers stop here.
    end: AtomicU64,
    /// When its newest frame was written: Unix microseconds.
    newest: AtomicI64,
    /// Offsets of frames and where they start, ascending.
    index: Mutex<Vec<(u64, u64)>>,
}

impl Segment {
    pub(crate) fn new(base: u64, path: PathBuf, file: File) -> Self {
        let index = Mutex::new(vec![(base, 0)]);
        Self { base, path, file, end: AtomicU64::new(0), newest: AtomicI64::new(0), index }
    }

    pub(crate) fn open(dir: &Path, base: u64) -> io::Result<Self> {
        let path = path_of(dir, base);
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self::new(base, path, file))
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    pub(crate) fn newest(&self) -> i64 {
        self.newest.load(Ordering::Relaxed)
    }

    /// Takes in a frame at `at` that is durable now.
    pub(crate) fn extend(&self, at: u64, header: &Header) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if index.last().is_none_or(|(_, last)| at >= last + INDEX_STEP_BYTES) {
            index.push((header.base, at));
        }
        self.newest.fetch_max(header.written_at, Ordering::Relaxed);
        self.end.store(at + header.frame_bytes(), Ordering::Release);
    }

    /// Start of a frame at or before the offset: its first offset and its position.
    pub(crate) fn floor(&self, offset: u64) -> (u64, u64) {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let after = index.partition_point(|(first, _)| *first <= offset);
        index[after.saturating_sub(1)]
    }
}

pub(crate) fn path_of(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Base offsets of the segments in a directory, ascending.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|base| base.len() == 20);
        bases.extend(base.and_then(|base| base.parse::<u64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Gives the file `size` bytes of disk that read as zeroes, so that writing into it changes no size and cannot meet a full
/// disk. Where the file system cannot, zeroes are written.
pub(crate) fn allocate(file: &File, size: u64) -> io::Result<()> {
    failpoint::injected(Call::Fallocate)?;
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, size) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let from = file.metadata()?.len();
            zero(file, from, size)
        }
        Err(error) => Err(error.into()),
    }
}

fn zero(file: &File, from: u64, to: u64) -> io::Result<()> {
    let zeroes = vec![0; ZEROES_BYTES];
    let mut at = from;
    while at < to {
        let len = (to - at).min(ZEROES_BYTES as u64);
        file.write_all_at(&zeroes[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

/// Reads exactly `len` bytes, or fewer where the file ends.
pub(crate) fn read_up_to(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// How closely segments are looked at when they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// Frame headers, and that one follows from the other.
    Headers,
    /// Every record too.
    Records,
}

/// Where a walk through a segment ended.
#[derive(Debug)]
pub(crate) struct Walked {
    pub end: u64,
    pub next: u64,
    /// What is wrong with the bytes at `end`; `None` when they are zeroes, or `until` was reached.
    pub fault: Option<Fault>,
}

/// Goes through the frames from the start of the segment, taking them in, until `until`, zeroes or a fault.
pub(crate) fn walk(segment: &Segment, life: Life, until: Option<u64>, verify: Verify) -> Result<Walked, ReadError> {
    let mut walked = Walked { end: 0, next: segment.base, fault: None };
    let size = segment.file.metadata().map_err(ReadError::io(&segment.path))?.len();
    let mut payload = Vec::new();
    while until.is_none_or(|until| walked.next < until) {
        let mut bytes = [0; HEADER_BYTES];
        let got = read_up_to(&segment.file, walked.end, &mut bytes).map_err(ReadError::io(&segment.path))?;
        let header = match frame::header(life, &bytes[..got]) {
            Ok(Some(header)) if header.base == walked.next => header,
            Ok(Some(_)) => return Ok(Walked { fault: Some("a frame does not follow from the one before"), ..walked }),
            Ok(None) => return Ok(walked),
            Err(fault) => return Ok(Walked { fault: Some(fault), ..walked }),
        };
        if walked.end + header.frame_bytes() > size {
            return Ok(Walked { fault: Some("the file ends within a frame"), ..walked });
        }
        if let Some(fault) = frame_fault(segment, life, walked.end, &header, verify, &mut payload)? {
            return Ok(Walked { fault: Some(fault), ..walked });
        }
        segment.extend(walked.end, &header);
        walked.end += header.frame_bytes();
        walked.next = header.next();
    }
    Ok(walked)
}

/// What is wrong with the records of the frame at `at`, if anything.
fn frame_fault(
    segment: &Segment,
    life: Life,
    at: u64,
    header: &Header,
    verify: Verify,
    payload: &mut Vec<u8>,
) -> Result<Option<Fault>, ReadError> {
    if verify == Verify::Headers {
        return Ok(None);
    }
    payload.resize(header.payload as usize, 0);
    let from = at + HEADER_BYTES as u64;
    segment.file.read_exact_at(payload, from).map_err(ReadError::io(&segment.path))?;
    let mut rest = payload.as_slice();
    for offset in header.base..header.next() {
        let len = if rest.len() < frame::PREFIX_BYTES { u64::MAX } else { frame::record_len(rest) };
        if len > rest.len() as u64 {
            return Ok(Some("a record is longer than its frame"));
        }
        let (record, after) = rest.split_at(len as usize);
        if let Err(fault) = frame::record(life, record, offset) {
            return Ok(Some(fault));
        }
        rest = after;
    }
    Ok((!rest.is_empty()).then_some("a frame is longer than its records"))
}
