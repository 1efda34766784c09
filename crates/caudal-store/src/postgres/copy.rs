//! Putting rows into a table: binary `COPY` from the batch's own bytes, or, behind a transaction pool, one
//! `INSERT … SELECT … FROM unnest(…)`.
//!
//! Why not `COPY` there: the driver sends `COPY` as a named statement that outlives the transaction, and sends a `Sync`
//! before the data as well as after it, of which the server answers only one; a pool that counts answers loses step.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use caudal_core::ports::AppendBatch;
use caudal_core::schema::Table;
use futures_util::SinkExt;
use futures_util::future::join;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{CopyInSink, Error, Statement};
use uuid::Uuid;

use super::connect::{Conn, Query};
use super::existing::id_of;
use super::sql::{column_list, quoted};
use super::wire::{Raw, RawArray, array_of};

/// How rows get into one table over one connection.
pub(super) enum Put {
    Copy(Statement),
    Unnest(Arc<Query>),
}

impl Put {
    pub(super) async fn prepare(conn: &mut Conn, table: &Table, pooled: bool) -> Result<Self, Error> {
        if pooled {
            let types: Vec<Type> = table.written().map(|c| array_of(c.ty)).collect();
            return Ok(Self::Unnest(conn.prepare(&unnest_sql(table), &types).await?));
        }
        let sql = format!(
            "copy {} ({}) from stdin (format binary)",
            quoted(&table.name),
            column_list(table.written().map(|c| c.name.as_str()))
        );
        Ok(Self::Copy(conn.prepare_copy(&sql).await?))
    }
}

fn unnest_sql(table: &Table) -> String {
    let columns = column_list(table.written().map(|c| c.name.as_str()));
    let arrays: Vec<String> =
        table.written().enumerate().map(|(i, c)| format!("${}::{}[]", i + 1, c.ty.name())).collect();
    format!("insert into {} ({columns}) select * from unnest({})", quoted(&table.name), arrays.join(", "))
}

/// Which rows of a batch to put.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows<'a> {
    All,
    These(&'a [usize]),
}

impl Rows<'_> {
    pub(super) fn indices(self, batch: &AppendBatch) -> impl Iterator<Item = usize> {
        let count = match self {
            Rows::All => batch.rows.len(),
            Rows::These(rows) => rows.len(),
        };
        (0..count).map(move |at| match self {
            Rows::All => at,
            Rows::These(rows) => rows[at],
        })
    }

    pub(super) fn ids(self, batch: &AppendBatch) -> impl Iterator<Item = Uuid> {
        self.indices(batch).map(|index| id_of(batch, index))
    }

    pub(super) fn is_empty(self, batch: &AppendBatch) -> bool {
        match self {
            Rows::All => batch.rows.is_empty(),
            Rows::These(rows) => rows.is_empty(),
        }
    }
}

/// Rows on their way: everything that can be sent before the answer is awaited has been.
pub(super) enum Sending {
    Copy(Box<CopyInSink<Bytes>>, Vec<Bytes>),
    Unnest(Arc<Query>, Vec<Raw>),
    Nothing,
}

/// Opens a transaction and starts putting rows, in one round trip (none when there is nothing to put or no `COPY`).
pub(super) async fn begin_and_start(
    conn: &Conn,
    begin: &str,
    put: &Put,
    batch: &Arc<AppendBatch>,
    rows: Rows<'_>,
) -> Result<Sending, Error> {
    let (begun, sending) = join(conn.client.batch_execute(begin), start(conn, put, batch, rows)).await;
    begun?;
    sending
}

pub(super) async fn start(conn: &Conn, put: &Put, batch: &Arc<AppendBatch>, rows: Rows<'_>) -> Result<Sending, Error> {
    if rows.is_empty(batch) {
        return Ok(Sending::Nothing);
    }
    match put {
        Put::Copy(statement) => {
            let sink = conn.client.copy_in(statement).await?;
            Ok(Sending::Copy(Box::new(sink), copy_data(batch, rows)))
        }
        Put::Unnest(query) => Ok(Sending::Unnest(query.clone(), arrays(batch, rows))),
    }
}

/// Sends the rows and waits for the database's verdict. Joined with later statements it shares their round trip.
pub(super) async fn finish(conn: &Conn, sending: Sending) -> Result<u64, Error> {
    match sending {
        Sending::Nothing => Ok(0),
        Sending::Unnest(query, arrays) => {
            let params: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|a| a as _).collect();
            conn.execute(&query, &params).await
        }
        Sending::Copy(sink, chunks) => {
            let mut sink = pin!(*sink);
            for chunk in chunks {
                sink.feed(chunk).await?;
            }
            sink.finish().await
        }
    }
}

/// Signature, flags, no header extension (PostgreSQL documentation, `COPY`, "Binary Format").
static HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
static TRAILER: &[u8] = &[0xff, 0xff];

/// One `CopyData` message at most; the driver's write buffer grows to this.
const CHUNK_BYTES: usize = 128 * 1024;

/// Keeps a batch alive as long as its bytes are in flight, instead of copying them.
struct RowBytes(Arc<AppendBatch>);

impl AsRef<[u8]> for RowBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.rows.bytes()
    }
}

fn copy_data(batch: &Arc<AppendBatch>, rows: Rows<'_>) -> Vec<Bytes> {
    let mut data = match rows {
        Rows::All => Bytes::from_owner(RowBytes(batch.clone())),
        Rows::These(rows) => {
            let mut bytes = Vec::with_capacity(rows.iter().map(|i| batch.rows.encoded(*i).len()).sum());
            rows.iter().for_each(|i| bytes.extend_from_slice(batch.rows.encoded(*i)));
            Bytes::from(bytes)
        }
    };
    let mut chunks = vec![Bytes::from_static(HEADER)];
    while !data.is_empty() {
        chunks.push(data.split_to(data.len().min(CHUNK_BYTES)));
    }
    chunks.push(Bytes::from_static(TRAILER));
    chunks
}

fn arrays(batch: &AppendBatch, rows: Rows<'_>) -> Vec<Raw> {
    let mut arrays: Vec<RawArray> = batch.table.written().map(|c| RawArray::new(c.ty)).collect();
    let mut push = |index: usize| {
        for (array, value) in arrays.iter_mut().zip(batch.rows.row(index)) {
            array.push(value);
        }
    };
    match rows {
        Rows::All => (0..batch.rows.len()).for_each(&mut push),
        Rows::These(rows) => rows.iter().copied().for_each(&mut push),
    }
    arrays.into_iter().map(RawArray::finish).collect()
}
