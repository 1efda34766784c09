//! SQL from a read plan. Identifiers come only from the plan's table and are quoted; values are always parameters.

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::plan::{Comparison, Filter, Is, OrderBy, ReadPlan, Scalar};
use caudal_core::schema::{ColumnType, ID, Table};
use tokio_postgres::types::Type;

use super::wire::{Raw, RawArray, array_of, type_of};

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

pub(super) fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

/// A statement with its values, encoded.
#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<(Raw, Type)>,
}

pub(super) fn select(plan: &ReadPlan) -> Result<Sql, StoreError> {
    let columns = plan.select.iter().map(|s| plan.table.columns[s.column].name.as_str());
    let mut sql = Sql { text: format!("select {}", column_list(columns)), values: Vec::new() };
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
        let _ = write!(self.text, " from {}", quoted(&plan.table.name));
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
        let id = plan.table.column(ID);
        let tie = id.filter(|id| plan.order.iter().all(|o| o.column != *id));
        let tie = tie.map(|column| OrderBy { column, descending: false, nulls_first: false });
        for (i, term) in plan.order.iter().copied().chain(tie).enumerate() {
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
        self.bind(encoded(value), type_of(table.columns[column].ty));
    }

    fn column(&mut self, table: &Table, column: usize) {
        self.text.push_str(&quoted(&table.columns[column].name));
    }

    /// A column in an order or a range: text by its bytes, as SQLite does.
    fn bytewise(&mut self, table: &Table, column: usize) {
        self.column(table, column);
        if table.columns[column].ty == ColumnType::Text {
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
        Scalar::Text(v) => v.as_bytes().to_vec(),
        Scalar::Bool(v) => vec![u8::from(*v)],
        Scalar::Timestamptz(v) => v.0.to_be_bytes().to_vec(),
        Scalar::Date(v) => v.0.to_be_bytes().to_vec(),
        Scalar::Uuid(v) => v.as_bytes().to_vec(),
        Scalar::Jsonb(v) => [&[1], v.as_bytes()].concat(),
    })
}
