//! Conditions.

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::plan::{Comparison, Field, Filter, Is, Scalar};
use rusqlite::types::Value as Bound;

use super::super::functions::{JSON_SAME, LIKE, MATCH};
use super::super::values::of_scalar;
use super::{Scope, Sql, is_json, json_has_no_order};

impl Sql {
    pub(super) fn all(&mut self, scope: Scope<'_>, filters: &[Filter], between: &str) -> Result<(), StoreError> {
        self.text.push('(');
        for (i, filter) in filters.iter().enumerate() {
            if i > 0 {
                self.text.push_str(between);
            }
            self.filter(scope, filter)?;
        }
        if filters.is_empty() {
            self.text.push_str(if between == " or " { "false" } else { "true" });
        }
        self.text.push(')');
        Ok(())
    }

    fn filter(&mut self, scope: Scope<'_>, filter: &Filter) -> Result<(), StoreError> {
        match filter {
            Filter::And(filters) => self.all(scope, filters, " and ")?,
            Filter::Or(filters) => self.all(scope, filters, " or ")?,
            Filter::Not(filter) => {
                self.text.push_str("not (");
                self.filter(scope, filter)?;
                self.text.push(')');
            }
            Filter::Is { field, what } => {
                self.field(scope, field)?;
                self.text.push_str(match what {
                    Is::Null => " is null",
                    Is::True => " is true",
                    Is::False => " is false",
                });
            }
            Filter::Compare { field, op, value } => self.compare(scope, field, *op, value)?,
            Filter::In { field, values } => self.one_of(scope, field, values)?,
            Filter::Like { field, pattern, insensitive: false } => {
                self.field(scope, field)?;
                self.text.push_str(" like ");
                self.bind(Bound::Text(whole_escapes(pattern)));
                self.text.push_str(" escape '\\'");
            }
            Filter::Like { field, pattern, .. } => self.called(scope, LIKE, field, &whole_escapes(pattern))?,
            Filter::Match { field, pattern, insensitive } => {
                let flags = if *insensitive { "(?i)" } else { "" };
                self.called(scope, MATCH, field, &format!("{flags}{pattern}"))?;
            }
            Filter::Search { field, .. } => return Err(only_on_postgresql(scope, field, "full text search")),
            Filter::Spatial { field, .. } => {
                return Err(only_on_postgresql(scope, field, "containment, overlap and ranges"));
            }
            Filter::After { order, place } => self.after(scope, order, place)?,
            Filter::Related { embed, exists } => {
                self.text.push_str(if *exists { "" } else { "not " });
                self.related(scope, *embed)?;
            }
        }
        Ok(())
    }

    /// `function(pattern, field)`.
    fn called(&mut self, scope: Scope<'_>, function: &str, field: &Field, pattern: &str) -> Result<(), StoreError> {
        let _ = write!(self.text, "{function}(");
        self.bind(Bound::Text(pattern.to_owned()));
        self.text.push_str(", ");
        self.field(scope, field)?;
        self.text.push(')');
        Ok(())
    }

    fn compare(&mut self, scope: Scope<'_>, field: &Field, op: Comparison, value: &Scalar) -> Result<(), StoreError> {
        if let Scalar::Jsonb(_) = value {
            match op {
                Comparison::Eq => {}
                Comparison::Neq => self.text.push_str("not "),
                _ => return Err(json_has_no_order(&scope.plan.table, field)),
            }
            return self.json_same(scope, field, value);
        }
        self.field(scope, field)?;
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

    fn one_of(&mut self, scope: Scope<'_>, field: &Field, values: &[Scalar]) -> Result<(), StoreError> {
        if values.is_empty() {
            // As PostgreSQL's = any('{}'): false, for null as well.
            self.text.push_str("false");
            return Ok(());
        }
        if is_json(&scope.plan.table, field) {
            self.text.push('(');
            for (i, value) in values.iter().enumerate() {
                self.text.push_str(if i > 0 { " or " } else { "" });
                self.json_same(scope, field, value)?;
            }
            self.text.push(')');
            return Ok(());
        }
        self.field(scope, field)?;
        self.text.push_str(" in (");
        for (i, value) in values.iter().enumerate() {
            self.text.push_str(if i > 0 { ", " } else { "" });
            self.bind(of_scalar(value));
        }
        self.text.push(')');
        Ok(())
    }

    fn json_same(&mut self, scope: Scope<'_>, field: &Field, value: &Scalar) -> Result<(), StoreError> {
        let _ = write!(self.text, "{JSON_SAME}(");
        self.field(scope, field)?;
        self.text.push_str(", ");
        self.bind(of_scalar(value));
        self.text.push(')');
        Ok(())
    }
}

fn only_on_postgresql(scope: Scope<'_>, field: &Field, what: &str) -> StoreError {
    let name = &scope.plan.table.columns[field.column].name;
    StoreError::Asked(format!("{name}: SQLite has no {what}; PostgreSQL can do this"))
}

/// A pattern whose last escape has something to escape.
fn whole_escapes(pattern: &str) -> String {
    let trailing = pattern.bytes().rev().take_while(|b| *b == b'\\').count();
    if trailing % 2 == 1 { format!("{pattern}\\") } else { pattern.to_owned() }
}
