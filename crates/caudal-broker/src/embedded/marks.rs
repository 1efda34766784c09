//! The small files beside the segments: `META` says which life of the topic this is, `SYNCED` how far it is durable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

use super::failpoint;
use super::frame::Life;

const META: &str = "META";
const META_NEW: &str = "META.new";
const SYNCED: &str = "SYNCED";
const SYNCED_BYTES: usize = 64;
const SYNCED_MAGIC: &[u8; 8] = b"cdlsync1";

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Reads the topic's life. `Ok(None)`: there is no META, the topic was never finished.
pub(crate) fn read_meta(dir: &Path) -> io::Result<Option<Life>> {
    let text = match fs::read(dir.join(META)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Compared as a whole with what would be written, so that no byte of it can change unseen.
    let life = std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.lines().nth(1)?.strip_prefix("incarnation ")?.parse().ok())
        .map(Life::new)
        .filter(|life| meta_text(*life).as_bytes() == text);
    life.map(Some)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a META file of this release, or damaged"))
}

/// Writes a new topic's life. After a crash there is a whole META or none.
pub(crate) fn create_meta(dir: &Path) -> io::Result<Life> {
    let life = Life::new(Uuid::now_v7());
    let mut file = File::create(dir.join(META_NEW))?;
    file.write_all(meta_text(life).as_bytes())?;
    file.sync_all()?;
    failpoint::hit("meta.before-rename");
    fs::rename(dir.join(META_NEW), dir.join(META))?;
    failpoint::hit("meta.after-rename");
    sync_dir(dir)?;
    Ok(life)
}

fn meta_text(life: Life) -> String {
    let text = format!("caudal-log 1\nincarnation {}\n", life.incarnation);
    let crc = crc32fast::hash(text.as_bytes());
    format!("{text}crc {crc:08x}\n")
}

/// How far a topic is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Synced {
    /// Base offset of the segment that is written.
    pub segment: u64,
    /// Bytes of it that are durable.
    pub end: u64,
    /// The offset that follows them.
    pub next: u64,
}

/// The `SYNCED` file. It is written after each fdatasync of a segment but not synced itself, except when a segment begins:
/// exact after the process was killed, a lower bound (at least the segment's start) after power was lost.
#[derive(Debug)]
pub(crate) struct SyncedFile {
    file: File,
    life: Life,
}

impl SyncedFile {
    /// Opens it, or creates it durably. The second value is what it says: `None` when it is damaged or was not there.
    pub(crate) fn open(dir: &Path, life: Life) -> io::Result<(Self, Option<Synced>)> {
        let path = dir.join(SYNCED);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = [0; SYNCED_BYTES];
        let is_whole = file.metadata()?.len() == SYNCED_BYTES as u64 && file.read_exact_at(&mut bytes, 0).is_ok();
        Ok((Self { file, life }, is_whole.then(|| decode_synced(life, &bytes)).flatten()))
    }

    /// Only looks.
    #[cfg(feature = "failpoints")]
    pub(crate) fn read(dir: &Path, life: Life) -> io::Result<Option<Synced>> {
        let bytes = fs::read(dir.join(SYNCED))?;
        Ok(<&[u8; SYNCED_BYTES]>::try_from(bytes.as_slice()).ok().and_then(|bytes| decode_synced(life, bytes)))
    }

    pub(crate) fn store(&self, synced: Synced) -> io::Result<()> {
        self.file.write_all_at(&encode_synced(self.life, synced), 0)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn encode_synced(life: Life, synced: Synced) -> [u8; SYNCED_BYTES] {
    let mut bytes = [0; SYNCED_BYTES];
    bytes[..8].copy_from_slice(SYNCED_MAGIC);
    bytes[8..24].copy_from_slice(life.incarnation.as_bytes());
    bytes[24..32].copy_from_slice(&synced.segment.to_le_bytes());
    bytes[32..40].copy_from_slice(&synced.end.to_le_bytes());
    bytes[40..48].copy_from_slice(&synced.next.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..48]);
    bytes[48..52].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode_synced(life: Life, bytes: &[u8; SYNCED_BYTES]) -> Option<Synced> {
    let number = |at: usize| bytes[at..at + 8].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    let synced = Synced { segment: number(24), end: number(32), next: number(40) };
    (encode_synced(life, synced) == *bytes).then_some(synced)
}
