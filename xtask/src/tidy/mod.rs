//! The rules that the compiler does not hold, each as a pure function from the files to what is wrong with them.

mod docs;
mod errors;
mod source;
mod tree;
mod walls;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use tree::Tree;

/// One line of output: where, what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    file: String,
    say: String,
    /// A warning is shown and does not fail the run.
    warning: bool,
}

impl Finding {
    fn new(file: impl Into<String>, say: impl Into<String>) -> Self {
        Self { file: file.into(), say: say.into(), warning: false }
    }

    fn warning(file: impl Into<String>, say: impl Into<String>) -> Self {
        Self { warning: true, ..Self::new(file, say) }
    }
}

/// A rule; one that cannot be decided (a manifest that is not TOML) says so as a finding.
type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [Rule; 14] = [
    walls::edges,
    walls::externals,
    walls::adapters_named_once,
    source::environment,
    source::clock,
    source::left_overs,
    source::main_is_small,
    source::file_length,
    errors::pages,
    docs::crate_graph,
    docs::decisions,
    docs::readmes,
    docs::migrations,
    docs::large_files,
];

pub(crate) fn run(root: &Path, args: &[String]) -> Result<ExitCode> {
    let fix = match args {
        [] => false,
        [only] if only == "--fix" => true,
        _ => anyhow::bail!("tidy takes --fix or nothing"),
    };
    let mut tree = Tree::load(root)?;
    if fix && let Some(fixed) = docs::with_graph(&tree) {
        std::fs::write(root.join(docs::ARCHITECTURE), fixed)?;
        tree = Tree::load(root)?;
    }
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    findings.dedup();
    let (warnings, wrong): (Vec<_>, Vec<_>) = findings.into_iter().partition(|finding| finding.warning);
    for finding in &warnings {
        println!("warning: {}: {}", finding.file, finding.say);
    }
    for finding in &wrong {
        println!("{}: {}", finding.file, finding.say);
    }
    println!("tidy: {} files, {} to fix, {} warnings", tree.len(), wrong.len(), warnings.len());
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
fn says(findings: &[Finding], file: &str, part: &str) -> bool {
    findings.iter().any(|f| f.file == file && f.say.contains(part) && !f.warning)
}
