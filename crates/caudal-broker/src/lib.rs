//! Brokers behind `caudal_core::ports`: one file or folder each, one feature each. They carry messages; they never look
//! into a body, never touch the store and hold no retry policy.

#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "sqs-records")]
pub mod sqs;

#[cfg(any(feature = "nats", feature = "rabbitmq", feature = "redis", feature = "sqs"))]
mod current;
#[cfg(feature = "remote")]
mod remote;
#[cfg(feature = "wire")]
mod wire;

#[cfg(feature = "remote")]
pub use remote::{Place, RemoteConfig};
