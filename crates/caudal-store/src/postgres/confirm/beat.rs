//! Heartbeats, and the housekeeping that they bring: what has lapsed, what is due, what can be claimed.

use std::time::{Duration, Instant};

use caudal_core::confirm::ports::{Beat, Beaten, Ready};
use caudal_core::confirm::{LaneId, Rank};
use caudal_core::error::StoreError;
use futures_util::future::{join3, join4, try_join};
use tokio_postgres::types::Type;
use tokio_postgres::{Error, Row};

use super::super::PostgresStore;
use super::super::connect::Conn;
use super::super::error::store_error;
use super::lanes::Look;
use super::pace::Pace;
use super::{committed, micros, number};

/// Leases ended by one beat at most; the next one goes on.
const LAPSE_MAX: i64 = 100;

/// Kept for a quarter longer than promised, so that not every beat has to write.
const ALIVE: &str = "
insert into _confirm_workers as w (worker, until)
select $1, clock_timestamp() + 1.25 * $2 * interval '1 microsecond'
where not exists (
  select from _confirm_workers where worker = $1 and until > clock_timestamp() + $2 * interval '1 microsecond')
on conflict (worker) do update set until = excluded.until";

/// Locked by a statement of its own: those who settle lock leases too, and what they wrote meanwhile must be seen.
const EXPIRED: &str = "
select lease from _confirm_leases where until < clock_timestamp() order by lease limit $1 for update skip locked";

const LAPSE: &str = "
with l as (
  delete from _confirm_leases where lease = any($1)
  returning lease, lane, rank, phase, called_at, txs, attempts, crashes, doubts, sinces, first_sents),
x as (
  select l.lease, l.lane, l.rank, l.phase, coalesce(u.first_sent, l.called_at) as sent, u.*
  from l cross join lateral unnest(l.txs, l.attempts, l.crashes, l.doubts, l.sinces, l.first_sents) with ordinality
    as u(tx, attempts, crashes, doubt, since, first_sent, n)
  where (select o.tx from _confirm_outcomes o where o.tx = u.tx limit 1) is null
    and (select d.tx from _confirm_deferred d where d.tx = u.tx limit 1) is null
    and (select a.tx from _confirm_aside a where a.tx = u.tx limit 1) is null),
back as (
  insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent)
  select lane, rank, tx, attempts, crashes, doubt, false, since, first_sent
  from x where phase = 'leased' order by lease, n),
doubtful as (
  insert into _confirm_deferred (tx, lane, due, doubt, attempts, crashes, since, first_sent, detail)
  select tx, lane, clock_timestamp(), true, attempts + 1, crashes + 1, since, sent, 'its worker stopped while it was being called'
  from x where phase = 'calling' on conflict (tx) do nothing),
tried as (
  insert into _confirm_tried (tx, attempt, at, state, detail)
  select tx, attempts + 1, clock_timestamp(), 'doubt', 'its worker stopped while it was being called'
  from x where phase = 'calling')
select count(*) from l";

/// The clock is read once: a value that may change within a statement is no condition for an index.
const PROMOTE: &str = "
with d as (
  delete from _confirm_deferred where ctid = any(array(
    select due.ctid from unnest($1::int4[]) as u(lane)
    cross join lateral (
      select ctid from _confirm_deferred
      where lane = u.lane and due <= (select clock_timestamp()) order by due limit $2 for update skip locked) due
    limit $2))
  returning tx, lane, due, doubt, attempts, crashes, since, first_sent),
put as (
  insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent)
  select lane, least(crashes, 2)::smallint, tx, attempts, crashes, doubt, false, since, first_sent
  from d where (select o.tx from _confirm_outcomes o where o.tx = d.tx limit 1) is null order by due, tx)
select count(*) from d";

const FORGET_WORKERS: &str = "
delete from _confirm_workers where ctid = any(array(
  select ctid from _confirm_workers where until < clock_timestamp() and worker <> $1 for update skip locked))";

/// For each lane: whether it is paused, rank by rank the first position at which something can be claimed, when something is due, and
/// how long it took to find out. `$2` to `$4`: where to look from, rank by rank.
const LOOK: &str = "
select u.lane, l.paused_at is not null,
       (select pos from _confirm_ready r where r.lane = u.lane and r.rank = 0 and r.pos > u.usual order by pos limit 1),
       (select pos from _confirm_ready r where r.lane = u.lane and r.rank = 1 and r.pos > u.suspect order by pos limit 1),
       (select pos from _confirm_ready r where r.lane = u.lane and r.rank = 2 and r.pos > u.alone order by pos limit 1),
       (select (extract(epoch from min(due) - clock_timestamp()) * 1000000)::int8 from _confirm_deferred d
         where d.lane = u.lane),
       (extract(epoch from clock_timestamp() - statement_timestamp()) * 1000000)::int8
from unnest($1::int4[], $2::int8[], $3::int8[], $4::int8[]) with ordinality as u(lane, usual, suspect, alone, n)
join _confirm_lanes l on l.lane = u.lane order by u.n";
const LOOK_TYPES: [Type; 4] = [Type::INT4_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY];

const WORKERS: &str = "select count(*) from _confirm_workers where until > clock_timestamp() or worker = $1";

impl PostgresStore {
    pub(super) async fn beat_once(&self, beat: &Beat) -> Result<Beaten, StoreError> {
        let now = Instant::now();
        let plan = Plan {
            lanes: beat.lanes.iter().map(|lane| lane.0).collect(),
            looks: beat.lanes.iter().map(|lane| self.lanes.look(*lane, beat.thorough, now)).collect(),
            lapse: self.lanes.lapses().is_due(beat.thorough, now),
        };
        let mut lease = self.confirmers.lease().await?;
        lease.begin_work();
        let conn = lease.conn().await?;
        let result = keep_house(conn, &self.begin_in_order(), beat, &plan).await;
        match &result {
            Ok(_) => lease.end_work(),
            Err(_) => lease.discard(),
        }
        match result {
            Ok((beaten, took)) => {
                self.learn(beat, &plan, &beaten, &took);
                Ok(beaten)
            }
            Err(error) => {
                // A look that the server's time limit ended must not keep the next beats from the rest of the house.
                self.looked(beat, &plan, now.elapsed(), 1);
                Err(error)
            }
        }
    }

    fn looked(&self, beat: &Beat, plan: &Plan, took: Duration, workers: u32) {
        for (lane, look) in beat.lanes.iter().zip(&plan.looks) {
            self.lanes.looked(*lane, look, took, workers, Instant::now());
        }
    }

    fn learn(&self, beat: &Beat, plan: &Plan, beaten: &Beaten, took: &Took) {
        self.looked(beat, plan, took.look, beaten.workers);
        match plan.lapse {
            // There may be more.
            true if beaten.lapsed >= LAPSE_MAX as u64 => *self.lanes.lapses() = Pace::default(),
            true => self.lanes.lapses().took(took.lapse, beaten.workers, Instant::now()),
            false => {}
        }
    }
}

/// What a beat looks at.
struct Plan {
    lanes: Vec<i32>,
    looks: Vec<Look>,
    /// Leases, to end those that have lapsed.
    lapse: bool,
}

impl Plan {
    /// Where to look from, lane by lane.
    fn from(&self, rank: Rank) -> Vec<i64> {
        self.looks.iter().map(|look| look.from[rank.number() as usize]).collect()
    }

    /// How far a lane was claimed before, rank by rank.
    fn taken(&self, lane: LaneId) -> [i64; Rank::ALL.len()] {
        let look = self.lanes.iter().zip(&self.looks).find(|(known, _)| **known == lane.0);
        look.map_or_else(Default::default, |(_, look)| look.taken)
    }
}

/// How long parts of it took.
struct Took {
    /// The database, by its own clock.
    look: Duration,
    /// Also to ask for it.
    lapse: Duration,
}

async fn keep_house(conn: &mut Conn, begin: &str, beat: &Beat, plan: &Plan) -> Result<(Beaten, Took), StoreError> {
    let alive = conn.prepare(ALIVE, &[Type::TEXT, Type::INT8]).await.map_err(store_error)?;
    let expired = conn.prepare(EXPIRED, &[Type::INT8]).await.map_err(store_error)?;
    let lapse = conn.prepare(LAPSE, &[Type::INT8_ARRAY]).await.map_err(store_error)?;
    let promote = conn.prepare(PROMOTE, &[Type::INT4_ARRAY, Type::INT8]).await.map_err(store_error)?;
    let forget = conn.prepare(FORGET_WORKERS, &[Type::TEXT]).await.map_err(store_error)?;
    let look = conn.prepare(LOOK, &LOOK_TYPES).await.map_err(store_error)?;
    let workers = conn.prepare(WORKERS, &[Type::TEXT]).await.map_err(store_error)?;
    let conn = &*conn;
    let (worker, ttl, promote_max) = (&*beat.worker, micros(beat.ttl), beat.promote_max as i64);
    let expired = async {
        match plan.lapse {
            true => conn.query(&expired, &[&LAPSE_MAX]).await,
            false => Ok(Vec::new()),
        }
    };
    let asked = Instant::now();
    let (begun, counted_in, leases) =
        join3(conn.client.batch_execute(begin), conn.execute(&alive, &[&worker, &ttl]), expired).await;
    let lapse_took = asked.elapsed();
    begun.map_err(store_error)?;
    counted_in.map_err(store_error)?;
    let leases: Vec<i64> = leases.map_err(store_error)?.iter().map(|row| row.get(0)).collect();
    let lapsing = async {
        match leases.is_empty() {
            true => Ok(0),
            false => conn.query(&lapse, &[&leases]).await.and_then(|rows| number(&rows)),
        }
    };
    let promoting = async { conn.query(&promote, &[&plan.lanes, &promote_max]).await.and_then(|rows| number(&rows)) };
    let looking = async {
        let [usual, suspect, alone] = Rank::ALL.map(|rank| plan.from(rank));
        let look = async { conn.query(&look, &[&plan.lanes, &usual, &suspect, &alone]).await };
        let workers = async { conn.query(&workers, &[&worker]).await.and_then(|rows| number(&rows)) };
        try_join(look, workers).await
    };
    let all = async {
        let (lapsed, promoted, forgotten, looked) =
            join4(lapsing, promoting, conn.execute(&forget, &[&worker]), looking).await;
        let (lapsed, promoted) = (lapsed?, promoted?);
        forgotten?;
        let (lanes, workers) = looked?;
        let beaten = Beaten { workers: workers as u32, lapsed, promoted, ..found(&lanes, plan)? };
        Ok((beaten, Took { look: look_took(&lanes)?, lapse: lapse_took }))
    };
    committed(conn, all).await
}

fn look_took(lanes: &[Row]) -> Result<Duration, Error> {
    let micros =
        lanes.iter().map(|row| row.try_get::<_, i64>(6)).try_fold(0, |most, micros| micros.map(|m| m.max(most)));
    Ok(Duration::from_micros(micros? as u64))
}

fn found(lanes: &[Row], plan: &Plan) -> Result<Beaten, Error> {
    let mut beaten = Beaten::default();
    for row in lanes {
        let lane = LaneId(row.try_get(0)?);
        if row.try_get(1)? {
            beaten.paused.push(lane);
            continue;
        }
        for ((rank, taken), at) in Rank::ALL.into_iter().zip(plan.taken(lane)).zip(2..) {
            if let Some(first) = row.try_get::<_, Option<i64>>(at)? {
                beaten.ready.push(Ready { lane, rank, missed: (first <= taken).then_some(first - 1) });
            }
        }
        if let Some(micros) = row.try_get::<_, Option<i64>>(5)? {
            let due = Duration::from_micros(micros.max(0) as u64);
            beaten.next_due = Some(beaten.next_due.map_or(due, |earlier| earlier.min(due)));
        }
    }
    Ok(beaten)
}
