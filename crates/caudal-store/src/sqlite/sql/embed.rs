//! Related rows: a subquery for each place of the answer that shows them, and for each condition or order that names them.
//! SQLite has no lateral joins.

use std::fmt::Write;

use caudal_core::error::StoreError;
use caudal_core::plan::{Embed, Field, Value};
use caudal_core::schema::{Column, ColumnType};
use rusqlite::types::Value as Bound;

use super::super::functions::JSON_ANY;
use super::{Scope, Sql, quoted};

/// How the rows of a statement belong to a row of the statement around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Within<'p> {
    outer: Scope<'p>,
    embed: &'p Embed,
}

impl Sql {
    pub(super) fn matching(&mut self, scope: Scope<'_>, within: Option<Within<'_>>) -> Result<(), StoreError> {
        let _ = write!(self.text, " from {} t{}", quoted(&scope.plan.table.name), scope.number);
        if let Some(through) = within.and_then(|within| within.embed.through.as_ref()) {
            let _ = write!(self.text, " join {} x{} on ", quoted(&through.table.name), scope.number);
            for (i, (link, column)) in through.on.iter().enumerate() {
                let name = quoted(&through.table.columns[*link].name);
                let _ = write!(self.text, "{}x{}.{name} = ", if i == 0 { "" } else { " and " }, scope.number);
                self.column(scope, *column);
            }
        }
        let mut between = " where ";
        for (outer, column) in within.iter().flat_map(|within| &within.embed.on) {
            let Some(Within { outer: around, embed }) = within else { continue };
            self.text.push_str(std::mem::replace(&mut between, " and "));
            let (letter, table) = match &embed.through {
                Some(through) => ('x', &through.table),
                None => ('t', &scope.plan.table),
            };
            let _ = write!(self.text, "{letter}{}.{} = ", scope.number, quoted(&table.columns[*column].name));
            self.column(around, *outer);
        }
        for (index, _) in scope.plan.embeds.iter().enumerate().filter(|(_, embed)| embed.inner) {
            self.text.push_str(std::mem::replace(&mut between, " and "));
            self.related(scope, index)?;
        }
        if !scope.plan.filter.is_empty() {
            self.text.push_str(between);
            self.all(scope, &scope.plan.filter, " and ")?;
        }
        Ok(())
    }

    /// Whether a row has related ones.
    pub(super) fn related(&mut self, scope: Scope<'_>, index: usize) -> Result<(), StoreError> {
        let embed = &scope.plan.embeds[index];
        let inner = self.scope(&embed.plan);
        self.text.push_str("exists (select 1");
        self.matching(inner, Some(Within { outer: scope, embed }))?;
        self.text.push(')');
        Ok(())
    }

    /// One value of the related row.
    pub(super) fn related_value(&mut self, scope: Scope<'_>, index: usize, field: &Field) -> Result<(), StoreError> {
        let embed = &scope.plan.embeds[index];
        let inner = self.scope(&embed.plan);
        self.text.push_str("(select ");
        self.field(inner, field)?;
        self.matching(inner, Some(Within { outer: scope, embed }))?;
        self.text.push_str(" limit 1)");
        Ok(())
    }

    /// The related rows as one JSON text.
    pub(super) fn embedded(&mut self, scope: Scope<'_>, index: usize) -> Result<(), StoreError> {
        let embed = &scope.plan.embeds[index];
        let inner = self.scope(&embed.plan);
        let many = embed.many;
        // A value that crosses a subquery is a text again, and no JSON.
        self.text.push_str(if many { "(select json_group_array(json(o)) from (select " } else { "(select " });
        self.object(inner)?;
        self.text.push_str(if many { " as o" } else { "" });
        self.rows(inner, Some(Within { outer: scope, embed }))?;
        self.text.push_str(if many { "))" } else { " limit 1)" });
        Ok(())
    }

    /// One value of the related rows: of the only one, or a JSON array of all.
    pub(super) fn spread(&mut self, scope: Scope<'_>, index: usize, item: usize) -> Result<(), StoreError> {
        let embed = &scope.plan.embeds[index];
        let inner = self.scope(&embed.plan);
        let within = Some(Within { outer: scope, embed });
        let value = &embed.plan.select[item].value;
        let column = &embed.plan.columns()[item];
        match (embed.many, is_made(column)) {
            (false, _) => {
                self.text.push_str("(select ");
                self.value(inner, value)?;
                self.rows(inner, within)?;
                self.text.push_str(" limit 1)");
            }
            (true, made) => {
                self.text.push_str("(select json_group_array(");
                self.text.push_str(if made { "json(v)" } else { "v" });
                self.text.push_str(") from (select ");
                self.json(inner, value, column)?;
                self.text.push_str(" as v");
                self.rows(inner, within)?;
                self.text.push_str("))");
            }
        }
        Ok(())
    }

    fn object(&mut self, scope: Scope<'_>) -> Result<(), StoreError> {
        self.text.push_str("json_object(");
        for (i, (selected, column)) in scope.plan.select.iter().zip(scope.plan.columns()).enumerate() {
            self.text.push_str(if i == 0 { "" } else { ", " });
            self.bind(Bound::Text(selected.name.clone()));
            self.text.push_str(", ");
            self.json(scope, &selected.value, &column)?;
        }
        self.text.push(')');
        Ok(())
    }

    /// A value as SQLite's JSON functions must have it.
    fn json(&mut self, scope: Scope<'_>, value: &Value, column: &Column) -> Result<(), StoreError> {
        let (before, after) = match (column.ty, &column.declared) {
            (_, Some(_)) => (JSON_ANY, "))"),
            // SQLite writes doubles with digits that say nothing.
            (ColumnType::Float8, None) => (JSON_ANY, "))"),
            (ColumnType::Jsonb, None) => ("", ")"),
            (ColumnType::Bool, None) => ("case ", " when 0 then 'false' when 1 then 'true' end)"),
            _ => return self.value(scope, value),
        };
        self.text.push_str("json(");
        self.text.push_str(before);
        self.text.push_str(if before == JSON_ANY { "(" } else { "" });
        self.value(scope, value)?;
        self.text.push_str(after);
        Ok(())
    }
}

/// Whether [`Sql::json`] makes JSON of these values rather than leave that to SQLite.
fn is_made(column: &Column) -> bool {
    column.declared.is_some() || matches!(column.ty, ColumnType::Jsonb | ColumnType::Bool | ColumnType::Float8)
}
