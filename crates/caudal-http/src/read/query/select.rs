//! What to answer with: columns, JSON paths, casts, aggregates, related tables.

use super::scan::Scan;
use super::{DEPTH_MAX, ITEMS_MAX, SyntaxError};

/// A column by name, and a path into its JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldName {
    pub(crate) name: String,
    pub(crate) json: Vec<JsonStep>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JsonStep {
    pub(crate) arrow: Arrow,
    pub(crate) key: StepKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrow {
    /// `->`
    Json,
    /// `->>`
    Text,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StepKey {
    Key(String),
    /// Negative ones count from the end.
    Index(i64),
}

/// One item of a select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// `*`
    All,
    /// `alias:count()::cast`
    Count {
        alias: Option<String>,
        cast: Option<String>,
    },
    /// `alias:field::cast.aggregate()::aggregate_cast`
    Field {
        alias: Option<String>,
        field: FieldName,
        cast: Option<String>,
        aggregate: Option<String>,
        aggregate_cast: Option<String>,
    },
    Related(Related),
}

/// `alias:relation!hint!inner(…)`, or with `...` before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Related {
    pub(crate) alias: Option<String>,
    pub(crate) relation: String,
    pub(crate) hint: Option<String>,
    /// `!inner` or, said out loud, `!left`.
    pub(crate) inner: Option<bool>,
    pub(crate) spread: bool,
    pub(crate) select: Vec<Item>,
}

pub(super) fn items(text: &str) -> Result<Vec<Item>, SyntaxError> {
    let mut scan = Scan::new("select", text);
    if scan.is_at_end() {
        return Ok(Vec::new());
    }
    let mut left = ITEMS_MAX;
    let items = list(&mut scan, 0, &mut left)?;
    scan.end()?;
    Ok(items)
}

fn list(scan: &mut Scan<'_>, depth: usize, left: &mut usize) -> Result<Vec<Item>, SyntaxError> {
    if depth > DEPTH_MAX {
        return Err(SyntaxError::TooDeep { part: "select" });
    }
    let mut items = Vec::new();
    if scan.looks_at(")") {
        return Ok(items);
    }
    loop {
        *left = left.checked_sub(1).ok_or(SyntaxError::TooMany)?;
        items.push(item(scan, depth, left)?);
        if !scan.take(",") {
            return Ok(items);
        }
    }
}

fn item(scan: &mut Scan<'_>, depth: usize, left: &mut usize) -> Result<Item, SyntaxError> {
    if scan.take("*") {
        return Ok(Item::All);
    }
    if scan.take("...") {
        let relation = scan.name()?;
        return related(scan, None, relation, true, depth, left);
    }
    let alias = scan.attempt(|scan| {
        let name = scan.name().ok()?;
        (!scan.looks_at("::") && scan.take(":")).then_some(name)
    });
    if scan.take("count()") {
        return Ok(Item::Count { alias, cast: cast(scan)? });
    }
    let name = scan.name()?;
    if scan.looks_at("(") || scan.looks_at("!") {
        return related(scan, alias, name, false, depth, left);
    }
    let mut field = FieldName { name, json: Vec::new() };
    // A column's own name may hold dots; `.sum()` is no part of it.
    while scan.looks_at(".") && aggregate(scan).is_none() {
        scan.take(".");
        field.name.push('.');
        field.name.push_str(&scan.name()?);
    }
    field.json = scan.json()?;
    let first = cast(scan)?;
    let Some(word) = aggregate(scan) else {
        return Ok(Item::Field { alias, field, cast: first, aggregate: None, aggregate_cast: None });
    };
    scan.take(".");
    scan.take(&word);
    scan.take("()");
    Ok(Item::Field { alias, field, cast: first, aggregate_cast: cast(scan)?, aggregate: Some(word) })
}

/// The word of `.word()` here.
fn aggregate(scan: &Scan<'_>) -> Option<String> {
    let word = &scan.rest().strip_prefix('.')?;
    let word = &word[..word.find("()")?];
    (!word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase())).then(|| word.to_owned())
}

/// `::type`, with spaces, digits, brackets and lengths as SQL writes types.
fn cast(scan: &mut Scan<'_>) -> Result<Option<String>, SyntaxError> {
    if !scan.take("::") {
        return Ok(None);
    }
    let word = scan.until(&[',', '.', ')', '(', ':']).trim();
    if word.is_empty() { Err(scan.expected("a type")) } else { Ok(Some(word.to_owned())) }
}

fn related(
    scan: &mut Scan<'_>,
    alias: Option<String>,
    relation: String,
    spread: bool,
    depth: usize,
    left: &mut usize,
) -> Result<Item, SyntaxError> {
    let (mut hint, mut inner) = (None, None);
    while scan.take("!") {
        match scan.name()?.as_str() {
            "inner" if inner.is_none() => inner = Some(true),
            "left" if inner.is_none() => inner = Some(false),
            word if hint.is_none() => hint = Some(word.to_owned()),
            _ => return Err(scan.expected("one hint and one of !inner and !left at most")),
        }
    }
    scan.expect("(", "a list of columns in parentheses")?;
    let select = list(scan, depth + 1, left)?;
    scan.expect(")", "a closing parenthesis")?;
    Ok(Item::Related(Related { alias, relation, hint, inner, spread, select }))
}
