//! Places where a test can end the process, and planted bugs that the crash suites must notice. Without the feature `failpoints`
//! all of it compiles to nothing.
//!
//! | variable | effect |
//! |---|---|
//! | `CAUDAL_FAILPOINT=name:N` | the process ends at the N-th time it passes `name` |
//! | `CAUDAL_POISON=id` | the process ends when it is about to call for this transaction |
//! | `CAUDAL_PLANT=dedup-off` | ids ignore the dedup key: a repeated message becomes a second row |
//! | `CAUDAL_PLANT=fence-off` | calls go out although the lease has lapsed |
//! | `CAUDAL_PLANT=mark-before-answer` | a transaction is confirmed before the endpoint was asked |
//! | `CAUDAL_PLANT=resend-after-retention` | a transaction in doubt is sent again whatever the endpoint remembers |

use caudal_core::time::Instant;
use uuid::Uuid;

#[cfg(feature = "failpoints")]
pub(crate) use armed::{hit, is_planted, poison};

#[cfg(not(feature = "failpoints"))]
pub(crate) use unarmed::{hit, is_planted, poison};

/// The id that the planted bug `dedup-off` gives to a new message; `None`, always, where it is not planted.
pub(crate) fn stray_id(at: Instant) -> Option<Uuid> {
    is_planted("dedup-off").then(|| crate::clock::fresh_id(at))
}

#[cfg(not(feature = "failpoints"))]
mod unarmed {
    use uuid::Uuid;

    pub(crate) fn hit(_: &str) {}

    pub(crate) fn poison(_: Uuid) {}

    pub(crate) fn is_planted(_: &str) -> bool {
        false
    }
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use uuid::Uuid;

    static PLANT: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("CAUDAL_PLANT").ok());
    static POISON: LazyLock<Option<Uuid>> = LazyLock::new(|| std::env::var("CAUDAL_POISON").ok()?.parse().ok());
    static KILL: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let value = std::env::var("CAUDAL_FAILPOINT").ok()?;
        let (name, count) = value.rsplit_once(':')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });

    pub(crate) fn hit(name: &str) {
        if let Some((due, left)) = &*KILL
            && due == name
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::process::abort();
        }
    }

    pub(crate) fn poison(id: Uuid) {
        if *POISON == Some(id) {
            std::process::abort();
        }
    }

    pub(crate) fn is_planted(bug: &str) -> bool {
        PLANT.as_deref() == Some(bug)
    }
}
