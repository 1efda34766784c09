//! The conformance suite of confirmation against SQLite, and what is SQLite's alone: adopted tables, retention, a process that is
//! killed.

#[path = "sqlite_confirm/harness.rs"]
mod harness;

#[path = "sqlite_confirm/adopting.rs"]
mod adopting;
#[path = "sqlite_confirm/crash.rs"]
mod crash;
#[path = "sqlite_confirm/storing.rs"]
mod storing;

use harness::open;

caudal_testkit::confirm_conformance!(open);
