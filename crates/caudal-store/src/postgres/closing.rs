//! What every append's transaction ends with: what is to be confirmed, dead letters and ledger, drift, position, redrive, commit;
//! sent together.

use std::sync::Arc;

use caudal_core::dead_letter::DeadLetter;
use caudal_core::error::StoreError;
use caudal_core::ports::AppendBatch;
use futures_util::future::{join3, join5};
use tokio_postgres::Error;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::confirm::Enqueue;
use super::connect::{Conn, Query};
use super::copy::Rows;
use super::error::{PutError, store_error};
use super::retain::Guard;
use super::wire::Stamp;
use crate::expiring::may_have_expired;
use crate::settle::{KeptText, Settled, without_nul};

const LEDGER: &str = "
insert into _ledger as l (topic, writer, accepted, stored, duplicate, rejected, dead)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (topic, writer) do update set
  accepted = l.accepted + excluded.accepted, stored = l.stored + excluded.stored,
  duplicate = l.duplicate + excluded.duplicate, rejected = l.rejected + excluded.rejected,
  dead = l.dead + excluded.dead
returning $7";

/// Dead letters and ledger in one statement, because only the first knows how many were new.
const DEAD_AND_LEDGER: &str = "
with kept as (
  insert into _dead_letters (_id, topic, transaction_id, key, source, reason, detail, pointer, payload,
                             payload_encoding, attributes, published_at, dead_at, state, attempts)
  select u.id, $1, u.tx, u.key, u.source, u.reason, u.detail, u.pointer, u.payload, u.encoding,
         u.attributes::jsonb, u.published_at, now(), 'dead', 0
  from unnest($7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
    as u(id, tx, key, source, reason, detail, pointer, payload, encoding, attributes, published_at)
  on conflict (_id) do nothing returning 1
), n as (select count(*) as n from kept)
insert into _ledger as l (topic, writer, accepted, stored, duplicate, rejected, dead)
select $1, $2, $3, $4, $5 + cardinality($7) - n.n, $6, n.n from n
on conflict (topic, writer) do update set
  accepted = l.accepted + excluded.accepted, stored = l.stored + excluded.stored,
  duplicate = l.duplicate + excluded.duplicate, rejected = l.rejected + excluded.rejected,
  dead = l.dead + excluded.dead
returning (select n from n)";

const DRIFT: &str = "
insert into _drift as d (topic, field, json_type, count, first_seen, last_seen)
select $1, u.field, u.json_type, sum(u.count)::int8, now(), now()
from unnest($2, $3, $4) as u(field, json_type, count) group by 2, 3 order by 2, 3
on conflict (topic, field, json_type) do update set
  count = d.count + excluded.count, last_seen = excluded.last_seen";

/// Divides by zero when a position is not what the batch says, which fails the transaction although its COMMIT is already
/// on the way.
const POSITIONS: &str = "
with wanted as (select * from unnest($2::text[], $3::uuid[], $4::int8[], $5::int8[]) as w(subscription, lane, before, after)),
moved as (
  insert into _positions as p (topic, subscription, incarnation, position, updated_at)
  select $1, w.subscription, w.lane, w.after, now() from wanted w
  on conflict (topic, subscription, incarnation) do update
    set position = excluded.position, updated_at = excluded.updated_at
    where p.position = (select w.before from wanted w where w.lane = p.incarnation and w.subscription = p.subscription)
  returning 1)
select 1 / (count(*) = (select count(*) from wanted))::int from moved";

const REDRIVEN: &str = "
update _dead_letters set state = 'redriven', outcome = $2, settled_at = now(), attempts = attempts + 1
where _id = $1 and state = 'dead'";

/// Statements and their values, all prepared: running them needs no round trip in between.
pub(super) struct Closing<'a> {
    batch: &'a AppendBatch,
    writer: String,
    counts: [i64; 5],
    redriven: Option<&'static str>,
    dead: Option<DeadColumns>,
    ledger: Arc<Query>,
    drift: Option<Arc<Query>>,
    positions: Option<Arc<Query>>,
    redrive: Option<Arc<Query>>,
    guard: Option<Guard>,
    enqueue: Option<Enqueue>,
}

impl<'a> Closing<'a> {
    /// `rows`: those that are put before.
    pub(super) async fn prepare(
        conn: &mut Conn,
        batch: &'a AppendBatch,
        settled: &Settled,
        writer: String,
        rows: Rows<'_>,
    ) -> Result<Self, Error> {
        let counted = settled.counted;
        let counts =
            [counted.accepted, counted.stored, counted.duplicate, counted.rejected, counted.dead].map(|n| n as i64);
        let dead = (!settled.dead.is_empty()).then(|| DeadColumns::of(&settled.dead));
        let ledger = match dead {
            Some(_) => conn.prepare(DEAD_AND_LEDGER, &dead_types()).await?,
            None => conn.prepare(LEDGER, &LEDGER_TYPES).await?,
        };
        let drift = match batch.drift.is_empty() {
            true => None,
            false => Some(conn.prepare(DRIFT, &DRIFT_TYPES).await?),
        };
        let positions = match batch.positions.is_empty() {
            true => None,
            false => Some(conn.prepare(POSITIONS, &POSITIONS_TYPES).await?),
        };
        let redrive = match settled.redriven {
            Some(_) => Some(conn.prepare(REDRIVEN, &[Type::UUID, Type::TEXT]).await?),
            None => None,
        };
        let guard = Guard::prepare(conn, may_have_expired(&batch.table, rows.ids(batch))).await?;
        let enqueue = Enqueue::prepare(conn, batch, rows).await?;
        let redriven = settled.redriven;
        Ok(Self { batch, writer, counts, redriven, dead, ledger, drift, positions, redrive, guard, enqueue })
    }

    /// Sends everything on the first poll, in order; returns how many dead letters were new. Any failure undoes the whole
    /// transaction.
    pub(super) async fn run(self, conn: &Conn) -> Result<u64, PutError> {
        let rest = join5(
            self.keep_dead_and_count(conn),
            self.drift(conn),
            self.positions(conn),
            self.redrive(conn),
            conn.client.batch_execute("commit"),
        );
        let (none_expired, enqueued, rest) = join3(self.none_expired(conn), self.enqueue(conn), rest).await;
        let (dead, drift, positions, redrive, committed) = rest;
        // A broken connection fails all of them; what comes first in the transaction tells why.
        none_expired?;
        enqueued.map_err(store_error).map_err(PutError::Store)?;
        self.ended(dead, drift, positions, redrive, committed).map_err(PutError::Store)
    }

    fn ended(
        &self,
        dead: Result<u64, Error>,
        drift: Result<u64, Error>,
        positions: Result<(), StoreError>,
        redrive: Result<u64, Error>,
        committed: Result<(), Error>,
    ) -> Result<u64, StoreError> {
        let dead = dead.map_err(store_error)?;
        drift.map_err(store_error)?;
        positions?;
        redrive.map_err(store_error)?;
        committed.map_err(store_error)?;
        Ok(dead)
    }

    async fn none_expired(&self, conn: &Conn) -> Result<(), PutError> {
        match &self.guard {
            Some(guard) => guard.run(conn).await,
            None => Ok(()),
        }
    }

    async fn enqueue(&self, conn: &Conn) -> Result<u64, Error> {
        match &self.enqueue {
            Some(enqueue) => enqueue.run(conn, &self.writer).await,
            None => Ok(0),
        }
    }

    async fn keep_dead_and_count(&self, conn: &Conn) -> Result<u64, Error> {
        let topic = self.batch.topic.as_str();
        let [accepted, stored, duplicate, rejected, dead] = &self.counts;
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&topic, &self.writer, accepted, stored, duplicate, rejected];
        match &self.dead {
            Some(columns) => columns.add_to(&mut params),
            None => params.push(dead),
        }
        let rows = conn.query(&self.ledger, &params).await?;
        match rows.first() {
            Some(row) => Ok(row.try_get::<_, i64>(0)? as u64),
            None => Ok(0),
        }
    }

    async fn drift(&self, conn: &Conn) -> Result<u64, Error> {
        let Some(query) = &self.drift else { return Ok(0) };
        let notes = &self.batch.drift;
        let fields: Vec<String> = notes.iter().map(|n| without_nul(&n.field)).collect();
        let types: Vec<&str> = notes.iter().map(|n| n.json_type.as_str()).collect();
        let counts: Vec<i64> = notes.iter().map(|n| n.count as i64).collect();
        conn.execute(query, &[&self.batch.topic.as_str(), &fields, &types, &counts]).await
    }

    async fn positions(&self, conn: &Conn) -> Result<(), StoreError> {
        let Some(query) = &self.positions else { return Ok(()) };
        let positions = &self.batch.positions;
        let subscriptions: Vec<&str> = positions.iter().map(|p| p.subscription.as_str()).collect();
        let lanes: Vec<Uuid> = positions.iter().map(|p| p.lane).collect();
        let before: Vec<i64> = positions.iter().map(|p| p.from as i64).collect();
        let after: Vec<i64> = positions.iter().map(|p| p.to as i64).collect();
        let moved = conn.query(query, &[&self.batch.topic.as_str(), &subscriptions, &lanes, &before, &after]).await;
        match moved {
            Ok(_) => Ok(()),
            Err(error) if error.code().is_some_and(|code| code.code() == "22012") => Err(StoreError::Fenced),
            Err(error) => Err(store_error(error)),
        }
    }

    async fn redrive(&self, conn: &Conn) -> Result<u64, Error> {
        let (Some(query), Some(id), Some(outcome)) = (&self.redrive, self.batch.redrives, self.redriven) else {
            return Ok(0);
        };
        conn.execute(query, &[&id, &outcome]).await
    }
}

const LEDGER_TYPES: [Type; 7] = [Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8];
const DRIFT_TYPES: [Type; 4] = [Type::TEXT, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::INT8_ARRAY];
const POSITIONS_TYPES: [Type; 5] = [Type::TEXT, Type::TEXT_ARRAY, Type::UUID_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY];

fn dead_types() -> Vec<Type> {
    let mut types = LEDGER_TYPES[..6].to_vec();
    types.extend([Type::UUID_ARRAY, Type::UUID_ARRAY]);
    types.extend(std::iter::repeat_n(Type::TEXT_ARRAY, 8));
    types.push(Type::TIMESTAMPTZ_ARRAY);
    types
}

/// Dead letters column by column, as `unnest` takes them.
#[derive(Default)]
struct DeadColumns {
    ids: Vec<Uuid>,
    transactions: Vec<Uuid>,
    keys: Vec<Option<String>>,
    sources: Vec<String>,
    reasons: Vec<&'static str>,
    details: Vec<String>,
    pointers: Vec<String>,
    payloads: Vec<String>,
    encodings: Vec<&'static str>,
    attributes: Vec<Option<String>>,
    published: Vec<Stamp>,
}

impl DeadColumns {
    fn of(letters: &[DeadLetter]) -> Self {
        let mut columns = Self::default();
        for letter in letters {
            let text = KeptText::of(letter);
            columns.ids.push(letter.id);
            columns.transactions.push(letter.message.id);
            columns.keys.push(text.key);
            columns.sources.push(text.source);
            columns.reasons.push(text.reason);
            columns.details.push(text.detail);
            columns.pointers.push(text.pointer);
            columns.payloads.push(text.payload);
            columns.encodings.push(text.encoding);
            columns.attributes.push(text.attributes);
            columns.published.push(Stamp(letter.message.published_at));
        }
        columns
    }

    fn add_to<'a>(&'a self, params: &mut Vec<&'a (dyn ToSql + Sync)>) {
        let columns: [&(dyn ToSql + Sync); 11] = [
            &self.ids,
            &self.transactions,
            &self.keys,
            &self.sources,
            &self.reasons,
            &self.details,
            &self.pointers,
            &self.payloads,
            &self.encodings,
            &self.attributes,
            &self.published,
        ];
        params.extend(columns);
    }
}
