//! SQL from a read plan. Identifiers come only from the plan's table and are quoted; values are always parameters.

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::plan::{Comparison, Filter, Is, OrderBy, ReadPlan, Scalar};
use caudal_core::schema::{ColumnType, Table};
use tokio_postgres::types::Type;

use super::wire::{Raw, RawArray, array_of, travelling, type_of};

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

pub(super) fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

/// A table's name, in its schema where it has one of its own.
pub(super) fn table_name(table: &Table) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&table.name)),
        None => quoted(&table.name),
    }
}

/// A statement with its values, encoded.
#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<(Raw, Type)>,
}

pub(super) fn select(plan: &ReadPlan) -> Result<Sql, StoreError> {
    let columns: Vec<_> = plan.select.iter().map(|s| travelling(&plan.table.columns[s.column])).collect();
    let mut sql = Sql { text: format!("select {}", columns.join(", ")), values: Vec::new() };
    sql.table_and_filter(plan)?;
    sql.order(plan);
    if let Some(limit) = plan.limit {
        let _ = write!(sql.text, " limit {}", limit.min(i64::MAX as u64));
    }
    if plan.offset > 0 {
        let _ = write!(sql.text, " offset {}", plan.offset.min(i64::MAX as u64));
    }
    Ok(sql)
}

pub(super) fn count(plan: &ReadPlan) -> Result<Sql, StoreError> {
    let mut sql = Sql { text: "select count(*)".into(), values: Vec::new() };
    sql.table_and_filter(plan)?;
    Ok(sql)
}

impl Sql {
    fn table_and_filter(&mut self, plan: &ReadPlan) -> Result<(), StoreError> {
        let _ = write!(self.text, " from {}", table_name(&plan.table));
        if !plan.filter.is_empty() {
            self.text.push_str(" where ");
            self.all(&plan.table, &plan.filter, " and ")?;
        }
        Ok(())
    }

    /// An order that the caller asked for is made total by the primary key, so that pages neither repeat nor skip rows.
    fn order(&mut self, plan: &ReadPlan) {
        if plan.order.is_empty() {
            return;
        }
        let ties = plan.table.key.iter().filter(|key| plan.order.iter().all(|o| o.column != **key));
        let ties = ties.map(|column| OrderBy { column: *column, descending: false, nulls_first: false });
        for (i, term) in plan.order.iter().copied().chain(ties).enumerate() {
            self.text.push_str(if i == 0 { " order by " } else { ", " });
            self.bytewise(&plan.table, term.column);
            self.text.push_str(if term.descending { " desc" } else { "" });
            self.text.push_str(if term.nulls_first { " nulls first" } else { " nulls last" });
        }
    }

    fn all(&mut self, table: &Table, filters: &[Filter], between: &str) -> Result<(), StoreError> {
        self.text.push('(');
        for (i, filter) in filters.iter().enumerate() {
            if i > 0 {
                self.text.push_str(between);
            }
            self.filter(table, filter)?;
        }
        if filters.is_empty() {
            self.text.push_str(if between == " or " { "false" } else { "true" });
        }
        self.text.push(')');
        Ok(())
    }

    fn filter(&mut self, table: &Table, filter: &Filter) -> Result<(), StoreError> {
        match filter {
            Filter::And(filters) => self.all(table, filters, " and ")?,
            Filter::Or(filters) => self.all(table, filters, " or ")?,
            Filter::Not(filter) => {
                self.text.push_str("not (");
                self.filter(table, filter)?;
                self.text.push(')');
            }
            Filter::Is { column, what } => {
                self.column(table, *column);
                self.text.push_str(match what {
                    Is::Null => " is null",
                    Is::True => " is true",
                    Is::False => " is false",
                });
            }
            Filter::Compare { column, op, value } => self.compare(table, *column, *op, value),
            Filter::In { column, values } => {
                let ty = table.columns[*column].ty;
                if table.columns[*column].declared.is_some() {
                    self.literals(table, *column, values);
                    return Ok(());
                }
                let mut array = RawArray::new(ty);
                values.iter().for_each(|v| array.push(Some(&encoded(v).0)));
                self.column(table, *column);
                self.text.push_str(" = any(");
                self.bind(array.finish(), array_of(ty));
                self.text.push(')');
            }
            Filter::Like { column, pattern } => {
                let column = *column;
                if table.columns[column].ty != ColumnType::Text {
                    return Err(StoreError::Setup(format!(
                        "{} is not text: like does not apply",
                        table.columns[column].name
                    )));
                }
                self.column(table, column);
                self.text.push_str(" like ");
                self.bind(Raw(whole_escapes(pattern).into_bytes()), Type::TEXT);
                self.text.push_str(" escape '\\'");
            }
        }
        Ok(())
    }

    /// One parameter a value, so that the server reads each as it reads it next to `=`.
    fn literals(&mut self, table: &Table, column: usize, values: &[Scalar]) {
        if values.is_empty() {
            // As = any('{}'): false, for null as well.
            return self.text.push_str("false");
        }
        self.column(table, column);
        for (i, value) in values.iter().enumerate() {
            self.text.push_str(if i == 0 { " in (" } else { ", " });
            self.bind(encoded(value), Type::UNKNOWN);
        }
        self.text.push(')');
    }

    fn compare(&mut self, table: &Table, column: usize, op: Comparison, value: &Scalar) {
        let word = match op {
            Comparison::Eq => " = ",
            Comparison::Neq => " <> ",
            Comparison::Gt => " > ",
            Comparison::Gte => " >= ",
            Comparison::Lt => " < ",
            Comparison::Lte => " <= ",
        };
        match op {
            // Equality means the same under every (deterministic) collation; without a word it can use any index.
            Comparison::Eq | Comparison::Neq => self.column(table, column),
            _ => self.bytewise(table, column),
        }
        self.text.push_str(word);
        let literal = matches!(value, Scalar::Literal(_));
        self.bind(encoded(value), if literal { Type::UNKNOWN } else { type_of(table.columns[column].ty) });
    }

    /// In a found table under the table's name: alone, in an order, it would mean the answer's column, which may be its text.
    fn column(&mut self, table: &Table, column: usize) {
        if table.schema.is_some() {
            self.text.push_str(&table_name(table));
            self.text.push('.');
        }
        self.text.push_str(&quoted(&table.columns[column].name));
    }

    /// A column in an order or a range: text by its bytes, as SQLite does. Found tables keep their own order, which their
    /// indexes are in.
    fn bytewise(&mut self, table: &Table, column: usize) {
        self.column(table, column);
        if table.columns[column].ty == ColumnType::Text && table.schema.is_none() {
            self.text.push_str(" collate \"C\"");
        }
    }

    fn bind(&mut self, value: Raw, ty: Type) {
        self.values.push((value, ty));
        let _ = write!(self.text, "${}", self.values.len());
    }
}

/// A pattern whose last escape has something to escape.
fn whole_escapes(pattern: &str) -> String {
    let trailing = pattern.bytes().rev().take_while(|b| *b == b'\\').count();
    if trailing % 2 == 1 { format!("{pattern}\\") } else { pattern.to_owned() }
}

fn encoded(value: &Scalar) -> Raw {
    Raw(match value {
        Scalar::Int8(v) => v.to_be_bytes().to_vec(),
        Scalar::Float8(v) => v.to_be_bytes().to_vec(),
        Scalar::Text(v) | Scalar::Literal(v) => v.as_bytes().to_vec(),
        Scalar::Bool(v) => vec![u8::from(*v)],
        Scalar::Timestamptz(v) => v.0.to_be_bytes().to_vec(),
        Scalar::Date(v) => v.0.to_be_bytes().to_vec(),
        Scalar::Uuid(v) => v.as_bytes().to_vec(),
        Scalar::Jsonb(v) => [&[1], v.as_bytes()].concat(),
    })
}
