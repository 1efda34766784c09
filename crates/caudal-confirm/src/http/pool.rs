//! Connections that are kept between calls.
//!
//! A connection is driven by the call that has it, in the same task: nothing is handed to another task and back, and when a call
//! is dropped or timed out, its connection goes with it, so that whether something was written no longer changes.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use caudal_core::confirm::answer::Answer;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::connect::{Connector, Stream};

/// Unused for so long, a connection is closed: below the shortest that servers usually keep one (5 s), because a request into a
/// connection that is just being closed leaves a doubt.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// As old as this it is not used again, so that an endpoint's new addresses are found.
const AGE_MAX: Duration = Duration::from_secs(300);
const CONNECTIONS_MAX: usize = 1024;
const HEAD_BYTES_MAX: usize = 64 * 1024;

pub(super) type Body = Full<Bytes>;

pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Body>,
    pub(super) driver: Pin<Box<http1::Connection<TokioIo<Stream>, Body>>>,
    /// Whether any of the request may have left since the connection was taken.
    pub(super) written: Arc<AtomicBool>,
    made: Instant,
    used: Instant,
}

pub(super) struct Pool {
    connector: Connector,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last is at the back, and is taken first.
    connections: VecDeque<Connection>,
    swept: bool,
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, idle: Mutex::default() }
    }

    pub(super) fn target(&self) -> &super::target::Target {
        &self.connector.target
    }

    /// A connection that is open as far as can be known without writing.
    pub(super) async fn kept(&self) -> Option<Connection> {
        loop {
            let mut connection = self.idle().connections.pop_back()?;
            if connection.used.elapsed() < IDLE_MAX && connection.is_idle().await {
                connection.written.store(false, Relaxed);
                return Some(connection);
            }
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// The answer that a call gets without one.
    pub(super) async fn fresh(&self) -> Result<Connection, Answer> {
        let (stream, written) = self.connector.connect().await?;
        let made = http1::Builder::new().max_buf_size(HEAD_BYTES_MAX).handshake(TokioIo::new(stream)).await;
        let (sender, driver) = made.map_err(|e| Answer::NotSent(e.to_string()))?;
        let now = Instant::now();
        Ok(Connection { sender, driver: Box::pin(driver), written, made: now, used: now })
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) async fn keep(self: &Arc<Self>, mut connection: Connection) {
        if connection.made.elapsed() > AGE_MAX || !connection.is_idle().await || !connection.sender.is_ready() {
            return;
        }
        connection.used = Instant::now();
        let mut idle = self.idle();
        if idle.connections.len() < CONNECTIONS_MAX {
            idle.connections.push_back(connection);
        }
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Looks without waiting. An end or bytes that nobody asked for make it useless: they would be taken for the next answer.
    async fn is_idle(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.driver.as_mut().poll(cx).is_pending())).await
    }
}

/// Closes what was not used, until there is nothing left.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.idle();
        while idle.connections.front().is_some_and(|oldest| oldest.used.elapsed() >= IDLE_MAX) {
            idle.connections.pop_front();
        }
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
    }
}
