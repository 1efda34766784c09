//! Conservation: accepted = stored + duplicate + rejected + dead-lettered + in flight (`ARCHITECTURE.md`, Promises).

use caudal_core::outcome::Tally;
use caudal_core::plan::ReadPlan;
use serde::Serialize;

use crate::engine::Engine;
use crate::error::AcceptError;
use crate::topic::Topic;

/// One topic's books.
#[derive(Debug, Clone, Serialize)]
pub struct Reconciliation {
    pub topic: String,
    /// What the store committed, over all processes and restarts.
    pub durable: Tally,
    /// What this process did since it started.
    pub process: Tally,
    /// Between accept and outcome in this process now.
    pub in_flight: u64,
    /// Messages ever published to the topic, and how many of them are settled; absent without a broker that
    /// numbers its messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// Records that retention has removed, over all processes and restarts.
    pub expired: u64,
    /// Rows in the table now, when they were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Zero, or the number of envelopes that the books cannot explain.
    pub unaccounted: i64,
}

impl Engine {
    /// Balances one topic's books. `count_rows` also counts the table and holds it against what was stored: a full scan.
    pub async fn reconcile(&self, topic: &Topic, count_rows: bool) -> Result<Reconciliation, AcceptError> {
        let (process, in_flight) = topic.metrics.tally();
        let progress = self.progress(topic).await?;
        let numbered = progress.and_then(|p| p.numbered);
        let durable = self.store.tally(&topic.name).await?;
        let (rows, expired) = self.rows_and_expired(topic, count_rows).await?;
        let own = process.unaccounted(in_flight);
        let books = durable.unaccounted(0);
        let missing_rows = rows.map_or(0, |rows| durable.stored as i64 - expired as i64 - rows as i64);
        // Each imbalance counts, whichever way it leans; they must not cancel out.
        let unaccounted = own.abs() + books.abs() + missing_rows.abs();
        topic.metrics.set_unaccounted(unaccounted);
        Ok(Reconciliation {
            topic: topic.name.to_string(),
            durable,
            process,
            in_flight,
            published: numbered.map(|n| n.published),
            position: numbered.map(|n| n.position),
            backlog: progress.and_then(|p| p.backlog),
            expired,
            rows,
            unaccounted,
        })
    }

    /// Counted again when a sweep came in between: the two numbers must be of one time.
    async fn rows_and_expired(&self, topic: &Topic, count_rows: bool) -> Result<(Option<u64>, u64), AcceptError> {
        const COUNTS_MAX: usize = 5;
        let mut expired = self.store.expired(&topic.name).await?;
        if !count_rows {
            return Ok((None, expired));
        }
        for _ in 0..COUNTS_MAX {
            let rows = self.store.count(&ReadPlan::all(topic.table())).await?;
            let after = self.store.expired(&topic.name).await?;
            if after == expired {
                return Ok((Some(rows), expired));
            }
            expired = after;
        }
        Ok((None, expired))
    }
}
