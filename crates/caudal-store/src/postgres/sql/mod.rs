//! SQL from a read plan. Identifiers come only from the plan's tables and are quoted; values are always parameters.

mod after;
#[cfg(test)]
mod deep_pages;
mod embed;
mod filter;

use std::fmt::Write;

use caudal_core::plan::{Aggregate, Field, ReadPlan, Step, Value};
use caudal_core::schema::{Column, ColumnType, Table};
use tokio_postgres::types::Type;

use super::wire::Raw;

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
    /// Names of tables within this statement that were given out.
    scopes: usize,
}

/// A table as one part of a statement calls it: a request may read the same table twice.
#[derive(Debug, Clone, Copy)]
struct Scope<'p> {
    plan: &'p ReadPlan,
    number: usize,
}

pub(super) fn select(plan: &ReadPlan) -> Sql {
    let mut sql = Sql::default();
    let scope = sql.scope(plan);
    sql.select(scope, None);
    sql
}

/// How many rows the plan's answer has without its limit and offset.
pub(super) fn count(plan: &ReadPlan) -> Sql {
    let mut sql = Sql::default();
    let scope = sql.scope(plan);
    if plan.is_grouped() {
        sql.text.push_str("select count(*) from (");
        let whole = ReadPlan { order: Vec::new(), limit: None, offset: 0, ..plan.clone() };
        sql.select(Scope { plan: &whole, ..scope }, None);
        sql.text.push_str(") counted");
        return sql;
    }
    sql.text.push_str("select count(*)");
    sql.matching(scope, None);
    sql
}

/// An expression as values of its type travel.
fn travelling(expression: &str, ty: ColumnType) -> String {
    match ty {
        ColumnType::Jsonb => format!("to_json({expression})"),
        ty => format!("{expression}::{}", ty.name()),
    }
}

impl Sql {
    /// A statement that no plan stands for.
    pub(super) fn written(text: String, values: Vec<(Raw, Type)>) -> Self {
        Self { text, values, scopes: 0 }
    }

    fn scope<'p>(&mut self, plan: &'p ReadPlan) -> Scope<'p> {
        self.scopes += 1;
        Scope { plan, number: self.scopes }
    }

    /// The whole statement of a plan; `within` says how its rows belong to a row around them.
    fn select(&mut self, scope: Scope<'_>, within: Option<embed::Within<'_>>) {
        self.text.push_str("select ");
        let embeds = self.embeds_of(scope);
        for (i, selected) in scope.plan.select.iter().enumerate() {
            self.text.push_str(if i == 0 { "" } else { ", " });
            self.value(scope, &selected.value, &embeds, within.is_some());
            // Within, the names are the keys of an object.
            if within.is_some() {
                let _ = write!(self.text, " as {}", quoted(&selected.name));
            }
        }
        self.joined(scope, within, &embeds);
        self.group(scope);
        self.order(scope);
        let plan = scope.plan;
        if let Some(limit) = plan.limit {
            let _ = write!(self.text, " limit {}", limit.min(i64::MAX as u64));
        }
        if plan.offset > 0 {
            let _ = write!(self.text, " offset {}", plan.offset.min(i64::MAX as u64));
        }
    }

    /// A value of the answer. Outermost, as it travels; within, as its own type, which JSON is then made of.
    fn value(&mut self, scope: Scope<'_>, value: &Value, embeds: &[embed::Joined<'_>], within: bool) {
        match value {
            Value::Field(field) => self.travelling(scope, field, within),
            Value::Count { cast } => {
                self.text.push_str("count(*)");
                self.cast(cast.map(|cast| (cast.name, cast.ty)));
            }
            Value::Aggregate { function, field, cast } => {
                self.aggregate(scope, *function, field, cast.as_ref(), within)
            }
            Value::Embed(embed) => {
                let _ = write!(self.text, "j{}.rows", embeds[*embed].number());
            }
            Value::Spread { embed, item } => {
                let _ = write!(self.text, "j{}.c{item}", embeds[*embed].number());
            }
            Value::Ordered { embed, field } => self.ordered_value(scope, *embed, field),
        }
    }

    fn travelling(&mut self, scope: Scope<'_>, field: &Field, within: bool) {
        let column = &scope.plan.table.columns[field.column];
        if within || !field.is_column() || column.declared.is_none() {
            self.field(scope, field);
            // Without a type of its own in a row, a cast to less than 8 bytes would not travel.
            if let (false, Some(cast)) = (within, &field.cast) {
                self.cast(Some((cast.ty.name(), cast.ty)).filter(|(name, _)| *name != cast.name));
            }
            return;
        }
        let json = column.ty == ColumnType::Jsonb;
        self.text.push_str(if json { "to_json(" } else { "" });
        self.field(scope, field);
        match json {
            true => self.text.push(')'),
            false => self.cast(Some((column.ty.name(), column.ty))),
        }
    }

    fn aggregate(
        &mut self,
        scope: Scope<'_>,
        function: Aggregate,
        field: &Field,
        cast: Option<&caudal_core::plan::Cast>,
        within: bool,
    ) {
        let table = &scope.plan.table;
        let ty = field.ty(table);
        let json = cast.is_none() && !within && function.ty(ty) == ColumnType::Jsonb;
        self.text.push_str(if json { "to_jsonb(" } else { "" });
        self.text.push_str(match function {
            Aggregate::Sum => "sum(",
            Aggregate::Avg => "avg(",
            Aggregate::Count => "count(",
            Aggregate::Max => "max(",
            Aggregate::Min => "min(",
        });
        match function {
            Aggregate::Max | Aggregate::Min => self.bytewise(scope, field),
            _ => self.field(scope, field),
        }
        self.text.push_str(match function {
            // As SQLite has it, and as it travels.
            Aggregate::Avg => "::float8)",
            _ => ")",
        });
        self.text.push_str(if json { ")" } else { "" });
        let declared: Option<&Column> = field.is_column().then(|| &table.columns[field.column]);
        let declared = declared.filter(|column| column.declared.is_some() && !within);
        match (cast, function, declared) {
            (Some(cast), ..) => self.cast(Some((cast.name, cast.ty))),
            (None, Aggregate::Max | Aggregate::Min, Some(column)) => self.cast(Some((column.ty.name(), column.ty))),
            _ => {}
        }
    }

    /// `::name`, and on to how it travels.
    fn cast(&mut self, cast: Option<(&str, ColumnType)>) {
        if let Some((name, ty)) = cast {
            let _ = write!(self.text, "::{name}");
            if name != ty.name() {
                let _ = write!(self.text, "::{}", ty.name());
            }
        }
    }

    /// By the values themselves, not by what they are turned into to travel: JSON, for one, cannot be grouped by.
    fn group(&mut self, scope: Scope<'_>) {
        if !scope.plan.is_grouped() {
            return;
        }
        let mut between = " group by ";
        for (i, selected) in scope.plan.select.iter().enumerate().filter(|(_, s)| !s.value.is_aggregate()) {
            self.text.push_str(std::mem::replace(&mut between, ", "));
            match &selected.value {
                Value::Field(field) => self.field(scope, field),
                _ => drop(write!(self.text, "{}", i + 1)),
            }
        }
    }

    /// An order that the caller asked for is made total by the primary key, so that pages neither repeat nor skip rows.
    fn order(&mut self, scope: Scope<'_>) {
        for (i, term) in scope.plan.total_order().iter().enumerate() {
            self.text.push_str(if i == 0 { " order by " } else { ", " });
            self.ordered(scope, term.embed, &term.field);
            self.text.push_str(if term.descending { " desc" } else { "" });
            self.text.push_str(if term.nulls_first { " nulls first" } else { " nulls last" });
        }
    }

    /// What a term of an order compares.
    fn ordered(&mut self, scope: Scope<'_>, embed: Option<usize>, field: &Field) {
        match embed {
            Some(embed) => self.related_value(scope, embed, field),
            None => self.bytewise(scope, field),
        }
    }

    /// The same, to travel. The text of a value reads back as that value.
    fn ordered_value(&mut self, scope: Scope<'_>, embed: Option<usize>, field: &Field) {
        let table = embed.map_or(&scope.plan.table, |embed| &scope.plan.embeds[embed].plan.table);
        let declared = field.is_column() && table.columns[field.column].declared.is_some();
        self.ordered(scope, embed, field);
        self.text.push_str(if declared { "::text" } else { "" });
        // Without a type of its own in a row, a cast to less than 8 bytes would not travel.
        let narrow = field.cast.as_ref().filter(|cast| cast.name != cast.ty.name());
        self.cast(narrow.map(|cast| (cast.ty.name(), cast.ty)));
    }

    /// A column with its path and cast.
    fn field(&mut self, scope: Scope<'_>, field: &Field) {
        let column = &scope.plan.table.columns[field.column];
        self.text.push_str(if field.cast.is_some() { "(" } else { "" });
        if field.path.is_empty() {
            self.column(scope, field.column);
        } else {
            self.text.push_str(if column.declared.is_some() { "(to_jsonb(" } else { "(" });
            self.column(scope, field.column);
            self.text.push_str(if column.declared.is_some() { ")" } else { "" });
            for (i, step) in field.path.iter().enumerate() {
                let last = i + 1 == field.path.len();
                self.text.push_str(if last && field.as_text { " ->> " } else { " -> " });
                match step {
                    Step::Key(key) => self.bind(Raw(key.clone().into_bytes()), Type::TEXT),
                    Step::Index(index) => self.bind(Raw(index.to_be_bytes().to_vec()), Type::INT4),
                }
            }
            self.text.push(')');
        }
        if let Some(cast) = &field.cast {
            let _ = write!(self.text, ")::{}", cast.name);
        }
    }

    fn column(&mut self, scope: Scope<'_>, column: usize) {
        let _ = write!(self.text, "t{}.{}", scope.number, quoted(&scope.plan.table.columns[column].name));
    }

    /// A value in an order or a range: text by its bytes, as SQLite does. Found tables keep their own order, which their
    /// indexes are in.
    fn bytewise(&mut self, scope: Scope<'_>, field: &Field) {
        self.field(scope, field);
        let table = &scope.plan.table;
        if field.ty(table) == ColumnType::Text && (table.schema.is_none() || !field.is_column()) {
            self.text.push_str(" collate \"C\"");
        }
    }

    /// The same value is the same parameter: only so does the server see that two expressions are one, in a group and in its order.
    /// Not literals: each place makes another type of them.
    fn bind(&mut self, value: Raw, ty: Type) {
        let known = self.values.iter().position(|(known, of)| *of == ty && ty != Type::UNKNOWN && *known == value);
        let number = known.unwrap_or(self.values.len());
        if known.is_none() {
            self.values.push((value, ty));
        }
        let _ = write!(self.text, "${}", number + 1);
    }
}
