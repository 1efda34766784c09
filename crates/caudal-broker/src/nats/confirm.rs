//! Publishing with a confirmation for each message, many at once.
//!
//! All messages of one publish name the same reply subject; JetStream's confirmations come there, one a message, and are
//! counted. So a publish costs one entry in a table, whatever its size, and no message waits for the one before it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Client, HeaderMap, HeaderName, Message as Answer, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use super::error::{Refusal, chain};
use super::link::PATIENCE;
use crate::wire;

/// Room for messages that the server has not confirmed yet; a large message takes more of it. Newer servers refuse what
/// comes when 10,000 messages of a stream wait to be written.
const WINDOW: u32 = 4096;
/// Bytes of a message that take one more part of the window.
const WINDOW_BYTES: usize = 16 * 1024;
/// What the server adds to a message's headers and we to its estimate.
const OVERHEAD: usize = 256;

pub(super) struct Confirmations {
    shared: Arc<Shared>,
    inbox: String,
    reader: AbortHandle,
}

struct Shared {
    publishes: Mutex<HashMap<u64, Publishing>>,
    next: AtomicU64,
    window: Semaphore,
}

/// A publish that is not confirmed yet.
struct Publishing {
    stream: Arc<str>,
    /// Messages without a confirmation,
    left: usize,
    /// of which so many were sent,
    sent: usize,
    /// which hold so many parts of the window.
    held: u32,
    done: Option<oneshot::Sender<Result<(), Failure>>>,
}

#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing takes the subject any more.
    NoStream,
    Refusal(Refusal),
    /// Not what a confirmation looks like.
    Strange(String),
}

impl Confirmations {
    pub(super) async fn open(client: &Client) -> Result<Self, BrokerError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await.map_err(BrokerError::unavailable)?;
        let publishes = Mutex::default();
        let window = Semaphore::new(WINDOW as usize);
        let shared = Arc::new(Shared { publishes, next: AtomicU64::new(0), window });
        let reader = tokio::spawn(read(answers, shared.clone())).abort_handle();
        Ok(Self { shared, inbox, reader })
    }

    /// Publishes to a subject of a stream and waits until each message is confirmed by that stream.
    pub(super) async fn publish(
        &self,
        client: &Client,
        stream: &Arc<str>,
        subject: &Subject,
        messages: Vec<Message>,
    ) -> Result<Result<(), Failure>, BrokerError> {
        let most = client.max_payload();
        for message in &messages {
            fits(message, most)?;
        }
        let (done, mut confirmed) = oneshot::channel();
        let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let publishing =
            Publishing { stream: stream.clone(), left: messages.len(), sent: 0, held: 0, done: Some(done) };
        self.shared.lock().insert(number, publishing);
        let _given_up = Entry { shared: &self.shared, number };
        let reply = Subject::from(format!("{}.{number}", self.inbox));
        for message in messages {
            self.shared.admit(number, part(&message)).await?;
            let headers = headers(&message);
            let sent = client.publish_with_reply_and_headers(subject.clone(), reply.clone(), headers, message.body);
            sent.await.map_err(|error| BrokerError::unavailable(chain(&error)))?;
        }
        loop {
            let left = self.shared.left(number);
            tokio::select! {
                outcome = &mut confirmed => return outcome.map_err(BrokerError::unavailable),
                () = tokio::time::sleep(PATIENCE) => {}
            }
            if left == self.shared.left(number) {
                return Err(BrokerError::unavailable(format!(
                    "NATS left {left} messages unconfirmed for {PATIENCE:?}"
                )));
            }
        }
    }

    /// Resolves when nothing waits for a confirmation.
    pub(super) async fn all_done(&self) {
        let _ = self.shared.window.acquire_many(WINDOW).await;
    }
}

impl Drop for Confirmations {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Publishing>> {
        self.publishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self, number: u64) -> usize {
        self.lock().get(&number).map_or(0, |publishing| publishing.left)
    }

    /// Waits for room in the window.
    async fn admit(&self, number: u64, part: u32) -> Result<(), BrokerError> {
        let room = tokio::time::timeout(PATIENCE, self.window.acquire_many(part)).await;
        let room = room.map_err(|_| BrokerError::unavailable(format!("NATS confirmed nothing for {PATIENCE:?}")))?;
        room.map_err(BrokerError::unavailable)?.forget();
        match self.lock().get_mut(&number) {
            Some(publishing) => {
                publishing.sent += 1;
                publishing.held += part;
            }
            None => self.window.add_permits(part as usize),
        }
        Ok(())
    }

    fn take(&self, answer: &Answer) {
        let number = answer.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let mut publishes = self.lock();
        let Some(publishing) = number.and_then(|number| publishes.get_mut(&number)) else { return };
        publishing.left = publishing.left.saturating_sub(1);
        // Which one it confirms is not known, so it frees the mean of what is held.
        let part = publishing.held / u32::try_from(publishing.sent.max(1)).unwrap_or(u32::MAX);
        publishing.sent = publishing.sent.saturating_sub(1);
        publishing.held -= part;
        self.window.add_permits(part as usize);
        let outcome = match check(answer, &publishing.stream) {
            Ok(()) if publishing.left > 0 => return,
            outcome => outcome,
        };
        if let Some(done) = publishing.done.take() {
            let _ = done.send(outcome);
        }
    }
}

/// Removes a publish, however it ended, with what it holds of the window.
struct Entry<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if let Some(publishing) = self.shared.lock().remove(&self.number) {
            self.shared.window.add_permits(publishing.held as usize);
        }
    }
}

async fn read(mut answers: Subscriber, shared: Arc<Shared>) {
    while let Some(answer) = answers.next().await {
        shared.take(&answer);
    }
}

/// Whether an answer is the stream's word that it has the message.
fn check(answer: &Answer, stream: &str) -> Result<(), Failure> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(Failure::NoStream);
    }
    let said: Value = serde_json::from_slice(&answer.payload).map_err(|e| Failure::Strange(e.to_string()))?;
    if let Some(refusal) = Refusal::of(&said) {
        return Err(Failure::Refusal(refusal));
    }
    let has = said.get("seq").is_some_and(|seq| seq.as_u64() > Some(0));
    match said.get("stream").and_then(Value::as_str) {
        Some(named) if named == stream && has => Ok(()),
        _ => Err(Failure::Strange(format!("{stream} was to confirm, not {said}"))),
    }
}

fn part(message: &Message) -> u32 {
    let parts = message.body.len() / WINDOW_BYTES + 1;
    u32::try_from(parts).unwrap_or(WINDOW).min(WINDOW)
}

/// No `Nats-Msg-Id`: the server would confirm and swallow a key that comes again, and it is for the store to say whether that is a
/// duplicate or a conflict.
fn headers(message: &Message) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in wire::headers(message) {
        headers.insert(HeaderName::from_static(name), value);
    }
    headers
}

/// Refuses a message that the server would: it closes the connection of whoever sends one.
fn fits(message: &Message, most: usize) -> Result<(), BrokerError> {
    let texts =
        [message.key.as_deref(), Some(message.source.as_str())].into_iter().flatten().map(str::len).sum::<usize>();
    let attributes = message.attributes.as_ref().map_or(0, Bytes::len);
    // Percent-encoding makes at most three bytes of one.
    if message.body.len() + 3 * (texts + attributes) + OVERHEAD <= most {
        return Ok(());
    }
    let headers: usize = wire::headers(message).iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let size = message.body.len() + headers + OVERHEAD;
    if size <= most {
        return Ok(());
    }
    Err(BrokerError::Refused(format!(
        "it has {size} bytes with its headers and the NATS server takes {most} (max_payload)"
    )))
}
