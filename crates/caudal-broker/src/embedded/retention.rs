//! Dropping segments that everybody has settled.

use std::io;
use std::path::PathBuf;

use super::failpoint;
use super::marks::sync_dir;
use super::topic_log::Shared;

/// Deletes the oldest segments while they are settled by every subscription and too old or too many. One at a time, each
/// made durable before the next, so that after a crash the log still starts somewhere and has no hole. An error is a
/// failed fsync; a file that cannot be deleted is left for the next sweep.
pub(crate) fn sweep(shared: &Shared, now: i64) -> io::Result<()> {
    while let Some(path) = victim(shared, now) {
        failpoint::hit("unlink.before");
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a settled segment could not be deleted");
                return Ok(());
            }
        }
        failpoint::hit("unlink.after");
        sync_dir(&shared.dir)?;
        failpoint::hit("unlink.after-dir-sync");
        // Readers that are in it keep the open file.
        shared.change_segments(|segments| drop(segments.remove(0)));
        tracing::debug!(file = %path.display(), "dropped a settled segment");
    }
    Ok(())
}

/// The oldest segment, if it may go. The one that is written never does.
fn victim(shared: &Shared, now: i64) -> Option<PathBuf> {
    let settled = shared.settled()?;
    let config = &shared.config;
    shared.with_segments(|segments| {
        let [oldest, following, ..] = segments else { return None };
        let age = now.saturating_sub(oldest.newest()).max(0) as u64;
        let bytes: u64 = segments.iter().map(|segment| segment.end()).sum();
        let is_due = age >= config.retention_age.as_micros() as u64 || bytes > config.retention_bytes;
        (following.base <= settled && is_due).then(|| oldest.path.clone())
    })
}
