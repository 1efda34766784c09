//! Values that are already in PostgreSQL's binary form, in and out of the driver without conversion.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use caudal_core::row::RowBatch;
use caudal_core::schema::ColumnType;
use caudal_core::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type, to_sql_checked};

type Cause = Box<dyn Error + Sync + Send>;

pub(super) fn type_of(ty: ColumnType) -> Type {
    match ty {
        ColumnType::Int8 => Type::INT8,
        ColumnType::Float8 => Type::FLOAT8,
        ColumnType::Text => Type::TEXT,
        ColumnType::Bool => Type::BOOL,
        ColumnType::Timestamptz => Type::TIMESTAMPTZ,
        ColumnType::Date => Type::DATE,
        ColumnType::Uuid => Type::UUID,
        ColumnType::Jsonb => Type::JSONB,
    }
}

/// The type's name where a statement casts to it.
pub(super) fn type_name(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Int8 => "pg_catalog.int8",
        ColumnType::Float8 => "pg_catalog.float8",
        ColumnType::Text => "pg_catalog.text",
        ColumnType::Bool => "pg_catalog.bool",
        ColumnType::Timestamptz => "pg_catalog.timestamptz",
        ColumnType::Date => "pg_catalog.date",
        ColumnType::Uuid => "pg_catalog.uuid",
        ColumnType::Jsonb => "pg_catalog.jsonb",
    }
}

pub(super) fn array_of(ty: ColumnType) -> Type {
    match ty {
        ColumnType::Int8 => Type::INT8_ARRAY,
        ColumnType::Float8 => Type::FLOAT8_ARRAY,
        ColumnType::Text => Type::TEXT_ARRAY,
        ColumnType::Bool => Type::BOOL_ARRAY,
        ColumnType::Timestamptz => Type::TIMESTAMPTZ_ARRAY,
        ColumnType::Date => Type::DATE_ARRAY,
        ColumnType::Uuid => Type::UUID_ARRAY,
        ColumnType::Jsonb => Type::JSONB_ARRAY,
    }
}

/// A parameter that is encoded already; one of type `unknown` is a literal in text, whose type the server infers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Raw(pub(super) Vec<u8>);

impl ToSql for Raw {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Cause> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, ty: &Type) -> Format {
        if *ty == Type::UNKNOWN { Format::Text } else { Format::Binary }
    }

    to_sql_checked!();
}

/// An array parameter put together from encoded elements.
///
/// Form (`array_recv` in PostgreSQL's `arrayfuncs.c`): dimensions, has-nulls flag, element type, then length and lower
/// bound of the one dimension, then each element as in a row.
#[derive(Debug)]
pub(super) struct RawArray {
    bytes: Vec<u8>,
    len: i32,
}

impl RawArray {
    const LEN_AT: usize = 12;

    pub(super) fn new(ty: ColumnType) -> Self {
        let mut bytes = Vec::with_capacity(64);
        for word in [1, 1, type_of(ty).oid() as i32, 0, 1] {
            bytes.extend_from_slice(&i32::to_be_bytes(word));
        }
        Self { bytes, len: 0 }
    }

    pub(super) fn push(&mut self, value: Option<&[u8]>) {
        self.len += 1;
        match value {
            Some(value) => {
                self.bytes.extend_from_slice(&(value.len() as i32).to_be_bytes());
                self.bytes.extend_from_slice(value);
            }
            None => self.bytes.extend_from_slice(&(-1i32).to_be_bytes()),
        }
    }

    pub(super) fn finish(mut self) -> Raw {
        self.bytes[Self::LEN_AT..Self::LEN_AT + 4].copy_from_slice(&self.len.to_be_bytes());
        Raw(self.bytes)
    }
}

/// An instant as a parameter or a column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp(pub(super) Instant);

impl ToSql for Stamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Cause> {
        out.put_i64(self.0.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Stamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Cause> {
        Ok(Self(Instant(i64::from_be_bytes(raw.try_into()?))))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

/// A column's bytes as they came, whatever the type.
struct Borrowed<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Borrowed<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Cause> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The bytes of one column; `None` is null.
pub(super) fn column_bytes(row: &Row, index: usize) -> Result<Option<&[u8]>, tokio_postgres::Error> {
    Ok(row.try_get::<_, Option<Borrowed<'_>>>(index)?.map(|b| b.0))
}

/// Appends the columns from `first` on as one row of a batch.
pub(super) fn push_row(to: &mut RowBatch, row: &Row, first: usize) -> Result<(), tokio_postgres::Error> {
    let mut out = to.begin(row.len() - first);
    for (index, column) in row.columns().iter().enumerate().skip(first) {
        match column_bytes(row, index)? {
            // A `json` value has no version byte; in a batch every JSON value has.
            Some(bytes) if *column.type_() == Type::JSON => out.json(bytes),
            Some(bytes) => out.raw(bytes),
            None => out.null(),
        }
    }
    out.finish();
    Ok(())
}
