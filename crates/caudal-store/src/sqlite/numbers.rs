//! Row numbers, which marks are. SQLite gives a row the number after the highest that is there, so the numbers of rows that somebody
//! removed from the end would come again, and whoever goes on after one would miss what has it now: the highest that ever was is kept.

use caudal_core::schema::Table;
use rusqlite::{Connection, OptionalExtension, params};

use super::sql::quoted;

/// The highest number that a table ever had; 0 before its first row.
pub(super) fn highest(conn: &Connection, table: &Table) -> rusqlite::Result<i64> {
    let there = there(conn, table)?;
    let sql = "select number from _numbers where name = ?1";
    let kept: Option<i64> = conn.prepare_cached(sql)?.query_row([&table.name], |row| row.get(0)).optional()?;
    Ok(there.max(kept.unwrap_or(0)))
}

/// The number that the next row must be given, where SQLite would give it one that was given out before.
pub(super) fn skipped(conn: &Connection, table: &Table) -> rusqlite::Result<Option<i64>> {
    let (highest, there) = (highest(conn, table)?, there(conn, table)?);
    Ok((there < highest).then_some(highest + 1))
}

/// Keeps the highest number that is there now, in the transaction that gave it out.
pub(super) fn keep(conn: &Connection, table: &Table) -> rusqlite::Result<()> {
    let sql = "insert into _numbers (name, number) values (?1, ?2)
               on conflict (name) do update set number = max(number, excluded.number)";
    conn.prepare_cached(sql)?.execute(params![table.name, there(conn, table)?])?;
    Ok(())
}

fn there(conn: &Connection, table: &Table) -> rusqlite::Result<i64> {
    let sql = format!("select coalesce(max(rowid), 0) from {}", quoted(&table.name));
    conn.prepare_cached(&sql)?.query_row([], |row| row.get(0))
}
