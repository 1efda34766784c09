//! Between the bytes of a row and SQLite's values.
//!
//! `int8` INTEGER · `float8` REAL · `bool` INTEGER 0 or 1 · `text` TEXT · `uuid` TEXT, lower-case with hyphens ·
//! `date` TEXT · `timestamptz` TEXT as [`Instant`] writes it, which sorts by time · `jsonb` TEXT.

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::json;
use caudal_core::plan::Scalar;
use caudal_core::row::{RowBatch, RowWriter, field};
use caudal_core::schema::{Column, ColumnType};
use caudal_core::time::{Date, Instant};
use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use uuid::Uuid;

pub(super) fn sql_type(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Int8 | ColumnType::Bool => "INTEGER",
        ColumnType::Float8 => "REAL",
        _ => "TEXT",
    }
}

/// A field of a row as a value to bind; text is borrowed.
pub(super) fn bound(ty: ColumnType, bytes: Option<&[u8]>) -> ToSqlOutput<'_> {
    let Some(bytes) = bytes else { return ToSqlOutput::Owned(Value::Null) };
    let owned = |text: String| ToSqlOutput::Owned(Value::Text(text));
    match ty {
        ColumnType::Int8 => ToSqlOutput::Owned(Value::Integer(field::int8(bytes))),
        ColumnType::Float8 => ToSqlOutput::Owned(Value::Real(field::float8(bytes))),
        ColumnType::Bool => ToSqlOutput::Owned(Value::Integer(field::boolean(bytes).into())),
        ColumnType::Text => ToSqlOutput::Borrowed(ValueRef::Text(bytes)),
        ColumnType::Jsonb => ToSqlOutput::Borrowed(ValueRef::Text(bytes.get(1..).unwrap_or_default())),
        ColumnType::Timestamptz => owned(field::timestamp(bytes).to_string()),
        ColumnType::Date => owned(field::date(bytes).to_string()),
        ColumnType::Uuid => owned(field::uuid(bytes).to_string()),
    }
}

pub(super) fn of_scalar(value: &Scalar) -> Value {
    match value {
        Scalar::Int8(v) => Value::Integer(*v),
        Scalar::Float8(v) => Value::Real(*v),
        Scalar::Bool(v) => Value::Integer((*v).into()),
        // SQLite gives a literal's text the affinity of the column that it is compared with.
        Scalar::Text(v) | Scalar::Jsonb(v) | Scalar::Literal(v) => Value::Text(v.clone()),
        Scalar::Exact(v) => of_exact(v),
        Scalar::Timestamptz(v) => Value::Text(v.to_string()),
        Scalar::Date(v) => Value::Text(v.to_string()),
        Scalar::Uuid(v) => Value::Text(v.to_string()),
    }
}

/// A value of whatever kind as text, its kind before it; null for null.
pub(super) fn exact(value: ValueRef<'_>) -> Option<String> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(v) => format!("i{v}"),
        ValueRef::Real(v) => format!("r{}", v.to_bits()),
        ValueRef::Text(v) => format!("t{}", String::from_utf8_lossy(v)),
        ValueRef::Blob(v) => v.iter().fold("b".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    })
}

/// What [`exact`] was made of.
pub(super) fn of_exact(text: &str) -> Value {
    let rest = text.get(1..).unwrap_or_default();
    let pair = |at| u8::from_str_radix(rest.get(at..at + 2)?, 16).ok();
    match text.bytes().next() {
        Some(b'i') => rest.parse().map_or(Value::Null, Value::Integer),
        Some(b'r') => rest.parse().map_or(Value::Null, |bits| Value::Real(f64::from_bits(bits))),
        Some(b'b') => Value::Blob((0..rest.len()).step_by(2).filter_map(pair).collect()),
        _ => Value::Text(rest.to_owned()),
    }
}

/// Appends the result's columns from `first` on as one row of a batch.
pub(super) fn push_row<'c>(
    to: &mut RowBatch,
    row: &Row<'_>,
    first: usize,
    columns: impl ExactSizeIterator<Item = &'c Column>,
) -> Result<(), StoreError> {
    let mut out = to.begin(columns.len());
    for (index, column) in columns.enumerate() {
        let value = row.get_ref(first + index).map_err(super::error::store_error)?;
        let written = match column.declared {
            Some(_) => write_any(&mut out, column.ty, value),
            None => write(&mut out, column.ty, value),
        };
        if written.is_none() {
            return Err(StoreError::Setup(format!(
                "column {} holds a value that is no {}: it was not written by Caudal",
                column.name,
                column.ty.name()
            )));
        }
    }
    out.finish();
    Ok(())
}

/// Whatever value a column of another's table holds, as its type in the answer.
fn write_any(out: &mut RowWriter<'_>, ty: ColumnType, value: ValueRef<'_>) -> Option<()> {
    let text = if ty == ColumnType::Jsonb { any_as_json(value) } else { any_as_text(value) };
    match (text, ty) {
        (None, _) => out.null(),
        (Some(text), ColumnType::Jsonb) => out.json(text.as_bytes()),
        (Some(text), _) => out.text(&text),
    }
    Some(())
}

pub(super) fn any_as_json(value: ValueRef<'_>) -> Option<String> {
    Some(match value {
        // JSON has no word for infinity.
        ValueRef::Real(v) if !v.is_finite() => "null".to_owned(),
        ValueRef::Text(_) | ValueRef::Blob(_) => json_string(&any_as_text(value)?),
        value => any_as_text(value)?,
    })
}

/// The text that SQLite would make of it; blobs in hexadecimal, as PostgreSQL writes `bytea`, and doubles with the shortest
/// digits that read back as the same.
pub(super) fn any_as_text(value: ValueRef<'_>) -> Option<String> {
    Some(match value {
        ValueRef::Null => return None,
        ValueRef::Integer(v) => v.to_string(),
        ValueRef::Real(v) => format!("{v:?}"),
        ValueRef::Text(v) => String::from_utf8_lossy(v).into_owned(),
        ValueRef::Blob(v) => hex(v),
    })
}

fn json_string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::write_string(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    bytes.iter().for_each(|byte| {
        let _ = write!(text, "{byte:02x}");
    });
    text
}

/// A value as one of the column's type; `None` when it is none.
pub(super) fn write(out: &mut RowWriter<'_>, ty: ColumnType, value: ValueRef<'_>) -> Option<()> {
    let text = || value.as_str().ok();
    match (ty, value) {
        (_, ValueRef::Null) => out.null(),
        (ColumnType::Int8, ValueRef::Integer(v)) => out.int8(v),
        (ColumnType::Bool, ValueRef::Integer(v)) => out.boolean(v != 0),
        (ColumnType::Float8, ValueRef::Real(v)) => out.float8(v),
        (ColumnType::Float8, ValueRef::Integer(v)) => out.float8(v as f64),
        (ColumnType::Text, ValueRef::Text(v)) => out.raw(v),
        (ColumnType::Jsonb, ValueRef::Text(v)) => out.json(v),
        (ColumnType::Timestamptz, _) => out.timestamp(Instant::parse(text()?)?),
        (ColumnType::Date, _) => out.date(Date::parse(text()?)?),
        (ColumnType::Uuid, _) => out.uuid(Uuid::try_parse(text()?).ok()?),
        _ => return None,
    }
    Some(())
}
