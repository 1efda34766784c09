//! SQL from a read plan. Identifiers come only from the plan's table and are quoted; values are always parameters.

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::plan::{Comparison, Filter, Is, OrderBy, ReadPlan, Scalar};
use caudal_core::schema::{ColumnType, Table};
use rusqlite::types::Value;

use super::values::of_scalar;

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

pub(super) fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

/// Compares two JSON texts by meaning; every reading connection has it.
pub(super) const JSON_SAME: &str = "caudal_json_same";

#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

pub(super) fn select(plan: &ReadPlan) -> Result<Sql, StoreError> {
    let columns = plan.select.iter().map(|s| plan.table.columns[s.column].name.as_str());
    let mut sql = Sql { text: format!("select {}", column_list(columns)), values: Vec::new() };
    sql.table_and_filter(plan)?;
    sql.order(plan)?;
    if plan.limit.is_some() || plan.offset > 0 {
        let limit = plan.limit.map_or(-1, |limit| limit.min(i64::MAX as u64) as i64);
        let _ = write!(sql.text, " limit {limit} offset {}", plan.offset.min(i64::MAX as u64));
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
    fn order(&mut self, plan: &ReadPlan) -> Result<(), StoreError> {
        if plan.order.is_empty() {
            return Ok(());
        }
        let ties = plan.table.key.iter().filter(|key| plan.order.iter().all(|o| o.column != **key));
        let ties = ties.map(|column| OrderBy { column: *column, descending: false, nulls_first: false });
        for (i, term) in plan.order.iter().copied().chain(ties).enumerate() {
            self.text.push_str(if i == 0 { " order by " } else { ", " });
            if is_json(&plan.table, term.column) {
                return Err(json_has_no_order(&plan.table, term.column));
            }
            self.column(&plan.table, term.column);
            self.text.push_str(if term.descending { " desc" } else { "" });
            self.text.push_str(if term.nulls_first { " nulls first" } else { " nulls last" });
        }
        Ok(())
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
            Filter::Compare { column, op, value } => self.compare(table, *column, *op, value)?,
            Filter::In { column, values } => self.one_of(table, *column, values),
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
                self.bind(Value::Text(whole_escapes(pattern)));
                self.text.push_str(" escape '\\'");
            }
        }
        Ok(())
    }

    fn compare(&mut self, table: &Table, column: usize, op: Comparison, value: &Scalar) -> Result<(), StoreError> {
        if let Scalar::Jsonb(_) = value {
            match op {
                Comparison::Eq => {}
                Comparison::Neq => self.text.push_str("not "),
                _ => return Err(json_has_no_order(table, column)),
            }
            self.json_same(table, column, value);
            return Ok(());
        }
        self.column(table, column);
        self.text.push_str(match op {
            Comparison::Eq => " = ",
            Comparison::Neq => " <> ",
            Comparison::Gt => " > ",
            Comparison::Gte => " >= ",
            Comparison::Lt => " < ",
            Comparison::Lte => " <= ",
        });
        self.bind(of_scalar(value));
        Ok(())
    }

    fn one_of(&mut self, table: &Table, column: usize, values: &[Scalar]) {
        if values.is_empty() {
            // As PostgreSQL's = any('{}'): false, for null as well.
            self.text.push_str("false");
            return;
        }
        if is_json(table, column) {
            self.text.push('(');
            for (i, value) in values.iter().enumerate() {
                self.text.push_str(if i > 0 { " or " } else { "" });
                self.json_same(table, column, value);
            }
            self.text.push(')');
            return;
        }
        self.column(table, column);
        self.text.push_str(" in (");
        for (i, value) in values.iter().enumerate() {
            self.text.push_str(if i > 0 { ", " } else { "" });
            self.bind(of_scalar(value));
        }
        self.text.push(')');
    }

    fn json_same(&mut self, table: &Table, column: usize, value: &Scalar) {
        let _ = write!(self.text, "{JSON_SAME}(");
        self.column(table, column);
        self.text.push_str(", ");
        self.bind(of_scalar(value));
        self.text.push(')');
    }

    fn column(&mut self, table: &Table, column: usize) {
        self.text.push_str(&quoted(&table.columns[column].name));
    }

    fn bind(&mut self, value: Value) {
        self.values.push(value);
        let _ = write!(self.text, "?{}", self.values.len());
    }
}

/// A declared type's values are whatever they are, and only travel as JSON.
fn is_json(table: &Table, column: usize) -> bool {
    table.columns[column].ty == ColumnType::Jsonb && table.columns[column].declared.is_none()
}

fn json_has_no_order(table: &Table, column: usize) -> StoreError {
    let name = &table.columns[column].name;
    StoreError::Setup(format!("{name} holds JSON, which has no order on SQLite; PostgreSQL can do this"))
}

/// A pattern whose last escape has something to escape.
fn whole_escapes(pattern: &str) -> String {
    let trailing = pattern.bytes().rev().take_while(|b| *b == b'\\').count();
    if trailing % 2 == 1 { format!("{pattern}\\") } else { pattern.to_owned() }
}
