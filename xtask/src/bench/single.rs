//! One message a request over 64 connections, beside a handler that does nothing and the FastAPI service.

use std::cell::Cell;

use anyhow::Result;

use super::caudal::{Caudal, Setup};
use super::postgres::Postgres;
use super::results::Outcome;
use super::servers;
use super::{Bench, interleave, wrk};

pub(super) const CONNECTIONS: usize = 64;
const PATH: &str = "/v1/topics/flights/messages";

/// Stored: answered when committed, without a broker. Queued: answered when the embedded topic has synced it.
pub(super) fn run(bench: &Bench, case: &str, postgres: Option<&Postgres>) -> Result<Outcome> {
    let queued = case.ends_with("queued");
    if let Some(postgres) = postgres {
        postgres.sql("drop table if exists flights, kept")?;
    }
    let url = postgres.map(Postgres::url);
    let setup = Setup {
        store: url.as_deref().unwrap_or("sqlite:caudal.db"),
        broker: if queued { "embedded:" } else { "none:" },
        data_dir: bench.dir(&case.replace('/', "-"))?,
        environment: &[],
    };
    let mut caudal = Caudal::start(bench, &setup)?;
    let noop = servers::noop(bench)?;
    let fastapi = postgres.map(|postgres| servers::fastapi(bench, postgres, 1)).transpose()?;
    let series = Cell::new(0);
    let load = |url: String, prefer: Option<&str>| -> Result<f64> {
        series.set(series.get() + 1);
        let rate =
            wrk::run(&bench.work, &url, &wrk::unique_flights(series.get(), prefer), CONNECTIONS, bench.seconds())?;
        println!("  p50 {:.2} ms, p99 {:.2} ms", rate.p50_ms, rate.p99_ms);
        Ok(rate.per_second)
    };
    let measured = interleave(bench, case, ["limit", "caudal", "fastapi"], |side| {
        if let Some(postgres) = postgres {
            postgres.settle()?;
        }
        match side {
            "limit" => load(noop.url() + PATH, None),
            "caudal" => {
                let rate = load(caudal.url(PATH), queued.then_some("respond-async"))?;
                caudal.drained()?;
                Ok(rate)
            }
            _ => fastapi.as_ref().map_or(Ok(f64::NAN), |fastapi| load(fastapi.url() + PATH, None)),
        }
    })?;
    let [limit, value, peer] = measured;
    let outcome = Outcome::new(case, value, "records/s").limit(limit);
    Ok(if peer.is_finite() { outcome.peer("fastapi", peer) } else { outcome })
}
