//! Rows as files.
//!
//! [`Encoder`] is pure: rows in, bytes out, for one file or answer. [`Export`] puts what a topic has gained since the last time into a
//! directory or an S3 bucket, and says in a [`Manifest`] what it put there.

#[cfg(feature = "s3")]
mod bucket;
#[cfg(feature = "parquet")]
mod columns;
mod csv;
mod encoder;
mod error;
mod export;
mod files;
mod manifest;
mod place;

pub use encoder::{EncodeError, Encoder, Format};
pub use error::ExportError;
pub use export::{Export, Outcome};
pub use manifest::{Manifest, ManifestColumn, ManifestFile, Partition};
