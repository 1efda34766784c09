pub(crate) mod harness;
pub(crate) mod raw;
mod refused;
mod shards;
