//! What can go wrong, as sentences that name the file and what to do.

use std::io;
use std::path::{Path, PathBuf};

use caudal_core::error::BrokerError;

use super::frame::Fault;

/// Why the log was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "another Caudal process{} is using {}; stop it, or give this one its own data_dir",
        holder.as_ref().map(|pid| format!(" ({pid})")).unwrap_or_default(),
        dir.display()
    )]
    InUse { dir: PathBuf, holder: Option<String> },
    /// Bytes that were acknowledged are not what was written. Nothing was changed on disk.
    #[error(
        "{damage}. Acknowledged messages are damaged, so topic {topic} is not opened. Restore {dir} from a copy of this \
         disk, or set it aside under _quarantine (nothing is deleted) to go on with a new, empty topic",
        dir = dir.display()
    )]
    Damaged { topic: String, dir: PathBuf, damage: Damage },
    #[error("the embedded queue is closed")]
    Closed,
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

impl OpenError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { path, cause }
    }
}

impl From<OpenError> for BrokerError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { ref cause, .. } if is_full(cause) => BrokerError::Full(error.into()),
            OpenError::Closed => BrokerError::unavailable(error),
            error => BrokerError::fatal(error),
        }
    }
}

/// Bytes of the log that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at byte {at}: {what}", path.display())]
pub struct Damage {
    pub path: PathBuf,
    pub at: u64,
    pub what: String,
}

impl Damage {
    pub(crate) fn new(path: &Path, at: u64, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), at, what: what.into() }
    }
}

/// An offset that the log does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    #[error("offsets {wanted} to {first} are no longer kept: the topic starts at {first}")]
    Dropped { wanted: u64, first: u64 },
    #[error("offset {wanted} lies beyond the topic's end at {next}: messages that were once read are gone")]
    Beyond { wanted: u64, next: u64 },
}

/// A failed look at the log: the disk, or what it gave.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Damage(#[from] Damage),
    /// Retention was faster than the reader.
    #[error(transparent)]
    Gap(#[from] Gap),
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
}

impl ReadError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| Self::Io { path, cause }
    }

    pub(crate) fn fault(path: &Path, at: u64) -> impl FnOnce(Fault) -> Self {
        let path = path.to_owned();
        move |what| Damage { path, at, what: what.to_owned() }.into()
    }
}

/// No space: of the disk, the quota or the process's file size limit.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
