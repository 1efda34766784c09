//! Conformance suites, test servers and the crash oracle; never shipped.

pub mod broker;
pub mod postgres;
pub mod store;
