//! Columns, JSON paths, casts, aggregates.

use std::sync::Arc;

use caudal_core::plan::{Aggregate, Cast, Field, ReadPlan, Selected, Step, Value};
use caudal_core::schema::{ColumnType, Table};

use super::relate;
use super::{Catalogue, bad_filter, is_declared, unknown_column};
use crate::problem::{Problem, choices, excerpt};
use crate::read::query::{Arrow, FieldName, Item, Related, StepKey};

/// Steps of one JSON path: no record is nested deeper.
const PATH_STEPS_MAX: usize = caudal_core::limits::JSON_DEPTH_MAX as usize;
/// UTF-8 bytes of an alias: PostgreSQL would cut a longer one.
const ALIAS_BYTES_MAX: usize = 63;

/// A plan of a table with this select; nothing selected is every column.
pub(super) fn rows_of(catalogue: &Catalogue<'_>, table: Arc<Table>, items: &[Item]) -> Result<ReadPlan, Problem> {
    let mut plan = ReadPlan::all(table);
    let all = std::mem::take(&mut plan.select);
    for item in items {
        match item {
            Item::All => plan.select.extend(all.iter().cloned()),
            Item::Count { alias, cast } => {
                let cast = cast.as_deref().map(|name| named_cast(name, ColumnType::Int8, false)).transpose()?;
                let name = alias.clone().unwrap_or_else(|| "count".to_owned());
                plan.select.push(Selected { value: Value::Count { cast }, name });
            }
            Item::Field { .. } => {
                let selected = selected(&plan.table, item)?;
                plan.select.push(selected);
            }
            Item::Related(related) => embed(catalogue, &mut plan, related)?,
        }
    }
    if items.is_empty() {
        plan.select = all;
    }
    if plan
        .select
        .iter()
        .any(|selected| selected.name.len() > ALIAS_BYTES_MAX && plan.table.column(&selected.name).is_none())
    {
        return Err(bad_filter(format!("an alias has at most {ALIAS_BYTES_MAX} bytes")));
    }
    if plan.select.is_empty() {
        return Err(bad_filter("select names nothing that the answer would show"));
    }
    Ok(plan)
}

fn embed(catalogue: &Catalogue<'_>, plan: &mut ReadPlan, related: &Related) -> Result<(), Problem> {
    let found = relate::relation(catalogue, &plan.table, related)?;
    // `rel()` shows nothing and can be filtered by.
    let hidden = related.select.is_empty();
    let shown: &[Item] = if hidden { &[Item::All] } else { &related.select };
    let inner = rows_of(catalogue, found.table.clone(), shown)?;
    let index = plan.embeds.len();
    let name = related.alias.clone().unwrap_or_else(|| related.relation.clone());
    if related.spread && !hidden {
        let items = inner.select.iter().enumerate();
        plan.select.extend(items.map(|(item, selected)| Selected {
            value: Value::Spread { embed: index, item },
            name: selected.name.clone(),
        }));
    } else if !hidden {
        plan.select.push(Selected { value: Value::Embed(index), name: name.clone() });
    }
    plan.embeds.push(found.embed(name, inner, related.inner.unwrap_or_default()));
    Ok(())
}

fn selected(table: &Table, item: &Item) -> Result<Selected, Problem> {
    let Item::Field { alias, field: name, cast, aggregate, aggregate_cast } = item else {
        return Err(bad_filter("not a column"));
    };
    let mut field = field(table, name)?;
    if let Some(cast) = cast {
        field.cast = Some(named_cast(cast, field.ty(table), is_declared(table, &field))?);
    }
    let Some(function) = aggregate else {
        let name = alias.clone().unwrap_or_else(|| answer_name(name));
        return Ok(Selected { value: Value::Field(field), name });
    };
    let known = Aggregate::NAMES.iter().map(|(name, _)| *name);
    let unknown = || bad_filter(format!("no aggregate {:?}; {}", excerpt(function), choices(function, known)));
    let aggregate = Aggregate::named(function).ok_or_else(unknown)?;
    let ty = field.ty(table);
    if !is_declared(table, &field) && !aggregate.takes(ty) {
        return Err(bad_filter(format!("{function}() does not apply to {} ({})", name.name, ty.name())));
    }
    let cast = aggregate_cast.as_deref().map(|name| named_cast(name, aggregate.ty(ty), true)).transpose()?;
    let name = alias.clone().unwrap_or_else(|| function.clone());
    Ok(Selected { value: Value::Aggregate { function: aggregate, field, cast }, name })
}

/// What PostgREST calls a value that has no alias: the last name of its path.
fn answer_name(field: &FieldName) -> String {
    let keys = field.json.iter().rev().find_map(|step| match &step.key {
        StepKey::Key(key) => Some(key.clone()),
        StepKey::Index(_) => None,
    });
    keys.unwrap_or_else(|| field.name.clone())
}

/// A column by name, and the path into its JSON.
pub(super) fn field(table: &Table, name: &FieldName) -> Result<Field, Problem> {
    let column = table.column(&name.name).ok_or_else(|| unknown_column(table, &name.name))?;
    let found = &table.columns[column];
    if !name.json.is_empty() && found.ty != ColumnType::Jsonb && found.declared.is_none() {
        return Err(bad_filter(format!("{} is no JSON ({}): -> does not apply", found.name, found.type_name())));
    }
    if name.json.len() > PATH_STEPS_MAX {
        return Err(bad_filter(format!("a path has at most {PATH_STEPS_MAX} steps")));
    }
    let mut path = Vec::new();
    for (i, step) in name.json.iter().enumerate() {
        if step.arrow == Arrow::Text && i + 1 < name.json.len() {
            return Err(bad_filter(format!(
                "{}: ->> makes text, into which no path goes on; write -> before the last",
                name.name
            )));
        }
        path.push(match &step.key {
            StepKey::Key(key) => Step::Key(key.clone()),
            StepKey::Index(index) => {
                let index =
                    i32::try_from(*index).map_err(|_| bad_filter(format!("index {index} is beyond any array")))?;
                Step::Index(index)
            }
        });
    }
    let as_text = name.json.last().is_some_and(|step| step.arrow == Arrow::Text);
    Ok(Field { column, path, as_text, cast: None })
}

fn named_cast(name: &str, from: ColumnType, declared: bool) -> Result<Cast, Problem> {
    let known = Cast::NAMES.iter().flat_map(|(names, _)| names.iter());
    let unknown = || bad_filter(format!("cannot cast to {:?}; {}", excerpt(name), choices(name, known)));
    let cast = Cast::named(name).ok_or_else(unknown)?;
    if !declared && !cast.takes(from) {
        return Err(bad_filter(format!("{} cannot be cast to {}", from.name(), cast.name)));
    }
    Ok(cast)
}
