//! Amazon SNS and SQS.
//!
//! What AWS Lambda needs, which has queues and messages handed to it, is here without the SDK (feature `sqs-records`). Whatever
//! speaks to AWS is in `broker` (feature `sqs`).

#[cfg(feature = "sqs")]
mod broker;
#[cfg_attr(not(feature = "sqs"), allow(dead_code))]
mod entry;
mod envelope;
#[cfg_attr(not(feature = "sqs"), allow(dead_code))]
mod names;
mod record;
mod source;

#[cfg(feature = "sqs")]
pub use broker::SqsBroker;
pub use record::Record;
pub use source::is_consumed_from;
