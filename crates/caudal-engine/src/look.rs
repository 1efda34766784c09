//! Outcomes of messages that a worker of another process stored: looked for, because nobody here is told.
//!
//! Producers wait for the row by default. Where several processes share a broker, most of their messages are stored by others; the
//! row with the message's own time, or its dead letter, says how it ended. A duplicate of an earlier message leaves neither:
//! its producer is answered `202` when the wait is over, and a receipt tells.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::outcome::RowOutcome;
use caudal_core::rejection::{Code, Rejection};
use caudal_core::row::field;
use caudal_core::schema::PUBLISHED_AT;
use futures_util::future::join_all;

use crate::engine::Engine;
use crate::waiters::Awaited;

const EVERY: Duration = Duration::from_millis(20);
/// Point reads under way at once; more wait for the next round.
const LOOKS_MAX: usize = 256;

/// Looks until the engine drains.
pub(crate) async fn run(engine: Arc<Engine>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = engine.stopping().cancelled() => return,
        }
        let due = engine.waiters.to_look_for(LOOKS_MAX);
        let found = join_all(due.iter().map(|awaited| outcome(&engine, awaited))).await;
        for (awaited, outcome) in due.into_iter().zip(found) {
            // A store that is away answers nobody: the wait ends by itself.
            if let Ok(Some(outcome)) = outcome {
                let message = &awaited.message;
                engine.waiters.tell(awaited.id, &message.body, message.attributes.as_ref(), || outcome);
            }
        }
    }
}

async fn outcome(engine: &Engine, awaited: &Awaited) -> Result<Option<RowOutcome>, StoreError> {
    let Some(topic) = engine.topics.get(awaited.topic.as_str()) else { return Ok(None) };
    let table = topic.table();
    if let Some(row) = engine.store.get(&table, awaited.id).await? {
        let published_at = table.column(PUBLISHED_AT).and_then(|column| row.row(0).nth(column).flatten());
        if published_at.map(field::timestamp) == Some(awaited.published_at) {
            return Ok(Some(RowOutcome::Stored));
        }
    }
    let dead = topic.encoder().identity.dead_letter_id(awaited.id, &awaited.message.body);
    let kept = engine.store.dead_letter(dead).await?;
    Ok(kept.and_then(|kept| {
        let code = Code::ALL.into_iter().find(|code| code.name() == kept.reason)?;
        Some(RowOutcome::Bad(Rejection::new(code, kept.pointer, kept.detail)))
    }))
}
