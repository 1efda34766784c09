//! `verify`: every flight is stored once, reads back as it was, and is a duplicate the second time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::caudal::{Caudal, Setup};
use super::postgres::Postgres;
use super::results::Outcome;
use super::{Bench, FLIGHTS};

pub(super) const CASES: &[&str] = &["postgres/flights", "sqlite/flights"];

/// examples/flights/README.md, "Checking that nothing was lost".
const DISTANCE: u64 = 350_217_607;
const SHA256: &str = "9e3e7a110d36c7807398468cddd183b5e8a0d5692f23dab14557e04908c9505c";
/// The schema's columns; `distance` and `time_hour` are looked at.
const COLUMNS: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,\
                       tailnum,origin,dest,air_time,distance,hour,minute,time_hour";
const AT_DISTANCE: usize = 15;

pub(super) fn run(bench: &Bench, cases: &[&str]) -> Result<()> {
    for case in cases {
        let postgres = case.starts_with("postgres/").then(|| Postgres::start(&bench.work)).transpose()?;
        let url = postgres.as_ref().map_or("sqlite:caudal.db".to_owned(), Postgres::url);
        let rows = verify(bench, case, &url)?;
        bench.record(Outcome::new(*case, rows as f64, "records").limit(FLIGHTS as f64))?;
    }
    Ok(())
}

/// Rows that were stored when everything holds. The first thing that does not is an error: a wrong store has no number.
fn verify(bench: &Bench, case: &str, store: &str) -> Result<u64> {
    let setup = Setup { store, broker: "none:", data_dir: bench.dir("verify")?, environment: &[] };
    let caudal = Caudal::start(bench, &setup)?;
    let (first, _) = caudal.publish(&bench.flights)?;
    let mut failed = 0;
    let mut check = |what: &str, found: String, wanted: String| {
        let pass = found == wanted;
        failed += u32::from(!pass);
        println!(
            "{} {case}: {what} {found}{}",
            if pass { "PASS" } else { "FAIL" },
            if pass { String::new() } else { format!(", not {wanted}") }
        );
    };
    check("first time: stored", first["stored"].to_string(), FLIGHTS.to_string());
    check("first time: dead letters", first["dead"].to_string(), "0".into());
    let found = read_back(&caudal)?;
    check("rows", found.rows.to_string(), FLIGHTS.to_string());
    check("sum of distance", found.distance.to_string(), DISTANCE.to_string());
    check("sha256", found.sha256, SHA256.into());
    let (second, _) = caudal.publish(&bench.flights)?;
    check("second time: stored", second["stored"].to_string(), "0".into());
    check("second time: duplicates", second["duplicate"].to_string(), FLIGHTS.to_string());
    anyhow::ensure!(failed == 0, "{case}: {failed} checks failed");
    Ok(found.rows)
}

struct Found {
    rows: u64,
    distance: u64,
    sha256: String,
}

/// The table as CSV over HTTP, brought into the canonical form: times with an offset, lines in byte order.
fn read_back(caudal: &Caudal) -> Result<Found> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--header", "Accept: text/csv"]);
    let mut curl =
        curl.arg(caudal.url(&format!("/rest/v1/flights?select={COLUMNS}"))).stdout(Stdio::piped()).spawn()?;
    let mut lines: Vec<String> = Vec::new();
    let mut distance = 0;
    for line in BufReader::new(curl.stdout.take().context("curl has no output")?).lines().skip(1) {
        let line = line?;
        let field = line.split(',').nth(AT_DISTANCE).and_then(|field| field.parse::<u64>().ok());
        distance += field.with_context(|| format!("no distance in {line}"))?;
        lines.push(canonical(&line)?);
    }
    let status = curl.wait()?;
    anyhow::ensure!(status.success(), "curl: {status}");
    let rows = lines.len() as u64;
    lines.sort_unstable();
    Ok(Found { rows, distance, sha256: sha256(&lines)? })
}

fn canonical(line: &str) -> Result<String> {
    let time = line.strip_suffix('Z').or_else(|| line.strip_suffix("+00:00"));
    Ok(time.with_context(|| format!("the time is not in UTC: {line}"))?.to_owned() + "+00:00")
}

fn sha256(lines: &[String]) -> Result<String> {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("sha256sum has no input")?;
    for line in lines {
        writeln!(input, "{line}")?;
    }
    drop(input);
    let output = child.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_that_of_the_example() {
        assert_eq!(canonical("2013,1,2013-01-01T10:00:00Z").unwrap(), "2013,1,2013-01-01T10:00:00+00:00");
        assert_eq!(canonical("2013,1,2013-01-01T10:00:00+00:00").unwrap(), "2013,1,2013-01-01T10:00:00+00:00");
        assert!(canonical("2013,1,").is_err());
        assert_eq!(COLUMNS.split(',').nth(AT_DISTANCE), Some("distance"));
        assert_eq!(sha256(&["a".into()]).unwrap(), "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7");
    }
}
