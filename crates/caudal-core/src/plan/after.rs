//! Going on in an order: the rows that come after a place in it.

use super::{Comparison, Filter, Is, OrderBy, ReadPlan, Scalar, Selected, Value};
use crate::row::Row;
use crate::schema::Table;

/// What each term of a plan's [total order](ReadPlan::total_order) is at one row.
pub type Place = Vec<Option<Scalar>>;

impl ReadPlan {
    /// The order with the primary key as its last terms, which makes it total. They go in the direction of the term before them, so
    /// that one index can serve all. Empty without an order.
    pub fn total_order(&self) -> Vec<OrderBy> {
        let mut order = self.order.clone();
        let (Some(last), false) = (order.last().cloned(), self.is_grouped()) else { return order };
        for column in &self.table.key {
            let term = OrderBy::column(*column);
            if !order.iter().any(|o| o.embed.is_none() && o.field == term.field) {
                order.push(OrderBy { descending: last.descending, nulls_first: last.descending, ..term });
            }
        }
        order
    }

    /// What a select must show at the end of each row for [`place`](Self::place) to read it.
    pub fn ordered_values(&self) -> Vec<Selected> {
        let value = |term: OrderBy| Value::Ordered { embed: term.embed, field: term.field };
        self.total_order().into_iter().map(|term| Selected { value: value(term), name: String::new() }).collect()
    }

    /// The place of a row that has the [ordered values](Self::ordered_values) and nothing else.
    pub fn place(&self, row: Row<'_>) -> Place {
        let types = self.ordered_values().into_iter().map(|selected| {
            let column = self.column(&selected);
            (column.ty, self.is_exact(&selected.value))
        });
        let value = |(ty, exact), bytes| match (Scalar::read(ty, bytes), exact) {
            (Scalar::Text(text), true) => Scalar::Exact(text),
            (value, _) => value,
        };
        types.zip(row).map(|(ty, bytes)| bytes.map(|bytes| value(ty, bytes))).collect()
    }

    fn is_exact(&self, value: &Value) -> bool {
        let Value::Ordered { embed, field } = value else { return false };
        let table = embed.map_or(&self.table, |embed| &self.embeds[embed].plan.table);
        field.is_column() && table.columns[field.column].declared.is_some()
    }

    /// The rows after `place`, as plans whose answers follow one another. Each is a single range of the order, which an index on
    /// the order serves whatever its directions and wherever its nulls are; one condition for all of them would not be.
    pub fn after(&self, place: &[Option<Scalar>]) -> Vec<ReadPlan> {
        let order = self.total_order();
        let with = |conditions: Vec<Filter>| {
            let mut plan = self.clone();
            plan.filter.extend(conditions);
            plan
        };
        if order.iter().any(|term| term.embed.is_some()) {
            return vec![with(vec![Filter::After { order, place: place.to_vec() }])];
        }
        ranges(&self.table, &order, place).into_iter().map(with).collect()
    }
}

/// Ordered by how many of the first terms are as they are in the place: the longest first.
fn ranges(table: &Table, order: &[OrderBy], place: &[Option<Scalar>]) -> Vec<Vec<Filter>> {
    let run = run(table, order, place);
    let mut ranges = Vec::new();
    let mut push = |equal: usize, then: Filter| {
        let mut conditions: Vec<Filter> =
            order[..equal].iter().zip(place).map(|(term, value)| is(term, value)).collect();
        conditions.push(then);
        ranges.push(conditions);
    };
    let null = |term: &OrderBy| Filter::Is { field: term.field.clone(), what: Is::Null };
    if run < order.len() {
        let mut rest = order[run..].to_vec();
        // Nulls are a range of their own.
        rest[0].nulls_first = true;
        push(run, Filter::After { order: rest, place: place[run..].to_vec() });
        if order[run].may_be_null(table) && !order[run].nulls_first {
            push(run, null(&order[run]));
        }
    }
    for (i, term) in order.iter().enumerate().take(run).rev() {
        match &place[i] {
            Some(value) => {
                let op = if term.descending { Comparison::Lt } else { Comparison::Gt };
                push(i, Filter::Compare { field: term.field.clone(), op, value: value.clone() });
                if term.may_be_null(table) && !term.nulls_first {
                    push(i, null(term));
                }
            }
            None if term.nulls_first => push(i, Filter::Not(Box::new(null(term)))),
            None => {}
        }
    }
    ranges
}

/// Where the last terms begin that are one comparison of rows.
fn run(table: &Table, order: &[OrderBy], place: &[Option<Scalar>]) -> usize {
    let mut run = order.len();
    while run > 0 && place[run - 1].is_some() {
        let joins =
            order.get(run).is_none_or(|next| next.descending == order[run - 1].descending && !next.may_be_null(table));
        if !joins {
            break;
        }
        run -= 1;
    }
    run
}

fn is(term: &OrderBy, value: &Option<Scalar>) -> Filter {
    let field = term.field.clone();
    match value {
        Some(value) => Filter::Compare { field, op: Comparison::Eq, value: value.clone() },
        None => Filter::Is { field, what: Is::Null },
    }
}

/// Whether [`Filter::After`] is one comparison of rows, `(a, b) > (x, y)`: the terms go in one direction, and no null is among
/// what comes after.
pub fn is_row_comparison(table: &Table, order: &[OrderBy], place: &[Option<Scalar>]) -> bool {
    order.iter().zip(place).enumerate().all(|(i, (term, value))| {
        let passed = !term.may_be_null(table) || (i == 0 && term.nulls_first);
        value.is_some() && passed && term.descending == order[0].descending
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::{Column, ColumnType, ID, Origin};

    fn plan(order: &[(usize, bool, bool)]) -> ReadPlan {
        let column = |name: &str| Column::new(name, ColumnType::Int8, true, Origin::Property);
        let table = Table::of_topic("t", vec![column("a"), column("b")], false);
        let order = order.iter().map(|(column, descending, nulls_first)| OrderBy {
            descending: *descending,
            nulls_first: *nulls_first,
            ..OrderBy::column(*column)
        });
        ReadPlan { order: order.collect(), ..ReadPlan::all(Arc::new(table)) }
    }

    const A: usize = 5;
    const B: usize = 6;

    fn described(filters: &[Filter]) -> String {
        let one = |filter: &Filter| match filter {
            Filter::Compare { field, op, .. } => format!("{}{op:?}", field.column),
            Filter::Is { field, .. } => format!("{}Null", field.column),
            Filter::Not(_) => "NotNull".to_owned(),
            Filter::After { order, .. } => format!("After{}", order.len()),
            other => panic!("{other:?}"),
        };
        filters.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn ranges_of(order: &[(usize, bool, bool)], place: &[Option<i64>]) -> Vec<String> {
        let place: Place = place.iter().map(|v| v.map(Scalar::Int8)).collect();
        plan(order).after(&place).iter().map(|plan| described(&plan.filter)).collect()
    }

    #[test]
    fn the_key_makes_an_order_total_in_the_direction_before_it() {
        let total = plan(&[(A, false, false), (B, true, false)]).total_order();
        let last = total.last().unwrap();
        assert_eq!((total.len(), last.field.column, last.descending, last.nulls_first), (3, 0, true, true));
        assert_eq!(plan(&[(0, true, true), (A, false, false)]).total_order().len(), 2);
        assert!(plan(&[]).total_order().is_empty());
        assert_eq!(plan(&[]).table.columns[0].name, ID);
    }

    #[test]
    fn every_range_is_one_of_the_order() {
        let (up, down, down_last) = (false, true, false);
        assert_eq!(ranges_of(&[(0, up, false)], &[Some(1)]), ["After1"]);
        assert_eq!(ranges_of(&[(A, up, false)], &[Some(1), Some(2)]), ["After2", "5Null"]);
        assert_eq!(ranges_of(&[(A, down, true)], &[Some(1), Some(2)]), ["After2"]);
        assert_eq!(ranges_of(&[(A, down, down_last)], &[Some(1), Some(2)]), ["After2", "5Null"]);
        assert_eq!(ranges_of(&[(A, up, false)], &[None, Some(2)]), ["5Null After1"]);
        assert_eq!(ranges_of(&[(A, up, true)], &[None, Some(2)]), ["5Null After1", "NotNull"]);
        let mixed = &[(A, up, false), (B, down, true)];
        assert_eq!(ranges_of(mixed, &[Some(1), Some(2), Some(3)]), ["5Eq After2", "5Gt", "5Null"]);
        let same = &[(A, up, false), (B, up, false)];
        assert_eq!(
            ranges_of(same, &[Some(1), Some(2), Some(3)]),
            ["5Eq After2", "5Eq 6Null", "5Gt", "5Null"],
            "a null among the later terms is no part of a comparison of rows"
        );
    }
}
