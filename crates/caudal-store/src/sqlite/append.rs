//! One batch inside the writer's transaction: each row is tried by itself, so a bad one is known at once.

use caudal_core::error::StoreError;
use caudal_core::message::Position;
use caudal_core::outcome::{RowOutcome, Tally};
use caudal_core::ports::{AppendBatch, Appended};
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{Column, STORED_AT, Table};
use caudal_core::time::Instant;
use rusqlite::{CachedStatement, Connection, params};
use uuid::Uuid;

use super::confirm;
use super::error::{refusal, store_error};
use super::numbers;
use super::retain::is_expired;
use super::sql::{column_list, quoted};
use super::values::{bound, push_row};
use super::writer::Commit;
use crate::compare::{conflict, first_difference};
use crate::expiring::may_have_expired;
use crate::settle::{KeptText, Settled, without_nul};

pub(super) fn append(commit: &Commit<'_>, batch: &AppendBatch) -> Result<Appended, StoreError> {
    let Commit { conn, instance, now } = *commit;
    let outcomes = rows(conn, batch, now)?;
    confirm::enqueue(commit, batch, outcomes.as_deref())?;
    let settled = Settled::of(batch, outcomes)?;
    let dead_kept = keep_dead(conn, batch, &settled, now).map_err(store_error)?;
    count(conn, batch, instance, settled.tally(dead_kept)).map_err(store_error)?;
    drift(conn, batch, now).map_err(store_error)?;
    position(conn, batch, now)?;
    redriven(conn, batch, &settled, now).map_err(store_error)?;
    Ok(settled.appended(dead_kept))
}

/// Stores what can be stored; `None` when that was everything.
fn rows(conn: &Connection, batch: &AppendBatch, now: Instant) -> Result<Option<Vec<RowOutcome>>, StoreError> {
    if batch.rows.is_empty() {
        return Ok(None);
    }
    let table = &*batch.table;
    let columns: Vec<&Column> = table.written().collect();
    let mut number = numbers::skipped(conn, table).map_err(store_error)?;
    let mut insert = conn.prepare_cached(&insert_sql(table, number.is_some())).map_err(store_error)?;
    let mut existing: Option<CachedStatement<'_>> = None;
    let stored_at = now.to_string();
    let mut outcomes = Vec::new();
    for index in 0..batch.rows.len() {
        let looked_for = may_have_expired(table, std::iter::once(id_of(batch, index)));
        if !looked_for.is_empty() && is_expired(conn, looked_for[0]).map_err(store_error)? {
            // Its content is not there to compare.
            outcomes.resize(index, RowOutcome::Stored);
            outcomes.push(RowOutcome::Duplicate);
            continue;
        }
        let outcome = match put(&mut insert, &columns, batch, index, &stored_at, number) {
            Ok(1) => {
                if number.take().is_some() {
                    insert = conn.prepare_cached(&insert_sql(table, false)).map_err(store_error)?;
                }
                RowOutcome::Stored
            }
            Ok(_) => {
                if existing.is_none() {
                    existing = Some(conn.prepare_cached(&content_sql(table)).map_err(store_error)?);
                }
                let Some(existing) = &mut existing else { continue };
                compare(existing, batch, index)?
            }
            Err(error) => match refusal(&error) {
                Some(rejection) => RowOutcome::Bad(rejection),
                None => return Err(store_error(error)),
            },
        };
        // Outcomes are kept only from the first row on that was not stored.
        if outcome != RowOutcome::Stored || !outcomes.is_empty() {
            outcomes.resize(index, RowOutcome::Stored);
            outcomes.push(outcome);
        }
    }
    numbers::keep(conn, table).map_err(store_error)?;
    Ok((!outcomes.is_empty()).then_some(outcomes))
}

fn id_of(batch: &AppendBatch, index: usize) -> Uuid {
    batch.rows.row(index).next().flatten().map(field::uuid).unwrap_or_default()
}

/// `numbered`: the last value is the row's number.
pub(in crate::sqlite) fn insert_sql(table: &Table, numbered: bool) -> String {
    let stamped = table.column(STORED_AT).map(|_| STORED_AT);
    let number = numbered.then_some("rowid");
    let names: Vec<&str> = table.written().map(|c| c.name.as_str()).chain(stamped).chain(number).collect();
    let values: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
    format!(
        "insert into {} ({}) values ({}) on conflict (_id) do nothing",
        quoted(&table.name),
        column_list(names.into_iter()),
        values.join(", ")
    )
}

fn content_sql(table: &Table) -> String {
    let columns = column_list(table.content().map(|(_, c)| c.name.as_str()));
    let columns = if columns.is_empty() { "null".into() } else { columns };
    format!("select {columns} from {} where _id = ?1", quoted(&table.name))
}

pub(in crate::sqlite) fn put(
    insert: &mut CachedStatement<'_>,
    columns: &[&Column],
    batch: &AppendBatch,
    index: usize,
    stored_at: &str,
    number: Option<i64>,
) -> rusqlite::Result<usize> {
    for (at, (column, field)) in columns.iter().zip(batch.rows.row(index)).enumerate() {
        insert.raw_bind_parameter(at + 1, bound(column.ty, field))?;
    }
    if insert.parameter_count() > columns.len() + usize::from(number.is_some()) {
        insert.raw_bind_parameter(columns.len() + 1, stored_at)?;
    }
    if let Some(number) = number {
        let last = insert.parameter_count();
        insert.raw_bind_parameter(last, number)?;
    }
    insert.raw_execute()
}

fn compare(existing: &mut CachedStatement<'_>, batch: &AppendBatch, index: usize) -> Result<RowOutcome, StoreError> {
    let (ours, id) = (batch.rows.row(index), id_of(batch, index));
    let mut found = existing.query(params![id.to_string()]).map_err(store_error)?;
    let Some(row) = found.next().map_err(store_error)? else {
        return Err(StoreError::fatal(format!("row {id} was refused as a duplicate and is not there")));
    };
    let content: Vec<&Column> = batch.table.content().map(|(_, c)| c).collect();
    let mut theirs = RowBatch::default();
    push_row(&mut theirs, row, 0, content.into_iter())?;
    Ok(match first_difference(&batch.table, ours, theirs.row(0)) {
        None => RowOutcome::Duplicate,
        Some(column) => RowOutcome::Bad(conflict(column)),
    })
}

fn keep_dead(conn: &Connection, batch: &AppendBatch, settled: &Settled, now: Instant) -> rusqlite::Result<u64> {
    let mut kept = 0;
    let sql = "insert into _dead_letters (_id, topic, transaction_id, key, source, reason, detail, pointer, payload,
                 payload_encoding, attributes, published_at, dead_at, state, attempts)
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 'dead', 0) on conflict (_id) do nothing";
    for letter in &settled.dead {
        let text = KeptText::of(letter);
        kept += conn.prepare_cached(sql)?.execute(params![
            letter.id.to_string(),
            batch.topic.as_str(),
            letter.message.id.to_string(),
            text.key,
            text.source,
            text.reason,
            text.detail,
            text.pointer,
            text.payload,
            text.encoding,
            text.attributes,
            letter.message.published_at.to_string(),
            now.to_string(),
        ])?;
    }
    Ok(kept as u64)
}

pub(in crate::sqlite) fn count(
    conn: &Connection,
    batch: &AppendBatch,
    instance: &str,
    tally: Tally,
) -> rusqlite::Result<usize> {
    let sql = "insert into _ledger (topic, writer, accepted, stored, duplicate, rejected, dead)
               values (?1, ?2, ?3, ?4, ?5, ?6, ?7)
               on conflict (topic, writer) do update set
                 accepted = accepted + excluded.accepted, stored = stored + excluded.stored,
                 duplicate = duplicate + excluded.duplicate, rejected = rejected + excluded.rejected,
                 dead = dead + excluded.dead";
    let Tally { accepted, stored, duplicate, rejected, dead } = tally;
    let counts = [accepted, stored, duplicate, rejected, dead].map(|n| n as i64);
    let writer = format!("{instance}/0");
    conn.prepare_cached(sql)?.execute(params![
        batch.topic.as_str(),
        writer,
        counts[0],
        counts[1],
        counts[2],
        counts[3],
        counts[4]
    ])
}

fn drift(conn: &Connection, batch: &AppendBatch, now: Instant) -> rusqlite::Result<()> {
    let sql = "insert into _drift (topic, field, json_type, count, first_seen, last_seen)
               values (?1, ?2, ?3, ?4, ?5, ?5)
               on conflict (topic, field, json_type) do update set
                 count = count + excluded.count, last_seen = excluded.last_seen";
    for note in &batch.drift {
        let field = without_nul(&note.field);
        let values = params![batch.topic.as_str(), field, note.json_type, note.count as i64, now.to_string()];
        conn.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}

fn position(conn: &Connection, batch: &AppendBatch, now: Instant) -> Result<(), StoreError> {
    batch.positions.iter().try_for_each(|position| moves(conn, batch, position, now))
}

fn moves(conn: &Connection, batch: &AppendBatch, p: &Position, now: Instant) -> Result<(), StoreError> {
    let sql = "insert into _positions (topic, subscription, incarnation, position, updated_at)
               values (?1, ?2, ?3, ?5, ?6)
               on conflict (topic, subscription, incarnation) do update
                 set position = excluded.position, updated_at = excluded.updated_at where position = ?4";
    let moved = conn.prepare_cached(sql).and_then(|mut statement| {
        let lane = p.lane.to_string();
        let topic = batch.topic.as_str();
        statement.execute(params![topic, p.subscription, lane, p.from as i64, p.to as i64, now.to_string()])
    });
    match moved.map_err(store_error)? {
        0 => Err(StoreError::Fenced),
        _ => Ok(()),
    }
}

fn redriven(conn: &Connection, batch: &AppendBatch, settled: &Settled, now: Instant) -> rusqlite::Result<()> {
    let (Some(id), Some(outcome)) = (batch.redrives, settled.redriven) else { return Ok(()) };
    let sql = "update _dead_letters set state = 'redriven', outcome = ?2, settled_at = ?3, attempts = attempts + 1
               where _id = ?1 and state = 'dead'";
    conn.prepare_cached(sql)?.execute(params![id.to_string(), outcome, now.to_string()])?;
    Ok(())
}
