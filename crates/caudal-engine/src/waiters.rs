//! Producers that wait for the row of a message they queued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use caudal_core::message::Message;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::Body;
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Who waits for which transaction. Bounded by the number of open requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Waiters {
    waiting: Arc<Mutex<HashMap<Uuid, Vec<Waiting>>>>,
}

/// One message of one producer. Several messages may claim one transaction, in one request or in many; each is told how
/// itself ended, not the others.
#[derive(Debug)]
struct Waiting {
    topic: TopicName,
    published_at: Instant,
    message: Body,
    tell: oneshot::Sender<RowOutcome>,
    /// How often [`Waiters::to_look_for`] passed it.
    passed: u32,
}

/// A message that somebody waits for, as far as it takes to look for it.
#[derive(Debug, Clone)]
pub(crate) struct Awaited {
    pub(crate) topic: TopicName,
    pub(crate) id: Uuid,
    pub(crate) published_at: Instant,
    pub(crate) message: Body,
}

impl Waiters {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers before publishing, so that no outcome is missed. Dropping the receiver ends the wait.
    pub(crate) fn wait_for(&self, topic: &TopicName, message: &Message) -> oneshot::Receiver<RowOutcome> {
        let (tell, told) = oneshot::channel();
        let Message { id, published_at, attributes, body, .. } = message;
        let message = Body { body: body.clone(), attributes: attributes.clone() };
        let waiting = Waiting { topic: topic.clone(), published_at: *published_at, message, tell, passed: 0 };
        self.lock().entry(*id).or_default().push(waiting);
        told
    }

    /// What it is time to look for, at most `max`: each message ever more rarely, up to every sixteenth time.
    pub(crate) fn to_look_for(&self, max: usize) -> Vec<Awaited> {
        let mut due = Vec::new();
        for (id, list) in self.lock().iter_mut() {
            for waiting in list.iter_mut().filter(|waiting| !waiting.tell.is_closed()) {
                waiting.passed += 1;
                if due.len() < max && (waiting.passed.is_power_of_two() || waiting.passed.is_multiple_of(16)) {
                    let Waiting { topic, published_at, message, .. } = waiting;
                    let (topic, message) = (topic.clone(), message.clone());
                    due.push(Awaited { topic, id: *id, published_at: *published_at, message });
                }
            }
        }
        due
    }

    /// Forgets waits that were given up.
    pub(crate) fn forget(&self, id: Uuid) {
        let mut waiting = self.lock();
        if let Some(list) = waiting.get_mut(&id) {
            list.retain(|one| !one.tell.is_closed());
            if list.is_empty() {
                waiting.remove(&id);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Tells the first who waits for this very message.
    pub(crate) fn tell(
        &self,
        id: Uuid,
        body: &Bytes,
        attributes: Option<&Bytes>,
        outcome: impl FnOnce() -> RowOutcome,
    ) {
        let mut waiting = self.lock();
        let Some(list) = waiting.get_mut(&id) else { return };
        let is_it = |one: &Waiting| one.message.body == *body && one.message.attributes.as_ref() == attributes;
        let Some(index) = list.iter().position(is_it) else { return };
        let one = list.remove(index);
        if list.is_empty() {
            waiting.remove(&id);
        }
        drop(waiting);
        // The request may be gone already; its producer asks the receipt.
        let _ = one.tell.send(outcome());
    }
}
