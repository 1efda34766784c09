//! Documents that must agree with the code or with each other.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::Tree;
use super::walls;

pub(super) const ARCHITECTURE: &str = "ARCHITECTURE.md";
const BEGIN: &str = "<!-- crate-graph:begin -->";
const END: &str = "<!-- crate-graph:end -->";
const DECISIONS: &str = "docs/adr/";
const READMES: [&str; 2] = ["README.md", "README.es.md"];
/// 1.5 MB: a repository is cloned whole, for ever.
const FILE_BYTES_MAX: u64 = 1_500_000;

/// The picture as the manifests have it.
fn graph_text(tree: &Tree) -> String {
    let edges: String = walls::graph(tree).iter().map(|(from, to)| format!("  {from} --> {to}\n")).collect();
    format!("```mermaid\ngraph TD\n{edges}```")
}

pub(super) fn crate_graph(tree: &Tree) -> Vec<Finding> {
    let shown = tree.text(ARCHITECTURE).and_then(|text| text.split_once(BEGIN)?.1.split_once(END));
    let Some((shown, _)) = shown else {
        return vec![Finding::new(ARCHITECTURE, format!("lacks the markers {BEGIN} and {END}"))];
    };
    match shown.trim() == graph_text(tree) {
        true => Vec::new(),
        false => {
            vec![Finding::new(ARCHITECTURE, "the crate graph differs from the manifests: run cargo xtask tidy --fix")]
        }
    }
}

/// The document with the picture of today, when it has the markers.
pub(super) fn with_graph(tree: &Tree) -> Option<String> {
    let (before, rest) = tree.text(ARCHITECTURE)?.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", graph_text(tree)))
}

/// Every decision is in the list.
pub(super) fn decisions(tree: &Tree) -> Vec<Finding> {
    let list = format!("{DECISIONS}README.md");
    let Some(text) = tree.text(&list) else { return vec![Finding::new(list, "is missing")] };
    let pages = tree.texts(DECISIONS, ".md").map(|(path, _)| path.trim_start_matches(DECISIONS));
    let missing = pages.filter(|page| *page != "README.md" && !text.contains(&format!("({page})")));
    missing.map(|page| Finding::new(list.as_str(), format!("does not list {page}: add a line"))).collect()
}

/// Both languages show the same commands.
pub(super) fn readmes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut blocks = Vec::new();
    for name in READMES {
        match tree.text(name) {
            Some(text) => blocks.push((name, code_blocks(text))),
            None => findings.push(Finding::new(name, "is missing")),
        }
    }
    let [(a, in_a), (b, in_b)] = &blocks[..] else { return findings };
    for (name, here, other, there) in [(a, in_a, b, in_b), (b, in_b, a, in_a)] {
        for block in here.difference(there) {
            let first = block.lines().next().unwrap_or_default();
            findings.push(Finding::new(*other, format!("lacks a code block of {name}, which begins {first:?}")));
        }
    }
    findings
}

/// Fenced blocks without their comments, which are prose and may be translated.
fn code_blocks(text: &str) -> BTreeSet<String> {
    let mut blocks = BTreeSet::new();
    let mut open: Option<String> = None;
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        open = match (open, fence) {
            (None, true) => Some(String::new()),
            (Some(block), true) => {
                blocks.insert(block);
                None
            }
            (Some(mut block), false) => {
                let code = match line.trim_start().starts_with('#') {
                    true => "",
                    false => line.split(" # ").next().unwrap_or_default().trim_end(),
                };
                if !code.is_empty() {
                    block.push_str(code);
                    block.push('\n');
                }
                Some(block)
            }
            (None, false) => None,
        };
    }
    blocks
}

/// The stores have migrations of the same names: neither is ever ahead.
pub(super) fn migrations(tree: &Tree) -> Vec<Finding> {
    let of = |store: &str| format!("crates/caudal-store/src/{store}/migrations/");
    let names = |store: &str| -> BTreeSet<String> {
        let dir = of(store);
        tree.texts(&dir, ".sql").map(|(path, _)| path[dir.len()..].to_owned()).collect()
    };
    let mut findings = Vec::new();
    for (here, there) in [("postgres", "sqlite"), ("sqlite", "postgres")] {
        for name in names(here).difference(&names(there)) {
            findings.push(Finding::new(format!("{}{name}", of(there)), format!("is missing, and {here} has it")));
        }
    }
    findings
}

pub(super) fn large_files(tree: &Tree) -> Vec<Finding> {
    let large = tree.sizes().filter(|(_, bytes)| *bytes > FILE_BYTES_MAX);
    large
        .map(|(path, bytes)| {
            Finding::new(path, format!("has {bytes} bytes, {FILE_BYTES_MAX} at most: fetch or generate it"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    const STORE: (&str, &str) =
        ("crates/caudal-store/Cargo.toml", "[package]\nname = \"caudal-store\"\n[dependencies]\ncaudal-core = \"0\"\n");
    const CORE: (&str, &str) = ("crates/caudal-core/Cargo.toml", "[package]\nname = \"caudal-core\"\n");

    #[test]
    fn a_stale_graph_is_found_and_fixed() {
        let old = format!("a\n{BEGIN}\n```mermaid\ngraph TD\n  caudal --> caudal-gone\n```\n{END}\nz\n");
        let tree = Tree::of(&[STORE, CORE, (ARCHITECTURE, &old)]);
        assert!(says(&crate_graph(&tree), ARCHITECTURE, "differs"));
        let fixed = with_graph(&tree).unwrap();
        assert!(
            fixed.contains("  caudal-store --> caudal-core\n") && fixed.starts_with("a\n") && fixed.ends_with("\nz\n")
        );
        assert_eq!(crate_graph(&Tree::of(&[STORE, CORE, (ARCHITECTURE, &fixed)])), []);
        assert!(says(&crate_graph(&Tree::of(&[STORE, CORE, (ARCHITECTURE, "no markers")])), ARCHITECTURE, "markers"));
    }

    #[test]
    fn a_decision_that_is_not_listed_is_found() {
        let list = ("docs/adr/README.md", "[0001](0001-a.md)");
        let tree = Tree::of(&[list, ("docs/adr/0001-a.md", ""), ("docs/adr/0002-b.md", "")]);
        assert!(says(&decisions(&tree), "docs/adr/README.md", "0002-b.md"));
        assert_eq!(decisions(&tree).len(), 1);
        assert!(says(&decisions(&Tree::of(&[])), "docs/adr/README.md", "missing"));
    }

    #[test]
    fn readmes_with_other_commands_are_found() {
        let english = "# A\n```sh\ncaudal up # start\n# all of it\n```\n```sh\n./test\n```\n";
        let spanish = "# B\n```sh\ncaudal up   # arranca\n```\n```sh\n./test\n```\n";
        assert_eq!(readmes(&Tree::of(&[("README.md", english), ("README.es.md", spanish)])), []);
        let lacking = Tree::of(&[("README.md", english), ("README.es.md", "```sh\n./test\n```\n")]);
        assert!(says(&readmes(&lacking), "README.es.md", "caudal up"));
        let lacking = Tree::of(&[("README.md", "```sh\n./test\n```\n"), ("README.es.md", spanish)]);
        assert!(says(&readmes(&lacking), "README.md", "caudal up"));
        assert!(says(&readmes(&Tree::of(&[("README.md", english)])), "README.es.md", "missing"));
    }

    #[test]
    fn a_migration_of_one_store_only_is_found() {
        let (p, s) = ("crates/caudal-store/src/postgres/migrations/", "crates/caudal-store/src/sqlite/migrations/");
        let tree = Tree::of(&[(&format!("{p}0001_a.sql")[..], ""), (&format!("{s}0001_a.sql")[..], "")]);
        assert_eq!(migrations(&tree), []);
        let tree = Tree::of(&[(&format!("{p}0001_a.sql")[..], ""), (&format!("{s}0002_b.sql")[..], "")]);
        assert!(says(&migrations(&tree), &format!("{s}0001_a.sql"), "is missing"));
        assert!(says(&migrations(&tree), &format!("{p}0002_b.sql"), "is missing"));
    }

    #[test]
    fn a_large_file_is_found() {
        let tree = Tree::of(&[]).with_size("a.bin", FILE_BYTES_MAX + 1).with_size("b.bin", FILE_BYTES_MAX);
        let findings = large_files(&tree);
        assert!(says(&findings, "a.bin", "1500001 bytes"));
        assert_eq!(findings.len(), 1);
    }
}
