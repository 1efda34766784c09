//! The engine's one reading of the clock.

use std::time::{SystemTime, UNIX_EPOCH};

use caudal_core::time::Instant;
use uuid::{ContextV7, Timestamp, Uuid};

/// Now, in UTC microseconds.
pub fn now() -> Instant {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_micros(since.as_micros() as i64)
}

thread_local! {
    /// Ids of one thread sort by the order they were made in, also within a millisecond.
    static CONTEXT: ContextV7 = const { ContextV7::new() };
}

/// A new time-ordered id (UUIDv7).
pub fn fresh_id(at: Instant) -> Uuid {
    let micros = at.unix_micros().max(0) as u64;
    let nanos = (micros % 1_000_000) as u32 * 1000;
    CONTEXT.with(|context| Uuid::new_v7(Timestamp::from_unix(context, micros / 1_000_000, nanos)))
}

/// A number in 0..1 that nobody can foresee, for spreading things out.
pub(crate) fn chance() -> f64 {
    let [.., high, low] = fresh_id(now()).into_bytes();
    f64::from(u16::from_be_bytes([high, low])) / 65_536.0
}
