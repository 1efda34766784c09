//! What the columns of an analyst's statement hold.
//!
//! A column that comes straight from a table of the catalogue has the type that it has there. SQLite knows no type of any
//! other before there are values, and each value may have another: the first rows decide, and later ones keep to it.

use std::fmt::Write;
use std::sync::Arc;

use caudal_core::json::write_string;
use caudal_core::limits::SQL_ROW_BYTES_MAX;
use caudal_core::row::{RowBatch, RowWriter};
use caudal_core::schema::{ColumnType, Table};
use caudal_core::sql::{SqlError, SqlFault};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Row, Statement};

use super::super::error::store_error;
use super::super::values::write;

/// The catalogue's types, where a column is one of its columns.
pub(super) fn declared(statement: &Statement<'_>, tables: &[Arc<Table>]) -> Vec<Option<ColumnType>> {
    let of = |table: &str, column: &str| {
        let table = tables.iter().find(|t| t.name == table)?;
        table.column(column).map(|at| table.columns[at].ty)
    };
    let columns = statement.columns_with_metadata();
    columns.map(|c| c.table_name().zip(c.origin_name()).and_then(|(table, column)| of(table, column))).collect()
}

/// The types of the columns, as far as they are known, and the rows that wait until they are.
pub(super) struct Classes {
    types: Vec<Option<ColumnType>>,
    /// Columns that the catalogue does not know.
    computed: Vec<bool>,
    waiting: Vec<Vec<Value>>,
    waiting_bytes: usize,
    settled: bool,
}

impl Classes {
    pub(super) fn new(types: Vec<Option<ColumnType>>) -> Self {
        let computed: Vec<bool> = types.iter().map(Option::is_none).collect();
        let settled = !computed.contains(&true);
        Self { types, computed, waiting: Vec::new(), waiting_bytes: 0, settled }
    }

    /// Known from [`settle`](Self::settle) on.
    pub(super) fn types(&self) -> impl Iterator<Item = ColumnType> + '_ {
        self.types.iter().map(|ty| ty.unwrap_or(ColumnType::Jsonb))
    }

    pub(super) fn byte_len(&self) -> usize {
        self.waiting_bytes
    }

    pub(super) fn push(&mut self, batch: &mut RowBatch, row: &Row<'_>) -> Result<(), SqlError> {
        let values = (0..self.types.len()).map(|i| row.get_ref(i).map_err(store_error));
        if self.settled {
            let values = values.collect::<Result<Vec<_>, _>>()?;
            let bytes: usize = values.iter().map(|v| size(*v)).sum();
            check_size(bytes)?;
            return Ok(self.write(batch, &values)?);
        }
        let values = values.map(|value| value.map(owned)).collect::<Result<Vec<_>, _>>()?;
        let bytes: usize = values.iter().map(|v| size(v.into())).sum();
        check_size(bytes)?;
        self.waiting_bytes += bytes + values.len() * size_of::<Value>();
        self.waiting.push(values);
        Ok(())
    }

    /// Decides the types from the rows so far, and writes them.
    pub(super) fn settle(&mut self, batch: &mut RowBatch) -> Result<(), SqlError> {
        if self.settled {
            return Ok(());
        }
        self.settled = true;
        for (i, ty) in self.types.iter_mut().enumerate().filter(|(_, ty)| ty.is_none()) {
            *ty = Some(class(self.waiting.iter().map(|row| &row[i])));
        }
        self.waiting_bytes = 0;
        for row in std::mem::take(&mut self.waiting) {
            let values: Vec<ValueRef<'_>> = row.iter().map(ValueRef::from).collect();
            self.write(batch, &values)?;
        }
        Ok(())
    }

    fn write(&self, batch: &mut RowBatch, values: &[ValueRef<'_>]) -> Result<(), SqlFault> {
        let mut out = batch.begin(values.len());
        for (index, (ty, value)) in self.types().zip(values).enumerate() {
            let put = if self.computed[index] { computed(&mut out, ty, *value) } else { write(&mut out, ty, *value) };
            if put.is_none() {
                let message = format!(
                    "column {} holds values of several types, {} among the first rows: cast it to one",
                    index + 1,
                    ty.name()
                );
                return Err(SqlError::mistake("SQLITE_MISMATCH", message));
            }
        }
        out.finish();
        Ok(())
    }
}

/// The type that fits all values; JSON where none does, or where all are null.
fn class<'a>(values: impl Iterator<Item = &'a Value>) -> ColumnType {
    let of = |value: &Value| match value {
        Value::Null => None,
        Value::Integer(_) => Some(ColumnType::Int8),
        Value::Real(_) => Some(ColumnType::Float8),
        Value::Text(_) | Value::Blob(_) => Some(ColumnType::Text),
    };
    let join = |a: ColumnType, b: ColumnType| match (a, b) {
        (a, b) if a == b => a,
        (ColumnType::Int8 | ColumnType::Float8, ColumnType::Int8 | ColumnType::Float8) => ColumnType::Float8,
        _ => ColumnType::Jsonb,
    };
    values.filter_map(of).reduce(join).unwrap_or(ColumnType::Jsonb)
}

/// A value as one of the type that was found; text is JSON's only where a column holds several types.
fn computed(out: &mut RowWriter<'_>, ty: ColumnType, value: ValueRef<'_>) -> Option<()> {
    match (ty, value) {
        (_, ValueRef::Null) => out.null(),
        (ColumnType::Text, value) => out.text(&plain(value)),
        (ColumnType::Jsonb, ValueRef::Integer(n)) => out.json(n.to_string().as_bytes()),
        (ColumnType::Jsonb, ValueRef::Real(n)) if n.is_finite() => out.json(format!("{n:?}").as_bytes()),
        (ColumnType::Jsonb, ValueRef::Real(_)) => out.null(),
        (ColumnType::Jsonb, value) => {
            let mut text = Vec::new();
            write_string(&mut text, &plain(value));
            out.json(&text);
        }
        (ty, value) => return write(out, ty, value),
    }
    Some(())
}

fn owned(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(n) => Value::Real(n),
        ValueRef::Text(bytes) => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

fn plain(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(n) => n.to_string(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        ValueRef::Blob(bytes) => hex(bytes),
    }
}

/// As PostgreSQL writes bytes.
fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2 + 2);
    out.push_str("\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

fn size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

fn check_size(bytes: usize) -> Result<(), SqlFault> {
    if bytes <= SQL_ROW_BYTES_MAX {
        return Ok(());
    }
    let message = format!("a row of the answer is larger than {SQL_ROW_BYTES_MAX} bytes: select less of it");
    Err(SqlError::mistake("SQLITE_TOOBIG", message))
}
