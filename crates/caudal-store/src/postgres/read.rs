//! Reads of many rows: streamed from a connection of their own, in bounded memory, with a bound on every wait.

use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::plan::ReadPlan;
use caudal_core::row::RowBatch;
use caudal_core::schema::Table;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::{Error, RowStream};

use super::PostgresStore;
use super::error::{found_error, keeps_connection, own_error, store_error};
use super::pool::Lease;
use super::sql::{self, Sql};
use super::wire::push_row;

/// A batch goes out when it has this many bytes.
const BATCH_BYTES: usize = 128 * 1024;

pub(super) async fn read(
    store: &PostgresStore,
    plan: ReadPlan,
) -> Result<BoxStream<'static, Result<RowBatch, StoreError>>, StoreError> {
    stream(store, &sql::select(&plan), &plan.table).await
}

/// The rows of a query of a table as a stream.
pub(super) async fn stream(
    store: &PostgresStore,
    sql: &Sql,
    table: &Table,
) -> Result<BoxStream<'static, Result<RowBatch, StoreError>>, StoreError> {
    let reading = open(store, sql, table).await?;
    let stream = futures_util::stream::try_unfold(Some(reading), |reading| async move {
        let Some(mut reading) = reading else { return Ok(None) };
        match reading.next_batch().await? {
            (batch, true) => Ok(Some((batch, Some(reading)))),
            (batch, false) => Ok((!batch.is_empty()).then_some((batch, None))),
        }
    });
    Ok(stream.boxed())
}

pub(super) async fn count(store: &PostgresStore, plan: &ReadPlan) -> Result<u64, StoreError> {
    let sql = sql::count(plan);
    let mut reading = open(store, &sql, &plan.table).await?;
    let mut count = 0i64;
    while let Some(row) = reading.next_row().await? {
        count = row.try_get(0).map_err(store_error)?;
    }
    Ok(count as u64)
}

/// Sends a query. One attempt more when the connection turned out to be dead: nothing was read yet.
async fn open(store: &PostgresStore, sql: &Sql, table: &Table) -> Result<Reading, StoreError> {
    let changed = table.schema.is_some().then(|| store.changed.clone());
    let mut lease = store.readers.lease().await?;
    let mut retried = false;
    loop {
        let conn = lease.conn().await?;
        let params = sql.values.iter().map(|(value, ty)| (value, ty.clone()));
        let opening = conn.client.query_typed_raw(&sql.text, params);
        let opened = timeout(store.statement_timeout, opening).await;
        lease.begin_work();
        match opened {
            Err(_) => return Err(stop(lease, StoreError::Timeout)),
            Ok(Ok(rows)) => {
                let patience = store.statement_timeout;
                return Ok(Reading { lease: Some(lease), rows: Box::pin(rows), patience, changed });
            }
            Ok(Err(error)) => {
                let error = read_error(error, changed.as_deref());
                if !keeps_connection(&error) {
                    lease.discard();
                }
                if retried || !matches!(error, StoreError::Unavailable(_)) {
                    return Err(error);
                }
                retried = true;
                lease.discard();
            }
        }
    }
}

fn read_error(error: Error, changed: Option<&Notify>) -> StoreError {
    match changed {
        Some(changed) => found_error(error, changed),
        None => own_error(error),
    }
}

/// A query under way. Dropping it before its end stops the query on the server and gives up the connection: reading a long
/// result to its end only to throw it away would cost more.
struct Reading {
    lease: Option<Lease>,
    rows: std::pin::Pin<Box<RowStream>>,
    patience: Duration,
    /// Told when a table that Caudal did not make is not what its catalogue says.
    changed: Option<Arc<Notify>>,
}

impl Reading {
    async fn next_row(&mut self) -> Result<Option<tokio_postgres::Row>, StoreError> {
        // Most rows are here already: they need no clock.
        let next = match self.rows.try_next().now_or_never() {
            Some(next) => Ok(next),
            None => timeout(self.patience, self.rows.try_next()).await,
        };
        match next {
            Err(_) => Err(StoreError::Timeout),
            Ok(Err(error)) => Err(read_error(error, self.changed.as_deref())),
            Ok(Ok(Some(row))) => Ok(Some(row)),
            Ok(Ok(None)) => {
                if let Some(mut lease) = self.lease.take() {
                    lease.end_work();
                }
                Ok(None)
            }
        }
    }

    /// Rows until the batch is full or the result ends; `false` at its end.
    async fn next_batch(&mut self) -> Result<(RowBatch, bool), StoreError> {
        let mut batch = RowBatch::default();
        while let Some(row) = self.next_row().await? {
            push_row(&mut batch, &row, 0).map_err(store_error)?;
            if batch.byte_len() >= BATCH_BYTES {
                return Ok((batch, true));
            }
        }
        Ok((batch, false))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            stop(lease, StoreError::Timeout);
        }
    }
}

/// Ends what the lease's connection runs. The place in the pool is free again once the server was told, so that abandoned
/// reads cannot pile up on the server.
fn stop(mut lease: Lease, why: StoreError) -> StoreError {
    const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
    if let (Some(conn), Ok(runtime)) = (lease.take_unsound(), tokio::runtime::Handle::try_current()) {
        let cancel = conn.cancel();
        drop(conn);
        if let Some((token, tls)) = cancel {
            runtime.spawn(async move {
                let _ = timeout(CANCEL_PATIENCE, token.cancel_query(tls)).await;
                drop(lease);
            });
        }
    }
    why
}
