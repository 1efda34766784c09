//! Foreign keys through views: a view that shows a table's columns as they are has the keys that lie on them.

use std::collections::{BTreeMap, BTreeSet};

use caudal_core::relations::{ForeignKey, KeyEnd};
use tokio_postgres::Row;

/// The columns of views that are a table's (or another view's) column as it is. PostgreSQL keeps a view's query as a tree in
/// text, and each of its results with the column that it is taken from (`resorigtbl`, `resorigcol`). Results of queries
/// within the query stand in the same text: a name that occurs with two origins is left out, so that what is left is certain.
pub(super) const TRACED: &str = "with shown as (
      select v.oid, m[1] as name, min(m[2]::oid::int8) as source, min(m[3]::int2) as number
        from pg_class v
        join pg_namespace n on n.oid = v.relnamespace and n.nspname not in ('pg_catalog', 'information_schema')
        join pg_rewrite r on r.ev_class = v.oid and r.rulename = '_RETURN',
             regexp_matches(r.ev_action::text,
               ':resname ([^ \\\\]+) :ressortgroupref \\d+ :resorigtbl (\\d+) :resorigcol (\\d+) ', 'g') m
       where v.relkind in ('v', 'm')
       group by v.oid, m[1] having count(distinct (m[2], m[3])) = 1)
    select vn.nspname::text, v.relname::text, s.name, tn.nspname::text, t.relname::text, a.attname::text
      from shown s
      join pg_class v on v.oid = s.oid join pg_namespace vn on vn.oid = v.relnamespace
      join pg_attribute va on va.attrelid = v.oid and va.attname = s.name and not va.attisdropped
      join pg_class t on t.oid::int8 = s.source join pg_namespace tn on tn.oid = t.relnamespace
      join pg_attribute a on a.attrelid = t.oid and a.attnum = s.number";

type Name = (String, String);

/// One column of a view and the column that it shows.
#[derive(Debug, Clone)]
pub(super) struct Traced {
    view: Name,
    column: String,
    source: Name,
    source_column: String,
}

impl Traced {
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            view: (row.try_get(0)?, row.try_get(1)?),
            column: row.try_get(2)?,
            source: (row.try_get(3)?, row.try_get(4)?),
            source_column: row.try_get(5)?,
        })
    }
}

/// How deep views of views are followed.
const DEPTH_MAX: usize = 16;

/// The keys, and those that views have from the tables that they show.
pub(super) fn with_views(keys: Vec<ForeignKey>, traced: &[Traced]) -> Vec<ForeignKey> {
    let shown = shown(traced);
    let mut all = keys.clone();
    for key in &keys {
        for from in ends(&key.from, &shown) {
            for to in ends(&key.to, &shown) {
                all.push(ForeignKey { from: from.clone(), to, ..key.clone() });
            }
        }
    }
    all
}

/// For each table, each view that shows columns of it: what they are called there. A column shown twice has no one name.
type Shown = BTreeMap<Name, BTreeMap<Name, BTreeMap<String, Option<String>>>>;

fn shown(traced: &[Traced]) -> Shown {
    let direct: BTreeMap<(&Name, &str), &Traced> = traced.iter().map(|t| ((&t.view, t.column.as_str()), t)).collect();
    let mut shown = Shown::new();
    for start in traced {
        let mut at = start;
        for _ in 0..DEPTH_MAX {
            let names = shown.entry(at.source.clone()).or_default().entry(start.view.clone()).or_default();
            names
                .entry(at.source_column.clone())
                .and_modify(|name| *name = None)
                .or_insert_with(|| Some(start.column.clone()));
            match direct.get(&(&at.source, at.source_column.as_str())) {
                Some(deeper) => at = deeper,
                None => break,
            }
        }
    }
    shown
}

/// The end itself, and each view that shows all of its columns.
fn ends(end: &KeyEnd, shown: &Shown) -> BTreeSet<KeyEnd> {
    let mut ends = BTreeSet::from([end.clone()]);
    let views = shown.get(&(end.schema.clone(), end.table.clone()));
    for ((schema, view), names) in views.into_iter().flatten() {
        let columns = end.columns.iter().map(|column| names.get(column).cloned().flatten());
        if let Some(columns) = columns.collect::<Option<Vec<String>>>() {
            ends.insert(KeyEnd::new(schema, view, columns));
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(view: &str, column: &str, source: &str, source_column: &str) -> Traced {
        let name = |name: &str| ("s".to_owned(), name.to_owned());
        Traced { view: name(view), column: column.into(), source: name(source), source_column: source_column.into() }
    }

    fn line_to_order() -> ForeignKey {
        let end = |table: &str, column: &str| KeyEnd::new("s", table, vec![column.into()]);
        ForeignKey { name: "k".into(), from: end("line", "order_id"), to: end("order", "id"), one_to_one: false }
    }

    fn pairs(traced: &[Traced]) -> Vec<String> {
        let keys = with_views(vec![line_to_order()], traced);
        let pairs =
            keys.iter().map(|k| format!("{}.{} {}.{}", k.from.table, k.from.columns[0], k.to.table, k.to.columns[0]));
        pairs.collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn views_take_part_under_their_own_names_and_through_each_other() {
        let views = [traced("lines", "belongs_to", "line", "order_id"), traced("recent", "of", "lines", "belongs_to")];
        assert_eq!(pairs(&views), ["line.order_id order.id", "lines.belongs_to order.id", "recent.of order.id"]);
        let both = [traced("lines", "o", "line", "order_id"), traced("orders", "id", "order", "id")];
        assert_eq!(
            pairs(&both),
            ["line.order_id order.id", "line.order_id orders.id", "lines.o order.id", "lines.o orders.id"]
        );
    }

    #[test]
    fn a_view_without_the_column_or_with_it_twice_has_no_key() {
        assert_eq!(pairs(&[traced("lines", "id", "line", "id")]), ["line.order_id order.id"]);
        let twice = [traced("lines", "a", "line", "order_id"), traced("lines", "b", "line", "order_id")];
        assert_eq!(pairs(&twice), ["line.order_id order.id"]);
    }
}
