//! The planted bug `CAUDAL_PLANT=dedup-off`: ids that ignore the dedup key, so that a repeated message becomes a second row.
//! The crash suite must notice it. Without the feature `failpoints` it compiles to nothing.

use caudal_core::time::Instant;
use uuid::Uuid;

/// The id that the planted bug gives to a new message; `None`, always, where it is not planted.
#[cfg(feature = "failpoints")]
pub(crate) fn stray_id(at: Instant) -> Option<Uuid> {
    use std::sync::LazyLock;
    static DEDUP_OFF: LazyLock<bool> =
        LazyLock::new(|| std::env::var("CAUDAL_PLANT").is_ok_and(|bug| bug == "dedup-off"));
    DEDUP_OFF.then(|| crate::clock::fresh_id(at))
}

#[cfg(not(feature = "failpoints"))]
pub(crate) fn stray_id(_at: Instant) -> Option<Uuid> {
    None
}
