//! What PostgreSQL has and SQLite has not, as functions of every reading connection, so that both give the same answers.

use caudal_core::json;
use caudal_core::plan::Scalar;
use caudal_core::schema::ColumnType;
use caudal_core::time::{Date, Instant};
use regex::Regex;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Error, Result};

use super::values::{any_as_json, exact, of_scalar};

/// `(a, b)`: whether two JSON texts mean the same.
pub(super) const JSON_SAME: &str = "caudal_json_same";
/// `(json, key or index)`: the JSON of one member, or null.
pub(super) const JSON_GET: &str = "caudal_json_get";
/// `(json)`: a string's characters, null for null, anything else as it is written.
pub(super) const JSON_TEXT: &str = "caudal_json_text";
/// `(value)`: JSON of whatever a column of another's table holds.
pub(super) const JSON_ANY: &str = "caudal_json_any";
/// `(value)`: text that [`of_exact`](super::values::of_exact) makes the same value of again.
pub(super) const EXACT: &str = "caudal_exact";
/// `(value, type, other type)`, or an error that begins with [`REFUSED`].
pub(super) const CAST: &str = "caudal_cast";
/// `(pattern, text)`: LIKE without regard to case.
pub(super) const LIKE: &str = "caudal_like";
/// `(pattern, text)`: a regular expression.
pub(super) const MATCH: &str = "caudal_match";

/// How the message of an error begins that is the caller's to change.
pub(super) const REFUSED: &str = "refused: ";
/// A pattern's program may have this many bytes.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn register(conn: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function(JSON_SAME, 2, flags, |context| {
        let pair = text(context, 0).zip(text(context, 1));
        Ok(pair.map(|(a, b)| json::same(a, b)))
    })?;
    conn.create_scalar_function(JSON_GET, 2, flags, |context| {
        let Some(document) = text(context, 0) else { return Ok(None) };
        Ok(match context.get_raw(1) {
            ValueRef::Integer(index) => json::item(document, index).map(str::to_owned),
            key => key.as_str().ok().and_then(|key| json::member(document, key)).map(str::to_owned),
        })
    })?;
    conn.create_scalar_function(JSON_TEXT, 1, flags, |context| Ok(text(context, 0).and_then(json::as_text)))?;
    conn.create_scalar_function(JSON_ANY, 1, flags, |context| Ok(any_as_json(context.get_raw(0))))?;
    conn.create_scalar_function(EXACT, 1, flags, |context| Ok(exact(context.get_raw(0))))?;
    conn.create_scalar_function(CAST, 3, flags, |context| {
        cast(context.get_raw(0), text(context, 1), text(context, 2))
    })?;
    conn.create_scalar_function(LIKE, 2, flags, |context| {
        Ok(text(context, 0).zip(text(context, 1)).map(|(pattern, text)| like(&folded(pattern), &folded(text))))
    })?;
    conn.create_scalar_function(MATCH, 2, flags, |context| {
        let pattern = context.get_or_create_aux(0, |pattern| -> Result<Regex> {
            let built = regex::RegexBuilder::new(pattern.as_str()?).size_limit(REGEX_BYTES_MAX).build();
            built.map_err(|error| refused(format!("not a regular expression: {error}")))
        })?;
        Ok(text(context, 1).map(|text| pattern.is_match(text)))
    })
}

fn text<'c>(context: &'c Context<'_>, index: usize) -> Option<&'c str> {
    context.get_raw(index).as_str_or_null().ok().flatten()
}

fn refused(why: String) -> Error {
    Error::UserFunctionError(format!("{REFUSED}{why}").into())
}

/// As PostgreSQL's `::`, for the pairs of types that a plan may have.
fn cast(value: ValueRef<'_>, from: Option<&str>, to: Option<&str>) -> Result<Value> {
    let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
    let bad = |text: &str| refused(format!("{text:?} is not a value of type {to}"));
    let in_range = |number: i64| {
        let fits = match to {
            "int2" => i16::try_from(number).is_ok(),
            "int4" => i32::try_from(number).is_ok(),
            _ => true,
        };
        if fits { Ok(Value::Integer(number)) } else { Err(refused(format!("{number} is out of range for type {to}"))) }
    };
    let whole = matches!(to, "int2" | "int4" | "int8");
    match (value, from, to) {
        (ValueRef::Null, ..) => Ok(Value::Null),
        (ValueRef::Integer(number), "int8", _) if whole => in_range(number),
        (ValueRef::Integer(number), "int8", "float8") => Ok(Value::Real(number as f64)),
        (ValueRef::Integer(number), "bool", "text") => Ok(Value::Text((number != 0).to_string())),
        (ValueRef::Integer(number), _, "text") => Ok(Value::Text(number.to_string())),
        (ValueRef::Real(number), _, _) if whole => match number.round_ties_even() {
            rounded if rounded >= -(2f64.powi(63)) && rounded < 2f64.powi(63) => in_range(rounded as i64),
            _ => Err(refused(format!("{number} is out of range for type {to}"))),
        },
        (ValueRef::Real(number), _, "text") => Ok(Value::Text(float(number))),
        (ValueRef::Text(_), ..) => {
            let text = value.as_str()?;
            match (from, to) {
                ("timestamptz", "date") => Instant::parse(text).map(|at| Value::Text(at.date().to_string())),
                ("timestamptz", "text") => Some(Value::Text(text.replacen('T', " ", 1).replace("+00:00", "+00"))),
                ("date", "timestamptz") => Date::parse(text).map(|day| Value::Text(day.midnight().to_string())),
                (from, to) if from == to => Some(Value::Text(text.to_owned())),
                (_, "text") => Some(Value::Text(text.to_owned())),
                ("text", _) => {
                    return of_text(text, to).ok_or_else(|| bad(text)).and_then(|value| match value {
                        Value::Integer(number) if whole => in_range(number),
                        value => Ok(value),
                    });
                }
                _ => None,
            }
            .ok_or_else(|| bad(text))
        }
        (ValueRef::Integer(number), from, to) if from == to => Ok(Value::Integer(number)),
        (ValueRef::Real(number), from, to) if from == to => Ok(Value::Real(number)),
        (value, ..) => Err(bad(&format!("{value:?}"))),
    }
}

fn of_text(text: &str, to: &str) -> Option<Value> {
    let ty = match to {
        "int2" | "int4" | "int8" => ColumnType::Int8,
        "float8" => ColumnType::Float8,
        "bool" => ColumnType::Bool,
        "date" => ColumnType::Date,
        "timestamptz" => ColumnType::Timestamptz,
        "uuid" => ColumnType::Uuid,
        "jsonb" => ColumnType::Jsonb,
        _ => return None,
    };
    Scalar::parse(ty, text).map(|scalar| of_scalar(&scalar))
}

/// As PostgreSQL writes doubles: whole ones without a fraction.
fn float(number: f64) -> String {
    match number.fract() == 0.0 && number.abs() < 1e15 {
        true => format!("{number:.0}"),
        false => format!("{number:?}"),
    }
}

fn folded(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// `%`, `_` and `\` as SQL has them. A `%` is tried again one character further each time what follows it does not fit, and
/// an earlier one never again, so the work is at most the product of both lengths.
fn like(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while t < text.len() {
        let (fits, width) = match pattern.get(p) {
            Some('%') => {
                again = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('_') => (true, 1),
            Some('\\') => (pattern.get(p + 1) == Some(&text[t]), 2),
            Some(c) => (*c == text[t], 1),
            None => (false, 0),
        };
        if fits {
            (p, t) = (p + width, t + 1);
        } else if let Some((after, from)) = again {
            (p, t) = (after, from + 1);
            again = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '%')
}
