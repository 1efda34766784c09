//! PostgreSQL and SQLite behind Caudal's store ports; and DynamoDB, which keeps confirmations and nothing else.
//!
//! Each store has its own SQL, its own `error.rs` and its own migrations. What both must decide the same way stands here:
//! [`compare`] tells a duplicate from a conflict, [`settle`] turns the outcomes of rows into dead letters and a tally,
//! [`adopting`] says which transaction stands for an adopted row, [`migration`] says which migrations are still to run, [`expiring`] which ids can be among those that retention removed,
//! [`moving`] how a lane is read that goes to another store.

#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod adopting;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod compare;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod cost;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod expiring;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod migration;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod moving;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod settle;

#[cfg(feature = "dynamodb")]
pub mod dynamodb;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;
