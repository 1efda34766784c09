//! Everything that was committed between two snapshots, in one pass, for exports; and who may run one.
//!
//! The rule is the tail's (`tail.rs`): a record is new when its transaction is not visible in the mark's snapshot but is in the
//! present one. Here the present one is taken first and the rows are read by a later statement, which sees at least as much, with
//! both snapshots as values. No transaction stays open, and nothing is sorted.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::ports::{Exclusive, TailMark};
use caudal_core::row::RowBatch;
use caudal_core::schema::{STORED_AT, Table};
use caudal_core::time::Instant;
use futures_util::stream::BoxStream;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::error::store_error;
use super::read;
use super::sql::{Sql, quoted};
use super::tail::{self, LATE_COMMIT_MAX, Mark};
use super::wire::Raw;

pub(super) async fn changes(
    store: &PostgresStore,
    table: &Arc<Table>,
    from: Option<&TailMark>,
) -> Result<(BoxStream<'static, Result<RowBatch, StoreError>>, TailMark), StoreError> {
    let from = from.map(parse).transpose()?;
    let (until, taken_at) = tail::snapshot(&store.ask(tail::PRESENT, &[], true).await?)?;
    if let Some(from) = &from
        && next_xid(&until) < next_xid(&from.since)
    {
        return Err(StoreError::Setup(
            "this place in the stream is from later than the database is: it was restored from a copy, or is another one".into(),
        ));
    }
    let rows = read::stream(store, &sql(table, from, &until), table).await?;
    Ok((rows, TailMark(Mark { since: until, taken_at, within: None }.to_string())))
}

fn parse(mark: &TailMark) -> Result<Mark, StoreError> {
    let mark = Mark::parse(&mark.0).filter(|mark| mark.within.is_none() && next_xid(&mark.since).is_some());
    mark.ok_or_else(|| StoreError::Setup("this place in the stream is not one of PostgreSQL's".into()))
}

/// The first transaction that a snapshot `xmin:xmax:xip` knows nothing of. It only grows, as long as it is the same database.
fn next_xid(snapshot: &str) -> Option<u64> {
    snapshot.split(':').nth(1)?.parse().ok()
}

fn sql(table: &Table, from: Option<Mark>, until: &str) -> Sql {
    let columns = table.columns.iter().map(|c| format!("t.{}", quoted(&c.name))).collect::<Vec<_>>().join(", ");
    let (xid, top) = (tail::XID, tail::TOP);
    let mut text = format!(
        "select {columns} from {} t, ({top}) p where pg_visible_in_snapshot({xid}, $1::text::pg_snapshot)",
        quoted(&table.name)
    );
    let mut values = vec![(Raw(until.as_bytes().to_vec()), Type::TEXT)];
    if let Some(from) = from {
        let search_from = Instant(from.taken_at.0.saturating_sub(LATE_COMMIT_MAX));
        text.push_str(&format!(
            " and t.{STORED_AT} >= $2 and not pg_visible_in_snapshot({xid}, $3::text::pg_snapshot)"
        ));
        values.push((Raw(search_from.0.to_be_bytes().to_vec()), Type::TIMESTAMPTZ));
        values.push((Raw(from.since.into_bytes()), Type::TEXT));
    }
    Sql::written(text, values)
}

/// A lock of the session, on a connection of its own: the server gives it up when the connection ends.
pub(super) async fn exclusive(store: &PostgresStore, name: &str) -> Result<Option<Exclusive>, StoreError> {
    if store.pooled {
        return Err(StoreError::Setup(
            "behind a transaction pool no lock outlives a transaction: give this work a direct connection".into(),
        ));
    }
    let conn = store.connector.connect().await?;
    const LOCK: &str = "select pg_try_advisory_lock(hashtextextended('caudal ' || $1, 0))";
    let row = conn.client.query_typed(LOCK, &[(&name, Type::TEXT)]).await.map_err(store_error)?;
    let locked: bool = row.first().map_or(Ok(false), |row| row.try_get(0)).map_err(store_error)?;
    Ok(locked.then(|| Box::new(conn) as Exclusive))
}
