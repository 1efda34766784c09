//! The records of transactions that come from another store, as an append would have written them: in the topic's table, counted as
//! stored. They keep the time at which they were stored there, because it is part of what an endpoint was or will be sent.

use caudal_core::confirm::transfer::Carried;
use caudal_core::error::StoreError;
use caudal_core::json::read_record;
use caudal_core::row::RowBatch;
use caudal_core::schema::{ID, STORED_AT, Table};
use foldhash::HashSet;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::connect::Conn;
use super::super::error::{PutError, store_error};
use super::super::operate::Typed;
use super::super::sql::{column_list, quoted};
use super::super::wire::{Raw, RawArray, Stamp, array_of};
use super::import::ask;
use crate::moving::no_record;

/// Stored before the topic had lanes here, and to be confirmed all the same.
fn brought_sql(table: &Table) -> String {
    format!(
        "insert into _confirm_brought (tx) select t.{ID} from {} t
         where t.{ID} = any($1) and t.{STORED_AT} < (select min(since) from _confirm_lanes where topic = $2 and not adopts)
         on conflict (tx) do nothing",
        quoted(&table.name)
    )
}

const COUNT: &str = "
insert into _ledger as l (topic, writer, accepted, stored, duplicate, rejected, dead) values ($1, $2, $3, $3, 0, 0, 0)
on conflict (topic, writer) do update set accepted = l.accepted + excluded.accepted, stored = l.stored + excluded.stored";

/// What has its outcome and whose record has left: as if it had been here and left.
const LEFT: &str = "
with kept as (
  insert into _expired (topic, _id, expired_at) select $1, u.tx, clock_timestamp() from unnest($2::uuid[]) as u(tx)
  on conflict (_id) do nothing returning 1),
counted as (
  insert into _retention as r (topic, expired) select $1, count(*) from kept having count(*) > 0
  on conflict (topic) do update set expired = r.expired + excluded.expired)
select count(*) from kept";

/// Writes those records that are not there; they count as accepted and stored.
pub(super) async fn put_records(conn: &Conn, table: &Table, writer: &str, rows: &[&Carried]) -> Result<(), StoreError> {
    let there = there(conn, table, rows).await?;
    let (mut batch, mut ids, mut stored, mut left) = (RowBatch::default(), Vec::new(), Vec::new(), Vec::new());
    for row in rows.iter().filter(|row| !there.contains(&row.id)) {
        match &row.record {
            Some(record) => {
                let at = read_record(&mut batch, table, record, (row.id, row.since));
                stored.push(Stamp(at.map_err(|why| no_record(row.id, &table.name, &why))?));
                ids.push(row.id);
            }
            None if row.state.is_outcome() => left.push(row.id),
            None => {}
        }
    }
    let mut new = write(conn, table, &batch, &stored).await?;
    if !ids.is_empty() {
        let params: [Typed<'_>; 2] = [(&ids, Type::UUID_ARRAY), (&table.name, Type::TEXT)];
        ask(conn, &brought_sql(table), &params).await?;
    }
    if !left.is_empty() {
        let rows = ask(conn, LEFT, &[(&table.name, Type::TEXT), (&left, Type::UUID_ARRAY)]).await?;
        new += rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0)).map_err(store_error)?;
    }
    if new > 0 {
        let params: [Typed<'_>; 3] = [(&table.name, Type::TEXT), (&writer, Type::TEXT), (&new, Type::INT8)];
        ask(conn, COUNT, &params).await?;
    }
    Ok(())
}

/// In the table, or among what left it.
async fn there(conn: &Conn, table: &Table, rows: &[&Carried]) -> Result<HashSet<Uuid>, StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let sql = format!(
        "select {ID} from {} where {ID} = any($1) union select _id from _expired where _id = any($1)",
        quoted(&table.name)
    );
    let found = ask(conn, &sql, &[(&ids, Type::UUID_ARRAY)]).await?;
    found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(store_error)
}

async fn write(conn: &Conn, table: &Table, batch: &RowBatch, stored: &Vec<Stamp>) -> Result<i64, StoreError> {
    if batch.is_empty() {
        return Ok(0);
    }
    let columns: Vec<_> = table.written().collect();
    let mut arrays: Vec<RawArray> = columns.iter().map(|column| RawArray::new(column.ty)).collect();
    for row in batch.rows() {
        arrays.iter_mut().zip(row).for_each(|(array, value)| array.push(value));
    }
    let arrays: Vec<Raw> = arrays.into_iter().map(RawArray::finish).collect();
    let names = column_list(columns.iter().map(|column| column.name.as_str()).chain([STORED_AT]));
    let values: Vec<String> = (1..=columns.len() + 1).map(|n| format!("${n}")).collect();
    let sql = format!(
        "insert into {} ({names}) select * from unnest({}) on conflict ({ID}) do nothing returning 1",
        quoted(&table.name),
        values.join(", ")
    );
    let mut params: Vec<Typed<'_>> =
        arrays.iter().zip(&columns).map(|(array, column)| -> Typed<'_> { (array, array_of(column.ty)) }).collect();
    params.push((stored, Type::TIMESTAMPTZ_ARRAY));
    let written = conn.client.query_typed(&sql, &params).await.map_err(|error| match PutError::of(error) {
        PutError::Store(error) => error,
        PutError::Refused { rejection, .. } => {
            StoreError::Asked(format!("a record of this lane cannot be one of {}: {rejection}", table.name))
        }
        PutError::Taken { .. } => StoreError::unavailable("somebody else stores the same records: try again"),
    })?;
    Ok(written.len() as i64)
}
