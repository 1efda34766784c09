//! Getting a batch into the store: repeated while the failure is transient, accounted when it is over.

use std::sync::Arc;
use std::time::{Duration, Instant as Monotonic};

use caudal_core::error::StoreError;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, Appended, Store};
use caudal_core::row::field;

use crate::clock;
use crate::metrics::InFlight;
use crate::topic::Topic;

const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Appends until it is in, fails for good, or `patience` is over (`None`: for ever). Ids make the repeats harmless: a row
/// that an earlier try did commit comes back as a duplicate with the same content.
pub(crate) async fn append(
    store: &dyn Store,
    topic: &Topic,
    batch: Arc<AppendBatch>,
    in_flight: InFlight,
    patience: Option<Duration>,
) -> Result<Appended, StoreError> {
    let deadline = patience.map(|p| Monotonic::now() + p);
    let rows = batch.rows.len();
    let oldest = oldest_micros(&batch);
    let mut pause = RETRY_FIRST;
    loop {
        match store.append(batch.clone()).await {
            Ok(appended) => {
                let age = (clock::now().unix_micros() - oldest).max(0) as f64 / 1e6;
                in_flight.settle(appended.tally);
                topic.metrics.appended(rows, age);
                topic.committed();
                return Ok(appended);
            }
            Err(error) if error.is_transient() && deadline.is_none_or(|d| Monotonic::now() + pause < d) => {
                topic.metrics.retried();
                tracing::warn!(topic = %topic.name, %error, "append failed, will repeat it");
                tokio::time::sleep(jitter(pause)).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            Err(error) => {
                in_flight.withdraw();
                return Err(error);
            }
        }
    }
}

/// Between half of `pause` and all of it, so that many waiters do not come back at once.
pub(crate) fn jitter(pause: Duration) -> Duration {
    pause / 2 + (pause / 2).mul_f64(clock::chance())
}

fn oldest_micros(batch: &AppendBatch) -> i64 {
    let published = |mut row: caudal_core::row::Row<'_>| row.nth(3).flatten().map(field::timestamp);
    match batch.rows.is_empty() {
        true => clock::now().unix_micros(),
        false => published(batch.rows.row(0)).map_or(0, |at| at.unix_micros()),
    }
}

/// The outcome of row `index`.
pub(crate) fn outcome(appended: &Appended, index: usize) -> RowOutcome {
    appended.rows.as_ref().map_or(RowOutcome::Stored, |rows| rows[index].clone())
}
