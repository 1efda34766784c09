//! What a connection that broke leaves behind, for the next one of this process.
//!
//! JetStream's acks are messages to a subject, so they need not come over the connection that the deliveries came over. What
//! was out when it broke is given back over the next one; the server would wait for `ack_wait` to be over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_nats::Subject;

use super::link::Link;
use super::place::{Consumer, TopicStream};
use super::subscription::NAK;

#[derive(Debug, Default)]
pub(super) struct Wrecks(Mutex<HashMap<String, Wreck>>);

#[derive(Debug)]
pub(super) struct Wreck {
    /// The server's id. One that started anew has another.
    server: String,
    out: Vec<Subject>,
    at: Instant,
}

impl Wrecks {
    pub(super) fn leave(&self, stream: &TopicStream, consumer: &Consumer, server: String, out: Vec<Subject>) {
        self.lock().insert(key(stream, consumer), Wreck { server, out, at: Instant::now() });
    }

    pub(super) fn take(&self, stream: &TopicStream, consumer: &Consumer) -> Option<Wreck> {
        self.lock().remove(&key(stream, consumer))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Wreck>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wreck {
    /// Whether the server lived on when the connection broke.
    pub(super) fn is_of(&self, link: &Link) -> bool {
        self.server == link.server
    }

    /// Gives back what was out, unless so much time went by that others may have it.
    pub(super) async fn give_back(self, link: &Link, consumer: &Consumer) {
        if self.at.elapsed() > consumer.ack_wait / 2 {
            return;
        }
        for reply in self.out {
            if link.client.publish(reply, NAK).await.is_err() {
                return;
            }
        }
    }
}

fn key(stream: &TopicStream, consumer: &Consumer) -> String {
    format!("{}.{}", stream.stream, consumer.name)
}
