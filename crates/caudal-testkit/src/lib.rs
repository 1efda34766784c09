//! Conformance suites, test servers and the crash oracle; never shipped.

pub mod broker;
