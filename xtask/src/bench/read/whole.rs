//! All flights as one answer, beside peers that can do that.

use std::process::Command;

use anyhow::Result;

use super::super::caudal::Caudal;
use super::super::postgres::Postgres;
use super::super::results::Outcome;
use super::super::{Bench, FLIGHTS, interleave, servers};
use super::page::roapis;
use super::{asks, gets, peer_rows, to_nowhere};

fn rate(command: &mut Command) -> Result<f64> {
    Ok(FLIGHTS as f64 / to_nowhere(command)?)
}

/// As JSON.
pub(super) fn from_postgres(bench: &Bench, postgres: &Postgres, caudal: &Caudal) -> Result<Outcome> {
    let fastapi = servers::fastapi(bench, postgres, 1)?;
    let tuned = servers::fastapi(bench, postgres, 2)?;
    peer_rows(postgres)?;
    let (roapi, roapi_tuned) = roapis(bench, postgres, caudal)?;
    let sides = ["limit", "caudal", "fastapi", "fastapi, tuned", "roapi", "roapi, parquet"];
    let [limit, value, peers @ ..] = interleave(bench, "postgres/table", sides, |side| match side {
        "limit" => rate(postgres.psql().args(["-c", "copy (select * from flights) to stdout"])),
        "caudal" => rate(&mut asks(caudal, "application/json", "/rest/v1/flights")),
        "fastapi" => rate(&mut gets(&format!("{}/flights", fastapi.url()))),
        "fastapi, tuned" => rate(&mut gets(&format!("{}/tuned/flights", tuned.url()))),
        "roapi" => rate(&mut gets(&format!("{}/api/tables/flights", roapi.url()))),
        _ => rate(&mut gets(&format!("{}/api/tables/flights", roapi_tuned.url()))),
    })?;
    let outcome = Outcome::new("postgres/table", value, "records/s").limit(limit);
    Ok(sides[2..].iter().zip(peers).fold(outcome, |outcome, (name, rate)| outcome.peer(name, rate)))
}

/// As CSV, the only encoding in which Datasette streams a whole table. Nothing is a limit here.
pub(super) fn from_sqlite(bench: &Bench, caudal: &Caudal) -> Result<Outcome> {
    let (default, tuned) = (servers::datasette(bench, false)?, servers::datasette(bench, true)?);
    let streamed = "/flights/flights.csv?_stream=on&_size=max";
    let [value, peer, peer_tuned] =
        interleave(bench, "sqlite/table", ["caudal", "datasette", "datasette, tuned"], |side| match side {
            "caudal" => rate(&mut asks(caudal, "text/csv", "/rest/v1/flights")),
            "datasette" => rate(&mut gets(&format!("{}{streamed}", default.url()))),
            _ => rate(&mut gets(&format!("{}{streamed}", tuned.url()))),
        })?;
    let outcome = Outcome::new("sqlite/table", value, "records/s");
    Ok(outcome.peer("datasette", peer).peer("datasette, tuned", peer_tuned))
}
