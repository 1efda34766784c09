//! Which migrations are still to run. Each store keeps the applied ones in `_caudal_migrations(name, checksum, applied_at)`
//! and runs each in a transaction of its own, so that a kill leaves all of one or nothing of it.

use std::fmt::Write;

use caudal_core::error::StoreError;
use sha2::{Digest, Sha256};

/// One step, embedded in the binary. Never edited once released: its checksum is compared with the applied one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Migration {
    pub(crate) name: &'static str,
    pub(crate) sql: &'static str,
}

impl Migration {
    pub(crate) fn checksum(&self) -> String {
        let mut out = String::with_capacity(64);
        for byte in Sha256::digest(self.sql.as_bytes()) {
            let _ = write!(out, "{byte:02x}");
        }
        out
    }

    /// Whether this one is already applied; fails when what was applied under its name was something else.
    pub(crate) fn is_applied(&self, applied: Option<&str>) -> Result<bool, StoreError> {
        match applied {
            None => Ok(false),
            Some(checksum) if checksum == self.checksum() => Ok(true),
            Some(_) => Err(StoreError::Setup(format!(
                "migration {} was applied with other content than this release holds; use the release that made the \
                 database, or restore it from a backup",
                self.name
            ))),
        }
    }
}

/// What is wrong where the migrated secret is not.
pub(crate) const NO_SECRET: &str = "table _secrets lacks the row 'cursor': restore it, or insert another long random text under that name (pages \
     that are being read then begin again)";
