//! Reads: single records on threads kept for them, long ones streamed through a short channel from other threads.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::plan::ReadPlan;
use caudal_core::ports::TailMark;
use caudal_core::row::RowBatch;
use caudal_core::schema::{Column, Table};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rusqlite::{params, params_from_iter};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::SqliteStore;
use super::error::{asked, found_error, store_error};
use super::numbers;
use super::readers::Reader;
use super::sql::{self, Sql, column_list, quoted};
use super::values::push_row;

/// A batch goes out when it has this many bytes.
const BATCH_BYTES: usize = 128 * 1024;
/// Batches read ahead of a slow consumer.
const BATCHES_AHEAD: usize = 2;

pub(super) async fn get(store: &SqliteStore, table: &Arc<Table>, id: Uuid) -> Result<Option<RowBatch>, StoreError> {
    let table = table.clone();
    let work = move |reader: &Reader| {
        let columns = column_list(table.columns.iter().map(|c| c.name.as_str()));
        let sql = format!("select {columns} from {} where _id = ?1", quoted(&table.name));
        let mut statement = reader.conn.prepare_cached(&sql).map_err(store_error)?;
        let mut rows = statement.query(params![id.to_string()]).map_err(store_error)?;
        let Some(row) = rows.next().map_err(store_error)? else { return Ok(None) };
        let mut batch = RowBatch::default();
        push_row(&mut batch, row, 0, table.columns.iter())?;
        Ok(Some(batch))
    };
    store.points.ask(work).await
}

pub(super) async fn read(
    store: &SqliteStore,
    plan: ReadPlan,
) -> Result<BoxStream<'static, Result<RowBatch, StoreError>>, StoreError> {
    let sql = sql::select(&plan)?;
    stream(store, plan.table.clone(), plan.columns(), sql).await
}

/// The rows of a query of a table as a stream; `columns` are the query's.
pub(super) async fn stream(
    store: &SqliteStore,
    table: Arc<Table>,
    columns: Vec<Column>,
    sql: Sql,
) -> Result<BoxStream<'static, Result<RowBatch, StoreError>>, StoreError> {
    let (batches, mut arriving) = mpsc::channel(BATCHES_AHEAD);
    store.streams.send(move |reader| {
        // The end is said in words (an empty batch): a channel that merely closes is a thread that died.
        let end = pour(reader, &table, &columns, &sql, &batches).map(|()| RowBatch::default());
        let _ = batches.blocking_send(end);
    })?;
    // The first batch is awaited here, so that a read that fails at once fails before anybody answered anything.
    let first = next(&mut arriving).await?;
    let stream = futures_util::stream::try_unfold((Some(first), arriving), |(ready, mut arriving)| async move {
        let batch = match ready {
            Some(first) => first,
            None => next(&mut arriving).await?,
        };
        Ok(batch.map(|batch| (batch, (None, arriving))))
    });
    Ok(stream.boxed())
}

async fn next(arriving: &mut mpsc::Receiver<Result<RowBatch, StoreError>>) -> Result<Option<RowBatch>, StoreError> {
    match arriving.recv().await {
        Some(batch) => batch.map(|batch| (!batch.is_empty()).then_some(batch)),
        None => Err(StoreError::fatal("a reading thread ended in the middle of a read")),
    }
}

/// Ends early when nobody takes the batches any more: that is how dropping the stream frees the thread.
fn pour(
    reader: &Reader,
    table: &Table,
    columns: &[Column],
    sql: &Sql,
    batches: &mpsc::Sender<Result<RowBatch, StoreError>>,
) -> Result<(), StoreError> {
    let mut statement = reader.conn.prepare_cached(&sql.text).map_err(|error| read_error(error, table))?;
    let mut rows = statement.query(params_from_iter(&sql.values)).map_err(store_error)?;
    let mut batch = RowBatch::default();
    // A cached statement that met a change of the schema says so at its first step.
    while let Some(row) = rows.next().map_err(|error| read_error(error, table))? {
        push_row(&mut batch, row, 0, columns.iter())?;
        if batch.byte_len() >= BATCH_BYTES {
            if batches.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
                return Ok(());
            }
            reader.restart_clock();
        }
    }
    if !batch.is_empty() {
        let _ = batches.blocking_send(Ok(batch));
    }
    Ok(())
}

fn read_error(error: rusqlite::Error, table: &Table) -> StoreError {
    if let Some(asked) = asked(&error) {
        return asked;
    }
    if table.schema.is_some() { found_error(error) } else { store_error(error) }
}

pub(super) async fn count(store: &SqliteStore, plan: &ReadPlan) -> Result<u64, StoreError> {
    let sql = sql::count(plan)?;
    let table = plan.table.clone();
    let work = move |reader: &Reader| {
        let mut statement = reader.conn.prepare_cached(&sql.text).map_err(|error| read_error(error, &table))?;
        let count = statement.query_row(params_from_iter(&sql.values), |row| row.get(0));
        let count: i64 = count.map_err(|error| read_error(error, &table))?;
        Ok(count as u64)
    };
    store.streams.ask(work).await
}

/// One writer commits in order, so the row number is the order of commits.
pub(super) async fn tail(
    store: &SqliteStore,
    table: &Arc<Table>,
    from: Option<TailMark>,
    limit: usize,
) -> Result<(RowBatch, TailMark), StoreError> {
    let table = table.clone();
    let from = match from {
        Some(mark) => Some(
            mark.0
                .parse::<i64>()
                .map_err(|_| StoreError::Setup("this place in the stream is not one of SQLite's".into()))?,
        ),
        None => None,
    };
    let work = move |reader: &Reader| {
        let name = quoted(&table.name);
        let mut batch = RowBatch::default();
        let Some(mut last) = from else {
            let last = numbers::highest(&reader.conn, &table).map_err(store_error)?;
            return Ok((batch, TailMark(last.to_string())));
        };
        let columns = column_list(table.columns.iter().map(|c| c.name.as_str()));
        let sql = format!("select rowid, {columns} from {name} where rowid > ?1 order by rowid limit ?2");
        let mut statement = reader.conn.prepare_cached(&sql).map_err(store_error)?;
        let mut rows = statement.query(params![last, limit.max(1) as i64]).map_err(store_error)?;
        while let Some(row) = rows.next().map_err(store_error)? {
            last = row.get(0).map_err(store_error)?;
            push_row(&mut batch, row, 1, table.columns.iter())?;
        }
        Ok((batch, TailMark(last.to_string())))
    };
    store.points.ask(work).await
}
