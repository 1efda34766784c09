//! One process at a time in a directory.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::error::OpenError;

/// The directory's lock: the operating system gives it back when this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock or says at once who has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.join("LOCK");
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(OpenError::io(&path))?;
        match file.try_lock() {
            Ok(()) => {
                // For the sentence above only; it may fail.
                let _ = file.set_len(0).and_then(|()| write!(file, "pid {}", std::process::id()));
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let is_known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
                Err(OpenError::InUse { dir: dir.to_owned(), holder: is_known.then_some(holder) })
            }
            Err(TryLockError::Error(cause)) => Err(OpenError::Io { path, cause }),
        }
    }
}
