//! `cargo xtask bench`: Caudal beside its limits and peers, in one run, as ratios. `bench/README.md` says how to read it.

mod bulk;
mod bulk_postgres;
mod bulk_sqlite;
mod caudal;
mod confirm;
mod drain;
mod footprint;
mod growth;
mod ingest;
mod postgres;
mod process;
mod read;
mod results;
mod servers;
mod single;
mod verify;
mod wrk;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::output_of;
use results::{Outcome, Stamp};

/// Flights in the whole file, and what they must add up to (examples/flights/README.md).
const FLIGHTS: u64 = 336_776;

/// Directories of runs: this and the process id.
const WORK: &str = "xtask-bench-";

const USAGE: &str = "\
usage: cargo xtask bench NAME [CASE…] [--quick] [--binary PATH]

  ingest     postgres/bulk postgres/bulk-dup postgres/bulk-10m postgres/single-stored postgres/single-queued, and sqlite/…
  read       postgres/get postgres/get-cached postgres/page postgres/table, all of them but the cache in sqlite/ too;
             postgres/table-json -ndjson -csv -arrow -parquet deep-page group-by over a table of 5 GB (7 GB of disk)
  drain      rabbitmq nats redis kafka sqs: what a broker holds goes into PostgreSQL
  confirm    postgres/claim-settle postgres/engine postgres/latency postgres/pinned postgres/backlog postgres/workers postgres/idle
  footprint  memory, start, binary, dependency tree
  growth     postgres/upload sqlite/upload postgres/table sqlite/table: memory while 2 GB come in, while 1 GB goes out
  verify     postgres/flights sqlite/flights: every flight stored once, and the same as the source

CASE is the end or the start of a case's name: `bulk` is both stores' bulk, `sqlite/` is all of SQLite. Without one, all run.

  --quick        shorter and smaller, to see that everything works; nothing is recorded
  --binary PATH  measure this program instead of building the release";

/// One bench: its name, its cases, and what measures one case.
struct Suite {
    name: &'static str,
    cases: &'static [&'static str],
    run: fn(&Bench, &[&str]) -> Result<()>,
    build: Build,
    /// It needs the flights.
    flights: bool,
}

/// What of Caudal is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    Default,
    /// With every broker, and the program that measures them.
    Brokers,
}

const SUITES: [Suite; 7] = [
    Suite { name: "ingest", cases: ingest::CASES, run: ingest::run, build: Build::Default, flights: true },
    Suite { name: "read", cases: read::CASES, run: read::run, build: Build::Default, flights: true },
    Suite { name: "drain", cases: drain::CASES, run: drain::run, build: Build::Brokers, flights: true },
    Suite { name: "confirm", cases: confirm::CASES, run: confirm::run, build: Build::Default, flights: false },
    Suite { name: "footprint", cases: footprint::CASES, run: footprint::run, build: Build::Default, flights: true },
    Suite { name: "growth", cases: growth::CASES, run: growth::run, build: Build::Default, flights: true },
    Suite { name: "verify", cases: verify::CASES, run: verify::run, build: Build::Default, flights: true },
];

/// What every case needs.
#[derive(Debug)]
pub(super) struct Bench {
    root: PathBuf,
    /// Removed at the end.
    work: PathBuf,
    binary: PathBuf,
    noop: PathBuf,
    limit_sqlite: PathBuf,
    /// Built for suites that ask for it.
    limit_broker: PathBuf,
    /// All flights as NDJSON.
    flights: PathBuf,
    quick: bool,
    suite: &'static str,
    stamp: Stamp,
    /// What this run has measured so far.
    outcomes: RefCell<Vec<Outcome>>,
}

impl Bench {
    /// Interleaved repetitions of each side.
    fn repetitions(&self) -> usize {
        if self.quick { 1 } else { 5 }
    }

    /// Seconds of one run of a load generator.
    fn seconds(&self) -> u32 {
        if self.quick { 3 } else { 10 }
    }

    /// Records a case as soon as it is measured: a run that is ended later keeps it.
    fn record(&self, outcome: Outcome) -> Result<()> {
        print!("{}", results::table(std::slice::from_ref(&outcome)));
        if !self.quick {
            results::append(&self.root, self.suite, &outcome, &self.stamp)?;
            results::rewrite_readme(&self.root)?;
        }
        self.outcomes.borrow_mut().push(outcome);
        Ok(())
    }

    /// A new empty directory.
    fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.work.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.work);
    }
}

pub(crate) fn run(root: &Path, args: &[String]) -> Result<ExitCode> {
    let mut words = Vec::new();
    let (mut quick, mut binary) = (false, None);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            "--quick" => quick = true,
            "--binary" => binary = Some(PathBuf::from(args.next().context("--binary takes a path")?)),
            option if option.starts_with('-') => bail!("unknown option {option}\n{USAGE}"),
            word => words.push(word),
        }
    }
    let Some((name, wanted)) = words.split_first() else { bail!("which bench?\n{USAGE}") };
    let suite =
        SUITES.iter().find(|suite| suite.name == *name).with_context(|| format!("no bench {name:?}\n{USAGE}"))?;
    let cases = chosen(suite.cases, wanted)?;
    let bench = prepare(root, quick, binary, suite)?;
    (suite.run)(&bench, &cases).inspect_err(|_| show_logs(&bench.work))?;
    println!("\n{}", results::table(&bench.outcomes.borrow()));
    if quick {
        println!("A quick run: not recorded.");
    } else {
        println!("Recorded in bench/results/{}.jsonl and bench/README.md.", suite.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// The last lines of what the servers said, before it is removed.
fn show_logs(work: &Path) {
    let logs = std::fs::read_dir(work).into_iter().flatten().flatten().map(|entry| entry.path());
    for log in logs.filter(|path| path.extension().is_some_and(|e| e == "log")) {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        eprintln!("--- {}\n{}", log.display(), lines[lines.len().saturating_sub(20)..].join("\n"));
    }
}

/// The cases that the words ask for, in the suite's order.
fn chosen<'c>(cases: &[&'c str], wanted: &[&str]) -> Result<Vec<&'c str>> {
    let is = |case: &str, word: &str| {
        case == word || case.rsplit('/').next() == Some(word) || (word.ends_with('/') && case.starts_with(word))
    };
    for word in wanted {
        ensure!(cases.iter().any(|case| is(case, word)), "no case {word:?}; there are {}", cases.join(", "));
    }
    Ok(cases.iter().copied().filter(|case| wanted.is_empty() || wanted.iter().any(|word| is(case, word))).collect())
}

fn prepare(root: &Path, quick: bool, binary: Option<PathBuf>, suite: &Suite) -> Result<Bench> {
    let wanted = suite.build;
    process::need("curl", "curl")?;
    process::need("setpriv", "util-linux")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // What is built here is built as what it is compared with.
    let (profile, dir) = match &binary {
        None => ("release", "release"),
        Some(_) => ("quick", "quick"),
    };
    let build = |arguments: &[&str]| -> Result<()> {
        println!("building: cargo build --profile {profile} {}", arguments.join(" "));
        let mut cargo = Command::new("cargo");
        let status =
            cargo.current_dir(root).args(["build", "--quiet", "--profile", profile]).args(arguments).status()?;
        ensure!(status.success(), "cargo build {}: {status}", arguments.join(" "));
        Ok(())
    };
    let built = target.join(dir);
    let binary = match binary {
        Some(binary) => std::fs::canonicalize(&binary).with_context(|| format!("no {}", binary.display()))?,
        None => {
            match wanted {
                Build::Default => build(&["--package", "caudal"])?,
                Build::Brokers => build(&["--package", "caudal", "--features", "brokers"])?,
            }
            built.join("caudal")
        }
    };
    let beside = |name: &str| binary.parent().map(|dir| dir.join(name)).filter(|file| file.exists());
    let (noop, limit_sqlite) = match (beside("limit-noop"), beside("limit-sqlite")) {
        (Some(noop), Some(sqlite)) if profile != "release" => (noop, sqlite),
        _ => {
            build(&["--package", "xtask", "--features", "limits", "--bin", "limit-noop", "--bin", "limit-sqlite"])?;
            (built.join("limit-noop"), built.join("limit-sqlite"))
        }
    };
    let limit_broker = built.join("limit-broker");
    if wanted == Build::Brokers && (profile == "release" || !limit_broker.exists()) {
        build(&["--package", "xtask", "--features", "limit-broker", "--bin", "limit-broker"])?;
    }
    let flights = match suite.flights {
        true => fetch_flights(root, &target.join("bench-data"))?,
        false => PathBuf::new(),
    };
    remove_left_overs();
    let work = std::env::temp_dir().join(format!("{WORK}{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    // A copy: nobody who builds meanwhile changes what is measured, and nobody who ends programs by name ends it.
    let measured = work.join("measured");
    std::fs::copy(&binary, &measured).with_context(|| format!("no {}", binary.display()))?;
    let stamp = stamp(root, &work)?;
    let bench = Bench {
        root: root.to_owned(),
        work,
        binary: measured,
        noop,
        limit_sqlite,
        limit_broker,
        flights,
        quick,
        suite: suite.name,
        stamp,
        outcomes: RefCell::default(),
    };
    let kind = file_system(&bench.work)?;
    ensure!(
        kind != "tmpfs",
        "{} is in memory, where fsync costs nothing: set TMPDIR to a directory on a disk",
        bench.work.display()
    );
    Ok(bench)
}

/// An interrupted run leaves its files: its servers are gone with it, nobody else needs them.
fn remove_left_overs() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(process) = name.strip_prefix(WORK).and_then(|id| id.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{process}")).exists() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// All flights, checked, kept under the target directory.
fn fetch_flights(root: &Path, dir: &Path) -> Result<PathBuf> {
    let file = dir.join("flights.ndjson");
    if !file.exists() {
        println!("fetching the flights");
        let status = Command::new(root.join("examples/flights/full")).arg(dir).status()?;
        ensure!(status.success(), "examples/flights/full: {status}");
    }
    Ok(file)
}

fn file_system(dir: &Path) -> Result<String> {
    Ok(output_of(Command::new("stat").args(["-f", "-c", "%T"]).arg(dir))?.trim().to_owned())
}

fn stamp(root: &Path, work: &Path) -> Result<Stamp> {
    let git = |args: &[&str]| output_of(Command::new("git").arg("-C").arg(root).args(args));
    let changed = !git(&["status", "--porcelain", "--untracked-files=no", "--", "crates", "Cargo.lock"])?.is_empty();
    let commit = git(&["rev-parse", "--short", "HEAD"])?.trim().to_owned() + if changed { "+" } else { "" };
    let date = output_of(Command::new("date").args(["-u", "+%F"]))?.trim().to_owned();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kb = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let gb = kb.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() >> 20;
    let model = model.trim_start_matches([' ', '\t', ':']);
    let machine = format!("{cores} × {model}, {gb} GB, {}, {}", file_system(work)?, postgres::version()?);
    Ok(Stamp { date, commit, machine })
}

/// Runs the sides in turns, so that a busy minute hits all of them alike, and returns each side's median.
fn interleave<const N: usize>(
    bench: &Bench,
    case: &str,
    sides: [&str; N],
    run: impl FnMut(&str) -> Result<f64>,
) -> Result<[f64; N]> {
    let medians = turns(bench.repetitions(), case, &sides, run)?;
    medians.try_into().map_err(|_| anyhow::anyhow!("a number a side"))
}

/// The same for as many sides and times as there are.
fn turns(times: usize, case: &str, sides: &[&str], mut run: impl FnMut(&str) -> Result<f64>) -> Result<Vec<f64>> {
    let mut all = vec![Vec::new(); sides.len()];
    for repetition in 1..=times {
        for (side, seen) in sides.iter().zip(&mut all) {
            let value = run(side).with_context(|| format!("{case}: {side}"))?;
            // A side that a store does not have is no number.
            if value.is_finite() {
                println!("{case} {repetition}/{times} {side:<14} {value:>12.0} per second");
            }
            seen.push(value);
        }
    }
    Ok(all.into_iter().map(median).collect())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_end_or_store() {
        let cases = ["postgres/bulk", "postgres/bulk-dup", "sqlite/bulk"];
        assert_eq!(chosen(&cases, &[]).unwrap(), cases);
        assert_eq!(chosen(&cases, &["bulk"]).unwrap(), ["postgres/bulk", "sqlite/bulk"]);
        assert_eq!(chosen(&cases, &["sqlite/"]).unwrap(), ["sqlite/bulk"]);
        assert_eq!(chosen(&cases, &["postgres/bulk-dup"]).unwrap(), ["postgres/bulk-dup"]);
        assert!(chosen(&cases, &["bulk-9"]).is_err());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
