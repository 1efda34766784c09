//! A table of 5 GB in PostgreSQL: all of it in each encoding, groups of all of it, and a page at its far end.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::super::bulk_postgres::{fill, keep};
use super::super::caudal::{Caudal, Setup};
use super::super::growth::growth_while;
use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::{Bench, FLIGHTS, interleave, turns};
use super::{asks, page, to_nowhere};
use crate::output_of;

pub(super) const CASES: &[&str] = &[
    "postgres/table-json",
    "postgres/table-ndjson",
    "postgres/table-csv",
    "postgres/table-arrow",
    "postgres/table-parquet",
    "postgres/group-by",
    "postgres/deep-page",
];

/// Each turn takes the better part of a minute.
const TURNS: usize = 2;

/// Of PostgreSQL's own table, its indexes not counted.
fn bytes_wanted(bench: &Bench) -> u64 {
    if bench.quick { 200_000_000 } else { 5_000_000_000 }
}

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    let big = Big::new(bench)?;
    for case in cases.iter().filter(|case| !case.contains("table-")) {
        bench.record(if case.ends_with("group-by") { big.group_by()? } else { big.deep_page()? })?;
    }
    let encodings: Vec<&str> = cases.iter().filter_map(|case| case.strip_prefix("postgres/table-")).collect();
    if encodings.is_empty() { Ok(()) } else { big.encodings(&encodings) }
}

fn media(encoding: &str) -> &'static str {
    match encoding {
        "json" => "application/json",
        "ndjson" => "application/x-ndjson",
        "csv" => "text/csv",
        "arrow" => "application/vnd.apache.arrow.stream",
        _ => "application/vnd.apache.parquet",
    }
}

struct Big<'a> {
    bench: &'a Bench,
    postgres: Postgres,
    data_dir: PathBuf,
    rows: u64,
}

impl<'a> Big<'a> {
    fn new(bench: &'a Bench) -> Result<Self> {
        let postgres = Postgres::start(&bench.dir("big")?)?;
        let mut big = Self { bench, postgres, data_dir: bench.dir("big-caudal")?, rows: 0 };
        big.caudal(&[])?.publish_expecting(&bench.flights, FLIGHTS, 0)?;
        let postgres = &big.postgres;
        keep(postgres)?;
        let size = || -> Result<u64> { Ok(postgres.sql("select pg_table_size('flights')")?.parse()?) };
        let rows = bytes_wanted(bench).div_ceil(size()? / FLIGHTS);
        // Neither log nor index while it fills: half the disk, a quarter of the time. What reads see is the same.
        postgres.sql("alter table flights set unlogged; alter table flights drop constraint flights_pkey")?;
        fill(postgres, rows - FLIGHTS)?;
        postgres.sql("drop table kept; set maintenance_work_mem = '1GB'; alter table flights add primary key (_id)")?;
        postgres.sql("vacuum analyze flights")?;
        postgres.settle()?;
        println!("  {rows} rows, {} bytes", size()?);
        ensure!(size()? >= bytes_wanted(bench), "the table is smaller than it must be");
        big.rows = rows;
        Ok(big)
    }

    /// A new process each time: memory that an earlier read left behind would hide what the next one takes.
    fn caudal(&self, environment: &[(&str, &str)]) -> Result<Caudal> {
        let url = self.postgres.url();
        let setup = Setup { store: &url, broker: "none:", data_dir: self.data_dir.clone(), environment };
        Caudal::start(self.bench, &setup)
    }

    /// All rows, the encodings and the copy in turns, so that one copy is the limit of all.
    fn encodings(&self, encodings: &[&str]) -> Result<()> {
        let mut sides = vec!["limit"];
        sides.extend(encodings);
        let mut growths = vec![0.0f64; sides.len()];
        let times = if self.bench.quick { 1 } else { TURNS };
        let rates = turns(times, "postgres/table", &sides, |side| match side {
            "limit" => {
                self.rate(to_nowhere(self.postgres.psql().args(["-c", "copy (select * from flights) to stdout"]))?)
            }
            encoding => {
                let (seconds, growth) = self.read(encoding)?;
                let at = sides.iter().position(|side| *side == encoding).unwrap_or_default();
                growths[at] = growths[at].max(growth);
                self.rate(seconds)
            }
        })?;
        for ((encoding, rate), growth) in sides.iter().zip(&rates).zip(&growths).skip(1) {
            let case = format!("postgres/table-{encoding}");
            self.bench.record(Outcome::new(case.as_str(), *rate, "records/s").limit(rates[0]))?;
            let verdict = if *growth <= 64.0 { "within" } else { "ABOVE" };
            println!("{case}: {growth:.1} MiB, {verdict} the bound of 64 MiB");
            self.bench.record(Outcome::new(format!("{case}-growth"), *growth, "MiB"))?;
        }
        Ok(())
    }

    fn rate(&self, seconds: f64) -> Result<f64> {
        Ok(self.rows as f64 / seconds)
    }

    /// Seconds of reading all rows, and by how many MiB Caudal grew.
    fn read(&self, encoding: &str) -> Result<(f64, f64)> {
        let caudal = self.caudal(&[])?;
        let mut seconds = 0.0;
        let growth = growth_while(&caudal, || {
            let mut curl = asks(&caudal, media(encoding), "/rest/v1/flights");
            curl.args(["--output", "/dev/null", "--write-out", "%{time_total} %{size_download}"]);
            let told = output_of(&mut curl)?;
            let (time, bytes) = told.split_once(' ').context("curl says what it took")?;
            println!("  {encoding}: {bytes} bytes");
            seconds = time.parse()?;
            Ok(())
        })?;
        Ok((seconds, growth))
    }

    /// All rows in groups: the statement that Caudal makes of it, by `psql`.
    fn group_by(&self) -> Result<Outcome> {
        let caudal = self.caudal(&[])?;
        let path = "/rest/v1/flights?select=carrier,origin,month,count(),distance.sum(),air_time.avg()\
                    &order=carrier,origin,month";
        let sql = "select carrier, origin, month, count(*), sum(distance), avg(air_time)::float8 from flights
                   group by 1, 2, 3 order by 1, 2, 3";
        let groups = output_of(&mut asks(&caudal, "text/csv", path))?.lines().count() - 1;
        let wanted = self.postgres.sql(sql)?.lines().count();
        ensure!(groups == wanted, "{groups} groups, and psql has {wanted}");
        let [limit, value] = interleave(self.bench, "postgres/group-by", ["limit", "caudal"], |side| match side {
            "limit" => self.rate(to_nowhere(self.postgres.psql().args(["-c", sql]))?),
            _ => self.rate(to_nowhere(&mut asks(&caudal, "application/json", path))?),
        })?;
        Ok(Outcome::new("postgres/group-by", value, "records/s").limit(limit))
    }

    /// The page behind nine tenths of the table, at the address that the server gives for it, beside the first page.
    fn deep_page(&self) -> Result<Outcome> {
        let skipped = self.rows / 10 * 9;
        // The link behind a page of nine tenths leads there at once.
        let most = skipped.to_string();
        let caudal = self.caudal(&[("CAUDAL_READ__ROWS_MAX", &most)])?;
        let first = "/rest/v1/flights?order=_id.asc";
        let head = output_of(asks(&caudal, "application/json", first).arg("--head"))?;
        let link = head.lines().find_map(|line| line.strip_prefix("link: <")).with_context(|| head.clone())?;
        let (next, _) = link.split_once(">; rel=\"next\"").with_context(|| head.clone())?;
        let of = |name: &str, path: &str| -> Result<PathBuf> {
            let file = self.bench.work.join(name);
            std::fs::write(&file, format!("{path}&limit={}", page::ROWS))?;
            Ok(file)
        };
        let (first, deep) = (of("first-page", first)?, of("deep-page", next)?);
        self.leads_behind(&caudal, &format!("{next}&limit=1"), skipped)?;
        let [limit, value] = interleave(self.bench, "postgres/deep-page", ["limit", "caudal"], |side| {
            page::rate(self.bench, &caudal.url(""), if side == "limit" { &first } else { &deep })
        })?;
        Ok(Outcome::new("postgres/deep-page", value, "records/s").limit(limit))
    }

    /// A link that leads somewhere else is not what is to be measured.
    fn leads_behind(&self, caudal: &Caudal, path: &str, skipped: u64) -> Result<()> {
        let found = output_of(&mut asks(caudal, "text/csv", path))?;
        let found = found.lines().nth(1).and_then(|line| line.split(',').next()).unwrap_or_default();
        let wanted = self.postgres.sql(&format!("select _id from flights order by _id offset {skipped} limit 1"))?;
        ensure!(found == wanted, "{path} begins with {found:?}, and {skipped} rows further is {wanted}");
        Ok(())
    }
}
