//! Who confirms a transaction, behind the port [`caudal_core::confirm::ports::Confirmer`]: an HTTP endpoint, a
//! program, a function on AWS Lambda.
//!
//! A confirmer makes one call and says what came of it. Whether and when there is another one is the engine's business: nothing
//! here repeats a request that may have left.

pub mod command;
mod fill;
pub mod http;
#[cfg(feature = "lambda")]
pub mod lambda;

/// What is kept of an answer unless said otherwise.
const BODY_BYTES_MAX: usize = 64 * 1024;
