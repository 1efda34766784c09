//! Dead letters, accounting, positions: small statements for whoever operates Caudal.

use std::sync::Arc;

use bytes::Bytes;
use caudal_core::dead_letter::{DeadLetterState, KeptDeadLetter, payload_as_text, payload_from_text};
use caudal_core::error::StoreError;
use caudal_core::message::Message;
use caudal_core::outcome::Tally;
use caudal_core::ports::{DriftNote, DriftReport};
use caudal_core::topic::TopicName;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::PostgresStore;
use super::error::{keeps_connection, store_error};
use super::pool::Pool;
use super::wire::Stamp;
use crate::migration::NO_SECRET;
use crate::settle::without_nul;

const DEAD_LETTER_COLUMNS: &str = "select _id, topic, transaction_id, key, source, reason, detail, pointer, payload,
  payload_encoding, attributes::text, published_at, dead_at, state, attempts, settled_at, outcome from _dead_letters";

pub(super) type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

impl PostgresStore {
    /// One short statement. A read is repeated once when its connection turned out to be dead; a write
    /// is not, its outcome is unknown.
    pub(super) async fn ask(&self, sql: &str, params: &[Typed<'_>], repeat: bool) -> Result<Vec<Row>, StoreError> {
        self.ask_over(&self.askers, sql, params, repeat).await
    }

    pub(super) async fn ask_over(
        &self,
        pool: &Arc<Pool>,
        sql: &str,
        params: &[Typed<'_>],
        repeat: bool,
    ) -> Result<Vec<Row>, StoreError> {
        let mut lease = pool.lease().await?;
        let types: Vec<Type> = params.iter().map(|(_, ty)| ty.clone()).collect();
        let values: Vec<&(dyn ToSql + Sync)> = params.iter().map(|(value, _)| *value).collect();
        let mut left = usize::from(repeat);
        loop {
            let conn = lease.conn().await?;
            let asked = async {
                let query = conn.prepare(sql, &types).await?;
                conn.query(&query, &values).await
            };
            match asked.await.map_err(store_error) {
                Ok(rows) => return Ok(rows),
                Err(error) => {
                    if !keeps_connection(&error) {
                        lease.discard();
                    }
                    if left == 0 || !matches!(error, StoreError::Unavailable(_)) {
                        return Err(error);
                    }
                    left -= 1;
                }
            }
        }
    }

    pub(super) async fn position_of(
        &self,
        topic: &TopicName,
        subscription: &str,
        lane: Uuid,
    ) -> Result<Option<u64>, StoreError> {
        let sql = "select position from _positions where topic = $1 and subscription = $2 and incarnation = $3";
        let params: [Typed<'_>; 3] = [(&topic.as_str(), Type::TEXT), (&subscription, Type::TEXT), (&lane, Type::UUID)];
        let rows = self.ask(sql, &params, true).await?;
        rows.first().map(|row| int(row, 0)).transpose()
    }

    pub(super) async fn dead_letter_by(&self, id: Uuid) -> Result<Option<KeptDeadLetter>, StoreError> {
        let sql = format!("{DEAD_LETTER_COLUMNS} where _id = $1");
        let rows = self.ask(&sql, &[(&id, Type::UUID)], true).await?;
        rows.first().map(kept).transpose().map_err(store_error)
    }

    pub(super) async fn dead_letters_for(&self, transaction_id: Uuid) -> Result<Vec<KeptDeadLetter>, StoreError> {
        let sql = format!("{DEAD_LETTER_COLUMNS} where transaction_id = $1 order by dead_at desc, _id desc limit 10");
        let rows = self.ask(&sql, &[(&transaction_id, Type::UUID)], true).await?;
        rows.iter().map(kept).collect::<Result<_, _>>().map_err(store_error)
    }

    pub(super) async fn repair_payload(&self, id: Uuid, payload: Bytes) -> Result<bool, StoreError> {
        let sql = "update _dead_letters set payload = $2, payload_encoding = $3
                   where _id = $1 and state = 'dead' returning _id";
        let (text, encoding) = payload_as_text(&payload);
        let params: [Typed<'_>; 3] = [(&id, Type::UUID), (&text, Type::TEXT), (&encoding, Type::TEXT)];
        Ok(!self.ask(sql, &params, false).await?.is_empty())
    }

    pub(super) async fn note_failed_redrive(
        &self,
        id: Uuid,
        reason: &str,
        detail: &str,
        pointer: &str,
    ) -> Result<(), StoreError> {
        let sql = "update _dead_letters set attempts = attempts + 1, reason = $2, detail = $3, pointer = $4
                   where _id = $1 and state = 'dead'";
        let (reason, detail, pointer) = (without_nul(reason), without_nul(detail), without_nul(pointer));
        let params: [Typed<'_>; 4] =
            [(&id, Type::UUID), (&reason, Type::TEXT), (&detail, Type::TEXT), (&pointer, Type::TEXT)];
        self.ask(sql, &params, false).await.map(drop)
    }

    pub(super) async fn tally_of(&self, topic: &TopicName) -> Result<Tally, StoreError> {
        let sql = "select coalesce(sum(accepted), 0)::int8, coalesce(sum(stored), 0)::int8,
                          coalesce(sum(duplicate), 0)::int8, coalesce(sum(rejected), 0)::int8,
                          coalesce(sum(dead), 0)::int8 from _ledger where topic = $1";
        let rows = self.ask(sql, &[(&topic.as_str(), Type::TEXT)], true).await?;
        let Some(row) = rows.first() else { return Ok(Tally::default()) };
        Ok(Tally {
            accepted: int(row, 0)?,
            stored: int(row, 1)?,
            duplicate: int(row, 2)?,
            rejected: int(row, 3)?,
            dead: int(row, 4)?,
        })
    }

    pub(super) async fn kept_secret(&self) -> Result<Vec<u8>, StoreError> {
        let rows = self.ask("select secret from _secrets where name = 'cursor'", &[], true).await?;
        let secret = rows.first().map(|row| row.try_get::<_, &str>(0)).transpose().map_err(store_error)?;
        secret.map(|secret| secret.as_bytes().to_vec()).ok_or_else(|| StoreError::Setup(NO_SECRET.into()))
    }

    pub(super) async fn drift_of(&self, topic: &TopicName) -> Result<Vec<DriftReport>, StoreError> {
        let sql = "select field, json_type, count, first_seen, last_seen from _drift
                   where topic = $1 order by field, json_type";
        let rows = self.ask(sql, &[(&topic.as_str(), Type::TEXT)], true).await?;
        rows.iter().map(drift).collect::<Result<_, _>>().map_err(store_error)
    }
}

fn int(row: &Row, index: usize) -> Result<u64, StoreError> {
    row.try_get::<_, i64>(index).map(|n| n as u64).map_err(store_error)
}

fn drift(row: &Row) -> Result<DriftReport, tokio_postgres::Error> {
    let note =
        DriftNote { field: row.try_get(0)?, json_type: row.try_get(1)?, count: row.try_get::<_, i64>(2)? as u64 };
    Ok(DriftReport { note, first_seen: row.try_get::<_, Stamp>(3)?.0, last_seen: row.try_get::<_, Stamp>(4)?.0 })
}

fn kept(row: &Row) -> Result<KeptDeadLetter, tokio_postgres::Error> {
    let payload: &str = row.try_get(8)?;
    let attributes: Option<String> = row.try_get(10)?;
    Ok(KeptDeadLetter {
        id: row.try_get(0)?,
        topic: row.try_get(1)?,
        message: Message {
            id: row.try_get(2)?,
            key: row.try_get(3)?,
            source: row.try_get(4)?,
            published_at: row.try_get::<_, Stamp>(11)?.0,
            attributes: attributes.map(Bytes::from),
            body: payload_from_text(payload, row.try_get(9)?),
        },
        reason: row.try_get(5)?,
        detail: row.try_get(6)?,
        pointer: row.try_get(7)?,
        dead_at: row.try_get::<_, Stamp>(12)?.0,
        state: DeadLetterState::parse(row.try_get(13)?).unwrap_or(DeadLetterState::Dead),
        attempts: row.try_get(14)?,
        settled_at: row.try_get::<_, Option<Stamp>>(15)?.map(|s| s.0),
        outcome: row.try_get(16)?,
    })
}
