//! The audit: every transaction has one outcome, or is open in one place.

use std::time::Duration;

use caudal_core::confirm::ports::LaneAudit;
use caudal_core::error::StoreError;
use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::super::PostgresStore;
use super::super::error::store_error;
use super::super::operate::Typed;
use super::super::sql::quoted;

/// Everything is looked at, which takes as long as it takes; this is far beyond it.
const AUDIT_MAX: Duration = Duration::from_secs(3600);
/// Ids named of a kind.
const NAMED_MAX: i64 = 100;

/// Where the lanes' transactions are that have no outcome. A place that an outcome has not emptied yet is none; one from which it
/// would be claimed in spite of its outcome is.
const PLACES: &str = "
with places as (
  select lane, tx, fresh from _confirm_ready
  union all
  select s.lane, u.tx, false from _confirm_leases s cross join lateral unnest(s.txs) as u(tx)
  union all
  select lane, tx, false from _confirm_deferred
  union all
  select lane, tx, false from _confirm_aside),
open as (
  select p.lane, p.tx, count(*) + (case when bool_or(o.tx is not null) then 1 else 0 end) as places
  from places p left join _confirm_outcomes o on o.tx = p.tx
  where o.tx is null or p.fresh group by p.lane, p.tx)";

fn lanes_sql() -> String {
    format!(
        "{PLACES}
         select l.lane, l.topic, l.name, l.adopts,
                (select coalesce(sum(enqueued), 0)::int8 from _confirm_counts c where c.lane = l.lane),
                (select count(*) from _confirm_outcomes o where o.lane = l.lane),
                (select count(*) from open o where o.lane = l.lane
                   and not exists (select from _confirm_outcomes d where d.tx = o.tx)),
                array(select tx from open o where o.lane = l.lane and o.places > 1 order by tx limit $1),
                array(select distinct tx from _confirm_contradictions c where c.lane = l.lane order by tx limit $1),
                to_regclass(quote_ident(l.topic)) is not null,
                l.lane = min(l.lane) over (partition by l.topic, l.adopts)
         from _confirm_lanes l order by l.topic, l.name"
    )
}

/// Records since the topic has lanes, or that came with one, that are nowhere, and outcomes whose record neither is there nor left in good order. Where keys
/// of records that left were forgotten, as many outcomes have nothing to show any more.
fn topic_sql(topic: &str) -> String {
    let table = quoted(topic);
    format!(
        "{PLACES},
         lost as (
           select t._id from {table} t
           where (t._stored_at >= (select min(since) from _confirm_lanes where topic = $1)
                  or exists (select from _confirm_brought b where b.tx = t._id))
             and not exists (select from _confirm_outcomes o where o.tx = t._id)
             and not exists (select from places p where p.tx = t._id)
           order by t._id limit $2),
         stray as (
           select o.tx from _confirm_outcomes o join _confirm_lanes l on l.lane = o.lane
           where l.topic = $1 and not exists (select from {table} t where t._id = o.tx)
             and not exists (select from _expired e where e._id = o.tx)),
         forgotten as (
           select coalesce((select expired from _retention where topic = $1), 0)
                - (select count(*) from _expired where topic = $1) as n)
         select array(select _id from lost), array(
           select tx from stray where (select count(*) from stray) > (select n from forgotten) order by tx limit $2)"
    )
}

/// The same of rows that were adopted; whether they are still in their owner's table is the owner's affair.
const ADOPTED: &str = "
lost as (
  select a.tx from _confirm_adopted a where a.lane = $1
    and not exists (select from _confirm_outcomes o where o.tx = a.tx)
    and not exists (select from places p where p.tx = a.tx)
  order by a.tx limit $2),
stray as (
  select o.tx from _confirm_outcomes o where o.lane = $1
    and not exists (select from _confirm_adopted a where a.tx = o.tx) order by o.tx limit $2)
select array(select tx from lost), array(select tx from stray)";

impl PostgresStore {
    pub(super) async fn audit(&self) -> Result<Vec<LaneAudit>, StoreError> {
        let begin = format!(
            "begin isolation level repeatable read read only; set local statement_timeout = {}; set local enable_seqscan = on; set local jit = off",
            AUDIT_MAX.as_millis()
        );
        let work = self.transact(move |conn| {
            async move {
                conn.client.batch_execute(&begin).await.map_err(store_error)?;
                let sql = lanes_sql();
                let lanes = conn.client.query_typed(&sql, &[(&NAMED_MAX, Type::INT8)]).await.map_err(store_error)?;
                let mut audits = Vec::with_capacity(lanes.len());
                for lane in &lanes {
                    let mut audit = audit_of(lane).map_err(store_error)?;
                    if let Some((sql, key, ty)) = records_sql(lane, &audit).map_err(store_error)? {
                        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&*key, ty), (&NAMED_MAX, Type::INT8)];
                        let rows = conn.client.query_typed(&sql, &params).await.map_err(store_error)?;
                        if let Some(row) = rows.first() {
                            audit.lost = row.try_get(0).map_err(store_error)?;
                            audit.stray = row.try_get(1).map_err(store_error)?;
                        }
                    }
                    audits.push(audit);
                }
                conn.client.batch_execute("commit").await.map_err(store_error)?;
                Ok(audits)
            }
            .boxed()
        });
        work.await
    }

    /// A statement over whole tables: the other way round than those that find rows by their keys.
    pub(super) async fn over_all(&self, sql: &'static str, params: &[Typed<'_>]) -> Result<Vec<Row>, StoreError> {
        let begin = format!(
            "begin read only; set local enable_seqscan = on; set local jit = off; set local statement_timeout = {}",
            self.statement_timeout.as_millis()
        );
        self.within(&begin, sql, params).await
    }
}

fn audit_of(row: &Row) -> Result<LaneAudit, tokio_postgres::Error> {
    Ok(LaneAudit {
        topic: row.try_get(1)?,
        lane: row.try_get(2)?,
        enqueued: row.try_get::<_, i64>(4)? as u64,
        outcomes: row.try_get::<_, i64>(5)? as u64,
        open: row.try_get::<_, i64>(6)? as u64,
        twice: row.try_get(7)?,
        contradicted: row.try_get(8)?,
        ..LaneAudit::default()
    })
}

type Asked = (String, Box<dyn ToSql + Sync + Send>, Type);

/// What compares a lane with its records. A topic's are looked at with its first lane: nothing says in which of them a record that
/// is nowhere should be.
fn records_sql(row: &Row, audit: &LaneAudit) -> Result<Option<Asked>, tokio_postgres::Error> {
    let (lane, adopts, table, first): (i32, bool, bool, bool) =
        (row.try_get(0)?, row.try_get(3)?, row.try_get(9)?, row.try_get(10)?);
    Ok(match (adopts, table && first) {
        (true, _) => Some((format!("{PLACES}, {ADOPTED}"), Box::new(lane), Type::INT4)),
        (false, true) => Some((topic_sql(&audit.topic), Box::new(audit.topic.clone()), Type::TEXT)),
        (false, false) => None,
    })
}
