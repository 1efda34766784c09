//! The query string of `/rest/v1/{table}` in PostgREST's form, as far as: `select` with aliases, `order`, `limit`, `offset`,
//! filters and logic. Embedding, casts, aggregates and json paths have their seam here and are not offered yet.

use std::sync::Arc;

use caudal_core::plan::{OrderBy, ReadPlan, Selected};
use caudal_core::schema::Table;
use percent_encoding::percent_decode_str;

use super::filters::{self, bad_filter};
use crate::problem::{Problem, choices, excerpt};

/// Reads a query string into a plan for `table`.
///
/// # Errors
/// `400` that names what is wrong and what there is instead.
pub(crate) fn parse(table: Arc<Table>, query: &str) -> Result<ReadPlan, Problem> {
    let mut plan = ReadPlan::all(table);
    for (name, value) in pairs(query)? {
        let table = plan.table.clone();
        match name.as_str() {
            "select" => plan.select = select(&table, &value)?,
            "order" => plan.order = order(&table, &value)?,
            "limit" => plan.limit = Some(number("limit", &value)?),
            "offset" => plan.offset = number("offset", &value)?,
            "and" | "or" | "not.and" | "not.or" => plan.filter.push(filters::parse_logic(&table, &name, &value)?),
            column => plan.filter.push(filters::parse(&table, column.trim_matches('"'), &value)?),
        }
    }
    plan.check().map_err(|error| bad_filter(error.to_string()))?;
    Ok(plan)
}

pub(super) fn unknown_column(table: &Table, name: &str) -> Problem {
    let known = table.columns.iter().map(|c| c.name.as_str());
    let detail = format!("{} has no column {:?}; {}", table.name, excerpt(name), choices(name, known));
    Problem::bad_request("unknown_column", detail)
}

/// Name and value of each parameter, decoded. Parameters without a value are ignored, as PostgREST does.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = Vec::new();
    for part in query.split('&') {
        let Some((name, value)) = part.split_once('=') else { continue };
        pairs.push((decode(name)?, decode(value)?));
    }
    Ok(pairs)
}

/// Undoes `+` and percent-encoding; refuses broken escapes, bytes that are not UTF-8, and NUL.
pub(crate) fn decode(text: &str) -> Result<String, Problem> {
    let bytes = text.as_bytes();
    for (i, _) in text.match_indices('%') {
        let hex = bytes.get(i + 1..i + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        if !hex {
            return Err(bad_filter("the query holds a broken %-escape"));
        }
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) if !decoded.contains('\0') => Ok(decoded.into_owned()),
        Ok(_) => Err(bad_filter("the query holds a NUL")),
        Err(_) => Err(bad_filter("the query is not UTF-8")),
    }
}

/// `a,alias:b`. Empty or `*` is every column.
fn select(table: &Table, value: &str) -> Result<Vec<Selected>, Problem> {
    let mut selected = Vec::new();
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if item == "*" {
            selected.extend(all(table));
            continue;
        }
        if item.contains(['(', ')']) || item.contains("::") || item.contains("->") {
            return Err(bad_filter(format!(
                "{:?}: embedding, aggregates, casts and json paths are not offered",
                excerpt(item)
            )));
        }
        let (alias, name) = match item.split_once(':') {
            Some((alias, name)) => (Some(alias.trim_matches('"')), name),
            None => (None, item),
        };
        let name = name.trim_matches('"');
        let column = table.column(name).ok_or_else(|| unknown_column(table, name))?;
        selected.push(Selected { column, name: alias.unwrap_or(name).to_owned() });
    }
    Ok(if selected.is_empty() { all(table).collect() } else { selected })
}

fn all(table: &Table) -> impl Iterator<Item = Selected> + '_ {
    table.columns.iter().enumerate().map(|(column, c)| Selected { column, name: c.name.clone() })
}

/// `a,b.desc.nullslast`.
fn order(table: &Table, value: &str) -> Result<Vec<OrderBy>, Problem> {
    let mut order: Vec<OrderBy> = Vec::new();
    for item in value.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let mut rest = item;
        let mut nulls_first = None;
        let mut descending = false;
        for (word, first) in [(".nullsfirst", true), (".nullslast", false)] {
            if let Some(cut) = rest.strip_suffix(word) {
                (rest, nulls_first) = (cut, Some(first));
                break;
            }
        }
        for (word, desc) in [(".asc", false), (".desc", true)] {
            if let Some(cut) = rest.strip_suffix(word) {
                (rest, descending) = (cut, desc);
                break;
            }
        }
        let name = rest.trim_matches('"');
        let column = table.column(name).ok_or_else(|| unknown_column(table, name))?;
        if order.iter().all(|o| o.column != column) {
            order.push(OrderBy { column, descending, nulls_first: nulls_first.unwrap_or(descending) });
        }
    }
    Ok(order)
}

/// Limits are bounded by what both stores take for one.
pub(crate) fn number(name: &str, value: &str) -> Result<u64, Problem> {
    let number = value.parse::<u64>().ok().filter(|n| *n <= i64::MAX as u64);
    number.ok_or_else(|| bad_filter(format!("{name} is a whole number from 0, which {:?} is not", excerpt(value))))
}
