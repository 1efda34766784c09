//! All flights as NDJSON into a typed topic, beside the store's own fastest way to take the very same rows into the very same
//! table.

use anyhow::Result;

use super::caudal::Caudal;
use super::results::Outcome;
use super::{Bench, FLIGHTS, interleave};

/// A store's side of the measurement: PostgreSQL's and SQLite's.
pub(super) trait BulkStore {
    fn name(&self) -> &'static str;
    /// Starts Caudal on this store, without a broker.
    fn caudal(&self, bench: &Bench) -> Result<Caudal>;
    /// Keeps the rows that Caudal has stored, for the limit and for what is put back.
    fn keep(&self) -> Result<()>;
    /// No rows.
    fn empty(&self) -> Result<()>;
    /// Every hundredth of the kept rows in an otherwise empty table.
    fn with_hundredth(&self) -> Result<()>;
    /// So many other rows, alike, with other keys.
    fn fill(&self, rows: u64) -> Result<()>;
    /// Takes the kept rows out again.
    fn remove_kept(&self) -> Result<()>;
    /// What the last write left is on disk, so that the next measurement does not pay for it.
    fn settle(&self) -> Result<()>;
    /// Seconds in which the kept rows go in by the limit's way.
    fn limit(&self) -> Result<f64>;
    /// The limit's number where there is a second way to measure it: its name and seconds.
    fn second_limit(&self) -> Result<Option<(&'static str, f64)>>;
}

/// Every hundredth row is there already.
const HUNDREDTH: u64 = FLIGHTS / 100;

pub(super) fn run(bench: &Bench, store: &dyn BulkStore, cases: &[&str]) -> Result<()> {
    let name = |case: &str| format!("{}/{case}", store.name());
    let cases: Vec<&str> =
        ["bulk", "bulk-dup", "bulk-10m"].into_iter().filter(|c| cases.contains(&&name(c)[..])).collect();
    if cases.is_empty() {
        return Ok(());
    }
    let caudal = store.caudal(bench)?;
    caudal.publish_expecting(&bench.flights, FLIGHTS, 0)?;
    store.keep()?;
    for case in cases {
        if case == "bulk-10m" {
            let rows = if bench.quick { 1_000_000 } else { 10_000_000 };
            println!("{}: filling the table with {rows} rows", name(case));
            store.empty()?;
            store.fill(rows)?;
        }
        let prepare = || match case {
            "bulk-10m" => store.remove_kept(),
            _ => store.empty(),
        };
        let measured = interleave(bench, &name(case), ["limit", "limit-2", "caudal"], |side| {
            prepare()?;
            let stored = match (side, case) {
                ("caudal", "bulk-dup") => {
                    store.with_hundredth()?;
                    FLIGHTS - HUNDREDTH
                }
                _ => FLIGHTS,
            };
            store.settle()?;
            let seconds = match side {
                "limit" => store.limit()?,
                "limit-2" => store.second_limit()?.map_or(f64::NAN, |(_, seconds)| seconds),
                _ => caudal.publish_expecting(&bench.flights, stored, FLIGHTS - stored)?,
            };
            Ok(FLIGHTS as f64 / seconds)
        })?;
        let [limit, second, value] = measured;
        let mut outcome = Outcome::new(name(case), value, "records/s").limit(limit);
        if second.is_finite() {
            outcome = outcome.peer("copy-binary", second);
        }
        bench.record(outcome)?;
    }
    Ok(())
}
