//! Lines of `bench/results/*.jsonl`, and the part of `bench/README.md` that shows the latest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// One measured case.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) case: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) limit: Option<f64>,
    /// For each peer, Caudal's value ÷ the peer's.
    pub(super) peers: Vec<(&'static str, f64)>,
}

impl Outcome {
    pub(super) fn new(case: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { case: case.into(), value, unit, limit: None, peers: Vec::new() }
    }

    pub(super) fn limit(mut self, limit: f64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// `value` is the peer's number in the same unit.
    pub(super) fn peer(mut self, name: &'static str, value: f64) -> Self {
        self.peers.push((name, self.value / value));
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.limit.map(|limit| self.value / limit)
    }
}

/// What is the same for each line of a run.
#[derive(Debug, Clone)]
pub(super) struct Stamp {
    pub(super) date: String,
    pub(super) commit: String,
    pub(super) machine: String,
}

fn line(bench: &str, outcome: &Outcome, stamp: &Stamp) -> Value {
    let mut line = Map::new();
    line.insert("bench".into(), bench.into());
    line.insert("case".into(), outcome.case.as_str().into());
    line.insert("value".into(), rounded(outcome.value));
    line.insert("unit".into(), outcome.unit.into());
    if let (Some(limit), Some(ratio)) = (outcome.limit, outcome.ratio()) {
        line.insert("limit".into(), rounded(limit));
        line.insert("ratio".into(), rounded(ratio));
    }
    let peers: Map<String, Value> =
        outcome.peers.iter().map(|(name, ratio)| ((*name).to_owned(), rounded(*ratio))).collect();
    line.insert("peers".into(), peers.into());
    line.insert("date".into(), stamp.date.as_str().into());
    line.insert("commit".into(), stamp.commit.as_str().into());
    line.insert("machine".into(), stamp.machine.as_str().into());
    Value::Object(line)
}

/// Three digits are more than the measurement has.
fn rounded(number: f64) -> Value {
    match number.abs() >= 100.0 {
        true => json!(number.round() as i64),
        false => json!((number * 1000.0).round() / 1000.0),
    }
}

pub(super) fn append(root: &Path, bench: &str, outcome: &Outcome, stamp: &Stamp) -> Result<()> {
    let dir = root.join("bench/results");
    std::fs::create_dir_all(&dir)?;
    let mut file = std::fs::File::options().create(true).append(true).open(dir.join(format!("{bench}.jsonl")))?;
    writeln!(file, "{}", line(bench, outcome, stamp))?;
    Ok(())
}

/// For a person: case, value, limit, ratio, peers.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut text = format!("{:<26} {:>12} {:<10} {:>12} {:>7}  peers\n", "case", "value", "unit", "limit", "ratio");
    for outcome in outcomes {
        let optional = |n: Option<f64>| n.map(shown).unwrap_or_else(|| "-".into());
        let peers: Vec<String> = outcome.peers.iter().map(|(name, ratio)| format!("{name} {ratio:.2}")).collect();
        let _ = writeln!(
            text,
            "{:<26} {:>12} {:<10} {:>12} {:>7}  {}",
            outcome.case,
            shown(outcome.value),
            outcome.unit,
            optional(outcome.limit),
            outcome.ratio().map_or_else(|| "-".into(), |r| format!("{r:.2}")),
            peers.join(", ")
        );
    }
    text
}

/// 1,234 or 12.3.
fn shown(number: f64) -> String {
    if number.abs() < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{:.0}", number.abs());
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0.0 { format!("-{out}") } else { out }
}

const BEGIN: &str = "<!-- results:begin -->";
const END: &str = "<!-- results:end -->";

/// Writes the latest line of each case of each bench between the markers.
pub(super) fn rewrite_readme(root: &Path) -> Result<()> {
    let file = root.join("bench/README.md");
    let text = std::fs::read_to_string(&file)?;
    let (before, rest) = text.split_once(BEGIN).context("bench/README.md lacks its markers")?;
    let (_, after) = rest.split_once(END).context("bench/README.md lacks its end marker")?;
    let mut files: Vec<_> =
        std::fs::read_dir(root.join("bench/results"))?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut lines = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "jsonl")) {
        for text in std::fs::read_to_string(file)?.lines() {
            lines.push(serde_json::from_str(text).with_context(|| format!("{}: {text}", file.display()))?);
        }
    }
    std::fs::write(&file, format!("{before}{BEGIN}\n{}{END}{after}", summary(&lines)))?;
    Ok(())
}

/// The latest of each case, in the order of the files; then a plot of the ratios.
fn summary(lines: &[Value]) -> String {
    let mut latest: BTreeMap<(String, String), &Value> = BTreeMap::new();
    for line in lines {
        let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        latest.insert((word("bench"), word("case")), line);
    }
    if latest.is_empty() {
        return "No run is recorded yet.\n".to_owned();
    }
    let mut out = String::from(
        "| bench | case | value | limit | ratio | ÷ peers | date | commit |\n|---|---|--:|--:|--:|---|---|---|\n",
    );
    for ((bench, case), line) in &latest {
        let number = |name: &str| line[name].as_f64().map(shown).unwrap_or_default();
        let ratio = line["ratio"].as_f64().map(|r| format!("**{r:.2}**")).unwrap_or_default();
        let peers = line["peers"].as_object().into_iter().flatten();
        let peers: Vec<String> =
            peers.map(|(name, ratio)| format!("{name} {:.2}", ratio.as_f64().unwrap_or(0.0))).collect();
        let _ = writeln!(
            out,
            "| {bench} | `{case}` | {} {} | {} | {ratio} | {} | {} | {} |",
            number("value"),
            line["unit"].as_str().unwrap_or_default(),
            number("limit"),
            peers.join(", "),
            line["date"].as_str().unwrap_or_default(),
            line["commit"].as_str().unwrap_or_default()
        );
    }
    let with_ratio =
        latest.iter().filter_map(|((bench, case), line)| Some((format!("{bench} {case}"), line["ratio"].as_f64()?)));
    out.push_str("\nRatio to the limit; the mark `|` is the limit itself:\n\n```text\n");
    for (case, ratio) in with_ratio {
        let _ = writeln!(out, "{case:<32} {} {ratio:.2}", bar(ratio));
    }
    out.push_str("```\n\nMachine: ");
    let machines: std::collections::BTreeSet<&str> =
        latest.values().filter_map(|line| line["machine"].as_str()).collect();
    out.push_str(&machines.into_iter().collect::<Vec<_>>().join("; "));
    out.push('\n');
    out
}

/// Twenty cells are the limit; what is beyond is shown up to twice as far.
fn bar(ratio: f64) -> String {
    const LIMIT: usize = 20;
    let filled = ((ratio * LIMIT as f64).round() as usize).min(2 * LIMIT);
    let mut cells: Vec<char> = (0..LIMIT.max(filled)).map(|i| if i < filled { '█' } else { '·' }).collect();
    cells.insert(LIMIT, '|');
    cells.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { date: "2026-01-31".into(), commit: "0123abc".into(), machine: "m".into() }
    }

    #[test]
    fn a_line_has_the_documented_keys() {
        let outcome = Outcome::new("postgres/bulk", 150_000.4, "records/s").limit(100_000.0).peer("fastapi", 1_000.0);
        let line = line("ingest", &outcome, &stamp());
        let text = r#"{"bench":"ingest","case":"postgres/bulk","value":150000,"unit":"records/s","limit":100000,"ratio":1.5,"peers":{"fastapi":150},"date":"2026-01-31","commit":"0123abc","machine":"m"}"#;
        assert_eq!(line.to_string(), text);
        assert!(super::line("footprint", &Outcome::new("idle", 1.0, "MB"), &stamp()).get("ratio").is_none());
    }

    #[test]
    fn the_latest_line_of_a_case_is_shown() {
        let of = |value: f64| line("ingest", &Outcome::new("postgres/bulk", value, "records/s").limit(10.0), &stamp());
        let text = summary(&[of(5.0), of(12.0)]);
        assert!(text.contains("| ingest | `postgres/bulk` | 12.0 records/s | 10.0 | **1.20** |"), "{text}");
        assert!(!text.contains("5.0 records/s"), "{text}");
        assert!(text.contains(&format!("{}|████ 1.20", "█".repeat(20))), "{text}");
        assert_eq!(summary(&[]), "No run is recorded yet.\n");
    }

    #[test]
    fn the_part_between_the_markers_is_rewritten() {
        let root = std::env::temp_dir().join(format!("xtask-results-{}", std::process::id()));
        std::fs::create_dir_all(root.join("bench")).unwrap();
        std::fs::write(root.join("bench/README.md"), format!("a\n{BEGIN}\nold\n{END}\nz\n")).unwrap();
        append(&root, "read", &Outcome::new("postgres/get", 1.0, "records/s").limit(2.0), &stamp()).unwrap();
        rewrite_readme(&root).unwrap();
        let text = std::fs::read_to_string(root.join("bench/README.md")).unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(
            text.starts_with("a\n")
                && text.ends_with("\nz\n")
                && text.contains("`postgres/get`")
                && !text.contains("old")
        );
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(shown(1_234_567.0), "1,234,567");
        assert_eq!(shown(12.34), "12.3");
        assert_eq!(shown(123.0), "123");
    }
}
