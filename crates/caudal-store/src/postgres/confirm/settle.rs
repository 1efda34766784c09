//! Settling: facts from anybody, everything else under the live lease; one transaction of two round trips.
//!
//! The first locks the leases, so that none of them lapses meanwhile, and writes the facts. The second does what follows from
//! both, and commits: nothing more where all leases live and all facts were new, which is the usual case.

use caudal_core::confirm::ports::{Finish, Lease, Settled};
use caudal_core::confirm::{Item, Mark};
use caudal_core::error::StoreError;
use foldhash::{HashMap, HashSet};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join3, try_join_all};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::super::PostgresStore;
use super::super::connect::Conn;
use super::super::error::store_error;
use super::super::wire::Stamp;
use super::settling::{Facts, Leaving, Moves};
use super::{adopt, committed, number};

/// Its items are read only where some of them are moved.
const LOCK: &str = "
select l.lease, l.lane, l.rank, l.called_at, l.items, l.shrunk, case when u.moves then l.txs end
from _confirm_leases l
join unnest($1::int8[], $2::text[], $3::bool[]) as u(lease, worker, moves) on u.lease = l.lease and u.worker = l.worker
order by l.lease for update of l";
const LOCK_TYPES: [Type; 3] = [Type::INT8_ARRAY, Type::TEXT_ARRAY, Type::BOOL_ARRAY];

/// In the order of the keys, so that two who settle the same wait for each other and not in a circle. Counted beside, in a row that
/// only this connection writes: nobody counts all outcomes to say how many there are.
const FACTS: &str = "
with put as (
  insert into _confirm_outcomes (tx, lane, state, attempts, code, fence, since, at, detail)
  select u.tx, u.lane, u.state, u.attempts, u.code, u.fence, u.since, clock_timestamp(), u.detail
  from unnest($1::uuid[], $2::int4[], $3::text[], $4::int4[], $5::int4[], $6::int8[], $7::timestamptz[], $8::text[])
    with ordinality as u(tx, lane, state, attempts, code, fence, since, detail, n)
  order by u.tx, u.n on conflict (tx) do nothing returning lane, state),
counted as (
  insert into _confirm_counts as c (lane, writer, enqueued, confirmed, rejected)
  select lane, $9, 0, count(*) filter (where state = 'confirmed'), count(*) filter (where state = 'rejected')
  from put group by lane order by lane
  on conflict (lane, writer) do update set
    confirmed = c.confirmed + excluded.confirmed, rejected = c.rejected + excluded.rejected)
select count(*) from put";

/// A statement of its own: the one before cannot see what it waited for.
const CONTRADICTIONS: &str = "
with said as (
  select u.tx, u.lane, o.state as had, u.state as got, u.code, u.fence, u.detail
  from unnest($1::uuid[], $2::int4[], $3::text[], $4::int4[], $5::int4[], $6::int8[], $7::timestamptz[], $8::text[])
    as u(tx, lane, state, attempts, code, fence, since, detail)
  cross join lateral (select state from _confirm_outcomes o where o.tx = u.tx limit 1) o where o.state <> u.state),
kept as (
  insert into _confirm_contradictions (tx, lane, had, got, code, detail, fence, at)
  select distinct on (tx, got) tx, lane, had, got, code, detail, fence, clock_timestamp() from said order by tx, got
  on conflict (tx, got) do nothing)
select count(*) from said";

/// What waits although it has ended. What is pending is dropped by whoever claims it.
const EMPTY_DEFERRED: &str = "delete from _confirm_deferred where tx = any($1)";
const EMPTY_ASIDE: &str = "delete from _confirm_aside where tx = any($1)";

/// Each mark into its place, unless the transaction has its outcome by now. Counted by what left its lease.
const MOVE: &str = "
with u as (
  select u.* from unnest($1::uuid[], $2::int4[], $3::text[], $4::int2[], $5::int4[], $6::int4[], $7::bool[],
      $8::timestamptz[], $9::timestamptz[], $10::bool[], $11::int8[], $12::int4[], $13::text[]) with ordinality
    as u(tx, lane, state, rank, attempts, crashes, doubt, since, first_sent, sent, after, code, detail, n)
  where (select o.tx from _confirm_outcomes o where o.tx = u.tx limit 1) is null),
t as (
  insert into _confirm_tried (tx, attempt, at, state, code, detail)
  select tx, attempts, clock_timestamp(), state, code, detail from u where state <> 'pending'),
d as (
  insert into _confirm_deferred (tx, lane, due, doubt, attempts, crashes, since, first_sent, code, detail)
  select tx, lane, clock_timestamp() + after * interval '1 microsecond', doubt, attempts, crashes, since,
         coalesce(first_sent, case when sent then clock_timestamp() end), code, detail
  from u where state in ('retry', 'doubt') on conflict (tx) do nothing),
a as (
  insert into _confirm_aside (tx, lane, state, maybe_done, attempts, crashes, since, first_sent, code, detail, at)
  select tx, lane, state, doubt, attempts, crashes, since,
         coalesce(first_sent, case when sent then clock_timestamp() end), code, detail, clock_timestamp()
  from u where state in ('held', 'dead') on conflict (tx) do nothing),
r as (
  insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since, first_sent)
  select lane, rank, tx, attempts, crashes, doubt, false, since, first_sent from u where state = 'pending' order by n)
select count(*) from u";

/// What stays of a lease: the items at these places.
const SHRINK: &str = "
update _confirm_leases l set shrunk = true, items = k.items, txs = k.txs, attempts = k.attempts, crashes = k.crashes,
  doubts = k.doubts, sinces = k.sinces, first_sents = k.first_sents
from (select count(*) as items, array_agg(tx) as txs, array_agg(attempts) as attempts, array_agg(crashes) as crashes,
             array_agg(doubt) as doubts, array_agg(since) as sinces, array_agg(first_sent) as first_sents
      from (select u.* from _confirm_leases s
            cross join lateral unnest(s.txs, s.attempts, s.crashes, s.doubts, s.sinces, s.first_sents) with ordinality
              as u(tx, attempts, crashes, doubt, since, first_sent, n)
            where s.lease = $1 and u.n = any($2::int8[]) order by u.n) kept) k
where l.lease = $1";

const END: &str = "delete from _confirm_leases where lease = any($1)";

/// Those in which nothing is left that has no outcome. What somebody forgot to mark lapses with its lease.
const END_IF_EMPTY: &str = "
delete from _confirm_leases l where lease = any($1) and not exists (
  select from unnest(l.txs) as u(tx) where (select o.tx from _confirm_outcomes o where o.tx = u.tx limit 1) is null)";

/// A lease as it was locked.
struct Locked {
    from: Leaving,
    items: i32,
    shrunk: bool,
    /// Read only where something is to be moved.
    txs: Vec<Uuid>,
}

/// The marks for one lease, wherever they came among the finishes.
struct Part<'a> {
    lease: &'a Lease,
    facts: HashSet<Uuid>,
    moves: Vec<(&'a Item, &'a Mark)>,
    ends: bool,
}

/// What the second half of the transaction does.
#[derive(Default)]
struct Rest {
    moves: Moves,
    shrink: Vec<(i64, Vec<i64>)>,
    end: Vec<i64>,
    end_if_empty: Vec<i64>,
    /// Facts that may find their transaction waiting somewhere.
    late: Vec<Uuid>,
    fenced: u64,
}

impl PostgresStore {
    pub(super) async fn settle_all(&self, finishes: &[Finish]) -> Result<Settled, StoreError> {
        if finishes.is_empty() {
            return Ok(Settled::default());
        }
        self.settle_parts(&parts(finishes), facts(finishes), true).await
    }

    /// Marks that no call has led to.
    pub(super) async fn move_uncalled(&self, lease: &Lease, marks: Vec<(Item, Mark)>) -> Result<(), StoreError> {
        let moves = marks.iter().map(|(item, mark)| (item, mark)).collect();
        let part = Part { lease, facts: HashSet::default(), moves, ends: false };
        self.settle_parts(&[part], Facts::default(), false).await.map(drop)
    }

    async fn settle_parts(&self, parts: &[Part<'_>], facts: Facts, called: bool) -> Result<Settled, StoreError> {
        let begin = self.begin.as_str();
        let mut lease = self.confirmers.lease().await?;
        lease.begin_work();
        let writer = self.counts_as(&lease);
        let conn = lease.conn().await?;
        let work = async {
            let (locked, new) = lock_and_write(conn, begin, parts, &facts, &writer).await?;
            let rest = Rest::of(parts, &locked, &facts, called);
            let adopted = self.adopted_among(parts, &facts);
            finish(conn, &facts, new, rest, adopted).await
        };
        let result: Result<Settled, StoreError> = work.await;
        match &result {
            Ok(_) => lease.end_work(),
            // Whatever is open on it is undone with it.
            Err(_) => lease.discard(),
        }
        result
    }

    fn adopted_among(&self, parts: &[Part<'_>], facts: &Facts) -> Vec<(String, Vec<String>)> {
        let lanes: HashSet<_> =
            parts.iter().filter(|part| !part.facts.is_empty()).map(|part| part.lease.lane).collect();
        match facts.txs.is_empty() {
            true => Vec::new(),
            false => lanes.into_iter().filter_map(|lane| adopt::write_back_sql(&*self.lanes.adopts(lane)?)).collect(),
        }
    }
}

fn facts(finishes: &[Finish]) -> Facts {
    let mut facts = Facts::default();
    for finish in finishes {
        for marked in &finish.marks {
            if let Mark::Fact { fact, code, detail } = &marked.mark {
                facts.push(&finish.lease, &marked.item, fact.state(), *code, detail);
            }
        }
    }
    facts
}

fn parts(finishes: &[Finish]) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(finishes.len());
    let mut places: HashMap<&Lease, usize> = HashMap::default();
    for finish in finishes {
        let at = *places.entry(&finish.lease).or_insert_with(|| {
            parts.push(Part { lease: &finish.lease, facts: HashSet::default(), moves: Vec::new(), ends: false });
            parts.len() - 1
        });
        let part = &mut parts[at];
        part.ends |= finish.ends;
        for marked in &finish.marks {
            match &marked.mark {
                Mark::Fact { .. } => drop(part.facts.insert(marked.item.id)),
                mark => part.moves.push((&marked.item, mark)),
            }
        }
    }
    parts
}

async fn lock_and_write(
    conn: &mut Conn,
    begin: &str,
    parts: &[Part<'_>],
    facts: &Facts,
    writer: &str,
) -> Result<(HashMap<i64, Locked>, u64), StoreError> {
    let lock = conn.prepare(LOCK, &LOCK_TYPES).await.map_err(store_error)?;
    let write = conn.prepare(FACTS, &Facts::TYPES_AND_WRITER).await.map_err(store_error)?;
    let numbers: Vec<i64> = parts.iter().map(|part| part.lease.number).collect();
    let workers: Vec<&str> = parts.iter().map(|part| &*part.lease.worker).collect();
    let moves: Vec<bool> = parts.iter().map(|part| !part.moves.is_empty()).collect();
    let conn = &*conn;
    let writing = async {
        match facts.txs.is_empty() {
            true => Ok(0),
            false => conn.query(&write, &facts.params_and(&writer)).await.and_then(|rows| number(&rows)),
        }
    };
    let values: [&(dyn ToSql + Sync); 3] = [&numbers, &workers, &moves];
    let (begun, locked, new) = join3(conn.client.batch_execute(begin), conn.query(&lock, &values), writing).await;
    begun.map_err(store_error)?;
    let locked = locked.map_err(store_error)?.iter().map(read_lock).collect::<Result<_, _>>().map_err(store_error)?;
    Ok((locked, new.map_err(store_error)?))
}

fn read_lock(row: &Row) -> Result<(i64, Locked), Error> {
    let from = Leaving { lane: row.try_get(1)?, rank: row.try_get(2)?, called_at: row.try_get::<_, Option<Stamp>>(3)? };
    let txs: Option<Vec<Uuid>> = row.try_get(6)?;
    let locked = Locked { from, items: row.try_get(4)?, shrunk: row.try_get(5)?, txs: txs.unwrap_or_default() };
    Ok((row.try_get(0)?, locked))
}

impl Rest {
    fn of(parts: &[Part<'_>], locked: &HashMap<i64, Locked>, facts: &Facts, called: bool) -> Self {
        let mut rest = Self::default();
        let mut sure: HashSet<i64> = HashSet::default();
        for part in parts {
            match locked.get(&part.lease.number) {
                None => rest.fenced += part.moves.len() as u64,
                Some(lease) => {
                    if !lease.shrunk {
                        sure.insert(part.lease.number);
                    }
                    rest.add(part, lease, called);
                }
            }
        }
        let late = facts.txs.iter().zip(&facts.fences).filter(|(_, fence)| !sure.contains(fence));
        rest.late = late.map(|(tx, _)| *tx).collect();
        rest
    }

    /// What was moved before, or never was in the lease, is not moved.
    fn add(&mut self, part: &Part<'_>, lease: &Locked, called: bool) {
        let number = part.lease.number;
        if part.moves.is_empty() {
            match part.ends {
                true if part.facts.len() as i32 == lease.items && !lease.shrunk => self.end.push(number),
                true => self.end_if_empty.push(number),
                false => {}
            }
            return;
        }
        let mut there: HashSet<Uuid> = lease.txs.iter().copied().collect();
        for (item, mark) in &part.moves {
            // A fact for the same item beats what else was said of it.
            if !part.facts.contains(&item.id) && there.remove(&item.id) {
                self.moves.push(&lease.from, item, mark, called);
            }
        }
        if there.is_empty() || (part.ends && there.iter().all(|tx| part.facts.contains(tx))) {
            self.end.push(number);
            return;
        }
        if there.len() < lease.txs.len() {
            let kept = lease.txs.iter().zip(1i64..).filter(|(tx, _)| there.contains(tx)).map(|(_, n)| n);
            self.shrink.push((number, kept.collect()));
        }
        if part.ends {
            self.end_if_empty.push(number);
        }
    }
}

/// The second round trip.
async fn finish(
    conn: &mut Conn,
    facts: &Facts,
    new: u64,
    rest: Rest,
    adopted: Vec<(String, Vec<String>)>,
) -> Result<Settled, StoreError> {
    let given = facts.txs.len() as u64;
    let fact_params = facts.params();
    let move_params = rest.moves.params();
    let adopted: Vec<(String, [&(dyn ToSql + Sync); 4])> = Vec::from_iter(adopted.iter().map(|(sql, values)| {
        let [pending, confirmed, rejected] = [0, 1, 2].map(|n| &values[n] as &(dyn ToSql + Sync));
        (sql.clone(), [&facts.txs as _, pending, confirmed, rejected])
    }));
    let mut statements: Vec<(&str, Vec<Type>, Vec<&(dyn ToSql + Sync)>)> = Vec::new();
    if given > new {
        statements.push((CONTRADICTIONS, Facts::TYPES.to_vec(), fact_params.to_vec()));
    }
    if !rest.moves.txs.is_empty() {
        statements.push((MOVE, Moves::TYPES.to_vec(), move_params.to_vec()));
    }
    let counted = statements.len();
    if !rest.late.is_empty() {
        for sql in [EMPTY_DEFERRED, EMPTY_ASIDE] {
            statements.push((sql, vec![Type::UUID_ARRAY], vec![&rest.late]));
        }
    }
    for (number, kept) in &rest.shrink {
        statements.push((SHRINK, vec![Type::INT8, Type::INT8_ARRAY], vec![number, kept]));
    }
    for (sql, leases) in [(END, &rest.end), (END_IF_EMPTY, &rest.end_if_empty)] {
        if !leases.is_empty() {
            statements.push((sql, vec![Type::INT8_ARRAY], vec![leases]));
        }
    }
    for (sql, params) in &adopted {
        let types = vec![Type::UUID_ARRAY, Type::TEXT, Type::TEXT, Type::TEXT];
        statements.push((sql, types, params.to_vec()));
    }
    let answers = run(conn, &statements).await?;
    let mut counts =
        answers.iter().take(counted).map(|rows| rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0)));
    let mut next = || counts.next().unwrap_or(Ok(0)).map(|n| n as u64).map_err(store_error);
    let contradictions = if given > new { next()? } else { 0 };
    let moved = if rest.moves.txs.is_empty() { 0 } else { next()? };
    Ok(Settled {
        facts: new,
        repeats: (given - new).saturating_sub(contradictions),
        contradictions,
        moved,
        fenced: rest.fenced,
    })
}

/// All of them and the commit, sent together.
async fn run(
    conn: &mut Conn,
    statements: &[(&str, Vec<Type>, Vec<&(dyn ToSql + Sync)>)],
) -> Result<Vec<Vec<Row>>, StoreError> {
    let mut prepared = Vec::with_capacity(statements.len());
    for (sql, types, _) in statements {
        prepared.push(conn.prepare(sql, types).await.map_err(store_error)?);
    }
    let conn = &*conn;
    let each = prepared
        .iter()
        .zip(statements)
        .map(|(query, (.., params))| -> BoxFuture<'_, _> { conn.query(query, params).boxed() });
    committed(conn, try_join_all(each)).await
}
