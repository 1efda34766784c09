//! Values as requests write them.

use uuid::Uuid;

use crate::row::field;
use crate::schema::{Column, ColumnType};
use crate::time::{Date, Instant};

/// A value of a column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Int8(i64),
    Float8(f64),
    Text(String),
    Bool(bool),
    Timestamptz(Instant),
    Date(Date),
    Uuid(Uuid),
    /// JSON text.
    Jsonb(String),
    /// As it was written, for a column whose type is the database's own: it reads it as it reads a literal in SQL, and says
    /// so when it cannot ([`StoreError::Asked`](crate::error::StoreError::Asked)).
    Literal(String),
    /// As the store gave it out in [`Value::Ordered`](super::Value::Ordered).
    Exact(String),
}

impl Scalar {
    /// Reads `text` as a value of a column; `None` when it is none.
    pub fn of(column: &Column, text: &str) -> Option<Self> {
        match column.declared {
            Some(_) => (!text.contains('\0')).then(|| Self::Literal(text.to_owned())),
            None => Self::parse(column.ty, text),
        }
    }

    /// A value from its bytes in a [`row`](crate::row).
    pub fn read(ty: ColumnType, bytes: &[u8]) -> Self {
        match ty {
            ColumnType::Int8 => Self::Int8(field::int8(bytes)),
            ColumnType::Float8 => Self::Float8(field::float8(bytes)),
            ColumnType::Text => Self::Text(field::text(bytes).to_owned()),
            ColumnType::Bool => Self::Bool(field::boolean(bytes)),
            ColumnType::Timestamptz => Self::Timestamptz(field::timestamp(bytes)),
            ColumnType::Date => Self::Date(field::date(bytes)),
            ColumnType::Uuid => Self::Uuid(field::uuid(bytes)),
            ColumnType::Jsonb => Self::Jsonb(field::json(bytes).to_owned()),
        }
    }

    /// Reads `text` as a value of `ty`; `None` when it is none.
    pub fn parse(ty: ColumnType, text: &str) -> Option<Self> {
        if text.contains('\0') {
            return None;
        }
        Some(match ty {
            ColumnType::Int8 => Self::Int8(text.trim().parse().ok()?),
            ColumnType::Float8 => Self::Float8(text.trim().parse().ok()?),
            ColumnType::Text => Self::Text(text.to_owned()),
            ColumnType::Bool => Self::Bool(match text {
                "true" | "t" => true,
                "false" | "f" => false,
                _ => return None,
            }),
            ColumnType::Timestamptz => Self::Timestamptz(parse_instant(text)?),
            ColumnType::Date => Self::Date(Date::parse(text)?),
            ColumnType::Uuid => Self::Uuid(Uuid::try_parse(text).ok()?),
            ColumnType::Jsonb => Self::Jsonb(crate::json::check(text.as_bytes()).ok()?.to_owned()),
        })
    }
}

/// An instant as clients write it in a filter: RFC 3339, or without a zone (UTC), or a bare date.
fn parse_instant(text: &str) -> Option<Instant> {
    Instant::parse(text)
        .or_else(|| Instant::parse(&format!("{text}Z")))
        .or_else(|| Instant::parse(&text.replace(' ', "+")))
        .or_else(|| Date::parse(text).map(|d| Instant(i64::from(d.0) * 86_400_000_000)))
}
