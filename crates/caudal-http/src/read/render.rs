//! Rows as JSON, NDJSON or CSV. One value has one spelling, whichever store it came from.

use caudal_core::json::{self, Scanner, write_field, write_field_plain, write_string};
use caudal_core::row::{Row, RowBatch, field};
use caudal_core::schema::ColumnType;

/// A column of an answer.
#[derive(Debug, Clone)]
struct Shown {
    /// `"name":`, with a comma before it unless it is the first.
    prefix: Vec<u8>,
    name: String,
    ty: ColumnType,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One array.
    Json,
    /// One object a line.
    Ndjson,
    /// RFC 4180 with a header line.
    Csv,
}

/// Writes rows in one encoding. Keeps the little state that a stream of batches needs.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    columns: Vec<Shown>,
    encoding: Encoding,
    started: bool,
    /// Leave out what is null, in JSON values too.
    stripped: bool,
}

impl Renderer {
    pub(crate) fn new(columns: impl IntoIterator<Item = (String, ColumnType)>, encoding: Encoding) -> Self {
        let shown = |(i, (name, ty)): (usize, (String, ColumnType))| {
            let mut prefix = Vec::with_capacity(name.len() + 4);
            if i > 0 {
                prefix.push(b',');
            }
            write_string(&mut prefix, &name);
            prefix.push(b':');
            Shown { prefix, name, ty }
        };
        Self {
            columns: columns.into_iter().enumerate().map(shown).collect(),
            encoding,
            started: false,
            stripped: false,
        }
    }

    /// Without members that are null.
    pub(crate) fn stripped(mut self, stripped: bool) -> Self {
        self.stripped = stripped;
        self
    }

    /// The rows of one batch, continuing what was written before.
    pub(crate) fn batch(&mut self, rows: &RowBatch) -> Vec<u8> {
        let mut out = Vec::with_capacity(rows.byte_len() * 2 + 64);
        for row in rows.rows() {
            match self.encoding {
                Encoding::Json => {
                    out.extend_from_slice(if self.started { b",\n" } else { b"[" });
                    self.object(&mut out, row);
                }
                Encoding::Ndjson => {
                    self.object(&mut out, row);
                    out.push(b'\n');
                }
                Encoding::Csv => {
                    if !self.started {
                        self.csv_header(&mut out);
                    }
                    self.csv_row(&mut out, row);
                }
            }
            self.started = true;
        }
        out
    }

    /// What closes the answer; the whole of it when there was no row.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.encoding {
            Encoding::Json => out.extend_from_slice(if self.started { b"]" } else { b"[]" }),
            Encoding::Csv if !self.started => self.csv_header(&mut out),
            _ => {}
        }
        out
    }

    /// One row as a JSON object.
    pub(crate) fn object(&self, out: &mut Vec<u8>, row: Row<'_>) {
        if self.stripped {
            return self.stripped_object(out, row);
        }
        out.push(b'{');
        for (column, value) in self.columns.iter().zip(row) {
            out.extend_from_slice(&column.prefix);
            match value {
                Some(value) => write_field(out, column.ty, value),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }

    fn stripped_object(&self, out: &mut Vec<u8>, row: Row<'_>) {
        out.push(b'{');
        let mut between: &[u8] = b"";
        for (column, value) in self.columns.iter().zip(row) {
            let Some(value) = value else { continue };
            out.extend_from_slice(std::mem::replace(&mut between, b","));
            out.extend_from_slice(column.prefix.strip_prefix(b",").unwrap_or(&column.prefix));
            match column.ty {
                ColumnType::Jsonb => without_nulls(out, field::json(value)),
                ty => write_field(out, ty, value),
            }
        }
        out.push(b'}');
    }

    fn csv_header(&self, out: &mut Vec<u8>) {
        for (i, column) in self.columns.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            csv_text(out, &column.name);
        }
        out.extend_from_slice(b"\r\n");
    }

    fn csv_row(&self, out: &mut Vec<u8>, row: Row<'_>) {
        for (i, (column, value)) in self.columns.iter().zip(row).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            match (column.ty, value) {
                (_, None) => {}
                (ColumnType::Text, Some(value)) => csv_text(out, field::text(value)),
                (ColumnType::Jsonb, Some(value)) => csv_text(out, field::json(value)),
                (ty, Some(value)) => write_field_plain(out, ty, value),
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A JSON value without the members of its objects that are null, as PostgreSQL's `json_strip_nulls`; items of arrays stay.
/// Numbers keep their digits.
fn without_nulls(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    // What is beyond Caudal's own limits is shown as it is.
    if strip(out, text).is_err() {
        out.truncate(start);
        out.extend_from_slice(text.as_bytes());
    }
}

fn strip(out: &mut Vec<u8>, text: &str) -> Result<(), json::Fault> {
    let mut scanner = Scanner::new(text.as_bytes())?;
    let (mut first, mut shown) = (true, false);
    match text.trim_ascii_start().bytes().next() {
        Some(b'{') => {
            scanner.open_object()?;
            out.push(b'{');
            while let Some(key) = scanner.next_key(std::mem::take(&mut first))? {
                let value = scanner.value()?;
                if value != "null" {
                    out.extend_from_slice(if std::mem::replace(&mut shown, true) { b"," } else { b"" });
                    write_string(out, &key);
                    out.push(b':');
                    strip(out, value)?;
                }
            }
            out.push(b'}');
        }
        Some(b'[') => {
            scanner.open_array()?;
            out.push(b'[');
            while scanner.next_item(std::mem::take(&mut first))? {
                out.extend_from_slice(if std::mem::replace(&mut shown, true) { b"," } else { b"" });
                strip(out, scanner.value()?)?;
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
    Ok(())
}

/// RFC 4180 quoting, and also around what a spreadsheet would run as a formula.
fn csv_text(out: &mut Vec<u8>, text: &str) {
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
