//! One connection that everybody shares: made by the first that needs it, and anew once it broke.

use std::sync::Arc;
use std::time::Instant;

use caudal_core::error::BrokerError;
use tokio::sync::Mutex;

/// A connection to a broker that says when it is of no more use.
pub(crate) trait Connection: Send + Sync {
    fn is_broken(&self) -> bool;
}

pub(crate) struct Current<C> {
    slot: Mutex<Slot<C>>,
}

struct Slot<C> {
    open: Option<Arc<C>>,
    /// How the last attempt to connect failed, and when it was over.
    failed: Option<(Instant, BrokerError)>,
    closed: bool,
}

impl<C: Connection> Current<C> {
    pub(crate) fn new() -> Self {
        Self { slot: Mutex::new(Slot { open: None, failed: None, closed: false }) }
    }

    /// The connection as it is, or else what `connect` makes.
    pub(crate) async fn get(
        &self,
        connect: impl Future<Output = Result<C, BrokerError>>,
    ) -> Result<Arc<C>, BrokerError> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if slot.closed {
            return Err(closed());
        }
        if let Some(open) = slot.open.as_ref().filter(|open| !open.is_broken()) {
            return Ok(open.clone());
        }
        // Who waited while an attempt failed has its answer. If each tried again in its turn, the last would wait for all.
        if let Some((at, error)) = slot.failed.as_ref().filter(|(at, _)| *at > asked) {
            tracing::trace!(waited = ?at.duration_since(asked), "another caller's attempt to connect failed");
            return Err(copy(error));
        }
        slot.open = None;
        match connect.await {
            Ok(made) => {
                let made = Arc::new(made);
                slot.open = Some(made.clone());
                slot.failed = None;
                Ok(made)
            }
            Err(error) => {
                slot.failed = Some((Instant::now(), copy(&error)));
                Err(error)
            }
        }
    }

    /// Makes no more connections; gives the one there is to whoever must finish with it.
    pub(crate) async fn close(&self) -> Option<Arc<C>> {
        let mut slot = self.slot.lock().await;
        slot.closed = true;
        slot.open.take()
    }
}

pub(crate) fn closed() -> BrokerError {
    BrokerError::unavailable("this process closed its connection to the broker")
}

pub(crate) fn copy(error: &BrokerError) -> BrokerError {
    match error {
        BrokerError::Setup(why) => BrokerError::Setup(why.clone()),
        BrokerError::Unavailable(cause) => BrokerError::unavailable(cause.to_string()),
        other => BrokerError::unavailable(other.to_string()),
    }
}

impl<C> std::fmt::Debug for Current<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}
