//! `cargo xtask bench`: not built yet.

use std::path::Path;
use std::process::ExitCode;

pub(crate) fn run(_: &Path, _: &[String]) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the benchmarks are not built yet")
}
