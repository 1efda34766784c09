//! SQL from a read plan. Identifiers come only from the plan's tables and are quoted; values are always parameters.

mod after;
mod embed;
mod filter;

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::plan::{Aggregate, Cast, Field, ReadPlan, Step, Value};
use caudal_core::schema::{ColumnType, Table};
use rusqlite::types::Value as Bound;

use super::functions::{CAST, EXACT, JSON_GET, JSON_TEXT};

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

pub(super) fn column_list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Default)]
pub(super) struct Sql {
    pub(super) text: String,
    pub(super) values: Vec<Bound>,
    /// Names of tables within this statement that were given out.
    scopes: usize,
}

/// A table as one part of a statement calls it: a request may read the same table twice.
#[derive(Debug, Clone, Copy)]
struct Scope<'p> {
    plan: &'p ReadPlan,
    number: usize,
}

pub(super) fn select(plan: &ReadPlan) -> Result<Sql, StoreError> {
    let mut sql = Sql::default();
    let scope = sql.scope(plan);
    sql.text.push_str("select ");
    for (i, selected) in plan.select.iter().enumerate() {
        sql.text.push_str(if i == 0 { "" } else { ", " });
        sql.value(scope, &selected.value)?;
    }
    sql.rows(scope, None)?;
    Ok(sql)
}

/// How many rows the plan's answer has without its limit and offset.
pub(super) fn count(plan: &ReadPlan) -> Result<Sql, StoreError> {
    let mut sql = Sql::default();
    let scope = sql.scope(plan);
    sql.text.push_str(if plan.is_grouped() { "select count(*) from (select count(*)" } else { "select count(*)" });
    sql.matching(scope, None)?;
    if plan.is_grouped() {
        sql.group(scope)?;
        sql.text.push(')');
    }
    Ok(sql)
}

impl Sql {
    /// A statement that no plan stands for.
    pub(super) fn written(text: String, values: Vec<Bound>) -> Self {
        Self { text, values, scopes: 0 }
    }

    fn scope<'p>(&mut self, plan: &'p ReadPlan) -> Scope<'p> {
        self.scopes += 1;
        Scope { plan, number: self.scopes }
    }

    /// Everything after a select's list.
    fn rows(&mut self, scope: Scope<'_>, within: Option<embed::Within<'_>>) -> Result<(), StoreError> {
        self.matching(scope, within)?;
        self.group(scope)?;
        self.order(scope)?;
        let plan = scope.plan;
        if plan.limit.is_some() || plan.offset > 0 {
            let limit = plan.limit.map_or(-1, |limit| limit.min(i64::MAX as u64) as i64);
            let _ = write!(self.text, " limit {limit} offset {}", plan.offset.min(i64::MAX as u64));
        }
        Ok(())
    }

    /// A value of the answer, of the type that the plan says.
    fn value(&mut self, scope: Scope<'_>, value: &Value) -> Result<(), StoreError> {
        match value {
            Value::Field(field) => self.field(scope, field),
            Value::Count { cast } => {
                self.cast(ColumnType::Int8, cast.as_ref(), |sql| sql.text.push_str("count(*)"));
                Ok(())
            }
            Value::Aggregate { function, field, cast } => {
                let ty = function.ty(field.ty(&scope.plan.table));
                self.cast(ty, cast.as_ref(), |sql| sql.aggregate(scope, *function, field));
                Ok(())
            }
            Value::Embed(embed) => self.embedded(scope, *embed),
            Value::Spread { embed, item } => self.spread(scope, *embed, *item),
            Value::Ordered { embed, field } => self.ordered_value(scope, *embed, field),
        }
        .and_then(|()| self.is_bounded())
    }

    /// SQLite takes so many parameters and not more.
    fn is_bounded(&self) -> Result<(), StoreError> {
        const PARAMETERS_MAX: usize = 32_766;
        match self.values.len() > PARAMETERS_MAX {
            true => Err(StoreError::Asked(format!("at most {PARAMETERS_MAX} values in one read"))),
            false => Ok(()),
        }
    }

    fn aggregate(&mut self, scope: Scope<'_>, function: Aggregate, field: &Field) {
        let as_number_text =
            function == Aggregate::Sum && function.ty(field.ty(&scope.plan.table)) == ColumnType::Jsonb;
        self.text.push_str(if as_number_text { "cast(" } else { "" });
        self.text.push_str(match function {
            Aggregate::Sum => "sum(",
            Aggregate::Avg => "avg(",
            Aggregate::Count => "count(",
            Aggregate::Max => "max(",
            Aggregate::Min => "min(",
        });
        // What can fail fails for the same field in the select's check of its own.
        let _ = self.field(scope, field);
        self.text.push_str(if as_number_text { ") as text)" } else { ")" });
    }

    fn group(&mut self, scope: Scope<'_>) -> Result<(), StoreError> {
        if !scope.plan.is_grouped() {
            return Ok(());
        }
        let mut between = " group by ";
        for selected in scope.plan.select.iter().filter(|selected| !selected.value.is_aggregate()) {
            if let Value::Field(field) = &selected.value
                && is_json(&scope.plan.table, field)
            {
                return Err(json_has_no_order(&scope.plan.table, field));
            }
            self.text.push_str(std::mem::replace(&mut between, ", "));
            self.value(scope, &selected.value)?;
        }
        Ok(())
    }

    /// An order that the caller asked for is made total by the primary key, so that pages neither repeat nor skip rows.
    fn order(&mut self, scope: Scope<'_>) -> Result<(), StoreError> {
        for (i, term) in scope.plan.total_order().iter().enumerate() {
            self.text.push_str(if i == 0 { " order by " } else { ", " });
            self.ordered(scope, term.embed, &term.field)?;
            self.text.push_str(if term.descending { " desc" } else { "" });
            self.text.push_str(if term.nulls_first { " nulls first" } else { " nulls last" });
        }
        Ok(())
    }

    /// What a term of an order compares.
    fn ordered(&mut self, scope: Scope<'_>, embed: Option<usize>, field: &Field) -> Result<(), StoreError> {
        let table = embed.map_or(&scope.plan.table, |embed| &scope.plan.embeds[embed].plan.table);
        if is_json(table, field) {
            return Err(json_has_no_order(table, field));
        }
        match embed {
            Some(embed) => self.related_value(scope, embed, field),
            None => self.field(scope, field),
        }
    }

    fn ordered_value(&mut self, scope: Scope<'_>, embed: Option<usize>, field: &Field) -> Result<(), StoreError> {
        let table = embed.map_or(&scope.plan.table, |embed| &scope.plan.embeds[embed].plan.table);
        let declared = field.is_column() && table.columns[field.column].declared.is_some();
        let _ = write!(self.text, "{}(", if declared { EXACT } else { "" });
        self.ordered(scope, embed, field)?;
        self.text.push(')');
        Ok(())
    }

    /// A column with its path and cast.
    fn field(&mut self, scope: Scope<'_>, field: &Field) -> Result<(), StoreError> {
        let table = &scope.plan.table;
        let uncast = Field { cast: None, ..field.clone() };
        self.cast(uncast.ty(table), field.cast.as_ref(), |sql| {
            let text = field.as_text && !field.path.is_empty();
            sql.text.push_str(if text { JSON_TEXT } else { "" });
            sql.text.push_str(if text { "(" } else { "" });
            for _ in &field.path {
                let _ = write!(sql.text, "{JSON_GET}(");
            }
            sql.column(scope, field.column);
            for step in &field.path {
                sql.text.push_str(", ");
                sql.bind(match step {
                    Step::Key(key) => Bound::Text(key.clone()),
                    Step::Index(index) => Bound::Integer((*index).into()),
                });
                sql.text.push(')');
            }
            sql.text.push_str(if text { ")" } else { "" });
        });
        Ok(())
    }

    fn cast(&mut self, from: ColumnType, cast: Option<&Cast>, value: impl FnOnce(&mut Self)) {
        let Some(cast) = cast else { return value(self) };
        let _ = write!(self.text, "{CAST}(");
        value(self);
        let _ = write!(self.text, ", '{}', '{}')", from.name(), cast.name);
    }

    fn column(&mut self, scope: Scope<'_>, column: usize) {
        let _ = write!(self.text, "t{}.{}", scope.number, quoted(&scope.plan.table.columns[column].name));
    }

    fn bind(&mut self, value: Bound) {
        self.values.push(value);
        let _ = write!(self.text, "?{}", self.values.len());
    }
}

/// A declared type's values are whatever they are, and only travel as JSON.
fn is_json(table: &Table, field: &Field) -> bool {
    let declared = field.is_column() && table.columns[field.column].declared.is_some();
    field.ty(table) == ColumnType::Jsonb && !declared
}

fn json_has_no_order(table: &Table, field: &Field) -> StoreError {
    let name = &table.columns[field.column].name;
    StoreError::Asked(format!("{name} holds JSON, which has no order on SQLite; PostgreSQL can do this"))
}
