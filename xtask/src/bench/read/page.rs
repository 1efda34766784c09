//! Pages of a thousand rows by key, as a client that follows a cursor asks for them, one after the other.

use std::path::Path;

use anyhow::Result;

use super::super::bulk_postgres::columns;
use super::super::caudal::Caudal;
use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::servers::{self, Server};
use super::super::{Bench, FLIGHTS, interleave, wrk};
use super::{peer_rows, save, to_nowhere};

pub(super) const ROWS: u64 = 1_000;
const PAGES: u64 = 500;

/// Rows a second of one connection that asks for the pages in the file.
pub(super) fn rate(bench: &Bench, url: &str, paths: &Path) -> Result<f64> {
    // One connection is steady sooner than many are.
    Ok(wrk::run(&bench.work, url, &wrk::paths(paths), 1, bench.seconds() / 2)?.per_second * ROWS as f64)
}

pub(super) fn from_postgres(bench: &Bench, postgres: &Postgres, caudal: &Caudal) -> Result<Outcome> {
    let last = FLIGHTS - ROWS;
    let starts = postgres.sql(&format!(
        "select _id from (select _id, row_number() over (order by _id) n from flights) s where n < {last}
         order by random() limit {PAGES}"
    ))?;
    let list = |name: &str, write: &dyn Fn(&str) -> String| -> Result<_> {
        let file = bench.work.join(name);
        std::fs::write(&file, starts.lines().map(write).collect::<Vec<_>>().join("\n"))?;
        Ok(file)
    };
    let paths = list("pages", &|id| format!("/rest/v1/flights?_id=gt.{id}&order=_id.asc&limit={ROWS}"))?;
    let copies = list("pages.sql", &|id| {
        format!("copy (select * from flights where _id > '{id}' order by _id limit {ROWS}) to stdout;")
    })?;
    let fastapi_paths = list("pages-fastapi", &|id| format!("/flights?after={id}&limit={ROWS}"))?;
    let tuned_paths = list("pages-tuned", &|id| format!("/tuned/flights?after={id}&limit={ROWS}"))?;
    let roapi_paths =
        list("pages-roapi", &|id| format!("/api/tables/flights?filter%5B_id%5Dgt=%27{id}%27&sort=_id&limit={ROWS}"))?;
    let fastapi = servers::fastapi(bench, postgres, 1)?;
    let tuned = servers::fastapi(bench, postgres, 2)?;
    peer_rows(postgres)?;
    let (roapi, roapi_tuned) = roapis(bench, postgres, caudal)?;
    let sides = ["limit", "caudal", "fastapi", "fastapi, tuned", "roapi", "roapi, parquet"];
    let [limit, value, peers @ ..] = interleave(bench, "postgres/page", sides, |side| match side {
        "limit" => Ok((PAGES * ROWS) as f64 / to_nowhere(postgres.psql().arg("-f").arg(&copies))?),
        "caudal" => rate(bench, &caudal.url(""), &paths),
        "fastapi" => rate(bench, &fastapi.url(), &fastapi_paths),
        "fastapi, tuned" => rate(bench, &tuned.url(), &tuned_paths),
        "roapi" => rate(bench, &roapi.url(), &roapi_paths),
        _ => rate(bench, &roapi_tuned.url(), &roapi_paths),
    })?;
    let outcome = Outcome::new("postgres/page", value, "records/s").limit(limit);
    Ok(sides[2..].iter().zip(peers).fold(outcome, |outcome, (name, rate)| outcome.peer(name, rate)))
}

/// ROAPI with Caudal's rows as NDJSON, and as Parquet. Both are in memory once it has started.
pub(super) fn roapis(bench: &Bench, postgres: &Postgres, caudal: &Caudal) -> Result<(Server, Server)> {
    let (lines, parquet) = (bench.work.join("roapi.ndjson"), bench.work.join("roapi.parquet"));
    save(caudal, "application/x-ndjson", "", &lines)?;
    // It cannot write the UUIDs of a Parquet file as JSON.
    let rest = columns(postgres, "'_id'")?.replace(", ", ",");
    save(caudal, "application/vnd.apache.parquet", &format!("?select=_id::text,{rest}"), &parquet)?;
    Ok((servers::roapi(bench, &lines)?, servers::roapi(bench, &parquet)?))
}

/// Beside Datasette's pages, which go by its rowid. Nothing is a limit here.
pub(super) fn from_sqlite(bench: &Bench, caudal: &Caudal, ids: &str) -> Result<Outcome> {
    let mut ids: Vec<&str> = ids.lines().collect();
    ids.sort_unstable();
    ids.truncate(ids.len().saturating_sub(ROWS as usize));
    let step = (ids.len() / PAGES as usize).max(1);
    let list = |name: &str, write: &dyn Fn(usize) -> String| -> Result<_> {
        let file = bench.work.join(name);
        std::fs::write(&file, (0..ids.len()).step_by(step).map(write).collect::<Vec<_>>().join("\n"))?;
        Ok(file)
    };
    let paths = list("pages", &|n| format!("/rest/v1/flights?_id=gt.{}&order=_id.asc&limit={ROWS}", ids[n]))?;
    let datasette = |name: &str, more: &str| {
        list(name, &|n| format!("/flights/flights.json?_size={ROWS}&_next={n}&_shape=objects{more}"))
    };
    let default_paths = datasette("pages-datasette", "")?;
    let tuned_paths = datasette("pages-tuned", "&_nocount=1&_nofacet=1&_nosuggest=1")?;
    let (default, tuned) = (servers::datasette(bench, false)?, servers::datasette(bench, true)?);
    let [value, peer, peer_tuned] =
        interleave(bench, "sqlite/page", ["caudal", "datasette", "datasette, tuned"], |side| match side {
            "caudal" => rate(bench, &caudal.url(""), &paths),
            "datasette" => rate(bench, &default.url(), &default_paths),
            _ => rate(bench, &tuned.url(), &tuned_paths),
        })?;
    let outcome = Outcome::new("sqlite/page", value, "records/s");
    Ok(outcome.peer("datasette", peer).peer("datasette, tuned", peer_tuned))
}
