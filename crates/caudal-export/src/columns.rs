//! Rows gathered into Arrow's columns.
//!
//! | column | Arrow | Parquet |
//! |---|---|---|
//! | `int8` `float8` `bool` `text` | Int64, Float64, Boolean, Utf8 | INT64, DOUBLE, BOOLEAN, STRING |
//! | `timestamptz` | Timestamp(µs, UTC) | INT64 TIMESTAMP(MICROS, UTC) |
//! | `date` | Date32 | INT32 DATE |
//! | `uuid` | FixedSizeBinary(16), `arrow.uuid` | FIXED_LEN_BYTE_ARRAY(16) UUID |
//! | `jsonb` | Utf8 | STRING |

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Date32Builder, FixedSizeBinaryBuilder, Float64Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::extension::Uuid;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use caudal_core::row::{Row, field};
use caudal_core::schema::ColumnType;
use caudal_core::time::EPOCH_SHIFT_MICROS;

/// Days between 1970-01-01 and 2000-01-01.
const EPOCH_SHIFT_DAYS: i32 = (EPOCH_SHIFT_MICROS / 86_400_000_000) as i32;
/// Gathered rows become a batch of columns at this many bytes, as they were before.
const BATCH_BYTES: usize = 512 * 1024;

/// Every column is nullable: the same query has the same schema, whatever it finds.
pub(crate) fn schema(columns: &[(String, ColumnType)]) -> SchemaRef {
    let fields = columns.iter().map(|(name, ty)| {
        let field = Field::new(name, data_type(*ty), true);
        match ty {
            ColumnType::Uuid => field.with_extension_type(Uuid),
            _ => field,
        }
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn data_type(ty: ColumnType) -> DataType {
    match ty {
        ColumnType::Int8 => DataType::Int64,
        ColumnType::Float8 => DataType::Float64,
        ColumnType::Text | ColumnType::Jsonb => DataType::Utf8,
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some(ZONE.into())),
        ColumnType::Date => DataType::Date32,
        ColumnType::Uuid => DataType::FixedSizeBinary(16),
    }
}

const ZONE: &str = "UTC";

/// Rows under way to be a batch of columns.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    values: Vec<Values>,
    rows: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Values {
    Int8(Int64Builder),
    Float8(Float64Builder),
    Text(StringBuilder),
    Bool(BooleanBuilder),
    Timestamptz(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Uuid(FixedSizeBinaryBuilder),
    Jsonb(StringBuilder),
}

impl Columns {
    pub(crate) fn new(columns: &[(String, ColumnType)]) -> Self {
        let values = columns.iter().map(|(_, ty)| Values::new(*ty)).collect();
        Self { schema: schema(columns), values, rows: 0, bytes: 0 }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes one row in. `true` when [`finish`](Self::finish) is due.
    pub(crate) fn push(&mut self, row: Row<'_>) -> Result<bool, ArrowError> {
        for (column, value) in self.values.iter_mut().zip(row) {
            column.push(value)?;
            self.bytes += 4 + value.map_or(0, <[u8]>::len);
        }
        self.rows += 1;
        Ok(self.bytes >= BATCH_BYTES)
    }

    /// The rows since the last call; `None` when there were none.
    pub(crate) fn finish(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.rows == 0 {
            return Ok(None);
        }
        (self.rows, self.bytes) = (0, 0);
        let arrays = self.values.iter_mut().map(Values::finish).collect();
        RecordBatch::try_new(self.schema.clone(), arrays).map(Some)
    }
}

impl Values {
    fn new(ty: ColumnType) -> Self {
        match ty {
            ColumnType::Int8 => Self::Int8(Int64Builder::new()),
            ColumnType::Float8 => Self::Float8(Float64Builder::new()),
            ColumnType::Text => Self::Text(StringBuilder::new()),
            ColumnType::Bool => Self::Bool(BooleanBuilder::new()),
            ColumnType::Timestamptz => Self::Timestamptz(TimestampMicrosecondBuilder::new().with_timezone(ZONE)),
            ColumnType::Date => Self::Date(Date32Builder::new()),
            ColumnType::Uuid => Self::Uuid(FixedSizeBinaryBuilder::new(16)),
            ColumnType::Jsonb => Self::Jsonb(StringBuilder::new()),
        }
    }

    fn push(&mut self, value: Option<&[u8]>) -> Result<(), ArrowError> {
        match self {
            Self::Int8(to) => to.append_option(value.map(field::int8)),
            Self::Float8(to) => to.append_option(value.map(field::float8)),
            Self::Text(to) => to.append_option(value.map(field::text)),
            Self::Bool(to) => to.append_option(value.map(field::boolean)),
            Self::Timestamptz(to) => to.append_option(value.map(|v| unix_micros(field::int8(v)))),
            Self::Date(to) => to.append_option(value.map(|v| unix_days(field::date(v).0))),
            Self::Uuid(to) => match value {
                Some(value) => to.append_value(field::uuid(value).as_bytes())?,
                None => to.append_null(),
            },
            Self::Jsonb(to) => to.append_option(value.map(field::json)),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Int8(from) => Arc::new(from.finish()),
            Self::Float8(from) => Arc::new(from.finish()),
            Self::Text(from) | Self::Jsonb(from) => Arc::new(from.finish()),
            Self::Bool(from) => Arc::new(from.finish()),
            Self::Timestamptz(from) => Arc::new(from.finish()),
            Self::Date(from) => Arc::new(from.finish()),
            Self::Uuid(from) => Arc::new(from.finish()),
        }
    }
}

/// PostgreSQL's `infinity` and `-infinity`, which tables that Caudal did not fill may hold, are the ends of its range. They become
/// what DuckDB has for them; anything that reads them as times finds them far outside the calendar.
fn unix_micros(micros: i64) -> i64 {
    match micros {
        i64::MIN => -i64::MAX,
        micros => micros.saturating_add(EPOCH_SHIFT_MICROS),
    }
}

fn unix_days(days: i32) -> i32 {
    match days {
        i32::MIN => -i32::MAX,
        days => days.saturating_add(EPOCH_SHIFT_DAYS),
    }
}
