//! Retention: removes the records of a topic that are older than it keeps them, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::time::Instant;

use crate::clock::now;
use crate::engine::Engine;
use crate::topic::{Retention, Topic};

/// Records of one transaction.
const ROWS_MAX: usize = 2_000;
/// Between two looks; sooner for topics that keep their records for less than a hundred of these.
const EVERY: Duration = Duration::from_secs(60);
const EVERY_MIN: Duration = Duration::from_millis(500);

/// Sweeps one topic until the engine drains.
pub(crate) async fn run(engine: Arc<Engine>, topic: Arc<Topic>, retention: Retention) {
    let every = (retention.records / 100).clamp(EVERY_MIN, EVERY);
    loop {
        match sweep(&engine, &topic, retention).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(topic = %topic.name, gone, "retention removed records"),
            Err(error) if error.is_transient() => tracing::debug!(%error, topic = %topic.name, "retention waits"),
            Err(error) => tracing::error!(%error, topic = %topic.name, "retention cannot remove records"),
        }
        tokio::select! {
            () = engine.stopping().cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

/// Removes what is due now; returns how many records. Between transactions it rests for as long as the last one took, so that
/// it never takes more than half of what the store can do.
async fn sweep(engine: &Engine, topic: &Topic, retention: Retention) -> Result<u64, StoreError> {
    let (store, now) = (&engine.store, now());
    let (records, keys) = (before(now, retention.records), before(now, retention.keys));
    let mut removed = 0;
    loop {
        let begun = tokio::time::Instant::now();
        let gone = store.expire(&topic.table(), &topic.name, records, ROWS_MAX).await?;
        let forgotten = store.forget(&topic.name, keys, ROWS_MAX).await?;
        removed += gone;
        if gone == 0 && forgotten == 0 {
            return Ok(removed);
        }
        tokio::select! {
            () = engine.stopping().cancelled() => return Ok(removed),
            () = tokio::time::sleep(begun.elapsed()) => {}
        }
    }
}

fn before(now: Instant, age: Duration) -> Instant {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    Instant::from_unix_micros(now.unix_micros().saturating_sub(age)).within_calendar()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_beyond_the_calendar_end_at_its_beginning() {
        let now = Instant::parse("2024-01-02T00:00:00Z").expect("an instant");
        assert_eq!(before(now, Duration::from_secs(86_400)).to_string(), "2024-01-01T00:00:00+00:00");
        assert_eq!(before(now, Duration::MAX).to_string(), "0001-01-01T00:00:00+00:00");
    }
}
