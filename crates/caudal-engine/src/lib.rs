//! What Caudal does with a message, in ports' words: ingest, consume, account, redrive; and the start and drain of the tasks
//! that do it. No SQL, no HTTP types, no environment, no vendor names.
//!
//! A message by HTTP takes three hops: handler → [`ingest`] → the store's `append`. By broker, [`consume`] replaces the
//! first and acknowledges after the third.

pub mod account;
mod building;
pub mod clock;
pub mod confirm;
pub mod consume;
pub mod deliver;
pub mod engine;
pub mod error;
mod evolve;
mod found;
mod group;
pub mod ingest;
pub mod intake;
mod look;
pub mod metrics;
mod pending;
mod plant;
mod progress;
pub mod receipt;
pub mod redrive;
mod retain;
mod settle;
pub mod topic;
mod waiters;

pub use deliver::{Delivered, Pushed};
pub use engine::{Engine, EngineConfig};
pub use error::AcceptError;
pub use intake::{Intake, Report, Verdict, VerdictState};
