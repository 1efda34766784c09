//! Rows as files. Encoders are pure: rows in, bytes out.

#[cfg(feature = "parquet")]
mod columns;
mod csv;
mod encoder;

pub use encoder::{EncodeError, Encoder, Format};
