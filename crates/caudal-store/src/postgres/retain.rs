//! Retention: old rows leave in short transactions, and their keys stay behind in `_expired`.
//!
//! No reader waits: a delete hides rows from those that begin later and from nobody else. No writer waits for a row that it does
//! not repeat. What appends look for in `_expired` they look for after their rows are in the table: a key that was there until
//! then kept them out, and one that left before is in `_expired` by the time they look.

use std::sync::Arc;

use caudal_core::error::StoreError;
use caudal_core::schema::{STORED_AT, Table};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use tokio_postgres::Error;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::PostgresStore;
use super::connect::{Conn, Query};
use super::error::{PutError, store_error};
use super::sql::quoted;
use super::wire::Stamp;

/// Divides by zero when one of the ids has left the table, which fails the transaction although its COMMIT is already on the way.
const NONE_EXPIRED: &str = "select 1 / (not exists (select from _expired where _id = any($1)))::int";

const EXPIRED: &str = "select _id from _expired where _id = any($1)";

const IDS: [Type; 1] = [Type::UUID_ARRAY];

const FORGET: &str = "delete from _expired where ctid = any(array(
    select ctid from _expired where topic = $1 and expired_at < $2 order by expired_at limit $3 for update skip locked))";

/// What is to be confirmed stays until it is: all that was stored since the topic has lanes, or came with one.
const CONFIRMED: &str =
    "(_stored_at < coalesce((select min(since) from _confirm_lanes where topic = $1 and not adopts), 'infinity')
      and (select b.tx from _confirm_brought b where b.tx = _id limit 1) is null
    or (select o.tx from _confirm_outcomes o where o.tx = _id limit 1) is not null)";

/// Rows that another sweep has in hand are left to it. Found by the block ranges of `_stored_at`, in which rows arrive.
fn expire_sql(table: &Table) -> String {
    let name = quoted(&table.name);
    format!(
        "with gone as (
           delete from {name} where ctid = any(array(
             select ctid from {name} where {STORED_AT} < $2 and {CONFIRMED} limit $3 for update skip locked))
           returning _id),
         kept as (
           insert into _expired (topic, _id, expired_at) select $1, _id, now() from gone
           on conflict (_id) do update set expired_at = excluded.expired_at),
         counted as (
           insert into _retention as r (topic, expired) select $1, count(*) from gone
           on conflict (topic) do update set expired = r.expired + excluded.expired)
         select count(*) from gone"
    )
}

impl PostgresStore {
    pub(super) async fn expire_rows(
        &self,
        table: &Arc<Table>,
        topic: &TopicName,
        before: Instant,
        rows_max: usize,
    ) -> Result<u64, StoreError> {
        let (before, limit) = (Stamp(before), rows_max as i64);
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&topic.as_str(), Type::TEXT), (&before, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        let rows = self.ask(&expire_sql(table), &params, false).await?;
        let count: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        Ok(count.unwrap_or_default() as u64)
    }

    pub(super) async fn forget_keys(
        &self,
        topic: &TopicName,
        before: Instant,
        keys_max: usize,
    ) -> Result<u64, StoreError> {
        let (before, limit) = (Stamp(before), keys_max as i64);
        let sql = format!("with gone as ({FORGET} returning 1) select count(*) from gone");
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&topic.as_str(), Type::TEXT), (&before, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        let rows = self.ask(&sql, &params, false).await?;
        let count: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        Ok(count.unwrap_or_default() as u64)
    }

    pub(super) async fn expired_of(&self, topic: &TopicName) -> Result<u64, StoreError> {
        let sql = "select expired from _retention where topic = $1";
        let rows = self.ask(sql, &[(&topic.as_str(), Type::TEXT)], true).await?;
        let count: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        Ok(count.unwrap_or_default() as u64)
    }

    pub(super) async fn expired_when(&self, topic: &TopicName, id: Uuid) -> Result<Option<Instant>, StoreError> {
        let sql = "select expired_at from _expired where topic = $1 and _id = $2";
        let rows = self.ask(sql, &[(&topic.as_str(), Type::TEXT), (&id, Type::UUID)], true).await?;
        let at: Option<Stamp> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        Ok(at.map(|stamp| stamp.0))
    }
}

/// The check that none of the ids to be stored has left the table; none where none can.
pub(super) struct Guard {
    query: Arc<Query>,
    ids: Vec<Uuid>,
}

impl Guard {
    pub(super) async fn prepare(conn: &mut Conn, ids: Vec<Uuid>) -> Result<Option<Self>, Error> {
        if ids.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { query: conn.prepare(NONE_EXPIRED, &IDS).await?, ids }))
    }

    pub(super) async fn run(&self, conn: &Conn) -> Result<(), PutError> {
        match conn.query(&self.query, &[&self.ids]).await {
            Ok(_) => Ok(()),
            Err(error) if error.code().is_some_and(|code| code.code() == "22012") => {
                Err(PutError::Taken { deadlock: false })
            }
            Err(error) => Err(PutError::of(error)),
        }
    }
}

/// Asks which ids of a batch have left the table.
pub(super) async fn prepare_expired(conn: &mut Conn, table: &Table) -> Result<Option<Arc<Query>>, Error> {
    match table.expires {
        Some(_) => conn.prepare(EXPIRED, &IDS).await.map(Some),
        None => Ok(None),
    }
}
