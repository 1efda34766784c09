//! Producers that wait for the row of a message they queued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::Body;
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
    message: Body,
    tell: oneshot::Sender<RowOutcome>,
}

impl Waiters {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Vec<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers before publishing, so that no outcome is missed. Dropping the receiver ends the wait.
    pub(crate) fn wait_for(&self, id: Uuid, body: Bytes, attributes: Option<Bytes>) -> oneshot::Receiver<RowOutcome> {
        let (tell, told) = oneshot::channel();
        self.lock().entry(id).or_default().push(Waiting { message: Body { body, attributes }, tell });
        told
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
