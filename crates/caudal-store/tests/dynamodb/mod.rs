mod moving;
pub(crate) mod raw;
mod refused;
mod shards;
