//! A model of power loss for tests: what was not synced is gone.

use std::fs::File;
use std::io;
use std::path::Path;

use super::marks::{SyncedFile, read_meta};
use super::segment;

/// Takes from every topic in `dir` what no fdatasync covered, going by `SYNCED`: bytes after its end become zeroes, and
/// later segments are as if they had just been allocated. Run it after the process was killed.
pub fn lose_unsynced(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let topic = entry?.path();
        if !topic.is_dir() {
            continue;
        }
        let Some(life) = read_meta(&topic)? else { continue };
        let synced = match SyncedFile::read(&topic, life) {
            Ok(synced) => synced.unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for base in segment::list(&topic)? {
            let keep = if base == synced.segment { synced.end } else { 0 };
            if base >= synced.segment {
                let file = File::options().write(true).open(segment::path_of(&topic, base))?;
                let size = file.metadata()?.len();
                file.set_len(keep.min(size))?;
                file.set_len(size)?;
            }
        }
    }
    Ok(())
}
