//! Bulk ingest into SQLite: the limit is one prepared statement in a loop over the stored rows.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::bulk::BulkStore;
use super::caudal::{Caudal, Setup};
use super::{Bench, FLIGHTS};
use crate::output_of;

#[derive(Debug)]
pub(super) struct BulkSqlite {
    limit: PathBuf,
    data_dir: PathBuf,
}

impl BulkSqlite {
    pub(super) fn new(bench: &Bench) -> Result<Self> {
        Ok(Self { limit: bench.limit_sqlite.clone(), data_dir: bench.dir("bulk-sqlite")? })
    }

    fn file(&self, name: &str) -> String {
        self.data_dir.join(name).display().to_string()
    }

    fn sql(&self, sql: &str) -> Result<()> {
        let attached = format!("attach '{}' as source; {sql}", self.file("kept.db"));
        output_of(Command::new(&self.limit).args(["sql", &self.file("caudal.db"), &attached])).map(drop)
    }
}

/// Rows and seconds as `limit-sqlite` prints them.
pub(super) fn measured(output: &str) -> Result<(u64, f64)> {
    let (rows, seconds) = output.trim().split_once(' ').with_context(|| output.to_owned())?;
    Ok((rows.parse()?, seconds.parse()?))
}

impl BulkStore for BulkSqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn caudal(&self, bench: &Bench) -> Result<Caudal> {
        let setup =
            Setup { store: "sqlite:caudal.db", broker: "none:", data_dir: self.data_dir.clone(), environment: &[] };
        Caudal::start(bench, &setup)
    }

    fn keep(&self) -> Result<()> {
        self.sql("create table source.flights as select * from main.flights order by rowid; create unique index source.i on flights (_id)")
    }

    fn empty(&self) -> Result<()> {
        self.sql("delete from main.flights")
    }

    fn with_hundredth(&self) -> Result<()> {
        self.sql("insert into main.flights select * from source.flights where rowid % 100 = 0")
    }

    fn fill(&self, rows: u64) -> Result<()> {
        // SQLite has no way to change one column of `select *`: all rows first, then new ids by 16 random bytes.
        let id = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-' || hex(randomblob(2)) || '-' ||
                  hex(randomblob(2)) || '-' || hex(randomblob(6)))";
        let mut left = rows;
        while left > 0 {
            let some = left.min(FLIGHTS);
            self.sql(&format!(
                "create temp table other as select * from source.flights limit {some};
                 update other set _id = {id}, year = year - 1 - {left} / {FLIGHTS};
                 insert into main.flights select * from other order by random()"
            ))?;
            left -= some;
        }
        Ok(())
    }

    fn remove_kept(&self) -> Result<()> {
        self.sql("delete from main.flights where _id in (select _id from source.flights)")
    }

    fn settle(&self) -> Result<()> {
        self.sql("pragma main.wal_checkpoint(truncate)")
    }

    fn limit(&self) -> Result<f64> {
        let output =
            output_of(Command::new(&self.limit).args(["loop", &self.file("caudal.db"), &self.file("kept.db")]))?;
        let (rows, seconds) = measured(&output)?;
        ensure!(rows == FLIGHTS, "the loop inserted {rows} rows");
        Ok(seconds)
    }

    fn second_limit(&self) -> Result<Option<(&'static str, f64)>> {
        Ok(None)
    }
}
