//! A black-box client of a Caudal server: what a user's own program could do, and nothing that it could not.

mod client;
mod events;

pub use client::{Answer, Client, ClientError};
pub use events::Events;
pub use reqwest::{Body, Response};
