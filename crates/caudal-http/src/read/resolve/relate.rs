//! Which rows of another table belong to a row: by the foreign keys between them, as PostgREST finds them.

use std::sync::Arc;

use caudal_core::plan::{Embed, Link, ReadPlan};
use caudal_core::relations::{ForeignKey, KeyEnd};
use caudal_core::schema::Table;
use http::StatusCode;
use serde_json::json;

use super::Catalogue;
use crate::problem::{Problem, choices, excerpt};
use crate::read::query::Related;

/// One way from a table to another.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) table: Arc<Table>,
    on: Vec<(usize, usize)>,
    through: Option<Link>,
    many: bool,
    /// The words that single it out as a hint: constraints, columns, the table between.
    hints: Vec<String>,
    cardinality: &'static str,
    /// How a request says that it means this one.
    said: String,
}

impl Relation {
    pub(super) fn embed(self, name: String, plan: ReadPlan, inner: bool) -> Embed {
        Embed { name, plan, on: self.on, through: self.through, many: self.many, inner }
    }
}

/// The one relation that a request means.
///
/// # Errors
/// `400` when there is none, `300` when several fit.
pub(super) fn relation(catalogue: &Catalogue<'_>, table: &Table, wanted: &Related) -> Result<Relation, Problem> {
    let mut fitting = candidates(catalogue, table, wanted);
    if let Some(hint) = &wanted.hint {
        fitting.retain(|relation| relation.hints.contains(hint));
    }
    if fitting.len() > 1 {
        return Err(ambiguous(table, wanted, &fitting));
    }
    fitting.pop().ok_or_else(|| unknown(catalogue, table, wanted))
}

/// By the other table's name, by the constraint's, or by the column's that refers to it.
///
/// A table that refers to itself: the column is the one that a row refers to, the table with a hint those that refer to it.
fn candidates(catalogue: &Catalogue<'_>, table: &Table, wanted: &Related) -> Vec<Relation> {
    let (relations, name) = (catalogue.relations, wanted.relation.as_str());
    let mut all = Vec::new();
    for key in relations.keys_from(table) {
        let by_column = key.from.columns.len() == 1 && key.from.columns[0] == name;
        let to_itself = key.to == KeyEnd { columns: key.to.columns.clone(), ..key.from.clone() };
        let by_table = key.to.table == name && !(to_itself && wanted.hint.is_some());
        if by_table || key.name == name || by_column {
            all.extend(direct(catalogue, table, key, &key.from, &key.to, false));
        }
    }
    for key in relations.keys_to(table) {
        if key.from.table == name || key.name == name {
            all.extend(direct(catalogue, table, key, &key.to, &key.from, !key.one_to_one));
        }
    }
    let to_us: Vec<&ForeignKey> = relations.keys_to(table).collect();
    for left in to_us {
        let Some(between) = (catalogue.find)(&left.from.schema, &left.from.table) else { continue };
        for right in relations.keys_from(&between).filter(|right| *right != left && right.to.table == name) {
            if is_between(&between, left, right) {
                all.extend(through(catalogue, table, &between, left, right));
            }
        }
    }
    all
}

/// A table stands between two others when its primary key holds both references.
fn is_between(between: &Table, left: &ForeignKey, right: &ForeignKey) -> bool {
    let in_key = |end: &KeyEnd| {
        end.columns.iter().all(|name| between.column(name).is_some_and(|column| between.key.contains(&column)))
    };
    in_key(&left.from) && in_key(&right.from)
}

fn direct(
    catalogue: &Catalogue<'_>,
    table: &Table,
    key: &ForeignKey,
    here: &KeyEnd,
    there: &KeyEnd,
    many: bool,
) -> Option<Relation> {
    let other = (catalogue.find)(&there.schema, &there.table)?;
    let on = pairs(table, here, &other, there)?;
    let mut hints = vec![key.name.clone()];
    if key.from.columns.len() == 1 {
        hints.push(key.from.columns[0].clone());
    }
    let said = match (many, &key.from.columns[..]) {
        (false, [column]) if there.table == table.name => column.clone(),
        _ => format!("{}!{}", there.table, hints.last().unwrap_or(&key.name)),
    };
    let cardinality = match (many, key.one_to_one) {
        (true, _) => "one-to-many",
        (false, true) => "one-to-one",
        (false, false) => "many-to-one",
    };
    Some(Relation { table: other, on, through: None, many, hints, cardinality, said })
}

fn through(
    catalogue: &Catalogue<'_>,
    table: &Table,
    between: &Arc<Table>,
    left: &ForeignKey,
    right: &ForeignKey,
) -> Option<Relation> {
    let other = (catalogue.find)(&right.to.schema, &right.to.table)?;
    let on = pairs(table, &left.to, between, &left.from)?;
    let link = pairs(between, &right.from, &other, &right.to)?;
    let hints = vec![between.name.clone(), left.name.clone(), right.name.clone()];
    let through = Some(Link { table: between.clone(), on: link });
    let said = format!("{}!{}", right.to.table, between.name);
    Some(Relation { table: other, on, through, many: true, hints, cardinality: "many-to-many", said })
}

fn pairs(one: &Table, here: &KeyEnd, other: &Table, there: &KeyEnd) -> Option<Vec<(usize, usize)>> {
    here.columns.iter().zip(&there.columns).map(|(a, b)| Some((one.column(a)?, other.column(b)?))).collect()
}

fn ambiguous(table: &Table, wanted: &Related, fitting: &[Relation]) -> Problem {
    let name = &wanted.relation;
    let ways: Vec<_> = fitting
        .iter()
        .map(|r| json!({ "cardinality": r.cardinality, "relationship": r.hints.join(" or "), "embedding": format!("{} with {}", table.name, r.table.name) }))
        .collect();
    let hints: Vec<&str> = fitting.iter().map(|r| r.said.as_str()).collect();
    let detail =
        format!("{} and {name} are related in {} ways; say which: {}", table.name, fitting.len(), hints.join(", "));
    Problem::new(StatusCode::MULTIPLE_CHOICES, "ambiguous_relation", detail).with("ways", ways)
}

fn unknown(catalogue: &Catalogue<'_>, table: &Table, wanted: &Related) -> Problem {
    let to = catalogue.relations.keys_from(table).map(|key| key.to.table.clone());
    let from = catalogue.relations.keys_to(table).map(|key| key.from.table.clone());
    let mut known: Vec<String> = to.chain(from).collect();
    known.sort();
    known.dedup();
    let name = excerpt(&wanted.relation);
    let hint = wanted.hint.as_deref().map(|hint| format!(" by {:?}", excerpt(hint))).unwrap_or_default();
    let there = match known.is_empty() {
        true => "no foreign key refers to it or from it".to_owned(),
        false => choices(&wanted.relation, known.iter()),
    };
    Problem::bad_request("unknown_relation", format!("{} has no relation to {name:?}{hint}; {there}", table.name))
}
