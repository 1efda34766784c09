//! The store's clock. DynamoDB has none that a condition could use, but each of its answers says what time it is there, to the
//! second. A machine whose own clock agrees with that is believed; one whose clock does not goes by DynamoDB's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_dynamodb::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use caudal_core::time::Instant;

/// How far this machine may be from what the answers say and still be believed: their second is cut off, and they travel.
const BEHIND_MAX: Duration = Duration::from_millis(200);
const AHEAD_MAX: Duration = Duration::from_secs(2);
/// After this time what answers said is forgotten, so that the drift of this machine's oscillator does not add up.
const WINDOW: Duration = Duration::from_secs(60);

/// Shared by a store and what reads its answers.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    started: std::time::Instant,
    known: Arc<Mutex<Known>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { started: std::time::Instant::now(), known: Arc::default() }
    }

    pub(super) fn now(&self) -> Instant {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64);
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Instant::from_unix_micros(known.now(self.elapsed(), wall))
    }

    fn elapsed(&self) -> i64 {
        self.started.elapsed().as_micros() as i64
    }

    fn heard(&self, unix_seconds: i64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.heard(self.elapsed(), unix_seconds.saturating_mul(1_000_000));
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "Clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        if let Some(date) = date.and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok()) {
            self.heard(date.secs());
        }
        Ok(())
    }
}

/// What answers said: it was at least so many microseconds later there than this process had run. The most of the window that
/// runs, and of the one before.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    least: Option<i64>,
    before: Option<i64>,
    since: i64,
}

impl Known {
    fn heard(&mut self, elapsed: i64, there: i64) {
        if elapsed - self.since > WINDOW.as_micros() as i64 {
            (self.before, self.least, self.since) = (self.least, None, elapsed);
        }
        self.least = self.least.max(Some(there - elapsed));
    }

    fn now(self, elapsed: i64, wall: i64) -> i64 {
        let Some(least) = self.least.max(self.before) else { return wall };
        let there = least + elapsed;
        let believed = there - BEHIND_MAX.as_micros() as i64..=there + AHEAD_MAX.as_micros() as i64;
        if believed.contains(&wall) { wall } else { there }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const THERE: i64 = 1_700_000_000 * SECOND;

    #[test]
    fn a_machine_that_agrees_is_believed_to_the_microsecond() {
        let mut known = Known::default();
        assert_eq!(known.now(0, 7), 7, "nobody has answered yet");
        known.heard(0, THERE);
        assert_eq!(known.now(0, THERE + 999_999), THERE + 999_999);
    }

    #[test]
    fn a_machine_that_is_wrong_goes_by_the_answers() {
        let mut known = Known::default();
        known.heard(0, THERE);
        known.heard(900_000, THERE + SECOND);
        for skew in [HOUR, -HOUR] {
            let now = known.now(SECOND, THERE + SECOND + skew);
            assert_eq!(now, THERE + SECOND + 100_000, "the answer that was least late counts");
        }
    }

    #[test]
    fn what_was_said_long_ago_is_forgotten() {
        let mut known = Known::default();
        known.heard(0, THERE + HOUR);
        for minute in [2, 4] {
            known.heard(minute * 60 * SECOND, THERE + minute * 60 * SECOND);
        }
        assert_eq!(known.now(240 * SECOND, 0), THERE + 240 * SECOND);
    }
}
