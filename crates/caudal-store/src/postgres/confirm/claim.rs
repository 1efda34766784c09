//! Claims and leases.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use caudal_core::confirm::ports::{Adopt, Batch, Claim, Lease, Records};
use caudal_core::confirm::{Item, Mark};
use caudal_core::error::StoreError;
use caudal_core::json::write_row;
use caudal_core::row::RowBatch;
use caudal_core::schema::{Column, EXTRA, ID, Table};
use foldhash::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::PostgresStore;
use super::super::error::store_error;
use super::super::operate::Typed;
use super::super::sql::{column_list, quoted};
use super::super::wire::{Stamp, column_bytes, push_row};
use super::{Lane, adopt, count, micros};

/// Rows are found by their place: as a join, the planner guesses that the limit is large, and reads all. Arrays are put together
/// from rows in order, which costs one sort instead of one an array.
pub(super) const CLAIM: &str = "
with taken as (
  delete from _confirm_ready where ctid = any(array(
    select ctid from _confirm_ready
    where lane = $1 and rank = $2 and pos > $3 and pos <= $7 and (select paused_at is null from _confirm_lanes where lane = $1)
    order by pos limit $4 for update skip locked))
  returning pos, tx, attempts, crashes, doubt, fresh, since, first_sent),
kept as (
  select * from taken t where fresh or (select o.tx from _confirm_outcomes o where o.tx = t.tx limit 1) is null order by pos),
lease as (
  insert into _confirm_leases
    (worker, until, lane, rank, phase, items, txs, attempts, crashes, doubts, sinces, first_sents)
  select $5, clock_timestamp() + $6 * interval '1 microsecond', $1, $2, 'leased', count(*), array_agg(tx),
         array_agg(attempts), array_agg(crashes), array_agg(doubt), array_agg(since), array_agg(first_sent)
  from kept having count(*) > 0
  returning lease, txs, attempts, crashes, doubts, sinces, first_sents)
select (select max(pos) from taken), clock_timestamp(), l.* from (select) one left join lease l on true";

pub(super) const CLAIM_TYPES: [Type; 7] =
    [Type::INT4, Type::INT2, Type::INT8, Type::INT8, Type::TEXT, Type::INT8, Type::INT8];

const BEGIN_CALLS: &str = "
update _confirm_leases set phase = 'calling', called_at = coalesce(called_at, clock_timestamp()),
  until = clock_timestamp() + $3 * interval '1 microsecond'
where lease = $1 and worker = $2 returning 1";

/// In the order of their numbers, as they are settled.
const EXTEND: &str = "
with mine as (
  select l.lease from _confirm_leases l
  join unnest($1::int8[], $2::text[]) as u(lease, worker) on u.lease = l.lease and u.worker = l.worker
  order by l.lease for update of l)
update _confirm_leases l set until = greatest(until, clock_timestamp() + $3 * interval '1 microsecond')
from mine where l.lease = mine.lease returning l.lease";

impl PostgresStore {
    pub(super) async fn claim_items(&self, claim: &Claim) -> Result<Option<Batch>, StoreError> {
        let lane = self.lanes.get(claim.lane)?;
        let (rank, ttl, limit) = (claim.rank.number(), micros(claim.ttl), claim.items_max.max(1) as i64);
        let (begin, mut from) = (self.begin_in_order(), claim.from);
        loop {
            let values: [Typed<'_>; 7] = [
                (&claim.lane.0, CLAIM_TYPES[0].clone()),
                (&rank, CLAIM_TYPES[1].clone()),
                (&from, CLAIM_TYPES[2].clone()),
                (&limit, CLAIM_TYPES[3].clone()),
                (&&*claim.worker, CLAIM_TYPES[4].clone()),
                (&ttl, CLAIM_TYPES[5].clone()),
                (&claim.to, CLAIM_TYPES[6].clone()),
            ];
            let rows = self.within(&begin, CLAIM, &values).await?;
            let row = rows.first().ok_or_else(|| StoreError::fatal("a claim gave no row"))?;
            let Some(taken) = row.try_get::<_, Option<i64>>(0).map_err(store_error)? else { return Ok(None) };
            self.lanes.taken(claim.lane, claim.rank, taken);
            from = taken;
            // All of them had their outcome already: there may be more.
            let Some(number) = row.try_get::<_, Option<i64>>(2).map_err(store_error)? else { continue };
            let lease = Lease { lane: claim.lane, number, worker: claim.worker.clone() };
            let items = items(row).map_err(store_error)?;
            let batch = self.with_records(&lane, Batch { lease, items, watermark: taken }).await?;
            if !batch.items.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    /// Reads the records. What has none cannot be called for, and is held.
    async fn with_records(&self, lane: &Lane, mut batch: Batch) -> Result<Batch, StoreError> {
        let ids: Vec<Uuid> = batch.items.iter().map(|item| item.id).collect();
        let mut records = match &lane.records {
            Records::Topic(table) => self.topic_records(table, &ids).await?,
            Records::Adopted(adopt) => self.adopted_records(adopt, &ids).await?,
        };
        let mut held = Vec::new();
        batch.items.retain_mut(|item| {
            let table = &table_of(lane).name;
            let why = match records.remove(&item.id) {
                // What may have been done has to be found out, whatever its owner thinks of it.
                Some(found) if found.waits || item.doubt => {
                    item.record = found.record;
                    return true;
                }
                Some(_) => {
                    format!("its row in {table} is not waiting any more: its owner changed it before it was called for")
                }
                None => format!("its record is not in {table} any more: it was deleted there"),
            };
            held.push((item.clone(), Mark::Held { maybe_done: item.doubt, code: None, detail: why }));
            false
        });
        if !held.is_empty() {
            self.move_uncalled(&batch.lease, held).await?;
        }
        Ok(batch)
    }

    pub(super) async fn topic_records(&self, table: &Table, ids: &[Uuid]) -> Result<HashMap<Uuid, Found>, StoreError> {
        let columns = column_list(table.columns.iter().map(|c| c.name.as_str()));
        let sql = format!("select {ID}, true, {columns} from {} where {ID} = any($1)", quoted(&table.name));
        self.records(&sql, &table.columns, &[(&ids, Type::UUID_ARRAY)]).await
    }

    pub(super) async fn adopted_records(
        &self,
        adopt: &Adopt,
        ids: &[Uuid],
    ) -> Result<HashMap<Uuid, Found>, StoreError> {
        let params: [Typed<'_>; 2] = [(&ids, Type::UUID_ARRAY), (&adopt.pending, Type::TEXT)];
        self.records(&adopt::records_sql(adopt), &adopt.table.columns, &params).await
    }

    /// Rows of: the transaction, whether its row still waits, the record.
    async fn records(
        &self,
        sql: &str,
        columns: &[Column],
        params: &[Typed<'_>],
    ) -> Result<HashMap<Uuid, Found>, StoreError> {
        let rows = self.ask_over(&self.confirmers, sql, params, true).await?;
        let found = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, Found { waits: row.try_get(1)?, record: record(columns, row, 2)? })));
        found.collect::<Result<_, _>>().map_err(store_error)
    }

    pub(super) async fn flip_to_calling(&self, lease: &Lease, ttl: Duration) -> Result<bool, StoreError> {
        let params: [Typed<'_>; 3] =
            [(&lease.number, Type::INT8), (&&*lease.worker, Type::TEXT), (&micros(ttl), Type::INT8)];
        Ok(!self.confirm(BEGIN_CALLS, &params).await?.is_empty())
    }

    pub(super) async fn prolong(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<bool>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let numbers: Vec<i64> = leases.iter().map(|lease| lease.number).collect();
        let workers: Vec<&str> = leases.iter().map(|lease| &*lease.worker).collect();
        let params: [Typed<'_>; 3] =
            [(&numbers, Type::INT8_ARRAY), (&workers, Type::TEXT_ARRAY), (&micros(ttl), Type::INT8)];
        let rows = self.confirm(EXTEND, &params).await?;
        let live = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>().map_err(store_error)?;
        Ok(numbers.iter().map(|number| live.contains(number)).collect())
    }
}

fn table_of(lane: &Lane) -> &Arc<Table> {
    match &lane.records {
        Records::Topic(table) => table,
        Records::Adopted(adopt) => &adopt.table,
    }
}

/// The items of a new lease, without their records.
fn items(row: &Row) -> Result<Vec<Item>, tokio_postgres::Error> {
    let claimed = row.try_get::<_, Stamp>(1)?.0;
    let txs: Vec<Uuid> = row.try_get(3)?;
    let (attempts, crashes): (Vec<i32>, Vec<i32>) = (row.try_get(4)?, row.try_get(5)?);
    let doubts: Vec<bool> = row.try_get(6)?;
    let (sinces, first_sents): (Vec<Stamp>, Vec<Option<Stamp>>) = (row.try_get(7)?, row.try_get(8)?);
    let items = txs.into_iter().zip(attempts).zip(crashes).zip(doubts).zip(sinces).zip(first_sents);
    let items = items.map(|(((((id, attempts), crashes), doubt), since), first_sent)| Item {
        id,
        attempts: count(attempts),
        crashes: count(crashes),
        doubt,
        since: since.0,
        first_sent: first_sent.map(|sent| sent.0),
        claimed,
        record: Bytes::new(),
    });
    Ok(items.collect())
}

/// A record, and whether its owner still has it waiting.
pub(super) struct Found {
    waits: bool,
    pub(super) record: Bytes,
}

/// The columns from `first` on as an object. `_extra`, the last one of a topic's, is there only where it holds something.
fn record(columns: &[Column], row: &Row, first: usize) -> Result<Bytes, tokio_postgres::Error> {
    let mut fields = RowBatch::with_capacity(1, row.raw_size_bytes() + 2);
    push_row(&mut fields, row, first)?;
    let mut kept = columns.len();
    if columns.last().is_some_and(|column| column.name == EXTRA) && column_bytes(row, row.len() - 1)?.is_none() {
        kept -= 1;
    }
    let mut out = Vec::with_capacity(row.raw_size_bytes() * 2);
    write_row(&mut out, &columns[..kept], fields.row(0));
    Ok(Bytes::from(out))
}
