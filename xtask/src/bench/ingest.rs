//! `ingest`: how fast records come in.

use anyhow::Result;

use super::Bench;
use super::bulk;
use super::bulk_postgres::BulkPostgres;
use super::bulk_sqlite::BulkSqlite;
use super::postgres::Postgres;
use super::single;

pub(super) const CASES: &[&str] = &[
    "postgres/bulk",
    "postgres/bulk-dup",
    "postgres/bulk-10m",
    "postgres/single-stored",
    "postgres/single-queued",
    "sqlite/bulk",
    "sqlite/bulk-dup",
    "sqlite/bulk-10m",
    "sqlite/single-stored",
    "sqlite/single-queued",
];

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    if cases.iter().any(|case| case.starts_with("postgres/")) {
        let postgres = Postgres::start(&bench.work)?;
        bulk::run(bench, &BulkPostgres::new(bench, &postgres)?, cases)?;
        for case in cases.iter().filter(|case| case.starts_with("postgres/single")) {
            bench.record(single::run(bench, case, Some(&postgres))?)?;
        }
    }
    if cases.iter().any(|case| case.starts_with("sqlite/bulk")) {
        bulk::run(bench, &BulkSqlite::new(bench)?, cases)?;
    }
    for case in cases.iter().filter(|case| case.starts_with("sqlite/single")) {
        bench.record(single::run(bench, case, None)?)?;
    }
    Ok(())
}
