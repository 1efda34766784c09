//! Caudal over HTTP: routes, wire types, problems, the read grammar, the console. Business rules are the engine's, SQL the
//! store's; here bytes become records and plans, and outcomes become answers.
//!
//! [`server`] owns sockets and their time limits, [`guard`] what is refused before any route, [`routes`] the table of routes.

pub mod aws;
mod compat;
mod confirmations;
mod console;
pub mod fetch;
mod guard;
mod health;
pub mod keys;
mod openapi;
mod operate;
mod prefer;
pub mod problem;
mod publish;
mod pushed;
mod read;
mod routes;
pub mod server;
pub mod sns;
pub mod sql;
mod state;
pub mod webhook;
mod whole;

pub use guard::Access;
pub use read::bounds::ReadBounds;
pub use routes::router;
pub use server::{ServerConfig, serve};
pub use state::{App, HttpConfig};
pub use whole::Whole;
