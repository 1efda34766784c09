//! Reading: one record, a table, a live tail. A request becomes a plan, the plan's rows are rendered as they stream by.

pub(crate) mod answer;
mod asked;
pub(crate) mod bounds;
pub(crate) mod cache;
pub(crate) mod cap;
pub(crate) mod cursor;
#[cfg(feature = "parquet")]
mod files;
pub(crate) mod find;
mod page;
pub(crate) mod query;
pub(crate) mod record;
pub(crate) mod render;
pub(crate) mod resolve;
pub(crate) mod table;
pub(crate) mod tail;
