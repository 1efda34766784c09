//! CSV for warehouses: RFC 4180, null as nothing, an empty text as `""`. Same spelling as CSV over HTTP, but for values of a double
//! that are no number, which JSON has no word for and a warehouse does.

use caudal_core::row::{Row, field};
use caudal_core::schema::ColumnType;

#[derive(Debug)]
pub(crate) struct Csv {
    types: Vec<ColumnType>,
    out: Vec<u8>,
}

impl Csv {
    /// Starts with the header line.
    pub(crate) fn new(columns: &[(String, ColumnType)]) -> Self {
        let mut out = Vec::new();
        for (i, (name, _)) in columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            text(&mut out, name);
        }
        out.extend_from_slice(b"\r\n");
        Self { types: columns.iter().map(|(_, ty)| *ty).collect(), out }
    }

    pub(crate) fn push(&mut self, row: Row<'_>) {
        for (i, (ty, value)) in self.types.iter().zip(row).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            if let Some(value) = value {
                write(&mut self.out, *ty, value);
            }
        }
        self.out.extend_from_slice(b"\r\n");
    }

    pub(crate) fn ready(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    pub(crate) fn held_bytes(&self) -> usize {
        self.out.len()
    }
}

fn write(out: &mut Vec<u8>, ty: ColumnType, value: &[u8]) {
    match ty {
        ColumnType::Text => text(out, field::text(value)),
        ColumnType::Jsonb => text(out, field::json(value)),
        ColumnType::Int8 => out.extend_from_slice(itoa::Buffer::new().format(field::int8(value)).as_bytes()),
        ColumnType::Float8 => out.extend_from_slice(ryu::Buffer::new().format(field::float8(value)).as_bytes()),
        ColumnType::Bool => out.extend_from_slice(if field::boolean(value) { b"true" } else { b"false" }),
        ColumnType::Timestamptz => field::timestamp(value).write_to(out),
        ColumnType::Date => field::date(value).write_to(out),
        ColumnType::Uuid => {
            let mut text = uuid::Uuid::encode_buffer();
            out.extend_from_slice(field::uuid(value).as_hyphenated().encode_lower(&mut text).as_bytes());
        }
    }
}

/// Quoted also around what a spreadsheet would run as a formula.
fn text(out: &mut Vec<u8>, text: &str) {
    let special = |b: u8| matches!(b, b',' | b'"' | b'\n' | b'\r');
    let formula = text.starts_with(['=', '+', '-', '@', '\t']);
    if !formula && !text.is_empty() && !text.bytes().any(special) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    for b in text.bytes() {
        if b == b'"' {
            out.push(b'"');
        }
        out.push(b);
    }
    out.push(b'"');
}
