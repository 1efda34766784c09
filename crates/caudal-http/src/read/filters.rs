//! Filters of the read grammar: `eq.5`, `not.in.(a,b)`, `like.A*`, `or=(a.eq.1,b.gt.2)`.

use caudal_core::plan::{Comparison, Filter, Is, Scalar};
use caudal_core::schema::{ColumnType, Table};

use super::grammar::unknown_column;
use crate::problem::{Problem, excerpt};

const OPERATORS: &str = "eq, neq, gt, gte, lt, lte, like, in, is, each after an optional not.";
/// Logic trees deeper than this are refused.
const LOGIC_DEPTH_MAX: usize = 8;

pub(super) fn bad_filter(detail: impl Into<String>) -> Problem {
    Problem::bad_request("bad_filter", detail.into())
}

/// `column=value`, with `value` as it stands after decoding.
pub(super) fn parse(table: &Table, column: &str, value: &str) -> Result<Filter, Problem> {
    let column = table.column(column).ok_or_else(|| unknown_column(table, column))?;
    operation(table, column, value, false)
}

/// `and=(…)`, `or=(…)` and their `not.` forms; `value` holds the parentheses.
pub(super) fn parse_logic(table: &Table, name: &str, value: &str) -> Result<Filter, Problem> {
    logic(table, name, value, 0)
}

fn logic(table: &Table, name: &str, value: &str, depth: usize) -> Result<Filter, Problem> {
    if depth > LOGIC_DEPTH_MAX {
        return Err(bad_filter(format!("logic is nested more than {LOGIC_DEPTH_MAX} deep")));
    }
    let inner = value.trim().strip_prefix('(').and_then(|v| v.strip_suffix(')'));
    let inner = inner.ok_or_else(|| bad_filter(format!("{name} takes a list in parentheses")))?;
    let mut filters = Vec::new();
    for term in split_list(inner)? {
        filters.push(term_of_logic(table, term.trim(), depth)?);
    }
    let (negated, name) = name.strip_prefix("not.").map_or((false, name), |rest| (true, rest));
    let filter = if name == "and" { Filter::And(filters) } else { Filter::Or(filters) };
    Ok(if negated { Filter::Not(Box::new(filter)) } else { filter })
}

fn term_of_logic(table: &Table, term: &str, depth: usize) -> Result<Filter, Problem> {
    for name in ["and", "or", "not.and", "not.or"] {
        if let Some(rest) = term.strip_prefix(name).filter(|rest| rest.starts_with('(')) {
            return logic(table, name, rest, depth + 1);
        }
    }
    // A column's own name may hold dots: take the longest one that the table has.
    let mut dots = term.match_indices('.').map(|(i, _)| i);
    let split = dots.rfind(|i| table.column(term[..*i].trim_matches('"')).is_some());
    let Some(at) = split else {
        let name = term.split('.').next().unwrap_or(term);
        return Err(unknown_column(table, name));
    };
    let column = table.column(term[..at].trim_matches('"')).unwrap_or_default();
    operation(table, column, &term[at + 1..], true)
}

/// `[not.]op.value`. In a logic tree values may be quoted.
fn operation(table: &Table, column: usize, text: &str, in_logic: bool) -> Result<Filter, Problem> {
    if let Some(rest) = text.strip_prefix("not.") {
        return Ok(Filter::Not(Box::new(operation(table, column, rest, in_logic)?)));
    }
    let Some((op, value)) = text.split_once('.') else {
        return Err(bad_filter(format!(
            "{:?} is not a filter; write <column>=<operator>.<value> with one of {OPERATORS}",
            excerpt(text)
        )));
    };
    let unquoted;
    let value = if in_logic && value.starts_with('"') {
        unquoted = unquote(value)?;
        unquoted.as_str()
    } else {
        value
    };
    let compare = |op| scalar(table, column, value).map(|value| Filter::Compare { column, op, value });
    match op {
        "eq" => compare(Comparison::Eq),
        "neq" => compare(Comparison::Neq),
        "gt" => compare(Comparison::Gt),
        "gte" => compare(Comparison::Gte),
        "lt" => compare(Comparison::Lt),
        "lte" => compare(Comparison::Lte),
        "like" => like(table, column, value),
        "in" => list(table, column, value),
        "is" => is(table, column, value),
        other => Err(bad_filter(format!("operator {:?} is not offered; there are {OPERATORS}", excerpt(other)))),
    }
}

fn scalar(table: &Table, column: usize, text: &str) -> Result<Scalar, Problem> {
    let column = &table.columns[column];
    Scalar::of(column, text).ok_or_else(|| {
        let detail = format!("{:?} is not a value of {} ({})", excerpt(text), column.name, column.type_name());
        Problem::bad_request("bad_value", detail)
    })
}

fn like(table: &Table, column: usize, value: &str) -> Result<Filter, Problem> {
    if table.columns[column].ty != ColumnType::Text {
        return Err(bad_filter(format!("like works on text columns, which {:?} is not", table.columns[column].name)));
    }
    let pattern = value.replace('*', "%");
    if pattern.contains('\0') || pattern.len() > 1024 {
        return Err(bad_filter("a pattern has at most 1024 bytes and no NUL"));
    }
    Ok(Filter::Like { column, pattern })
}

fn list(table: &Table, column: usize, value: &str) -> Result<Filter, Problem> {
    let inner = value.strip_prefix('(').and_then(|v| v.strip_suffix(')'));
    let inner = inner.ok_or_else(|| bad_filter("in takes a list in parentheses: in.(a,b)"))?;
    let mut values = Vec::new();
    for item in split_list(inner)? {
        let text = if item.starts_with('"') { unquote(item)? } else { item.to_owned() };
        values.push(scalar(table, column, &text)?);
    }
    Ok(Filter::In { column, values })
}

fn is(table: &Table, column: usize, value: &str) -> Result<Filter, Problem> {
    let is = |what| Filter::Is { column, what };
    let boolean = table.columns[column].ty == ColumnType::Bool;
    match value.to_ascii_lowercase().as_str() {
        "null" => Ok(is(Is::Null)),
        "not_null" => Ok(Filter::Not(Box::new(is(Is::Null)))),
        "true" if boolean => Ok(is(Is::True)),
        "false" if boolean => Ok(is(Is::False)),
        "unknown" if boolean => Ok(is(Is::Null)),
        _ => Err(bad_filter("is takes null or not_null; on boolean columns also true, false and unknown")),
    }
}

/// Splits at commas outside quotes and parentheses; nothing between the ends is no item at all.
fn split_list(text: &str) -> Result<Vec<&str>, Problem> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut items = Vec::new();
    let (mut start, mut depth, mut quoted, mut escaped) = (0, 0usize, false, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.checked_sub(1).ok_or_else(|| bad_filter("one parenthesis too many"))?,
            b',' if !quoted && depth == 0 => {
                items.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if quoted || depth > 0 {
        return Err(bad_filter("a quote or parenthesis is not closed"));
    }
    items.push(&text[start..]);
    Ok(items)
}

/// `"…"` with `\"` and `\\` escapes.
fn unquote(text: &str) -> Result<String, Problem> {
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    let inner = inner.ok_or_else(|| bad_filter("a quoted value does not end in its quote"))?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            '"' => return Err(bad_filter("a quote inside a quoted value needs a backslash")),
            c => out.push(c),
        }
    }
    Ok(out)
}
