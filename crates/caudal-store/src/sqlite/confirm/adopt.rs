//! Tables that others write: which of their rows are pending, and what is written back.

use std::sync::Arc;

use caudal_core::confirm::ports::{Adopt, Records};
use caudal_core::confirm::{Fact, LaneId};
use caudal_core::error::StoreError;
use caudal_core::topic::{Identity, TopicName};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::Lane;
use super::ready::{Counts, Ready, positions};
use crate::sqlite::error::{found_error, refusal, store_error};
use crate::sqlite::readers::Reader;
use crate::sqlite::sql::quoted;
use crate::sqlite::values::any_as_text;
use crate::sqlite::writer::Commit;

/// Keys of rows that are pending and were not adopted, in no order. Looked for by a reader: the table may be large.
pub(super) fn found(reader: &Reader, adopt: &Adopt, lane: LaneId, rows_max: usize) -> Result<Vec<Value>, StoreError> {
    let key = quoted(&adopt.key);
    let sql = format!(
        "select t.{key} from {} t where t.{} = ?1 and t.{key} is not null
            and not exists (select 1 from _confirm_adopted a where a.lane = ?2 and a.key = t.{key}) limit ?3",
        quoted(&adopt.table.name),
        quoted(&adopt.state)
    );
    let keys = || -> rusqlite::Result<Vec<Value>> {
        let mut statement = reader.conn.prepare_cached(&sql)?;
        let keys = statement.query_map(params![adopt.pending, lane.0, rows_max as i64], |row| row.get(0))?;
        keys.collect()
    };
    keys().map_err(found_error)
}

/// Makes them pending, those that still are to be; returns how many.
pub(super) fn adopt(commit: &Commit<'_>, lane: &Lane, adopt: &Adopt, keys: &[Value]) -> Result<u64, StoreError> {
    let sql = format!(
        "select exists (select 1 from {} where {} = ?1 and {} = ?2)",
        quoted(&adopt.table.name),
        quoted(&adopt.key),
        quoted(&adopt.state)
    );
    let mut still = commit.conn.prepare_cached(&sql).map_err(found_error)?;
    let mut counts = Counts::default();
    let mut pos = positions(commit.conn, keys.len()).map_err(store_error)?;
    let mut adopted = 0;
    for key in keys {
        if !still.query_row(params![key, adopt.pending], |row| row.get::<_, bool>(0)).map_err(found_error)? {
            continue;
        }
        let tx = transaction_of(&lane.topic, key);
        let sql = "insert into _confirm_adopted (tx, lane, key) values (?1, ?2, ?3) on conflict do nothing";
        let new = commit.conn.prepare_cached(sql).and_then(|mut insert| insert.execute(params![tx, lane.id.0, key]));
        if new.map_err(store_error)? > 0 {
            pos += 1;
            Ready::fresh(&tx, lane.id.0, commit.now).put(commit.conn, pos).map_err(store_error)?;
            counts.enqueued(lane.id.0);
            adopted += 1;
        }
    }
    counts.write(commit).map_err(store_error)?;
    Ok(adopted)
}

/// The id that stands for a row. Derived, so that a second look, or another store, gives the same; and from the topic too, because two
/// tables may have the same keys.
fn transaction_of(topic: &TopicName, key: &Value) -> String {
    let text = any_as_text(key.into()).unwrap_or_default();
    Identity::of(topic).transaction_id(&text).to_string()
}

/// Tells the table's owner how a transaction ended, if it is one of such a table.
pub(super) fn write_back(conn: &Connection, records: Option<&Records>, tx: &str, fact: Fact) -> Result<(), StoreError> {
    if let Some(Records::Topic(_)) = records {
        return Ok(());
    }
    let sql = "select key from _confirm_adopted where tx = ?1";
    let key = conn.prepare_cached(sql).and_then(|mut statement| statement.query_row([tx], |row| row.get(0)).optional());
    let Some(key): Option<Value> = key.map_err(store_error)? else { return Ok(()) };
    let Some(Records::Adopted(adopt)) = records else {
        return Err(StoreError::Setup(format!(
            "transaction {tx} is a row of another's table, and this process was not told of which: ensure_lanes comes first"
        )));
    };
    set_state(conn, adopt, &key, fact).map_err(|error| match refusal(&error) {
        // Not a fault of the store: others whose work is in the same commit must not suffer from it.
        Some(refused) => StoreError::Setup(format!(
            "table {} does not let its column {} be changed, so transaction {tx} cannot end: {refused}",
            adopt.table.name, adopt.state
        )),
        None => found_error(error),
    })
}

fn set_state(conn: &Connection, adopt: &Arc<Adopt>, key: &Value, fact: Fact) -> rusqlite::Result<()> {
    let becomes = match fact {
        Fact::Confirmed => &adopt.confirmed,
        Fact::Rejected => &adopt.rejected,
    };
    let Some(becomes) = becomes else { return Ok(()) };
    let (table, state, name) = (quoted(&adopt.table.name), quoted(&adopt.state), quoted(&adopt.key));
    let sql = format!("update {table} set {state} = ?1 where {name} = ?2 and {state} = ?3");
    conn.prepare_cached(&sql)?.execute(params![becomes, key, adopt.pending])?;
    Ok(())
}
