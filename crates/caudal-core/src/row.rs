//! Rows in the one form that travels between engine, stores and HTTP: PostgreSQL's binary tuple.
//!
//! A row is a 16-bit field count, then for each field a 32-bit length (−1 for null) and that many bytes, everything
//! big-endian. This is byte for byte what binary `COPY` reads and what a PostgreSQL result row holds, so the PostgreSQL
//! adapter hands the buffer through unchanged; SQLite's decodes it field by field. The value of each field follows its
//! [`ColumnType`](crate::schema::ColumnType):
//! `int8` 8 bytes · `float8` 8 bytes · `bool` 1 byte · `timestamptz` 8 bytes (µs since 2000) · `date` 4 bytes (days since
//! 2000) · `uuid` 16 bytes · `text` UTF-8 · `jsonb` a version byte 1, then UTF-8.
//!
//! Source: PostgreSQL 15 documentation, `COPY`, "Binary Format".

use uuid::Uuid;

use crate::time::{Date, Instant};

/// Consecutive rows in one buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowBatch {
    bytes: Vec<u8>,
    /// Where each row ends in `bytes`.
    ends: Vec<u32>,
}

impl RowBatch {
    pub fn with_capacity(rows: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(rows) }
    }

    /// Makes room for about as much as `other` holds, so that a buffer of megabytes does not grow by doubling.
    pub fn reserve_like(&mut self, other: &RowBatch) {
        self.bytes.reserve_exact(other.bytes.len() + other.bytes.len() / 16);
        self.ends.reserve_exact(other.ends.len() + other.ends.len() / 16);
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All rows, one after another.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Starts a row of `fields` fields. Nothing is part of the batch until [`RowWriter::finish`].
    pub fn begin(&mut self, fields: usize) -> RowWriter<'_> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&(fields as i16).to_be_bytes());
        RowWriter { start, batch: self }
    }

    /// Appends one row that was encoded elsewhere.
    pub fn push_encoded(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push(self.bytes.len() as u32);
    }

    pub fn extend(&mut self, other: &RowBatch) {
        let base = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| base + end));
    }

    /// The encoded bytes of row `index`.
    pub fn encoded(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        &self.bytes[start..self.ends[index] as usize]
    }

    pub fn row(&self, index: usize) -> Row<'_> {
        Row { rest: &self.encoded(index)[2..] }
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.len()).map(|i| self.row(i))
    }
}

/// Writes the fields of one row, in column order.
#[derive(Debug)]
pub struct RowWriter<'a> {
    batch: &'a mut RowBatch,
    start: usize,
}

impl RowWriter<'_> {
    pub fn null(&mut self) {
        self.batch.bytes.extend_from_slice(&(-1i32).to_be_bytes());
    }

    /// One field from its encoded bytes.
    pub fn raw(&mut self, value: &[u8]) {
        self.batch.bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
        self.batch.bytes.extend_from_slice(value);
    }

    pub fn int8(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn float8(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    pub fn boolean(&mut self, value: bool) {
        self.raw(&[u8::from(value)]);
    }

    pub fn text(&mut self, value: &str) {
        self.raw(value.as_bytes());
    }

    pub fn uuid(&mut self, value: Uuid) {
        self.raw(value.as_bytes());
    }

    pub fn timestamp(&mut self, value: Instant) {
        self.int8(value.0);
    }

    pub fn date(&mut self, value: Date) {
        self.raw(&value.0.to_be_bytes());
    }

    /// A `jsonb` field; `text` must be valid JSON.
    pub fn json(&mut self, text: &[u8]) {
        self.batch.bytes.extend_from_slice(&(text.len() as i32 + 1).to_be_bytes());
        self.batch.bytes.push(1);
        self.batch.bytes.extend_from_slice(text);
    }

    /// Text or null.
    pub fn text_or_null(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    /// Makes the row part of the batch. Without it the bytes are dropped.
    pub fn finish(self) {
        let end = self.batch.bytes.len() as u32;
        self.batch.ends.push(end);
        std::mem::forget(self);
    }
}

impl Drop for RowWriter<'_> {
    fn drop(&mut self) {
        self.batch.bytes.truncate(self.start);
    }
}

/// The fields of one row, in column order: `None` is null.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    rest: &'a [u8],
}

impl<'a> Row<'a> {
    /// Reads a row from its encoded bytes (field count included).
    pub fn from_encoded(bytes: &'a [u8]) -> Self {
        Self { rest: &bytes[2..] }
    }
}

impl<'a> Iterator for Row<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (len, rest) = self.rest.split_first_chunk::<4>()?;
        let len = i32::from_be_bytes(*len);
        if len < 0 {
            self.rest = rest;
            return Some(None);
        }
        let (value, rest) = rest.split_at(len as usize);
        self.rest = rest;
        Some(Some(value))
    }
}

/// Reading single fields; each expects the bytes of that column type.
pub mod field {
    use super::{Date, Instant, Uuid};

    pub fn int8(bytes: &[u8]) -> i64 {
        bytes.try_into().map_or(0, i64::from_be_bytes)
    }

    pub fn float8(bytes: &[u8]) -> f64 {
        bytes.try_into().map_or(0.0, f64::from_be_bytes)
    }

    pub fn boolean(bytes: &[u8]) -> bool {
        bytes.first() == Some(&1)
    }

    pub fn timestamp(bytes: &[u8]) -> Instant {
        Instant(int8(bytes))
    }

    pub fn date(bytes: &[u8]) -> Date {
        Date(bytes.try_into().map_or(0, i32::from_be_bytes))
    }

    pub fn uuid(bytes: &[u8]) -> Uuid {
        Uuid::from_slice(bytes).unwrap_or_default()
    }

    pub fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The text of a `jsonb` field, without its version byte.
    pub fn json(bytes: &[u8]) -> &str {
        text(bytes.get(1..).unwrap_or_default())
    }
}
