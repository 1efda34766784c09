//! One record by its id, over many connections.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::super::bulk_sqlite::measured;
use super::super::caudal::Caudal;
use super::super::postgres::Postgres;
use super::super::process::{need, timed};
use super::super::results::Outcome;
use super::super::single::CONNECTIONS;
use super::super::{Bench, interleave, servers, wrk};
use super::peer_rows;
use crate::output_of;

/// Records that are asked for in `get-cached`: they fit the cache with its default size.
pub(super) const CACHED: usize = 20_000;
/// Records that `pgbench` asks for, each by a script of its own, spread over all that Caudal is asked for.
const PGBENCH_IDS: usize = 32;

/// The same set of records for all sides.
pub(super) struct Ids {
    all: Vec<String>,
    file: PathBuf,
    /// One request path a line.
    paths: PathBuf,
}

impl Ids {
    pub(super) fn new(bench: &Bench, ids: &str, most: usize) -> Result<Self> {
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

pub(super) fn from_postgres(
    bench: &Bench,
    case: &str,
    postgres: &Postgres,
    caudal: &Caudal,
    ids: &Ids,
) -> Result<Outcome> {
    need("pgbench", "postgresql-contrib")?;
    let scripts = prepare_pgbench(bench, ids)?;
    let fastapi = servers::fastapi(bench, postgres, 1)?;
    peer_rows(postgres)?;
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

/// `db` is the file that Caudal serves.
pub(super) fn from_sqlite(bench: &Bench, case: &str, caudal: &Caudal, db: &str, ids: &Ids) -> Result<Outcome> {
    if case.ends_with("cached") {
        load(bench, &caudal.url(""), &ids.paths, 3)?;
    }
    let [limit, value] = interleave(bench, case, ["limit", "caudal"], |side| match side {
        "limit" => {
            let seconds = bench.seconds().to_string();
            let ids = ids.file.display().to_string();
            let (rows, seconds) =
                measured(&output_of(Command::new(&bench.limit_sqlite).args(["get", db, &ids, &seconds]))?)?;
            Ok(rows as f64 / seconds)
        }
        _ => load(bench, &caudal.url(""), &ids.paths, bench.seconds()),
    })?;
    Ok(Outcome::new(case, value, "records/s").limit(limit))
}
