//! Lanes that come from another store. Each call is one transaction: places, records, counts and what was tried come together, so that
//! the audit is right after every one of them.

use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::Records;
use caudal_core::confirm::transfer::{Carried, ImportTransactions};
use caudal_core::error::StoreError;
use foldhash::HashSet;
use futures_util::FutureExt;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::super::PostgresStore;
use super::super::connect::Conn;
use super::super::error::store_error;
use super::super::operate::Typed;
use super::super::wire::Stamp;
use super::int;
use super::records::put_records;
use crate::moving::{adopts, not_paused};
use crate::settle::without_nul;

/// One import of a lane at a time: nothing else keeps two from making the same transaction pending.
const LANE: &str = "select topic, paused_at is not null, adopts from _confirm_lanes where lane = $1 for update";

/// In whatever lane.
const THERE: &str = "
select u.tx from unnest($1::uuid[]) as u(tx) where exists (select from _confirm_outcomes o where o.tx = u.tx)
union select u.tx from unnest($1) as u(tx) where exists (select from _confirm_deferred d where d.tx = u.tx)
union select u.tx from unnest($1) as u(tx) where exists (select from _confirm_aside a where a.tx = u.tx)
union select u.tx from unnest($1) as u(tx) join _confirm_ready r on r.tx = u.tx
union select l.tx from _confirm_leases s cross join lateral unnest(s.txs) as l(tx) where l.tx = any($1)";

const OPEN: &str = "
select u.tx from unnest($1::uuid[]) as u(tx) where not exists (select from _confirm_outcomes o where o.tx = u.tx)";

/// Takes transactions from where they wait, with what was tried: all of it comes again.
const CLEAR: &str = "
with a as (delete from _confirm_aside where tx = any($1)),
d as (delete from _confirm_deferred where tx = any($1)),
r as (delete from _confirm_ready where lane = $2 and tx in (select u.tx from unnest($1) as u(tx))),
t as (delete from _confirm_tried where tx = any($1))
select 1";

/// Each into its place, in the order given, and counted. None of them is fresh: an outcome may have come since it was looked for.
const PLACE: &str = "
with u as (
  select u.* from unnest($1::uuid[], $2::text[], $3::int4[], $4::int4[], $5::bool[], $6::timestamptz[], $7::timestamptz[],
      $8::timestamptz[], $9::timestamptz[], $10::int4[], $11::text[]) with ordinality
    as u(tx, state, attempts, crashes, maybe_done, since, first_sent, due, at, code, detail, n)),
r as (
  insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent)
  select $12, least(crashes, 2)::int2, tx, attempts, crashes, false, false, since, first_sent
  from u where state = 'pending' order by n),
d as (
  insert into _confirm_deferred (tx, lane, due, doubt, attempts, crashes, since, first_sent, code, detail)
  select tx, $12, coalesce(due, since), state = 'doubt', attempts, crashes, since, first_sent, code, detail
  from u where state in ('retry', 'doubt')),
a as (
  insert into _confirm_aside (tx, lane, state, maybe_done, attempts, crashes, since, first_sent, code, detail, at)
  select tx, $12, state, maybe_done, attempts, crashes, since, first_sent, code, detail, coalesce(at, since)
  from u where state in ('held', 'dead')),
o as (
  insert into _confirm_outcomes (tx, lane, state, attempts, code, fence, since, at, detail)
  select tx, $12, state, attempts, code, 0, since, coalesce(at, since), detail
  from u where state in ('confirmed', 'rejected', 'void') order by tx on conflict (tx) do nothing returning state),
counted as (
  insert into _confirm_counts as c (lane, writer, enqueued, confirmed, rejected, void)
  select $12, $13, $14, count(*) filter (where state = 'confirmed'), count(*) filter (where state = 'rejected'),
         count(*) filter (where state = 'void')
  from o
  on conflict (lane, writer) do update set
    enqueued = c.enqueued + excluded.enqueued, confirmed = c.confirmed + excluded.confirmed,
    rejected = c.rejected + excluded.rejected, void = c.void + excluded.void)
select 1";

const PLACE_TYPES: [Type; 14] = [
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4_ARRAY,
    Type::INT4_ARRAY,
    Type::BOOL_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT4,
    Type::TEXT,
    Type::INT8,
];

const NOTE_TRIED: &str = "
insert into _confirm_tried (tx, attempt, at, state, code, detail)
select * from unnest($1::uuid[], $2::int4[], $3::timestamptz[], $4::text[], $5::int4[], $6::text[])";

/// Only against an outcome that stands.
const CONTRADICT: &str = "
insert into _confirm_contradictions (tx, lane, had, got, code, detail, fence, at)
select u.tx, $6, o.state, u.got, u.code, u.detail, 0, u.at
from unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::int4[], $5::text[]) as u(tx, got, at, code, detail)
join _confirm_outcomes o on o.tx = u.tx and o.state <> u.got on conflict (tx, got) do nothing";

#[async_trait::async_trait]
impl ImportTransactions for PostgresStore {
    async fn import(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError> {
        self.bring(lane, rows, Bring::New).await
    }

    async fn renew(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError> {
        self.bring(lane, rows, Bring::Renewed).await
    }
}

/// Which of the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bring {
    /// Those that are not there.
    New,
    /// Those that are there without an outcome.
    Renewed,
}

impl PostgresStore {
    async fn bring(&self, lane: LaneId, rows: &[Carried], which: Bring) -> Result<u64, StoreError> {
        let known = self.lanes.get(lane)?;
        let Records::Topic(table) = &known.records else { return Err(adopts(known.topic.as_str())) };
        let (table, rows, begin) = (table.clone(), rows.to_vec(), self.begin.clone());
        let writer = self.instance.clone();
        let work = self.transact(move |conn| {
            async move {
                conn.client.batch_execute(&begin).await.map_err(store_error)?;
                lock(conn, lane).await?;
                let wanted = wanted(conn, &rows, which).await?;
                let moved = rows.iter().filter(|row| wanted.contains(&row.id)).collect::<Vec<_>>();
                put_records(conn, &table, &writer, &moved).await?;
                if which == Bring::Renewed {
                    let ids: Vec<Uuid> = wanted.iter().copied().collect();
                    ask(conn, CLEAR, &[(&ids, Type::UUID_ARRAY), (&lane.0, Type::INT4)]).await?;
                }
                let new = if which == Bring::New { moved.len() as i64 } else { 0 };
                place(conn, lane, &moved, &writer, new).await?;
                note_tried(conn, &moved).await?;
                // Of all of them: an answer may have come against an outcome that was there before.
                contradict(conn, lane, &rows).await?;
                conn.client.batch_execute("commit").await.map_err(store_error)?;
                Ok(moved.len() as u64)
            }
            .boxed()
        });
        work.await
    }
}

pub(super) async fn ask(conn: &Conn, sql: &str, params: &[Typed<'_>]) -> Result<Vec<Row>, StoreError> {
    conn.client.query_typed(sql, params).await.map_err(store_error)
}

async fn lock(conn: &Conn, lane: LaneId) -> Result<(), StoreError> {
    let rows = ask(conn, LANE, &[(&lane.0, Type::INT4)]).await?;
    let row = rows.first().ok_or_else(|| StoreError::Asked(format!("there is no lane {lane}")))?;
    let topic: &str = row.try_get(0).map_err(store_error)?;
    match (row.try_get(1).map_err(store_error)?, row.try_get(2).map_err(store_error)?) {
        (false, _) => Err(not_paused(topic)),
        (_, true) => Err(adopts(topic)),
        (true, false) => Ok(()),
    }
}

async fn wanted(conn: &Conn, rows: &[Carried], which: Bring) -> Result<HashSet<Uuid>, StoreError> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let sql = match which {
        Bring::New => THERE,
        Bring::Renewed => OPEN,
    };
    let found = ask(conn, sql, &[(&ids, Type::UUID_ARRAY)]).await?;
    let found = found.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<Uuid>, _>>().map_err(store_error)?;
    Ok(match which {
        Bring::New => ids.into_iter().filter(|id| !found.contains(id)).collect(),
        Bring::Renewed => found,
    })
}

/// `new`: how many of them the lane did not have before.
async fn place(conn: &Conn, lane: LaneId, rows: &[&Carried], writer: &str, new: i64) -> Result<(), StoreError> {
    if rows.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let states: Vec<&str> = rows.iter().map(|row| row.state.name()).collect();
    let attempts: Vec<i32> = rows.iter().map(|row| int(row.attempts)).collect();
    let crashes: Vec<i32> = rows.iter().map(|row| int(row.crashes)).collect();
    let maybe_done: Vec<bool> = rows.iter().map(|row| row.maybe_done).collect();
    let since: Vec<Stamp> = rows.iter().map(|row| Stamp(row.since)).collect();
    let first_sent: Vec<Option<Stamp>> = rows.iter().map(|row| row.first_sent.map(Stamp)).collect();
    let due: Vec<Option<Stamp>> = rows.iter().map(|row| row.due.map(Stamp)).collect();
    let at: Vec<Option<Stamp>> = rows.iter().map(|row| row.at.map(Stamp)).collect();
    let codes: Vec<Option<i32>> = rows.iter().map(|row| row.code.map(i32::from)).collect();
    let details: Vec<String> = rows.iter().map(|row| without_nul(&row.detail)).collect();
    let values: [&(dyn ToSql + Sync); 14] = [
        &ids,
        &states,
        &attempts,
        &crashes,
        &maybe_done,
        &since,
        &first_sent,
        &due,
        &at,
        &codes,
        &details,
        &lane.0,
        &writer,
        &new,
    ];
    let params: Vec<Typed<'_>> = values.into_iter().zip(PLACE_TYPES).collect();
    ask(conn, PLACE, &params).await.map(drop)
}

async fn note_tried(conn: &Conn, rows: &[&Carried]) -> Result<(), StoreError> {
    let all = || rows.iter().flat_map(|row| row.tried.iter().rev().map(|tried| (row.id, tried)));
    let ids: Vec<Uuid> = all().map(|(id, _)| id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let attempts: Vec<i32> = all().map(|(_, tried)| int(tried.attempt)).collect();
    let at: Vec<Stamp> = all().map(|(_, tried)| Stamp(tried.at)).collect();
    let states: Vec<&str> = all().map(|(_, tried)| tried.state.name()).collect();
    let codes: Vec<Option<i32>> = all().map(|(_, tried)| tried.code.map(i32::from)).collect();
    let details: Vec<String> = all().map(|(_, tried)| without_nul(&tried.detail)).collect();
    let params: [Typed<'_>; 6] = [
        (&ids, Type::UUID_ARRAY),
        (&attempts, Type::INT4_ARRAY),
        (&at, Type::TIMESTAMPTZ_ARRAY),
        (&states, Type::TEXT_ARRAY),
        (&codes, Type::INT4_ARRAY),
        (&details, Type::TEXT_ARRAY),
    ];
    ask(conn, NOTE_TRIED, &params).await.map(drop)
}

async fn contradict(conn: &Conn, lane: LaneId, rows: &[Carried]) -> Result<(), StoreError> {
    let all = || rows.iter().flat_map(|row| row.contradictions.iter().map(|said| (row.id, said)));
    let ids: Vec<Uuid> = all().map(|(id, _)| id).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let got: Vec<&str> = all().map(|(_, said)| said.got.state().name()).collect();
    let at: Vec<Stamp> = all().map(|(_, said)| Stamp(said.at)).collect();
    let codes: Vec<Option<i32>> = all().map(|(_, said)| said.code.map(i32::from)).collect();
    let details: Vec<String> = all().map(|(_, said)| without_nul(&said.detail)).collect();
    let params: [Typed<'_>; 6] = [
        (&ids, Type::UUID_ARRAY),
        (&got, Type::TEXT_ARRAY),
        (&at, Type::TIMESTAMPTZ_ARRAY),
        (&codes, Type::INT4_ARRAY),
        (&details, Type::TEXT_ARRAY),
        (&lane.0, Type::INT4),
    ];
    ask(conn, CONTRADICT, &params).await.map(drop)
}
