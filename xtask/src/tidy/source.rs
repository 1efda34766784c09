//! Rules about the lines of Rust files.

use super::Finding;
use super::tree::Tree;

/// Lines of a Rust file: above the first, a warning; above the second, a failure.
const LINES_WARN: usize = 500;
const LINES_MAX: usize = 700;
const MAIN: &str = "crates/caudal/src/main.rs";
const MAIN_LINES_MAX: usize = 59;

/// Who may read environment variables: the configuration, crash points and planted bugs, and what is never shipped.
const MAY_READ_ENVIRONMENT: [&str; 5] = [
    "crates/caudal/src/config.rs",
    "crates/caudal-broker/src/embedded/failpoint.rs",
    "crates/caudal-engine/src/plant.rs",
    "crates/caudal-testkit/",
    "xtask/",
];

/// The lines that are compiled into programs, with their numbers: no comments, no `#[cfg(test)]` items. Relies on rustfmt's
/// layout, in which an item ends with a brace at the column where it began.
pub(super) fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut skipping_until: Option<String> = None;
    let mut test_item = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if let Some(end) = &skipping_until {
            if line == end {
                skipping_until = None;
            }
            return None;
        }
        let code = line.trim_start();
        if code.starts_with("#[cfg(test)]") {
            test_item = true;
            return None;
        }
        if test_item {
            if code.starts_with("#[") || code.starts_with("//") {
                return None;
            }
            if line.ends_with('{') {
                skipping_until = Some(format!("{}}}", &line[..line.len() - code.len()]));
            }
            // `mod x;`, `use …;` or a whole item on one line ends here; a signature over several lines goes on.
            test_item = !(line.ends_with('{') || line.ends_with(';') || line.ends_with('}'));
            return None;
        }
        (!code.starts_with("//")).then_some((index + 1, line))
    })
}

/// Rust of the crates without the files that only tests have.
fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    let crates = tree.texts("crates/", ".rs").filter(|(path, _)| path.contains("/src/"));
    let sources = crates.chain(tree.texts("xtask/src/", ".rs"));
    sources.filter(|(path, _)| !path.ends_with("_test.rs") && !path.ends_with("/tests.rs") && !path.contains("/tests/"))
}

pub(super) fn environment(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(tree).filter(|(path, _)| !MAY_READ_ENVIRONMENT.iter().any(|may| path.starts_with(may)))
    {
        for (number, line) in code_lines(text) {
            if line.contains("env::var") || line.contains("env::{") || line.contains("dotenv") {
                let say = format!("line {number} reads the environment: take the value from config.rs");
                findings.push(Finding::new(path, say));
            }
        }
    }
    findings
}

/// The core is told the time.
pub(super) fn clock(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("crates/caudal-core/src/", ".rs") {
        for (number, line) in code_lines(text) {
            if line.contains("::now(") || line.contains("::now_v7(") {
                findings.push(Finding::new(path, format!("line {number} reads the clock: the core is told the time")));
            }
        }
    }
    findings
}

/// Macros that mark unfinished work.
pub(super) fn left_overs(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(tree) {
        for (number, line) in code_lines(text) {
            for name in ["todo", "dbg", "unimplemented"] {
                if line.match_indices(&format!("{name}!")).any(|(at, _)| !line[..at].ends_with(is_word)) {
                    findings.push(Finding::new(path, format!("line {number} has {name}!: finish it or take it out")));
                }
            }
        }
    }
    findings
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

pub(super) fn main_is_small(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(MAIN) else { return vec![Finding::new(MAIN, "is missing")] };
    match text.lines().count() {
        lines if lines > MAIN_LINES_MAX => {
            vec![Finding::new(
                MAIN,
                format!("has {lines} lines, {MAIN_LINES_MAX} at most: move code to cli.rs or roles/"),
            )]
        }
        _ => Vec::new(),
    }
}

pub(super) fn file_length(tree: &Tree) -> Vec<Finding> {
    let long =
        tree.texts("", ".rs").map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > LINES_WARN);
    long.map(|(path, lines)| match lines > LINES_MAX {
        true => Finding::new(path, format!("has {lines} lines, {LINES_MAX} at most: split it")),
        false => Finding::warning(path, format!("has {lines} lines; it fails above {LINES_MAX}")),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    fn numbers(text: &str) -> Vec<usize> {
        code_lines(text).map(|(number, _)| number).collect()
    }

    #[test]
    fn code_lines_leave_out_comments_and_test_items() {
        let text = "fn a() {}\n// b\n#[cfg(test)]\nmod tests {\n    fn c() {\n    }\n}\nfn d() {}\n";
        assert_eq!(numbers(text), [1, 8]);
        assert_eq!(numbers("#[cfg(test)]\n#[path = \"x.rs\"]\nmod x;\nfn d() {}\n"), [4]);
        assert_eq!(numbers("impl A {\n    #[cfg(test)]\n    fn b() {\n    }\n    fn c() {}\n}\n"), [1, 5, 6]);
        assert_eq!(numbers("#[cfg(test)]\nfn long(\n    a: u8,\n) {\n    x\n}\nfn d() {}\n"), [7]);
    }

    #[test]
    fn reading_the_environment_is_found_outside_the_configuration() {
        let read = "fn f() {\n    std::env::var(\"A\");\n}\n";
        let planted = Tree::of(&[
            ("crates/caudal/src/config.rs", read),
            ("crates/caudal-broker/src/embedded/failpoint.rs", read),
            ("crates/caudal-testkit/src/postgres.rs", read),
            ("crates/caudal-http/tests/x.rs", read),
            ("crates/caudal-http/src/x.rs", "#[cfg(test)]\nmod tests {\n    std::env::var(\"A\");\n}\n"),
            ("crates/caudal/src/roles/demo.rs", read),
            ("crates/caudal-engine/src/engine.rs", "use std::env::{self, vars};\n"),
        ]);
        let findings = environment(&planted);
        assert!(says(&findings, "crates/caudal/src/roles/demo.rs", "line 2 reads the environment"));
        assert!(says(&findings, "crates/caudal-engine/src/engine.rs", "line 1"));
        assert_eq!(findings.len(), 2);
    }

    #[test]
    fn a_clock_in_the_core_is_found() {
        let file = "crates/caudal-core/src/receipt.rs";
        assert!(says(&clock(&Tree::of(&[(file, "let now = SystemTime::now();\n")])), file, "reads the clock"));
        assert_eq!(clock(&Tree::of(&[("crates/caudal-engine/src/clock.rs", "SystemTime::now();\n")])), []);
    }

    #[test]
    fn unfinished_work_is_found() {
        let file = "crates/caudal-http/src/x.rs";
        for name in ["todo", "dbg", "unimplemented"] {
            let planted = Tree::of(&[(file, &format!("    {name}!(x);\n")[..])]);
            assert!(says(&left_overs(&planted), file, name), "{name}");
            assert_eq!(left_overs(&Tree::of(&[(file, &format!("    my_{name}!(x);\n")[..])])), []);
        }
    }

    #[test]
    fn a_large_main_is_found() {
        assert!(says(&main_is_small(&Tree::of(&[(MAIN, &"x\n".repeat(60)[..])])), MAIN, "60 lines"));
        assert_eq!(main_is_small(&Tree::of(&[(MAIN, &"x\n".repeat(59)[..])])), []);
        assert!(says(&main_is_small(&Tree::of(&[])), MAIN, "missing"));
    }

    #[test]
    fn long_files_warn_then_fail() {
        let of = |lines: usize| file_length(&Tree::of(&[("a.rs", &"x\n".repeat(lines)[..])]));
        assert_eq!(of(500), []);
        assert!(of(501)[0].warning);
        assert!(of(700)[0].warning);
        assert!(says(&of(701), "a.rs", "701 lines"));
    }
}
