//! Caudal's own tools: `cargo xtask tidy` holds the rules that a compiler does not, `cargo xtask bench` measures.

mod bench;
mod lambda;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

const USAGE: &str = "\
usage: cargo xtask tidy [--fix]
       cargo xtask bench NAME [CASE…] [--quick] [--binary PATH]
       cargo xtask lambda [--features LIST] [--runs N]

tidy   checks the walls between the crates, the size of files, the pages of error codes and decisions, the crate graph
       --fix  writes the crate graph in ARCHITECTURE.md anew
bench  measures beside a limit and peers; `cargo xtask bench --help` has the names and cases
lambda builds the package for AWS Lambda, and prints its size and how soon it asks for work";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let done = match command {
        "tidy" => tidy::run(&root(), rest),
        "bench" => bench::run(&root(), rest),
        "lambda" => lambda::run(&root(), rest),
        "-h" | "--help" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace that this program was built in.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// What a command prints; its failure with what it said.
fn output_of(command: &mut std::process::Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    anyhow::ensure!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
