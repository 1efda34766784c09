//! Brokers behind `caudal_core::ports`: one file or folder each, one feature each. They carry messages; they never look
//! into a body, never touch the store and hold no retry policy.

#[cfg(feature = "embedded")]
pub mod embedded;
