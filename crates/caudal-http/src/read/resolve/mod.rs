//! From what a request says to a plan: names are looked up in the catalogue, values are read as their columns' types.

mod filters;
mod relate;
mod select;

use std::sync::Arc;

use caudal_core::plan::{Embed, Field, OrderBy, ReadPlan};
use caudal_core::relations::Relations;
use caudal_core::schema::Table;
use http::StatusCode;

use super::query::{At, FieldName, Query, Term};
use crate::problem::{Problem, choices, excerpt};

/// Where tables are looked up.
pub(crate) struct Catalogue<'a> {
    pub(crate) relations: &'a Relations,
    /// A table in a schema, Caudal's own included.
    pub(crate) find: &'a dyn Fn(&str, &str) -> Option<Arc<Table>>,
}

/// # Errors
/// `400` that names what is wrong and what there is instead; `300` where a relation may mean several; `416` for a negative limit.
pub(crate) fn plan(catalogue: &Catalogue<'_>, table: Arc<Table>, query: &Query) -> Result<ReadPlan, Problem> {
    let mut plan = select::rows_of(catalogue, table, &query.select)?;
    for At { path, what } in &query.conditions {
        let (plan, what) = match own_field(&plan, path, what) {
            Some(joined) => (&mut plan, joined),
            None => (target(&mut plan, path)?, what.clone()),
        };
        let filter = filters::filter(plan, &what)?;
        plan.filter.push(filter);
    }
    for At { path, what } in &query.orders {
        let plan = target(&mut plan, path)?;
        plan.order = order(plan, what)?;
    }
    for At { path, what } in &query.limits {
        target(&mut plan, path)?.limit = Some(u64::try_from(*what).map_err(|_| {
            Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", "limit is a whole number from 0")
        })?);
    }
    for At { path, what } in &query.offsets {
        target(&mut plan, path)?.offset = u64::try_from(*what).unwrap_or_default();
    }
    plan.check().map_err(|error| bad_filter(error.to_string()))?;
    Ok(plan)
}

pub(super) fn bad_filter(detail: impl Into<String>) -> Problem {
    Problem::bad_request("bad_filter", detail.into())
}

pub(super) fn unknown_column(table: &Table, name: &str) -> Problem {
    let known = table.columns.iter().map(|c| c.name.as_str());
    let detail = format!("{} has no column {:?}; {}", table.name, excerpt(name), choices(name, known));
    Problem::bad_request("unknown_column", detail)
}

/// A column's own name may hold dots, which the grammar takes for a path to a relation.
fn own_field(plan: &ReadPlan, path: &[String], what: &super::query::Condition) -> Option<super::query::Condition> {
    let super::query::Condition::Field { field, test } = what else { return None };
    if path.is_empty() || plan.embeds.iter().any(|embed| embed.name == path[0]) {
        return None;
    }
    let name = format!("{}.{}", path.join("."), field.name);
    plan.table.column(&name)?;
    let field = FieldName { name, json: field.json.clone() };
    Some(super::query::Condition::Field { field, test: test.clone() })
}

/// The plan of the relation at the end of a path.
fn target<'p>(plan: &'p mut ReadPlan, path: &[String]) -> Result<&'p mut ReadPlan, Problem> {
    let mut plan = plan;
    for name in path {
        let found = embed_named(plan, name);
        let Some(index) = found else {
            return Err(Problem::bad_request(
                "not_embedded",
                format!(
                    "{:?} is no relation of this request; write it into select: select=*,{}(*)",
                    excerpt(name),
                    excerpt(name)
                ),
            ));
        };
        plan = &mut plan.embeds[index].plan;
    }
    Ok(plan)
}

pub(super) fn embed_named(plan: &ReadPlan, name: &str) -> Option<usize> {
    plan.embeds.iter().position(|embed: &Embed| embed.name == name)
}

fn order(plan: &ReadPlan, terms: &[Term]) -> Result<Vec<OrderBy>, Problem> {
    let mut order: Vec<OrderBy> = Vec::new();
    for term in terms {
        let (embed, table) = match &term.relation {
            None => (None, &plan.table),
            Some(name) => {
                let index = embed_named(plan, name)
                    .filter(|index| !plan.embeds[*index].many)
                    .ok_or_else(|| bad_filter(format!("{:?} is no to-one relation of the select", excerpt(name))))?;
                (Some(index), &plan.embeds[index].plan.table)
            }
        };
        let field = select::field(table, &term.field)?;
        let descending = term.descending.unwrap_or_default();
        let shown = |s: &caudal_core::plan::Selected| s.value == caudal_core::plan::Value::Field(field.clone());
        if plan.is_grouped() && !plan.select.iter().any(shown) {
            return Err(bad_filter(format!(
                "rows that are put together can be ordered by what the select shows, which {:?} is not",
                excerpt(&term.field.name)
            )));
        }
        if order.iter().all(|o| (&o.field, o.embed) != (&field, embed)) {
            let nulls_first = term.nulls_first.unwrap_or(descending);
            order.push(OrderBy { embed, field, descending, nulls_first });
        }
    }
    Ok(order)
}

/// Whether a column's type is one that the database itself declares.
pub(super) fn is_declared(table: &Table, field: &Field) -> bool {
    field.is_column() && table.columns[field.column].declared.is_some()
}
