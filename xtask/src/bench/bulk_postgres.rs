//! Bulk ingest into PostgreSQL: the limit is `psql \copy` of the stored rows, as text and as binary.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::bulk::BulkStore;
use super::caudal::{Caudal, Setup};
use super::postgres::Postgres;
use super::{Bench, FLIGHTS};

#[derive(Debug)]
pub(super) struct BulkPostgres<'a> {
    pub(super) postgres: &'a Postgres,
    /// The kept rows as `\copy` wants them.
    text: PathBuf,
    binary: PathBuf,
    data_dir: PathBuf,
}

impl<'a> BulkPostgres<'a> {
    pub(super) fn new(bench: &Bench, postgres: &'a Postgres) -> Result<Self> {
        let data_dir = bench.dir("bulk-postgres")?;
        Ok(Self { postgres, text: data_dir.join("rows.copy"), binary: data_dir.join("rows.binary"), data_dir })
    }

    /// What Caudal writes: all columns but `_stored_at`, which the database fills for both.
    fn written(&self) -> Result<String> {
        columns(self.postgres, "'_stored_at'")
    }

    fn copy(&self, direction: &str, file: &Path, options: &str) -> Result<String> {
        Ok(format!("\\copy flights ({}) {direction} '{}' {options}", self.written()?, file.display()))
    }
}

/// The columns of `flights` in order, quoted, without some.
pub(super) fn columns(postgres: &Postgres, without: &str) -> Result<String> {
    postgres.sql(&format!(
        "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
         where attrelid = 'flights'::regclass and attnum > 0 and not attisdropped and attname not in ({without})"
    ))
}

/// Puts `rows` other flights into the table: the kept ones, years earlier, under new ids.
pub(super) fn fill(postgres: &Postgres, rows: u64) -> Result<()> {
    let rest = columns(postgres, "'_id', '_key', '_stored_at', 'year', 'time_hour'")?;
    let ages = rows.div_ceil(FLIGHTS);
    postgres.sql(&format!(
        "insert into flights (_id, _key, year, time_hour, {rest})
         select gen_random_uuid(), _key || '/' || age, year - age, time_hour - age * interval '1 year', {rest}
         from generate_series(1, {ages}) age cross join kept limit {rows}"
    ))?;
    postgres.sql("vacuum analyze flights").map(drop)
}

/// Keeps the stored rows as the table `kept`.
pub(super) fn keep(postgres: &Postgres) -> Result<()> {
    postgres.sql("drop table if exists kept; create table kept as select row_number() over () as n, * from flights")?;
    postgres.sql("vacuum analyze kept").map(drop)
}

impl BulkStore for BulkPostgres<'_> {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn caudal(&self, bench: &Bench) -> Result<Caudal> {
        let url = self.postgres.url();
        Caudal::start(bench, &Setup { store: &url, broker: "none:", data_dir: self.data_dir.clone(), environment: &[] })
    }

    fn keep(&self) -> Result<()> {
        keep(self.postgres)?;
        self.postgres.sql(&self.copy("to", &self.text, "")?)?;
        self.postgres.sql(&self.copy("to", &self.binary, "(format binary)")?).map(drop)
    }

    fn empty(&self) -> Result<()> {
        self.postgres.sql("truncate flights").map(drop)
    }

    fn with_hundredth(&self) -> Result<()> {
        let columns = self.written()?;
        let sql = format!("insert into flights ({columns}) select {columns} from kept where n % 100 = 0");
        self.postgres.sql(&sql).map(drop)
    }

    fn fill(&self, rows: u64) -> Result<()> {
        fill(self.postgres, rows)
    }

    fn remove_kept(&self) -> Result<()> {
        self.postgres.sql("delete from flights using kept where flights._id = kept._id")?;
        self.postgres.sql("vacuum flights").map(drop)
    }

    fn settle(&self) -> Result<()> {
        self.postgres.settle()
    }

    fn limit(&self) -> Result<f64> {
        self.postgres.timed(&self.copy("from", &self.text, "")?)
    }

    fn second_limit(&self) -> Result<Option<(&'static str, f64)>> {
        Ok(Some(("copy-binary", self.postgres.timed(&self.copy("from", &self.binary, "(format binary)")?)?)))
    }
}
