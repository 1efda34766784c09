//! Everything that was committed between two marks, in one pass, for exports; and who may run one. One writer commits in order, so
//! the row number is the order of commits, as in the tail.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::ports::{Exclusive, TailMark};
use caudal_core::row::RowBatch;
use caudal_core::schema::Table;
use futures_util::stream::BoxStream;
use rusqlite::types::Value;

use super::SqliteStore;
use super::error::store_error;
use super::numbers;
use super::read;
use super::readers::Reader;
use super::sql::{Sql, column_list, quoted};

pub(super) async fn changes(
    store: &SqliteStore,
    table: &Arc<Table>,
    from: Option<&TailMark>,
) -> Result<(BoxStream<'static, Result<RowBatch, StoreError>>, TailMark), StoreError> {
    let unknown = || StoreError::Setup("this place in the stream is not one of SQLite's".into());
    let from = from.map_or(Ok(0), |mark| mark.0.parse::<i64>().map_err(|_| unknown()))?;
    let name = quoted(&table.name);
    let of = table.clone();
    let until =
        store.points.ask(move |reader: &Reader| numbers::highest(&reader.conn, &of).map_err(store_error)).await?;
    if until < from {
        return Err(StoreError::Setup(
            "this place in the stream is from later than the database is: it was restored from a copy, or is another one".into(),
        ));
    }
    let columns = column_list(table.columns.iter().map(|c| c.name.as_str()));
    let text = format!("select {columns} from {name} where rowid > ?1 and rowid <= ?2 order by rowid");
    let sql = Sql::written(text, vec![Value::Integer(from), Value::Integer(until)]);
    let rows = read::stream(store, table.clone(), table.columns.clone(), sql).await?;
    Ok((rows, TailMark(until.to_string())))
}

/// A lock on a file beside the database: the system gives it up when the process ends.
pub(super) fn exclusive(database: &Path, name: &str) -> Result<Option<Exclusive>, StoreError> {
    let kept: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let mut path = database.as_os_str().to_owned();
    path.push(format!(".{kept}.lock"));
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(StoreError::fatal)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Box::new(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::fatal(error)),
    }
}
