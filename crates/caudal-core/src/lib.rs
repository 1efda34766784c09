//! Caudal's words as types, its pure state machines and its ports.
//!
//! Nothing here does I/O, reads a clock, knows SQL, HTTP or a vendor. Everything here can be proofread and property-tested
//! on its own. The path of one message through this crate:
//!
//! * [`json`] scans the bytes once, strictly;
//! * [`schema`] says which columns a topic has;
//! * [`encode`] checks the scanned record against them and writes it as one row of a [`row::RowBatch`];
//! * [`ports`] hands that batch to a store, and [`outcome`] says how each record ended.

pub mod cloud_events;
pub mod confirm;
pub mod dead_letter;
pub mod encode;
pub mod error;
pub mod json;
pub mod json_schema;
pub mod limits;
pub mod message;
pub mod outcome;
pub mod plan;
pub mod ports;
pub mod receipt;
pub mod rejection;
pub mod relations;
pub mod row;
pub mod schema;
pub mod sql;
pub mod time;
pub mod topic;
