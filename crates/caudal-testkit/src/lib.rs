//! Conformance suites, test servers and the crash oracle; never shipped.

pub mod api;
pub mod broker;
pub mod chance;
pub mod confirm;
mod daemon;
pub mod disk;
pub mod emulator;
pub mod endpoint;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lambda;
pub mod load;
pub mod localstack;
pub mod moto;
pub mod nats;
pub mod oracle;
pub mod postgres;
pub mod rabbitmq;
pub mod redis;
pub mod server;
pub mod step_functions;
pub mod store;
