//! A conversation over a connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Connection, Failure, Load, Registered};
use super::receive::{Delivered, Method};
use super::send;

/// How long an answer may take. Making a quorum queue takes a cluster's agreement.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(in crate::rabbitmq) enum Event {
    Deliveries(Vec<Delivered>),
    /// A message that no queue takes; `id` is its message-id. Comes before its confirmation.
    Returned {
        code: u16,
        text: String,
        id: Option<String>,
    },
    Method(Method),
    /// Nothing comes after it.
    Closed(Failure),
}

/// Closed when dropped; then the server gives back to their queues, at once, the messages that are not settled.
#[derive(Debug)]
pub(in crate::rabbitmq) struct Channel {
    id: u16,
    life: u64,
    connection: Arc<Connection>,
    /// What it was handed, also what nobody took from it yet; who settles takes it off.
    pub(in crate::rabbitmq) load: Arc<Load>,
    /// What it holds is bounded by what was asked for: the prefetch, or confirmations of what was published.
    events: mpsc::UnboundedReceiver<Event>,
    /// Came while an answer was awaited.
    early: VecDeque<Event>,
    closed: Option<Failure>,
}

impl Channel {
    pub(in crate::rabbitmq) async fn open(connection: &Arc<Connection>) -> Result<Self, Failure> {
        let Registered { id, life, load, events } = connection.register()?;
        let connection = connection.clone();
        let mut channel = Self { id, life, connection, load, events, early: VecDeque::new(), closed: None };
        channel.call(send::channel_open).await?;
        Ok(channel)
    }

    pub(in crate::rabbitmq) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(in crate::rabbitmq) fn id(&self) -> u16 {
        self.id
    }

    /// Sends methods without waiting for what they answer. `false`: the connection is gone.
    pub(in crate::rabbitmq) fn send(&self, write: impl FnOnce(&mut BytesMut, u16)) -> bool {
        let mut out = BytesMut::new();
        write(&mut out, self.id);
        self.connection.send(out.freeze())
    }

    /// Sends one method and waits for its answer.
    pub(in crate::rabbitmq) async fn call(
        &mut self,
        write: impl FnOnce(&mut BytesMut, u16),
    ) -> Result<Method, Failure> {
        self.send(write);
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            let event = tokio::time::timeout_at(deadline, self.receive()).await;
            match event.map_err(|_| Failure::Late(ANSWER_WITHIN))?? {
                Event::Method(answer @ (Method::Done(..) | Method::QueueDeclareOk { .. })) => return Ok(answer),
                other => self.early.push_back(other),
            }
        }
    }

    /// Waits for what the server says next. Cancel-safe.
    pub(in crate::rabbitmq) async fn next(&mut self) -> Result<Event, Failure> {
        match self.early.pop_front() {
            Some(event) => Ok(event),
            None => self.receive().await,
        }
    }

    /// What has come already.
    pub(in crate::rabbitmq) fn try_next(&mut self) -> Option<Result<Event, Failure>> {
        if let Some(event) = self.early.pop_front() {
            return Some(Ok(event));
        }
        let event = self.events.try_recv().ok()?;
        Some(self.open_event(Some(event)))
    }

    async fn receive(&mut self) -> Result<Event, Failure> {
        if let Some(failure) = &self.closed {
            return Err(failure.clone());
        }
        let event = self.events.recv().await;
        self.open_event(event)
    }

    fn open_event(&mut self, event: Option<Event>) -> Result<Event, Failure> {
        let failure = match event {
            Some(Event::Closed(failure)) => failure,
            Some(event) => return Ok(event),
            None => Failure::Lost("the connection is closed".into()),
        };
        self.closed = Some(failure.clone());
        Err(failure)
    }

    pub(in crate::rabbitmq) fn is_open(&self) -> bool {
        self.closed.is_none() && self.connection.has(self.id, self.life)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.connection.release(self.id, self.life);
    }
}
