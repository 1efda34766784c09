//! Attributes, read and written.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use uuid::Uuid;

use super::error::damaged;

pub(super) type Row = HashMap<String, AttributeValue>;

pub(super) fn s(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn n(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Microseconds since 1970.
pub(super) fn time(at: Instant) -> AttributeValue {
    n(at.within_calendar().unix_micros())
}

pub(super) fn text<'r>(row: &'r Row, name: &str) -> Option<&'r str> {
    row.get(name).and_then(|value| value.as_s().ok()).map(String::as_str)
}

pub(super) fn number<T: std::str::FromStr>(row: &Row, name: &str) -> Option<T> {
    row.get(name)?.as_n().ok()?.parse().ok()
}

pub(super) fn instant(row: &Row, name: &str) -> Option<Instant> {
    number(row, name).map(Instant::from_unix_micros)
}

pub(super) fn flag(row: &Row, name: &str) -> bool {
    row.get(name).and_then(|value| value.as_bool().ok()).copied().unwrap_or_default()
}

/// An attribute without which an item makes no sense.
pub(super) fn needed<T>(value: Option<T>, name: &str, row: &Row) -> Result<T, StoreError> {
    value.ok_or_else(|| damaged(format!("{:?} has no good attribute {name:?}", text(row, super::keys::PK))))
}

/// Ids, 16 bytes each.
pub(super) fn packed(ids: &[Uuid]) -> AttributeValue {
    AttributeValue::B(Blob::new(ids.iter().flat_map(|id| *id.as_bytes()).collect::<Vec<u8>>()))
}

pub(super) fn unpacked(row: &Row, name: &str) -> Option<Vec<Uuid>> {
    let bytes = row.get(name)?.as_b().ok()?.as_ref();
    bytes.chunks(16).map(|id| Uuid::from_slice(id).ok()).collect()
}

/// At most so many bytes of a text, cut between characters.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=text.len().min(bytes_max)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}
