//! A row's fields in JSON. One value has one spelling, whichever store it came from.

use super::write_string;
use crate::row::{Row, field};
use crate::schema::{Column, ColumnType};

/// A row as an object with a member a column.
pub fn write_row<'c>(out: &mut Vec<u8>, columns: impl IntoIterator<Item = &'c Column>, row: Row<'_>) {
    let mut between: &[u8] = b"{";
    for (column, value) in columns.into_iter().zip(row) {
        out.extend_from_slice(std::mem::replace(&mut between, b","));
        write_string(out, &column.name);
        out.push(b':');
        match value {
            Some(value) => write_field(out, column.ty, value),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.extend_from_slice(if between == b"{" { b"{}" } else { b"}" });
}

/// A field as a JSON value.
pub fn write_field(out: &mut Vec<u8>, ty: ColumnType, value: &[u8]) {
    match ty {
        ColumnType::Text => write_string(out, field::text(value)),
        ColumnType::Jsonb => out.extend_from_slice(field::json(value).as_bytes()),
        ColumnType::Int8 | ColumnType::Float8 | ColumnType::Bool => write_field_plain(out, ty, value),
        ColumnType::Timestamptz | ColumnType::Date | ColumnType::Uuid => {
            out.push(b'"');
            write_field_plain(out, ty, value);
            out.push(b'"');
        }
    }
}

/// A field as its text, without quotes: the same for CSV as within a JSON string.
pub fn write_field_plain(out: &mut Vec<u8>, ty: ColumnType, value: &[u8]) {
    match ty {
        ColumnType::Int8 => out.extend_from_slice(itoa::Buffer::new().format(field::int8(value)).as_bytes()),
        ColumnType::Float8 => float(out, field::float8(value)),
        ColumnType::Bool => out.extend_from_slice(if field::boolean(value) { b"true" } else { b"false" }),
        ColumnType::Timestamptz => field::timestamp(value).write_to(out),
        ColumnType::Date => field::date(value).write_to(out),
        ColumnType::Uuid => {
            let mut text = uuid::Uuid::encode_buffer();
            out.extend_from_slice(field::uuid(value).as_hyphenated().encode_lower(&mut text).as_bytes());
        }
        ColumnType::Text => out.extend_from_slice(value),
        ColumnType::Jsonb => out.extend_from_slice(field::json(value).as_bytes()),
    }
}

/// The shortest text that reads back as the same double; whole numbers without a fraction, as PostgreSQL writes them.
fn float(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        // JSON has no word for these; tables that Caudal did not fill may hold them.
        out.extend_from_slice(b"null");
    } else if value.fract() == 0.0 && value.abs() < 1e15 && !(value == 0.0 && value.is_sign_negative()) {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    }
}
