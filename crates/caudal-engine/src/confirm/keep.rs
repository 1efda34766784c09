//! Keeping leases alive, and knowing when one may be lost: by this process's own clock that never goes back, counted from
//! *before* the store was asked, less a fifth. So whatever the clocks of other machines say, nobody here calls on a lease that
//! another may have.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use caudal_core::confirm::ports::Lease;
use tokio::time::Instant;

use super::Shared;
use crate::plant;

/// Looks per lease time.
const LOOKS: u32 = 8;

/// The leases of this process.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    held: Mutex<Vec<Weak<Held>>>,
}

/// One lease, until dropped. Then nobody prolongs it any more.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lease: Lease,
    ttl: Duration,
    safe_until: Mutex<Instant>,
    lost: AtomicBool,
}

impl Keeper {
    /// `asked_at`: before the store was asked for the lease.
    pub(crate) fn hold(&self, lease: Lease, ttl: Duration, asked_at: Instant) -> Arc<Held> {
        let safe_until = Mutex::new(safe(asked_at, ttl));
        let held = Arc::new(Held { lease, ttl, safe_until, lost: AtomicBool::new(false) });
        self.lock().push(Arc::downgrade(&held));
        held
    }

    /// Those that should be prolonged now, all of one time to live.
    fn due(&self, now: Instant) -> Vec<Arc<Held>> {
        let mut held = self.lock();
        held.retain(|held| held.strong_count() > 0);
        let due = held.iter().filter_map(Weak::upgrade).filter(|held| held.is_due(now));
        let due: Vec<_> = due.collect();
        let ttl = due.first().map(|held| held.ttl);
        due.into_iter().filter(|held| Some(held.ttl) == ttl).collect()
    }

    fn shortest(&self) -> Option<Duration> {
        self.lock().iter().filter_map(Weak::upgrade).map(|held| held.ttl).min()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn safe(asked_at: Instant, ttl: Duration) -> Instant {
    asked_at + ttl * 4 / 5
}

impl Held {
    /// Whether a call may begin: the lease cannot have lapsed.
    pub(crate) fn is_safe(&self) -> bool {
        let safe = !self.lost.load(Ordering::Acquire) && Instant::now() < *self.until();
        safe || plant::is_planted("fence-off")
    }

    /// The store has prolonged it; `asked_at`: before it was asked.
    pub(crate) fn prolonged(&self, asked_at: Instant) {
        let mut until = self.until();
        *until = (*until).max(safe(asked_at, self.ttl));
    }

    fn is_due(&self, now: Instant) -> bool {
        !self.lost.load(Ordering::Acquire) && *self.until() < now + self.ttl * 8 / 15
    }

    fn until(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.safe_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prolongs what is held until the process has drained: calls that end during a drain still need their leases.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let every = shared.keeper.shortest().unwrap_or(Duration::from_secs(8)) / LOOKS;
        let idle = shared.stopping.is_cancelled() && shared.keeper.shortest().is_none();
        if idle {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(every.clamp(Duration::from_millis(20), Duration::from_secs(1))) => {}
            () = shared.stopping.cancelled(), if !shared.stopping.is_cancelled() => {}
        }
        prolong(&shared).await;
    }
}

async fn prolong(shared: &Shared) {
    let asked_at = Instant::now();
    let due = shared.keeper.due(asked_at);
    let Some(ttl) = due.first().map(|held| held.ttl) else { return };
    let leases: Vec<Lease> = due.iter().map(|held| held.lease.clone()).collect();
    match shared.store.extend(&leases, ttl).await {
        Ok(alive) => {
            for (held, alive) in due.iter().zip(alive) {
                match alive {
                    true => held.prolonged(asked_at),
                    false => held.lost.store(true, Ordering::Release),
                }
            }
        }
        Err(error) => tracing::warn!(%error, "leases were not prolonged; trying again"),
    }
}
