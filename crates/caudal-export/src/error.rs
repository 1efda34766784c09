use caudal_core::error::StoreError;

use crate::encoder::EncodeError;

/// Why an export ended early. What the manifests list is untouched: the next run goes on there.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A file could not be read or written. Whether a manifest that was being written is there is unknown; the next run looks.
    #[error("cannot {what} {path}: {cause}")]
    Place {
        what: &'static str,
        path: String,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Somebody must act; the text says how.
    #[error("{0}")]
    Setup(String),
    #[error("another process is exporting this table to this place")]
    Busy,
    /// Two processes exported at once, by losing the lock or for want of one, and the other was first. This one's files are removed.
    #[error("another export of this table to this place was first; run this one again")]
    Overtaken,
}
