//! Dead letters, accounting, positions: small statements for whoever operates Caudal.

use bytes::Bytes;
use caudal_core::dead_letter::{DeadLetterState, KeptDeadLetter, payload_as_text, payload_from_text};
use caudal_core::error::StoreError;
use caudal_core::message::Message;
use caudal_core::outcome::Tally;
use caudal_core::ports::{DriftNote, DriftReport};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ValueRef};
use rusqlite::{OptionalExtension, Row, params};
use uuid::Uuid;

use super::SqliteStore;
use super::error::store_error;
use super::readers::Reader;
use crate::migration::NO_SECRET;
use crate::settle::without_nul;

const DEAD_LETTER_COLUMNS: &str = "select _id, topic, transaction_id, key, source, reason, detail, pointer, payload,
  payload_encoding, attributes, published_at, dead_at, state, attempts, settled_at, outcome from _dead_letters";

/// An id or an instant out of its text.
pub(super) struct Text<T>(pub(super) T);

impl FromSql for Text<Uuid> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Uuid::try_parse(value.as_str()?).map(Self).map_err(FromSqlError::other)
    }
}

impl FromSql for Text<Instant> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Instant::parse(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType)
    }
}

impl SqliteStore {
    pub(super) async fn rows<T: Send + 'static>(
        &self,
        sql: String,
        params: Vec<Box<dyn ToSql + Send>>,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let work = move |reader: &Reader| {
            let params: Vec<&dyn ToSql> = params.iter().map(|p| &**p as &dyn ToSql).collect();
            let mut statement = reader.conn.prepare_cached(&sql).map_err(store_error)?;
            let rows = statement.query_map(&*params, read).map_err(store_error)?;
            rows.collect::<Result<_, _>>().map_err(store_error)
        };
        self.points.ask(work).await
    }

    pub(super) async fn position_of(
        &self,
        topic: &TopicName,
        subscription: &str,
        incarnation: Uuid,
    ) -> Result<Option<u64>, StoreError> {
        let (topic, subscription) = (topic.to_string(), subscription.to_owned());
        let work = move |reader: &Reader| {
            let sql = "select position from _positions where topic = ?1 and subscription = ?2 and incarnation = ?3";
            let mut statement = reader.conn.prepare_cached(sql).map_err(store_error)?;
            let values = params![topic, subscription, incarnation.to_string()];
            let position: Option<i64> =
                statement.query_row(values, |row| row.get(0)).optional().map_err(store_error)?;
            Ok(position.map(|p| p as u64))
        };
        self.points.ask(work).await
    }

    pub(super) async fn dead_letter_by(&self, id: Uuid) -> Result<Option<KeptDeadLetter>, StoreError> {
        let sql = format!("{DEAD_LETTER_COLUMNS} where _id = ?1");
        Ok(self.rows(sql, vec![Box::new(id.to_string())], kept).await?.pop())
    }

    pub(super) async fn dead_letters_for(&self, transaction_id: Uuid) -> Result<Vec<KeptDeadLetter>, StoreError> {
        let sql = format!("{DEAD_LETTER_COLUMNS} where transaction_id = ?1 order by dead_at desc, _id desc limit 10");
        self.rows(sql, vec![Box::new(transaction_id.to_string())], kept).await
    }

    pub(super) async fn repair_payload(&self, id: Uuid, payload: Bytes) -> Result<bool, StoreError> {
        let work = move |conn: &mut rusqlite::Connection| {
            let sql = "update _dead_letters set payload = ?2, payload_encoding = ?3 where _id = ?1 and state = 'dead'";
            let (text, encoding) = payload_as_text(&payload);
            let changed = conn.execute(sql, params![id.to_string(), text, encoding]).map_err(store_error)?;
            Ok(changed > 0)
        };
        self.writer.run(work).await
    }

    pub(super) async fn note_failed_redrive(
        &self,
        id: Uuid,
        reason: &str,
        detail: &str,
        pointer: &str,
    ) -> Result<(), StoreError> {
        let [reason, detail, pointer] = [reason, detail, pointer].map(without_nul);
        let work = move |conn: &mut rusqlite::Connection| {
            let sql = "update _dead_letters set attempts = attempts + 1, reason = ?2, detail = ?3, pointer = ?4
                       where _id = ?1 and state = 'dead'";
            conn.execute(sql, params![id.to_string(), reason, detail, pointer]).map_err(store_error)?;
            Ok(())
        };
        self.writer.run(work).await
    }

    pub(super) async fn tally_of(&self, topic: &TopicName) -> Result<Tally, StoreError> {
        let sql = "select coalesce(sum(accepted), 0), coalesce(sum(stored), 0), coalesce(sum(duplicate), 0),
                          coalesce(sum(rejected), 0), coalesce(sum(dead), 0) from _ledger where topic = ?1";
        let read = |row: &Row<'_>| {
            let int = |index| row.get::<_, i64>(index).map(|n| n as u64);
            Ok(Tally { accepted: int(0)?, stored: int(1)?, duplicate: int(2)?, rejected: int(3)?, dead: int(4)? })
        };
        let rows = self.rows(sql.into(), vec![Box::new(topic.to_string())], read).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    pub(super) async fn kept_secret(&self) -> Result<Vec<u8>, StoreError> {
        let sql = "select secret from _secrets where name = 'cursor'";
        let rows = self.rows(sql.into(), Vec::new(), |row| row.get::<_, String>(0)).await?;
        rows.into_iter().next().map(String::into_bytes).ok_or_else(|| StoreError::Setup(NO_SECRET.into()))
    }

    pub(super) async fn drift_of(&self, topic: &TopicName) -> Result<Vec<DriftReport>, StoreError> {
        let sql = "select field, json_type, count, first_seen, last_seen from _drift
                   where topic = ?1 order by field, json_type";
        let read = |row: &Row<'_>| {
            let count = row.get::<_, i64>(2)? as u64;
            let note = DriftNote { field: row.get(0)?, json_type: row.get(1)?, count };
            Ok(DriftReport { note, first_seen: instant(row, 3)?, last_seen: instant(row, 4)? })
        };
        self.rows(sql.into(), vec![Box::new(topic.to_string())], read).await
    }
}

pub(super) fn instant(row: &Row<'_>, index: usize) -> rusqlite::Result<Instant> {
    row.get::<_, Text<Instant>>(index).map(|t| t.0)
}

fn kept(row: &Row<'_>) -> rusqlite::Result<KeptDeadLetter> {
    let id = |index| row.get::<_, Text<Uuid>>(index).map(|t| t.0);
    let (payload, encoding): (String, String) = (row.get(8)?, row.get(9)?);
    let state: String = row.get(13)?;
    Ok(KeptDeadLetter {
        id: id(0)?,
        topic: row.get(1)?,
        message: Message {
            id: id(2)?,
            key: row.get(3)?,
            source: row.get(4)?,
            published_at: instant(row, 11)?,
            attributes: row.get::<_, Option<String>>(10)?.map(Bytes::from),
            body: payload_from_text(&payload, &encoding),
        },
        reason: row.get(5)?,
        detail: row.get(6)?,
        pointer: row.get(7)?,
        dead_at: instant(row, 12)?,
        state: DeadLetterState::parse(&state).unwrap_or(DeadLetterState::Dead),
        attempts: row.get(14)?,
        settled_at: row.get::<_, Option<Text<Instant>>>(15)?.map(|t| t.0),
        outcome: row.get(16)?,
    })
}
