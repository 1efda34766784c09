//! CSV with a header line (RFC 4180): each row becomes a JSON object, typed by the topic's columns.

use std::sync::Arc;

use bytes::Bytes;
use caudal_core::json::{self, Scanner};
use caudal_core::limits::RECORD_BYTES_MAX;
use caudal_core::rejection::{Code, Rejection};
use caudal_core::schema::{ColumnType, Table};
use csv_core::{ReadRecordResult, Reader};

use crate::problem::Problem;

/// One row as a record.
#[derive(Debug)]
pub(crate) struct CsvRow {
    pub(crate) json: Bytes,
    pub(crate) fault: Option<Rejection>,
}

#[derive(Debug)]
struct Header {
    /// `"name":` ready to write.
    prefix: Vec<u8>,
    ty: ColumnType,
}

/// Reads CSV piece by piece.
pub(crate) struct CsvRecords {
    table: Arc<Table>,
    reader: Reader,
    header: Option<Vec<Header>>,
    /// Fields of the row under way, one after another, and where each ends.
    fields: Vec<u8>,
    ends: Vec<usize>,
    fields_len: usize,
    ends_len: usize,
    started: bool,
}

const COLUMNS_MAX: usize = 2_000;

impl CsvRecords {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            reader: Reader::new(),
            header: None,
            fields: vec![0; 64 * 1024],
            ends: vec![0; 256],
            fields_len: 0,
            ends_len: 0,
            started: false,
        }
    }

    /// The rows that are complete with `piece`; `end` tells that nothing follows.
    ///
    /// # Errors
    /// `400` when the header line cannot be used: nothing was taken then.
    pub(crate) fn feed(&mut self, piece: Bytes, end: bool) -> Result<Vec<CsvRow>, Problem> {
        let mut input: &[u8] = &piece;
        if !self.started && !input.is_empty() {
            self.started = true;
            input = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
        }
        let mut rows = Vec::new();
        loop {
            let (result, read, wrote, ended) =
                self.reader.read_record(input, &mut self.fields[self.fields_len..], &mut self.ends[self.ends_len..]);
            input = &input[read..];
            self.fields_len += wrote;
            self.ends_len += ended;
            match result {
                ReadRecordResult::InputEmpty if !end => return Ok(rows),
                // An empty input tells the reader that it is over.
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.grow_fields()?,
                ReadRecordResult::OutputEndsFull => self.grow_ends()?,
                ReadRecordResult::Record => {
                    rows.extend(self.row()?);
                    self.fields_len = 0;
                    self.ends_len = 0;
                }
                ReadRecordResult::End => return Ok(rows),
            }
        }
    }

    fn grow_fields(&mut self) -> Result<(), Problem> {
        if self.fields.len() >= 2 * RECORD_BYTES_MAX {
            return Err(bad_csv("a row is longer than a record may be; is a quote missing?"));
        }
        self.fields.resize(self.fields.len() * 2, 0);
        Ok(())
    }

    fn grow_ends(&mut self) -> Result<(), Problem> {
        if self.ends.len() >= COLUMNS_MAX {
            return Err(bad_csv("a row has more than 2000 fields"));
        }
        self.ends.resize(self.ends.len() * 2, 0);
        Ok(())
    }

    fn row(&mut self) -> Result<Option<CsvRow>, Problem> {
        let mut from = 0;
        let fields: Vec<&[u8]> = self.ends[..self.ends_len]
            .iter()
            .map(|&to| {
                let field = &self.fields[from..to];
                from = to;
                field
            })
            .collect();
        match &self.header {
            None => {
                self.header = Some(header(&self.table, &fields)?);
                Ok(None)
            }
            Some(header) => Ok(Some(to_json(header, &fields))),
        }
    }
}

fn bad_csv(detail: &'static str) -> Problem {
    Problem::bad_request(Code::MalformedCsv.name(), detail)
}

fn header(table: &Table, fields: &[&[u8]]) -> Result<Vec<Header>, Problem> {
    let mut names: Vec<&str> = Vec::with_capacity(fields.len());
    let mut header = Vec::with_capacity(fields.len());
    for field in fields {
        let name = std::str::from_utf8(field).map_err(|_| bad_csv("the header line is not UTF-8"))?.trim();
        if name.is_empty() || names.contains(&name) {
            return Err(bad_csv("every column of the header line has a name of its own"));
        }
        names.push(name);
        let ty = table.column(name).map_or(ColumnType::Text, |i| table.columns[i].ty);
        let mut prefix = Vec::with_capacity(name.len() + 3);
        json::write_string(&mut prefix, name);
        prefix.push(b':');
        header.push(Header { prefix, ty });
    }
    Ok(header)
}

fn to_json(header: &[Header], fields: &[&[u8]]) -> CsvRow {
    let mut out = Vec::with_capacity(fields.iter().map(|f| f.len() + 24).sum());
    let mut fault = None;
    if fields.len() != header.len() {
        let detail = format!("the row has {} fields, the header line {}", fields.len(), header.len());
        fault = Some(Rejection::whole(Code::MalformedCsv, detail));
    }
    out.push(b'{');
    for (column, field) in header.iter().zip(fields) {
        // An empty field is an absent one.
        if field.is_empty() {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(&column.prefix);
        match std::str::from_utf8(field) {
            Ok(text) => write_value(&mut out, column.ty, text),
            Err(_) => {
                fault = Some(Rejection::whole(Code::InvalidUtf8, "the row is not UTF-8"));
                json::write_string(&mut out, &String::from_utf8_lossy(field));
            }
        }
    }
    out.push(b'}');
    CsvRow { json: out.into(), fault }
}

/// Writes a field in the JSON type of its column when it reads as one; else as a string, which the schema then refuses with a
/// reason.
fn write_value(out: &mut Vec<u8>, ty: ColumnType, text: &str) {
    let trimmed = text.trim();
    let plain = match ty {
        ColumnType::Int8 | ColumnType::Float8 => is_json_number(trimmed),
        ColumnType::Bool => matches!(trimmed, "true" | "false"),
        ColumnType::Jsonb => json::check(trimmed.as_bytes()).is_ok(),
        _ => false,
    };
    if plain { out.extend_from_slice(trimmed.as_bytes()) } else { json::write_string(out, text) }
}

fn is_json_number(text: &str) -> bool {
    let Ok(mut scanner) = Scanner::new(text.as_bytes()) else { return false };
    scanner.number().is_ok() && scanner.end().is_ok()
}
