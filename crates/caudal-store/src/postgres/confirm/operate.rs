//! Looking at confirmations, and what people do about them.

use caudal_core::confirm::machine::void_refusal;
use caudal_core::confirm::ports::{Acted, Arrivals, Confirmation, LaneStatus, Tried};
use caudal_core::confirm::{Fact, LaneId, State};
use caudal_core::error::StoreError;
use caudal_core::topic::TopicName;
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::super::PostgresStore;
use super::super::error::store_error;
use super::super::operate::Typed;
use super::super::wire::Stamp;
use super::{adopt, count};
use crate::settle::without_nul;

/// How often somebody else may move a transaction under an operator's hands before that is an error.
const RACES_MAX: usize = 5;

/// In one statement, so that the numbers are of one moment. What is open is counted, what has ended was when it was written: that is
/// ever more.
const NUMBERS: &str = "
with open as (
  select lane, case when doubt then 'doubt' else 'pending' end as state, since
  from _confirm_ready r where fresh or not exists (select from _confirm_outcomes o where o.tx = r.tx)
  union all
  select s.lane, s.phase, u.since from _confirm_leases s cross join lateral unnest(s.txs, s.sinces) as u(tx, since)
  where not exists (select from _confirm_outcomes o where o.tx = u.tx)
  union all
  select lane, case when doubt then 'doubt' else 'retry' end, since from _confirm_deferred d
  where not exists (select from _confirm_outcomes o where o.tx = d.tx)
  union all
  select lane, state, since from _confirm_aside a
  where not exists (select from _confirm_outcomes o where o.tx = a.tx)),
by_state as (
  select lane, state, count(*) as n, min(since) as oldest from open group by lane, state
  union all
  select c.lane, e.state, sum(e.n), null
  from _confirm_counts c
  cross join lateral (values ('confirmed', c.confirmed), ('rejected', c.rejected), ('void', c.void)) as e(state, n)
  group by c.lane, e.state)
select l.topic, l.name, case when l.paused_at is not null then coalesce(l.paused_reason, '') end,
       (select coalesce(sum(c.enqueued), 0)::int8 from _confirm_counts c where c.lane = l.lane),
       (select count(distinct tx) from _confirm_contradictions c where c.lane = l.lane),
       (select extract(epoch from clock_timestamp() - min(s.oldest))::int8 from by_state s
         where s.lane = l.lane and s.state in ('pending', 'doubt', 'retry')),
       array(select s.state::text from by_state s where s.lane = l.lane order by s.state),
       array(select s.n::int8 from by_state s where s.lane = l.lane order by s.state)
from _confirm_lanes l order by l.topic, l.name";

const ARRIVALS: &str = "
select date_trunc('hour', since, 'UTC'), count(*),
       count(*) filter (where state in ('confirmed', 'rejected') and attempts > 0),
       coalesce(sum(attempts) filter (where state in ('confirmed', 'rejected')), 0)::int8
from _confirmations where since >= date_trunc('hour', clock_timestamp(), 'UTC') - make_interval(hours => $1)
group by 1 order by 1";

pub(super) const ONE: &str = "
select topic, lane, state, attempts, crashes, maybe_done, since, first_sent, due, at, code, detail
from _confirmations where _id = $1 limit 1";

const HISTORY: &str = "
select attempt, at, state, code, detail from _confirm_tried where tx = $1 order by at desc, attempt desc limit 50";

const PAUSE: &str = "
update _confirm_lanes set paused_at = clock_timestamp(), paused_reason = $3
where topic = $1 and ($2::text is null or name = $2) and paused_at is null returning 1";

const RESUME: &str = "
update _confirm_lanes set paused_at = null, paused_reason = null
where topic = $1 and ($2::text is null or name = $2) and paused_at is not null returning 1";

/// From the places where surely nothing was done. A claim that is under way has the row, and this waits for it.
pub(super) const VOID: &str = "
with r as (delete from _confirm_ready where tx = $1 and not doubt returning lane, attempts, since),
d as (delete from _confirm_deferred where tx = $1 and not doubt returning lane, attempts, since),
a as (delete from _confirm_aside where tx = $1 and not maybe_done returning lane, attempts, since),
u as (select * from r union all select * from d union all select * from a),
put as (
  insert into _confirm_outcomes (tx, lane, state, attempts, fence, since, at, detail)
  select $1, lane, 'void', attempts, 0, since, clock_timestamp(), $2 from u limit 1
  on conflict (tx) do nothing returning lane),
counted as (
  insert into _confirm_counts as c (lane, writer, enqueued, void) select lane, $3, 0, 1 from put
  on conflict (lane, writer) do update set void = c.void + excluded.void)
select lane from put";

/// As careful as before about what kills workers, but counted anew. What was surely never done waits anew, too: its deadline
/// would end it at once.
const REDRIVE: &str = "
with a as (
  delete from _confirm_aside a where tx = $1 and (select o.tx from _confirm_outcomes o where o.tx = a.tx limit 1) is null
  returning lane, crashes, attempts, maybe_done, since, first_sent),
t as (
  insert into _confirm_tried (tx, attempt, at, state, detail)
  select $1, attempts, clock_timestamp(), case when maybe_done then 'doubt' else 'pending' end, 'redriven' from a)
insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent)
select lane, least(crashes, 2)::smallint, $1, 0, 0, maybe_done, false,
       case when maybe_done then since else clock_timestamp() end, first_sent
from a returning 1";

/// Whatever holds the transaction keeps it until its turn comes, and finds the outcome then; but a row that nobody looks at twice
/// has to go.
pub(super) const RESOLVE: &str = "
with r as (delete from _confirm_ready where tx = $1),
d as (delete from _confirm_deferred where tx = $1),
a as (delete from _confirm_aside where tx = $1),
put as (
  insert into _confirm_outcomes (tx, lane, state, attempts, fence, since, at, detail)
  select $1, l.lane, $2, $5, 0, $6, clock_timestamp(), $3 from _confirm_lanes l where l.topic = $4 and l.name = $7
  on conflict (tx) do nothing returning lane, state),
counted as (
  insert into _confirm_counts as c (lane, writer, enqueued, confirmed, rejected)
  select lane, $8, 0, (state = 'confirmed')::int, (state = 'rejected')::int from put
  on conflict (lane, writer) do update set
    confirmed = c.confirmed + excluded.confirmed, rejected = c.rejected + excluded.rejected)
select lane from put";

impl PostgresStore {
    pub(super) async fn lane_numbers(&self) -> Result<Vec<LaneStatus>, StoreError> {
        let rows = self.over_all(NUMBERS, &[]).await?;
        rows.iter().map(status).collect::<Result<_, _>>().map_err(store_error)
    }

    pub(super) async fn arrivals_since(&self, hours: u32) -> Result<Vec<Arrivals>, StoreError> {
        let hours = i32::try_from(hours).unwrap_or(i32::MAX);
        let rows = self.over_all(ARRIVALS, &[(&hours, Type::INT4)]).await?;
        let count = |row: &Row, column: usize| row.try_get::<_, i64>(column).map(|n| n.unsigned_abs());
        let read = |row: &Row| {
            let hour = row.try_get::<_, Stamp>(0)?.0;
            Ok(Arrivals { hour, transactions: count(row, 1)?, settled: count(row, 2)?, calls: count(row, 3)? })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(store_error)
    }

    pub(super) async fn confirmation_of(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError> {
        let Some(mut found) = self.state_of(id).await? else { return Ok(None) };
        let rows = self.ask_over(&self.confirmers, HISTORY, &[(&id, Type::UUID)], true).await?;
        found.history = rows.iter().map(tried).collect::<Result<_, _>>().map_err(store_error)?;
        Ok(Some(found))
    }

    async fn state_of(&self, id: Uuid) -> Result<Option<Confirmation>, StoreError> {
        let rows = self.over_all(ONE, &[(&id, Type::UUID)]).await?;
        rows.first().map(|row| confirmation(id, row)).transpose().map_err(store_error)
    }

    pub(super) async fn pause_lanes(
        &self,
        topic: &TopicName,
        lane: Option<&str>,
        reason: &str,
    ) -> Result<u64, StoreError> {
        let reason = without_nul(reason);
        let params: [Typed<'_>; 3] = [(&topic.as_str(), Type::TEXT), (&lane, Type::TEXT), (&reason, Type::TEXT)];
        Ok(self.confirm(PAUSE, &params).await?.len() as u64)
    }

    pub(super) async fn resume_lanes(&self, topic: &TopicName, lane: Option<&str>) -> Result<u64, StoreError> {
        let params: [Typed<'_>; 2] = [(&topic.as_str(), Type::TEXT), (&lane, Type::TEXT)];
        Ok(self.confirm(RESUME, &params).await?.len() as u64)
    }

    pub(super) async fn void_one(&self, id: Uuid, reason: &str) -> Result<Acted, StoreError> {
        let (reason, writer) = (without_nul(reason), self.people());
        let params: [Typed<'_>; 3] = [(&id, Type::UUID), (&reason, Type::TEXT), (&writer, Type::TEXT)];
        for _ in 0..RACES_MAX {
            if !self.confirm(VOID, &params).await?.is_empty() {
                return Ok(Acted::Done);
            }
            let Some(now) = self.state_of(id).await? else { return Ok(Acted::Unknown) };
            if let Some(why) = void_refusal(now.state, now.maybe_done) {
                return Ok(Acted::Refused(why.to_owned()));
            }
        }
        Err(moving())
    }

    pub(super) async fn redrive_one(&self, id: Uuid) -> Result<Acted, StoreError> {
        for _ in 0..RACES_MAX {
            if !self.confirm(REDRIVE, &[(&id, Type::UUID)]).await?.is_empty() {
                return Ok(Acted::Done);
            }
            let Some(now) = self.state_of(id).await? else { return Ok(Acted::Unknown) };
            if !matches!(now.state, State::Held | State::Dead) {
                let why = format!("it is {}: only what is dead or held can be redriven", now.state.name());
                return Ok(Acted::Refused(why));
            }
        }
        Err(moving())
    }

    pub(super) async fn resolve_one(&self, id: Uuid, fact: Fact, reason: &str) -> Result<Acted, StoreError> {
        let Some(now) = self.state_of(id).await? else { return Ok(Acted::Unknown) };
        let ended = |state: State| Ok(Acted::Refused(format!("it is {} already, which does not change", state.name())));
        if now.state.is_outcome() {
            return ended(now.state);
        }
        let (reason, attempts, since) = (without_nul(reason), super::int(now.attempts), Stamp(now.since));
        let writer = self.people();
        let params: [Typed<'_>; 8] = [
            (&id, Type::UUID),
            (&fact.state().name(), Type::TEXT),
            (&reason, Type::TEXT),
            (&now.topic, Type::TEXT),
            (&attempts, Type::INT4),
            (&since, Type::TIMESTAMPTZ),
            (&now.lane, Type::TEXT),
            (&writer, Type::TEXT),
        ];
        let rows = self.confirm(RESOLVE, &params).await?;
        let Some(row) = rows.first() else {
            let now = self.state_of(id).await?.map_or(fact.state(), |now| now.state);
            return ended(now);
        };
        let lane = LaneId(row.try_get(0).map_err(store_error)?);
        self.write_back(lane, id).await?;
        Ok(Acted::Done)
    }

    /// The name of the row in which what people ended by this process is counted.
    fn people(&self) -> String {
        format!("{}/people", self.instance)
    }

    async fn write_back(&self, lane: LaneId, id: Uuid) -> Result<(), StoreError> {
        let Some((sql, values)) = self.lanes.adopts(lane).and_then(|adopt| adopt::write_back_sql(&adopt)) else {
            return Ok(());
        };
        let ids = vec![id];
        let mut params: Vec<Typed<'_>> = vec![(&ids, Type::UUID_ARRAY)];
        params.extend(values.iter().map(|value| -> Typed<'_> { (value, Type::TEXT) }));
        self.confirm(&sql, &params).await.map(drop)
    }
}

fn moving() -> StoreError {
    StoreError::unavailable("the transaction keeps moving: try again")
}

fn status(row: &Row) -> Result<LaneStatus, Error> {
    let (states, counts): (Vec<String>, Vec<i64>) = (row.try_get(6)?, row.try_get(7)?);
    let of = |state: State| {
        states.iter().zip(&counts).filter(|(name, _)| *name == state.name()).map(|(_, n)| *n as u64).sum::<u64>()
    };
    Ok(LaneStatus {
        topic: row.try_get(0)?,
        lane: row.try_get(1)?,
        paused: row.try_get(2)?,
        enqueued: row.try_get::<_, i64>(3)? as u64,
        pending: of(State::Pending),
        leased: of(State::Leased),
        calling: of(State::Calling),
        retry: of(State::Retry),
        doubt: of(State::Doubt),
        held: of(State::Held),
        dead: of(State::Dead),
        confirmed: of(State::Confirmed),
        rejected: of(State::Rejected),
        void: of(State::Void),
        contradictions: row.try_get::<_, i64>(4)? as u64,
        oldest_pending_seconds: row.try_get::<_, Option<i64>>(5)?.map(|age| age.max(0) as u64),
    })
}

fn confirmation(id: Uuid, row: &Row) -> Result<Confirmation, Error> {
    let stamp = |at| row.try_get::<_, Option<Stamp>>(at).map(|stamp| stamp.map(|stamp| stamp.0));
    Ok(Confirmation {
        id,
        topic: row.try_get(0)?,
        lane: row.try_get(1)?,
        state: State::parse(row.try_get(2)?).unwrap_or(State::Held),
        attempts: row.try_get::<_, i64>(3)? as u32,
        crashes: row.try_get::<_, i64>(4)? as u32,
        maybe_done: row.try_get(5)?,
        since: row.try_get::<_, Stamp>(6)?.0,
        first_sent: stamp(7)?,
        due: stamp(8)?,
        at: stamp(9)?,
        code: row.try_get::<_, Option<i64>>(10)?.and_then(|code| u16::try_from(code).ok()),
        detail: row.try_get(11)?,
        history: Vec::new(),
    })
}

pub(super) fn tried(row: &Row) -> Result<Tried, Error> {
    Ok(Tried {
        attempt: count(row.try_get(0)?),
        at: row.try_get::<_, Stamp>(1)?.0,
        state: State::parse(row.try_get(2)?).unwrap_or(State::Held),
        code: row.try_get::<_, Option<i32>>(3)?.and_then(|code| u16::try_from(code).ok()),
        detail: row.try_get(4)?,
    })
}
