//! Stored rows become pending in the transaction that stores them.

use std::sync::Arc;

use caudal_core::ports::{AppendBatch, Lanes};
use tokio_postgres::Error;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::connect::{Conn, Query};
use super::super::copy::Rows;
use super::super::existing::id_of;

/// In the order of the batch: positions are given out in it.
const ENQUEUE: &str = "
with counted as (
  insert into _confirm_counts as c (lane, writer, enqueued)
  select u.lane, $3, count(*) from unnest($1::int4[]) as u(lane) group by u.lane order by u.lane
  on conflict (lane, writer) do update set enqueued = c.enqueued + excluded.enqueued)
insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
select u.lane, 0, u.tx, 0, 0, false, true, clock_timestamp()
from unnest($1::int4[], $2::uuid[]) with ordinality as u(lane, tx, n) order by u.n";

/// Where records leave and their keys are forgotten one day, a record may come again that was confirmed long ago.
const ENQUEUE_UNLESS_ENDED: &str = "
with put as (
  insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
  select u.lane, 0, u.tx, 0, 0, false, true, clock_timestamp()
  from unnest($1::int4[], $2::uuid[]) with ordinality as u(lane, tx, n)
  where not exists (select from _confirm_outcomes o where o.tx = u.tx) order by u.n
  returning lane)
insert into _confirm_counts as c (lane, writer, enqueued)
select lane, $3, count(*) from put group by lane order by lane
on conflict (lane, writer) do update set enqueued = c.enqueued + excluded.enqueued";

/// What an append's transaction does for rows that are to be confirmed.
pub(in crate::postgres) struct Enqueue {
    query: Arc<Query>,
    lanes: Vec<i32>,
    txs: Vec<Uuid>,
}

impl Enqueue {
    /// `None`: nothing is to be confirmed.
    pub(in crate::postgres) async fn prepare(
        conn: &mut Conn,
        batch: &AppendBatch,
        rows: Rows<'_>,
    ) -> Result<Option<Self>, Error> {
        if batch.lanes == Lanes::None || rows.is_empty(batch) {
            return Ok(None);
        }
        let wanted = rows.indices(batch).filter_map(|index| Some((batch.lanes.of(index)?.0, id_of(batch, index))));
        let (lanes, txs) = wanted.unzip();
        let sql = match batch.table.expires {
            Some(_) => ENQUEUE_UNLESS_ENDED,
            None => ENQUEUE,
        };
        let query = conn.prepare(sql, &[Type::INT4_ARRAY, Type::UUID_ARRAY, Type::TEXT]).await?;
        Ok(Some(Self { query, lanes, txs }))
    }

    pub(in crate::postgres) async fn run(&self, conn: &Conn, writer: &str) -> Result<u64, Error> {
        conn.execute(&self.query, &[&self.lanes, &self.txs, &writer]).await
    }
}
