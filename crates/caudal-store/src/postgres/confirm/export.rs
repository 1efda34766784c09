//! Lanes as another store reads them, part by part.

use caudal_core::confirm::ports::{Records, Tried};
use caudal_core::confirm::transfer::{Carried, Contradiction, ExportTransactions, Page, Standing, TRIED_MAX};
use caudal_core::confirm::{Fact, LaneId, State};
use caudal_core::error::StoreError;
use foldhash::HashMap;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::super::PostgresStore;
use super::super::error::store_error;
use super::super::operate::Typed;
use super::super::wire::Stamp;
use super::operate::tried;
use super::{Lane, count};
use crate::moving::Place;

const STANDING: &str = "
select l.topic, l.paused_at is not null, (select count(*) from _confirm_leases s where s.lane = l.lane)
from _confirm_lanes l where l.lane = $1";

/// The parts of a lane, each with the same columns. An outcome beats whatever place the transaction has not left yet.
macro_rules! part {
    (aside) => {
        "select p.tx, p.state, p.attempts, p.crashes, p.maybe_done, p.since, p.first_sent, null::timestamptz as due, p.at,
                p.code, p.detail, 0::int2 as rank, 0::int8 as pos
         from _confirm_aside p
         where p.lane = $1 and (select o.tx from _confirm_outcomes o where o.tx = p.tx limit 1) is null"
    };
    (deferred) => {
        "select p.tx, case when p.doubt then 'doubt' else 'retry' end, p.attempts, p.crashes, false, p.since, p.first_sent,
                p.due, null::timestamptz, p.code, p.detail, 0::int2, 0::int8
         from _confirm_deferred p
         where p.lane = $1 and (select o.tx from _confirm_outcomes o where o.tx = p.tx limit 1) is null"
    };
    (ready) => {
        "select p.tx, case when p.doubt then 'doubt' else 'pending' end, p.attempts, p.crashes, false, p.since,
                p.first_sent, null::timestamptz, null::timestamptz, null::int4, '', p.rank, p.pos
         from _confirm_ready p
         where p.lane = $1 and (p.fresh or (select o.tx from _confirm_outcomes o where o.tx = p.tx limit 1) is null)"
    };
    (ended) => {
        "select p.tx, p.state, p.attempts, 0, false, p.since, null::timestamptz, null::timestamptz, p.at, p.code, p.detail,
                0::int2, 0::int8
         from _confirm_outcomes p where p.lane = $1"
    };
}

const ASIDE: &str = concat!(part!(aside), " and p.tx > $2 order by p.tx limit $3");
const DEFERRED: &str = concat!(part!(deferred), " and p.tx > $2 order by p.tx limit $3");
const READY: &str = concat!(part!(ready), " and (p.rank, p.pos) > ($2, $4) order by p.rank, p.pos limit $3");
const ENDED: &str = concat!(part!(ended), " and p.tx > $2 order by p.tx limit $3");

/// What is pending is joined: its index by transaction is a hash, which is looked into once for each.
const FIND: &str = concat!(
    part!(aside),
    " and p.tx = any($2) union all ",
    part!(deferred),
    " and p.tx = any($2) union all ",
    part!(ready),
    " and p.tx in (select u.tx from unnest($2) as u(tx)) union all ",
    part!(ended),
    " and p.tx = any($2)"
);

const TRIED: &str = "
select t.attempt, t.at, t.state, t.code, t.detail, u.tx from unnest($1::uuid[]) as u(tx)
cross join lateral (
  select * from _confirm_tried t where t.tx = u.tx order by t.at desc, t.attempt desc limit $2) t
order by u.tx, t.at desc, t.attempt desc";

const CONTRADICTIONS: &str = "
select tx, got, at, code, detail from _confirm_contradictions where tx = any($1) order by tx, got";

#[async_trait::async_trait]
impl ExportTransactions for PostgresStore {
    async fn standing(&self, lane: LaneId) -> Result<Standing, StoreError> {
        let rows = self.ask_over(&self.confirmers, STANDING, &[(&lane.0, Type::INT4)], true).await?;
        let row = rows.first().ok_or_else(|| StoreError::Asked(format!("there is no lane {lane}")))?;
        let read = || Ok(Standing { topic: row.try_get(0)?, paused: row.try_get(1)?, leases: leases(row)? });
        read().map_err(store_error)
    }

    async fn page(&self, lane: LaneId, after: Option<&str>, rows_max: usize) -> Result<Page, StoreError> {
        let known = self.lanes.get(lane)?;
        let (place, limit) = (Place::parse(after)?, rows_max.max(1) as i64);
        let (sql, tx, (rank, pos)) = match place {
            Place::Aside(tx) => (ASIDE, tx, (0_i16, 0_i64)),
            Place::Deferred(tx) => (DEFERRED, tx, (0, 0)),
            Place::Ready(rank, pos) => (READY, Uuid::nil(), (rank, pos)),
            Place::Ended(tx) => (ENDED, tx, (0, 0)),
        };
        let of_tx: [Typed<'_>; 3] = [(&lane.0, Type::INT4), (&tx, Type::UUID), (&limit, Type::INT8)];
        let of_rank: [Typed<'_>; 4] =
            [(&lane.0, Type::INT4), (&rank, Type::INT2), (&limit, Type::INT8), (&pos, Type::INT8)];
        let params: &[Typed<'_>] = if matches!(place, Place::Ready(..)) { &of_rank } else { &of_tx };
        let rows = self.ask_over(&self.confirmers, sql, params, true).await?;
        let next = match rows.last().filter(|_| rows.len() as i64 >= limit) {
            Some(last) => Some(behind(place, last).map_err(store_error)?),
            None => place.next_part(),
        };
        Ok(Page { rows: self.with_all(&known, &rows).await?, next: next.map(|place| place.to_string()) })
    }

    async fn find(&self, lane: LaneId, ids: &[Uuid]) -> Result<Vec<Carried>, StoreError> {
        let known = self.lanes.get(lane)?;
        let params: [Typed<'_>; 2] = [(&lane.0, Type::INT4), (&ids, Type::UUID_ARRAY)];
        let rows = self.over_all(FIND, &params).await?;
        self.with_all(&known, &rows).await
    }
}

fn leases(row: &Row) -> Result<u64, Error> {
    row.try_get::<_, i64>(2).map(|n| n as u64)
}

fn behind(place: Place, last: &Row) -> Result<Place, Error> {
    let tx = || last.try_get(0);
    Ok(match place {
        Place::Aside(_) => Place::Aside(tx()?),
        Place::Deferred(_) => Place::Deferred(tx()?),
        Place::Ready(..) => Place::Ready(last.try_get(11)?, last.try_get(12)?),
        Place::Ended(_) => Place::Ended(tx()?),
    })
}

impl PostgresStore {
    /// The transactions with what was tried, what was contradicted, and their records.
    async fn with_all(&self, lane: &Lane, rows: &[Row]) -> Result<Vec<Carried>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let mut all = rows.iter().map(carried).collect::<Result<Vec<_>, _>>().map_err(store_error)?;
        let ids: Vec<Uuid> = all.iter().map(|row| row.id).collect();
        let (mut tried, mut contradictions) = (self.tried_of(&ids).await?, self.contradictions_of(&ids).await?);
        let mut records = match &lane.records {
            Records::Topic(table) => self.topic_records(table, &ids).await?,
            Records::Adopted(adopt) => self.adopted_records(adopt, &ids).await?,
        };
        for row in &mut all {
            row.tried = tried.remove(&row.id).unwrap_or_default();
            row.contradictions = contradictions.remove(&row.id).unwrap_or_default();
            row.record = records.remove(&row.id).map(|found| found.record);
        }
        Ok(all)
    }

    async fn tried_of(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<Tried>>, StoreError> {
        let limit = TRIED_MAX as i64;
        let params: [Typed<'_>; 2] = [(&ids, Type::UUID_ARRAY), (&limit, Type::INT8)];
        let rows = self.ask_over(&self.confirmers, TRIED, &params, true).await?;
        let mut all: HashMap<Uuid, Vec<Tried>> = HashMap::default();
        for row in &rows {
            let one = tried(row).and_then(|tried| Ok((row.try_get(5)?, tried)));
            let (id, tried) = one.map_err(store_error)?;
            all.entry(id).or_default().push(tried);
        }
        Ok(all)
    }

    async fn contradictions_of(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<Contradiction>>, StoreError> {
        let rows = self.ask_over(&self.confirmers, CONTRADICTIONS, &[(&ids, Type::UUID_ARRAY)], true).await?;
        let mut all: HashMap<Uuid, Vec<Contradiction>> = HashMap::default();
        for row in &rows {
            let (id, said) = contradiction(row).map_err(store_error)?;
            all.entry(id).or_default().push(said);
        }
        Ok(all)
    }
}

fn carried(row: &Row) -> Result<Carried, Error> {
    let stamp = |at| row.try_get::<_, Option<Stamp>>(at).map(|stamp| stamp.map(|stamp| stamp.0));
    Ok(Carried {
        id: row.try_get(0)?,
        state: State::parse(row.try_get(1)?).unwrap_or(State::Held),
        attempts: count(row.try_get(2)?),
        crashes: count(row.try_get(3)?),
        maybe_done: row.try_get(4)?,
        since: row.try_get::<_, Stamp>(5)?.0,
        first_sent: stamp(6)?,
        due: stamp(7)?,
        at: stamp(8)?,
        code: row.try_get::<_, Option<i32>>(9)?.and_then(|code| u16::try_from(code).ok()),
        detail: row.try_get(10)?,
        tried: Vec::new(),
        contradictions: Vec::new(),
        record: None,
    })
}

fn contradiction(row: &Row) -> Result<(Uuid, Contradiction), Error> {
    let got = match row.try_get::<_, &str>(1)? {
        "rejected" => Fact::Rejected,
        _ => Fact::Confirmed,
    };
    let code: Option<i32> = row.try_get(3)?;
    let code = code.and_then(|code| u16::try_from(code).ok());
    Ok((row.try_get(0)?, Contradiction { got, at: row.try_get::<_, Stamp>(2)?.0, code, detail: row.try_get(4)? }))
}
