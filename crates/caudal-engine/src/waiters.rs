//! Producers that wait for the row of a message they queued.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use caudal_core::outcome::RowOutcome;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Who waits for which transaction. Bounded by the number of open requests.
#[derive(Debug, Default, Clone)]
pub(crate) struct Waiters {
    waiting: Arc<Mutex<HashMap<Uuid, Vec<oneshot::Sender<RowOutcome>>>>>,
}

impl Waiters {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Vec<oneshot::Sender<RowOutcome>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers before publishing, so that no outcome is missed. Dropping the receiver ends the wait.
    pub(crate) fn wait_for(&self, id: Uuid) -> oneshot::Receiver<RowOutcome> {
        let (tell, told) = oneshot::channel();
        self.lock().entry(id).or_default().push(tell);
        told
    }

    /// Forgets waits that were given up.
    pub(crate) fn forget(&self, id: Uuid) {
        let mut waiting = self.lock();
        if let Some(list) = waiting.get_mut(&id) {
            list.retain(|tell| !tell.is_closed());
            if list.is_empty() {
                waiting.remove(&id);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn tell(&self, id: Uuid, outcome: impl FnOnce() -> RowOutcome) {
        let Some(list) = self.lock().remove(&id) else { return };
        let outcome = outcome();
        for tell in list {
            // The request may be gone already; its producer asks the receipt.
            let _ = tell.send(outcome.clone());
        }
    }
}
