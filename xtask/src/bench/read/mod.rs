//! `read`: how fast records go out.

mod big;
mod get;
mod page;
mod whole;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};

use super::bulk_postgres::columns;
use super::caudal::{Caudal, Setup};
use super::postgres::Postgres;
use super::process::timed;
use super::{Bench, FLIGHTS};
use crate::output_of;
use get::{CACHED, Ids};

pub(super) const CASES: &[&str] = &[
    "postgres/get",
    "postgres/get-cached",
    "postgres/page",
    "postgres/table",
    "sqlite/get",
    "sqlite/get-cached",
    "sqlite/page",
    "sqlite/table",
    "postgres/table-json",
    "postgres/table-ndjson",
    "postgres/table-csv",
    "postgres/table-arrow",
    "postgres/table-parquet",
    "postgres/group-by",
    "postgres/deep-page",
];

const NO_CACHE: &[(&str, &str)] = &[("CAUDAL_HTTP__RECORD_CACHE_BYTES", "0")];

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    let (big, flights): (Vec<&str>, Vec<&str>) = cases.iter().partition(|case| big::CASES.contains(*case));
    let (postgres, sqlite): (Vec<&str>, Vec<&str>) = flights.iter().partition(|case| case.starts_with("postgres/"));
    if !postgres.is_empty() {
        from_postgres(bench, &postgres)?;
    }
    if !sqlite.is_empty() {
        from_sqlite(bench, &sqlite)?;
    }
    if !big.is_empty() {
        big::run(bench, &big)?;
    }
    Ok(())
}

fn from_postgres(bench: &Bench, cases: &[&str]) -> Result<()> {
    let postgres = Postgres::start(&bench.work)?;
    let url = postgres.url();
    let data_dir = bench.dir("read-postgres")?;
    let setup = |environment| Setup { store: &url, broker: "none:", data_dir: data_dir.clone(), environment };
    let caudal = Caudal::start(bench, &setup(&[]))?;
    caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
    postgres.sql("vacuum analyze flights")?;
    let ids = postgres.sql("select _id from flights order by random()")?;
    for case in cases {
        bench.record(match *case {
            "postgres/get" => {
                let uncached = Caudal::start(bench, &setup(NO_CACHE))?;
                get::from_postgres(bench, case, &postgres, &uncached, &Ids::new(bench, &ids, usize::MAX)?)?
            }
            "postgres/get-cached" => {
                get::from_postgres(bench, case, &postgres, &caudal, &Ids::new(bench, &ids, CACHED)?)?
            }
            "postgres/page" => page::from_postgres(bench, &postgres, &caudal)?,
            _ => whole::from_postgres(bench, &postgres, &caudal)?,
        })?;
    }
    Ok(())
}

fn from_sqlite(bench: &Bench, cases: &[&str]) -> Result<()> {
    let data_dir = bench.dir("read-sqlite")?;
    let setup =
        |environment| Setup { store: "sqlite:caudal.db", broker: "none:", data_dir: data_dir.clone(), environment };
    let caudal = Caudal::start(bench, &setup(&[]))?;
    caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
    let db = data_dir.join("caudal.db").display().to_string();
    let (csv, _) = timed(&mut asks(&caudal, "text/csv", "/rest/v1/flights?select=_id"))?;
    // Storing order is not random order; wrk and the loop choose at random or go round.
    let all = csv.lines().skip(1).collect::<Vec<_>>().join("\n");
    for case in cases {
        bench.record(match *case {
            "sqlite/get" => {
                let uncached = Caudal::start(bench, &setup(NO_CACHE))?;
                get::from_sqlite(bench, case, &uncached, &db, &Ids::new(bench, &all, usize::MAX)?)?
            }
            "sqlite/get-cached" => get::from_sqlite(bench, case, &caudal, &db, &Ids::new(bench, &all, CACHED)?)?,
            "sqlite/page" => page::from_sqlite(bench, &caudal, &all)?,
            _ => whole::from_sqlite(bench, &caudal)?,
        })?;
    }
    Ok(())
}

/// Gives the FastAPI peer the rows that Caudal has, under the same ids. It makes its table when it starts.
fn peer_rows(postgres: &Postgres) -> Result<()> {
    let same = columns(postgres, "'_id', '_key', '_source', '_published_at', '_stored_at', '_extra'")?;
    postgres.sql(&format!(
        "truncate peer_flights; insert into peer_flights (id, {same}) select _id, {same} from flights"
    ))?;
    postgres.sql("vacuum analyze peer_flights").map(drop)
}

/// `curl` that asks for a path in an encoding; a refusal fails it.
fn asks(caudal: &Caudal, media: &str, path: &str) -> Command {
    let mut curl = gets(&caudal.url(path));
    curl.args(["--header", &format!("Accept: {media}")]);
    curl
}

fn gets(url: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", url]);
    curl
}

/// Writes Caudal's rows into a file, for a peer that serves files.
fn save(caudal: &Caudal, media: &str, query: &str, to: &Path) -> Result<()> {
    output_of(asks(caudal, media, &format!("/rest/v1/flights{query}")).arg("--output").arg(to)).map(drop)
}

/// Seconds of a program whose output nobody reads.
fn to_nowhere(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(start.elapsed().as_secs_f64())
}
