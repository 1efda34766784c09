//! Every error code has a page, every page has a code, and the list has them all.

use std::collections::BTreeMap;

use super::Finding;
use super::source::code_lines;
use super::tree::Tree;

const CODES: &str = "crates/caudal-core/src/rejection.rs";
const HTTP: &str = "crates/caudal-http/src/";
const PAGES: &str = "docs/errors/";
const LIST: &str = "docs/errors/README.md";
/// The functions that take a code as a string, and which of their arguments it is.
const CALLS: [(&str, usize); 4] = [("Problem::new(", 1), ("Self::new(", 1), ("bad_request(", 0), ("unavailable(", 0)];

pub(super) fn pages(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let codes = codes(tree);
    if codes.is_empty() {
        findings.push(Finding::new(
            CODES,
            "holds no codes in the form `Code::Name => \"name\"`: is this rule out of date?",
        ));
    }
    for (code, file) in &codes {
        if tree.text(&format!("{PAGES}{code}.md")).is_none() {
            findings.push(Finding::new(file.as_str(), format!("code {code:?} has no page: write {PAGES}{code}.md")));
        }
    }
    let list = tree.text(LIST).unwrap_or_default();
    for (path, _) in tree.texts(PAGES, ".md").filter(|(path, _)| *path != LIST) {
        let name = path.trim_start_matches(PAGES);
        let code = name.trim_end_matches(".md");
        if !codes.contains_key(code) {
            findings
                .push(Finding::new(path, format!("no code {code:?} is made by {CODES} or {HTTP}: remove the page")));
        }
        if !list.contains(&format!("({name})")) {
            findings.push(Finding::new(LIST, format!("does not list {name}: add a line")));
        }
    }
    findings
}

/// The codes, and a file that has each.
fn codes(tree: &Tree) -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    for line in tree.text(CODES).unwrap_or_default().lines() {
        if let Some((_, name)) = line.trim().strip_prefix("Code::").and_then(|rest| rest.split_once(" => \"")) {
            codes.insert(name.trim_end_matches([',', '"']).to_owned(), CODES.to_owned());
        }
    }
    for (path, text) in tree.texts(HTTP, ".rs") {
        let code: String = code_lines(text).map(|(_, line)| format!("{line}\n")).collect();
        for literal in literals_of_calls(&code) {
            codes.entry(literal.to_owned()).or_insert_with(|| path.to_owned());
        }
    }
    codes
}

/// The codes written out in calls that make a problem; a code that comes from [`CODES`] is no literal.
fn literals_of_calls(text: &str) -> Vec<&str> {
    let mut literals = Vec::new();
    for (call, position) in CALLS {
        for (at, _) in text.match_indices(call) {
            // What comes before a code is a status, which has no comma.
            let argument = text[at + call.len()..].split(',').nth(position).unwrap_or_default();
            let word = argument.trim().strip_prefix('"').and_then(|rest| rest.split('"').next()).unwrap_or_default();
            if !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                literals.push(word);
            }
        }
    }
    literals
}

#[cfg(test)]
mod tests {
    use super::super::says;
    use super::*;

    const REJECTION: (&str, &str) = (CODES, "            Code::TooDeep => \"too_deep\",\n");
    const PAGE: (&str, &str) = ("docs/errors/too_deep.md", "#");
    const LISTED: (&str, &str) = (LIST, "[`too_deep`](too_deep.md) [`x`](x.md)");

    #[test]
    fn a_code_with_a_page_and_a_line_is_fine() {
        assert_eq!(pages(&Tree::of(&[REJECTION, PAGE, LISTED])), []);
    }

    #[test]
    fn a_code_without_a_page_is_found() {
        assert!(says(&pages(&Tree::of(&[REJECTION, LISTED])), CODES, "write docs/errors/too_deep.md"));
        let http = "crates/caudal-http/src/guard.rs";
        for made in [
            "Problem::new(StatusCode::URI_TOO_LONG, \"x\", detail)",
            "Problem::new(\n    StatusCode::URI_TOO_LONG,\n    \"x\",\n    \"detail\",\n)",
            "Self::new(StatusCode::CONFLICT, \"x\", \"a detail\")",
            "Problem::bad_request(\"x\", \"detail\")",
            "unavailable(\"x\", &error)",
        ] {
            assert!(
                says(&pages(&Tree::of(&[REJECTION, PAGE, LISTED, (http, made)])), http, "\"x\" has no page"),
                "{made}"
            );
        }
        let other = "Problem::bad_request(Code::TooDeep.name(), \"detail\")";
        assert_eq!(pages(&Tree::of(&[REJECTION, PAGE, LISTED, (http, other)])), []);
    }

    #[test]
    fn a_page_without_a_code_or_a_line_is_found() {
        let findings = pages(&Tree::of(&[REJECTION, PAGE, LISTED, ("docs/errors/gone.md", "#")]));
        assert!(says(&findings, "docs/errors/gone.md", "remove the page"));
        assert!(says(&findings, LIST, "does not list gone.md"));
    }

    #[test]
    fn a_rule_that_finds_no_codes_says_so() {
        assert!(says(&pages(&Tree::of(&[])), CODES, "out of date"));
    }
}
