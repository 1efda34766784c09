//! The limit of SQLite: one prepared statement in a loop, no HTTP, no JSON, rows ready in memory.
//!
//! `limit-sqlite loop DB SOURCE` inserts SOURCE's flights into DB's, 10,000 a transaction, and prints rows and seconds.
//! `limit-sqlite get DB IDS SECONDS` reads records by the ids in a file, and prints rows and seconds.
//! `limit-sqlite sql DB STATEMENTS` runs statements, for what is done between measurements.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use rusqlite::types::Value;

/// As many as Caudal hands to a store in one append.
const BATCH_ROWS: usize = 10_000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (rows, seconds) = match words[..] {
        ["loop", db, source] => insert_all(&open(db)?, source)?,
        ["get", db, ids, seconds] => get(&open(db)?, ids, Duration::from_secs(seconds.parse()?))?,
        ["sql", db, statements] => return Ok(open(db)?.execute_batch(statements)?),
        _ => bail!("usage: limit-sqlite loop DB SOURCE | get DB IDS SECONDS | sql DB STATEMENTS"),
    };
    println!("{rows} {seconds}");
    Ok(())
}

/// The settings of Caudal's own store.
fn open(path: &str) -> Result<Connection> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(60))?;
    conn.execute_batch("pragma page_size = 16384; pragma journal_mode = wal; pragma synchronous = full;")?;
    Ok(conn)
}

fn insert_all(conn: &Connection, source: &str) -> Result<(usize, f64)> {
    let source = open(source)?;
    let mut select = source.prepare("select * from flights order by rowid")?;
    let names: Vec<String> = select.column_names().into_iter().map(|name| format!("\"{name}\"")).collect();
    let values: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
    let mut kept: Vec<Value> = Vec::new();
    let mut found = select.query([])?;
    while let Some(row) = found.next()? {
        for column in 0..names.len() {
            kept.push(row.get(column)?);
        }
    }
    let sql = format!("insert into flights ({}) values ({})", names.join(", "), values.join(", "));
    let mut insert = conn.prepare(&sql)?;
    let start = Instant::now();
    for batch in kept.chunks(BATCH_ROWS * names.len()) {
        conn.execute_batch("begin immediate")?;
        for row in batch.chunks(names.len()) {
            for (column, value) in row.iter().enumerate() {
                insert.raw_bind_parameter(column + 1, value)?;
            }
            insert.raw_execute()?;
        }
        conn.execute_batch("commit")?;
    }
    Ok((kept.len() / names.len(), start.elapsed().as_secs_f64()))
}

fn get(conn: &Connection, ids: &str, time: Duration) -> Result<(usize, f64)> {
    let ids = std::fs::read_to_string(ids).with_context(|| format!("cannot read {ids}"))?;
    let ids: Vec<&str> = ids.lines().collect();
    let mut select = conn.prepare("select * from flights where _id = ?1")?;
    let columns = select.column_count();
    let start = Instant::now();
    let mut rows = 0;
    for id in ids.iter().cycle() {
        let mut found = select.query([id])?;
        let row = found.next()?.with_context(|| format!("there is no {id}"))?;
        for column in 0..columns {
            std::hint::black_box(row.get_ref(column)?);
        }
        rows += 1;
        if rows % 1024 == 0 && start.elapsed() >= time {
            break;
        }
    }
    Ok((rows, start.elapsed().as_secs_f64()))
}
