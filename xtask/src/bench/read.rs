//! `read`: how fast records go out.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::bulk_postgres::columns;
use super::bulk_sqlite::measured;
use super::caudal::{Caudal, Setup};
use super::postgres::Postgres;
use super::process::{need, timed};
use super::results::Outcome;
use super::servers;
use super::single::CONNECTIONS;
use super::{Bench, FLIGHTS, interleave, wrk};
use crate::output_of;

pub(super) const CASES: &[&str] = &[
    "postgres/get",
    "postgres/get-cached",
    "postgres/page",
    "postgres/table",
    "postgres/table-ndjson",
    "sqlite/get",
    "sqlite/get-cached",
];

/// Records that are asked for in `get-cached`: they fit the cache with its default size.
const CACHED: usize = 20_000;
const NO_CACHE: &[(&str, &str)] = &[("CAUDAL_HTTP__RECORD_CACHE_BYTES", "0")];
/// Records that `pgbench` asks for, each by a script of its own, spread over all that Caudal is asked for.
const PGBENCH_IDS: usize = 32;
const PAGE_ROWS: u64 = 1_000;
const PAGES: u64 = 500;

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<Vec<Outcome>> {
    let (postgres, sqlite): (Vec<&str>, Vec<&str>) = cases.iter().partition(|case| case.starts_with("postgres/"));
    let mut outcomes = Vec::new();
    if !postgres.is_empty() {
        outcomes.extend(from_postgres(bench, &postgres)?);
    }
    if !sqlite.is_empty() {
        outcomes.extend(from_sqlite(bench, &sqlite)?);
    }
    Ok(outcomes)
}

fn from_postgres(bench: &Bench, cases: &[&str]) -> Result<Vec<Outcome>> {
    let postgres = Postgres::start(&bench.work)?;
    let url = postgres.url();
    let data_dir = bench.dir("read-postgres")?;
    let setup = |environment| Setup { store: &url, broker: "none:", data_dir: data_dir.clone(), environment };
    let caudal = Caudal::start(bench, &setup(&[]))?;
    caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
    postgres.sql("vacuum analyze flights")?;
    let ids = postgres.sql("select _id from flights order by random()")?;
    let mut outcomes = Vec::new();
    for case in cases {
        outcomes.push(match *case {
            "postgres/get" => {
                let uncached = Caudal::start(bench, &setup(NO_CACHE))?;
                get(bench, case, &postgres, &uncached, &Ids::new(bench, &ids, usize::MAX)?)?
            }
            "postgres/get-cached" => get(bench, case, &postgres, &caudal, &Ids::new(bench, &ids, CACHED)?)?,
            "postgres/page" => page(bench, &postgres, &caudal)?,
            _ => whole_table(bench, case, &postgres, &caudal)?,
        });
    }
    Ok(outcomes)
}

/// The same set of records for all sides.
struct Ids {
    all: Vec<String>,
    file: PathBuf,
    /// One request path a line.
    paths: PathBuf,
}

impl Ids {
    fn new(bench: &Bench, ids: &str, most: usize) -> Result<Self> {
        let all: Vec<String> = ids.lines().take(most).map(str::to_owned).collect();
        let (file, paths) = (bench.work.join("ids"), bench.work.join("paths"));
        std::fs::write(&file, all.join("\n"))?;
        let lines: Vec<String> = all.iter().map(|id| format!("/v1/topics/flights/messages/{id}")).collect();
        std::fs::write(&paths, lines.join("\n"))?;
        Ok(Self { all, file, paths })
    }
}

fn load(bench: &Bench, url: &str, paths: &Path, seconds: u32) -> Result<f64> {
    let rate = wrk::run(&bench.work, url, &wrk::paths(paths), CONNECTIONS, seconds)?;
    println!("  p50 {:.2} ms, p99 {:.2} ms", rate.p50_ms, rate.p99_ms);
    Ok(rate.per_second)
}

fn get(bench: &Bench, case: &str, postgres: &Postgres, caudal: &Caudal, ids: &Ids) -> Result<Outcome> {
    need("pgbench", "postgresql-contrib")?;
    let scripts = prepare_pgbench(bench, ids)?;
    let fastapi = servers::fastapi(bench, postgres)?;
    let same = columns(postgres, "'_id', '_key', '_source', '_published_at', '_stored_at', '_extra'")?;
    postgres.sql(&format!(
        "truncate peer_flights; insert into peer_flights (id, {same}) select _id, {same} from flights"
    ))?;
    postgres.sql("vacuum analyze peer_flights")?;
    // Caches of all kinds get warm: the cache of records only with the whole set.
    for path in [&ids.paths].into_iter().filter(|_| ids.all.len() <= CACHED) {
        load(bench, &caudal.url(""), path, 3)?;
    }
    let [limit, value, peer] = interleave(bench, case, ["limit", "caudal", "fastapi"], |side| match side {
        "limit" => pgbench(bench, postgres, &scripts),
        "caudal" => load(bench, &caudal.url(""), &ids.paths, bench.seconds()),
        _ => load(bench, &fastapi.url(), &ids.paths, bench.seconds()),
    })?;
    Ok(Outcome::new(case, value, "records/s").limit(limit).peer("fastapi", peer))
}

/// `pgbench` cannot choose from a list, but from scripts: one a record. Fetching ids by SQL in between costs it a quarter of its
/// rate (measured), so this is the way that favours the limit.
fn prepare_pgbench(bench: &Bench, ids: &Ids) -> Result<Vec<PathBuf>> {
    let step = (ids.all.len() / PGBENCH_IDS).max(1);
    let mut scripts = Vec::new();
    for (n, id) in ids.all.iter().step_by(step).take(PGBENCH_IDS).enumerate() {
        let file = bench.work.join(format!("get-{n}.pgbench"));
        std::fs::write(&file, format!("select * from flights where _id = '{id}';\n"))?;
        scripts.push(file);
    }
    ensure!(!scripts.is_empty(), "no ids");
    Ok(scripts)
}

/// Point reads a second.
fn pgbench(bench: &Bench, postgres: &Postgres, scripts: &[PathBuf]) -> Result<f64> {
    let mut command = postgres.pgbench();
    command.args(["-n", "-M", "prepared", "-j", "2", "-c", &CONNECTIONS.to_string()]);
    command.args(["-T", &bench.seconds().to_string()]);
    for script in scripts {
        command.arg("-f").arg(script);
    }
    let (output, _) = timed(command.arg("postgres"))?;
    let line = output.lines().find_map(|line| line.strip_prefix("tps = ")).with_context(|| output.clone())?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}

/// Pages of a thousand rows by key, as a client that follows a cursor asks for them, one after the other.
fn page(bench: &Bench, postgres: &Postgres, caudal: &Caudal) -> Result<Outcome> {
    let last = FLIGHTS - PAGE_ROWS;
    let starts = postgres.sql(&format!(
        "select _id from (select _id, row_number() over (order by _id) n from flights) s where n < {last}
         order by random() limit {PAGES}"
    ))?;
    let of = |write: &dyn Fn(&str) -> String| starts.lines().map(write).collect::<Vec<_>>().join("\n");
    let paths = bench.work.join("pages");
    std::fs::write(&paths, of(&|id| format!("/rest/v1/flights?_id=gt.{id}&order=_id.asc&limit={PAGE_ROWS}")))?;
    let copies = bench.work.join("pages.sql");
    let copy =
        |id: &str| format!("copy (select * from flights where _id > '{id}' order by _id limit {PAGE_ROWS}) to stdout;");
    std::fs::write(&copies, of(&copy))?;
    let [limit, value] = interleave(bench, "postgres/page", ["limit", "caudal"], |side| {
        let pages = match side {
            "limit" => PAGES as f64 / to_nowhere(postgres.psql().arg("-f").arg(&copies))?,
            _ => wrk::run(&bench.work, &caudal.url(""), &wrk::paths(&paths), 1, bench.seconds())?.per_second,
        };
        Ok(pages * PAGE_ROWS as f64)
    })?;
    Ok(Outcome::new("postgres/page", value, "records/s").limit(limit))
}

/// Seconds of a program whose output nobody reads.
fn to_nowhere(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    let status = command.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(start.elapsed().as_secs_f64())
}

fn whole_table(bench: &Bench, case: &str, postgres: &Postgres, caudal: &Caudal) -> Result<Outcome> {
    let media = if case.ends_with("ndjson") { "application/x-ndjson" } else { "application/json" };
    let [limit, value] = interleave(bench, case, ["limit", "caudal"], |side| {
        let seconds = match side {
            "limit" => to_nowhere(postgres.psql().args(["-c", "copy (select * from flights) to stdout"]))?,
            _ => {
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--show-error", "--fail", "--header", &format!("Accept: {media}")]);
                to_nowhere(curl.arg(caudal.url("/rest/v1/flights")))?
            }
        };
        Ok(FLIGHTS as f64 / seconds)
    })?;
    Ok(Outcome::new(case, value, "records/s").limit(limit))
}

fn from_sqlite(bench: &Bench, cases: &[&str]) -> Result<Vec<Outcome>> {
    let data_dir = bench.dir("read-sqlite")?;
    let setup =
        |environment| Setup { store: "sqlite:caudal.db", broker: "none:", data_dir: data_dir.clone(), environment };
    let caudal = Caudal::start(bench, &setup(&[]))?;
    caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
    let db = data_dir.join("caudal.db").display().to_string();
    let curl = timed(
        Command::new("curl")
            .args(["--silent", "--fail", "-H", "Accept: text/csv"])
            .arg(caudal.url("/rest/v1/flights?select=_id")),
    );
    let csv = curl?.0;
    let all = csv.lines().skip(1).collect::<Vec<_>>().join("\n");
    let mut outcomes = Vec::new();
    for case in cases {
        let cached = case.ends_with("cached");
        // Storing order is not random order; wrk and the loop choose at random or go round.
        let ids = Ids::new(bench, &all, if cached { CACHED } else { usize::MAX })?;
        let uncached = if cached { None } else { Some(Caudal::start(bench, &setup(NO_CACHE))?) };
        let server = uncached.as_ref().unwrap_or(&caudal);
        if cached {
            load(bench, &server.url(""), &ids.paths, 3)?;
        }
        let [limit, value] = interleave(bench, case, ["limit", "caudal"], |side| match side {
            "limit" => {
                let seconds = bench.seconds().to_string();
                let ids = ids.file.display().to_string();
                let (rows, seconds) =
                    measured(&output_of(Command::new(&bench.limit_sqlite).args(["get", &db, &ids, &seconds]))?)?;
                Ok(rows as f64 / seconds)
            }
            _ => load(bench, &server.url(""), &ids.paths, bench.seconds()),
        })?;
        outcomes.push(Outcome::new(*case, value, "records/s").limit(limit));
    }
    Ok(outcomes)
}
