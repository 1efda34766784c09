//! Random plans: a store's answer beside the evaluator's.

use std::sync::Arc;

use caudal_core::plan::{
    Aggregate, Cast, Comparison, Embed, Field, Filter, Is, Link, OrderBy, ReadPlan, Scalar, Selected, Step, Value,
};
use caudal_core::schema::{ColumnType, Table};
use caudal_core::time::Date;
use uuid::Uuid;

use super::evaluator::{Rows, Values, decoded, same};
use super::reading::{add_sample, read_all, sample};
use super::{Fixture, at};
use crate::chance::Chance;

/// Plans of one run; `CAUDAL_PLANS` says otherwise.
const PLANS: u64 = 400;

/// Ids of the sample's parents: those that its column `u` refers to, but for one.
const PARENTS: u128 = 4;

/// `CAUDAL_SEED` repeats a run.
pub async fn random_plans_match_the_evaluator(fx: Fixture) {
    let (child, mut rows) = sample(&fx, "random").await;
    let parent = add_sample(&fx, "parents", (0..PARENTS).map(Uuid::from_u128).collect(), &mut rows).await;
    let (mut chance, seed) = Chance::from_environment();
    let plans = std::env::var("CAUDAL_PLANS").ok().and_then(|n| n.parse().ok()).unwrap_or(PLANS);
    println!("{plans} plans, CAUDAL_SEED={seed}");
    let (mut filtered, mut grouped, mut related, mut placed) = (0, 0, 0, 0);
    for number in 0..plans {
        let table = if chance.one_in(5) { &parent } else { &child };
        let plan = Random { table, child: &child, parent: &parent, chance: &mut chance }.plan();
        let expected = rows.answer(&plan);
        let found = answer(&fx, &plan).await;
        let equal = if plan.order.is_empty() { same_set(&found, &expected) } else { same_rows(&found, &expected) };
        assert!(equal, "plan {number} of seed {seed}: {plan:#?}\nfound {found:#?}\nexpected {expected:#?}");
        let whole = ReadPlan { limit: None, offset: 0, ..plan.clone() };
        let expected_whole = rows.answer(&whole);
        let count = fx.store.count(&plan).await.expect("count");
        assert_eq!(count, expected_whole.len() as u64, "plan {number} of seed {seed}: {plan:#?}");
        filtered += u64::from(!expected.is_empty() && expected_whole.len() < rows.of(&plan.table).len());
        grouped += u64::from(plan.is_grouped());
        related += u64::from(!plan.embeds.is_empty() && !expected.is_empty());
        if !plan.order.is_empty() && !expected_whole.is_empty() {
            let last = chance.between(0, expected_whole.len() as u64) as usize;
            goes_on(&fx, &rows, &whole, &expected_whole, last, &format!("plan {number} of seed {seed}")).await;
            placed += 1;
        }
    }
    // Plans that let everything through, or nothing, show little.
    let counts = format!("{filtered}, {grouped}, {related} and {placed} of {plans}");
    assert!(filtered * 5 > plans && grouped * 20 > plans && related * 8 > plans && placed * 4 > plans, "{counts}");
}

async fn answer(fx: &Fixture, plan: &ReadPlan) -> Vec<Values> {
    let types = plan.types();
    read_all(&*fx.store, plan.clone()).await.rows().map(|row| decoded(&types, row)).collect()
}

/// What comes after row `last` of a plan's whole answer, by the ranges of its order and by one condition for all of them.
async fn goes_on(fx: &Fixture, rows: &Rows, plan: &ReadPlan, whole: &[Values], last: usize, what: &str) {
    let keys = ReadPlan { select: plan.ordered_values(), offset: last as u64, limit: Some(1), ..plan.clone() };
    let keys = read_all(&*fx.store, keys).await;
    let place = plan.place(keys.row(0));
    let mut found = Vec::new();
    for range in plan.after(&place) {
        found.extend(answer(fx, &range).await);
    }
    let expected = &whole[last + 1..];
    assert!(same_rows(&found, expected), "{what} after {place:?}: {plan:#?}\nfound {found:#?}\nexpected {expected:#?}");
    let mut at_once = plan.clone();
    at_once.filter.push(Filter::After { order: plan.total_order(), place: place.clone() });
    let found = answer(fx, &at_once).await;
    assert!(same_rows(&found, expected), "{what} at once after {place:?}: {plan:#?}\nfound {found:#?}");
    let said = rows.answer(&at_once);
    assert!(same_rows(&said, expected), "{what}: the evaluator has another order than itself: {plan:#?}\n{said:#?}");
}

fn same_row(a: &Values, b: &Values) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

fn same_rows(a: &[Values], b: &[Values]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_row(a, b))
}

/// In any order: each found row takes one of those expected.
fn same_set(found: &[Values], expected: &[Values]) -> bool {
    let mut left = expected.to_vec();
    let taken = found.iter().all(|row| {
        let place = left.iter().position(|other| same_row(row, other));
        place.map(|place| left.swap_remove(place)).is_some()
    });
    taken && left.is_empty()
}

struct Random<'a> {
    /// The table of the plan that is being made.
    table: &'a Arc<Table>,
    child: &'a Arc<Table>,
    parent: &'a Arc<Table>,
    chance: &'a mut Chance,
}

impl Random<'_> {
    fn plan(&mut self) -> ReadPlan {
        let grouped = self.chance.one_in(6);
        let mut plan = self.filtered(grouped, 0);
        if !plan.is_grouped() && !self.chance.one_in(3) {
            plan.order = self.order(&plan, 1);
            plan.limit = self.chance.one_in(2).then(|| self.chance.between(0, 50));
            plan.offset = if self.chance.one_in(3) { self.chance.between(0, 30) } else { 0 };
        }
        plan
    }

    fn filtered(&mut self, grouped: bool, depth: u32) -> ReadPlan {
        let mut plan = ReadPlan::all(self.table.clone());
        let items = self.chance.between(1, 5);
        plan.select = (0..items).map(|i| Selected { value: self.value(grouped), name: format!("c{i}") }).collect();
        plan.filter = (0..self.chance.between(0, 3)).map(|_| self.filter(0)).collect();
        let embeds = if depth < 2 { self.chance.between(0, 3 - u64::from(depth)) } else { 0 };
        for index in 0..embeds as usize {
            let embed = self.embed(index, depth);
            if !plan.is_grouped() {
                self.show(&mut plan, index, &embed);
            }
            plan.embeds.push(embed);
            if self.chance.one_in(4) {
                let related = Filter::Related { embed: index, exists: self.chance.one_in(2) };
                plan.filter.push(match self.chance.one_in(3) {
                    true => Filter::Or(vec![related, self.filter(1)]),
                    false => related,
                });
            }
        }
        plan
    }

    fn order(&mut self, plan: &ReadPlan, least: u64) -> Vec<OrderBy> {
        let mut order: Vec<OrderBy> = Vec::new();
        for _ in 0..self.chance.between(least, 4) {
            let to_one: Vec<usize> = (0..plan.embeds.len()).filter(|at| !plan.embeds[*at].many).collect();
            let embed = (!to_one.is_empty() && self.chance.one_in(3)).then(|| *self.chance.pick(&to_one));
            let field = self.field(|ty| ty != ColumnType::Jsonb);
            let (descending, nulls_first) = (self.chance.one_in(2), self.chance.one_in(2));
            // Twice the same says nothing new; requests cannot say it.
            if order.iter().all(|o| (o.embed, &o.field) != (embed, &field)) {
                order.push(OrderBy { embed, field, descending, nulls_first });
            }
        }
        order
    }

    /// Of a child its one parent; of either those that refer to it, have a value in common, or are related through a third.
    fn embed(&mut self, index: usize, depth: u32) -> Embed {
        let of = |table: &Arc<Table>, name: &str| table.column(name).expect("a column");
        let (here, child) = (self.table, self.child);
        let (to, on, through, many) = match self.chance.between(0, 3) {
            0 if here.name == child.name => (self.parent, vec![(of(child, "u"), 0)], None, false),
            0 => (child, vec![(0, of(child, "u"))], None, true),
            1 => (child, vec![(of(here, "i"), of(child, "i")), (of(here, "b"), of(child, "b"))], None, true),
            _ => {
                let through = Link { table: child.clone(), on: vec![(of(child, "i"), of(child, "i"))] };
                (self.parent, vec![(of(here, "u"), of(child, "u"))], Some(through), true)
            }
        };
        let mut inner = Random { table: to, child: self.child, parent: self.parent, chance: self.chance };
        // A group of everything is one row; groups of their own would come in any order.
        let whole = many && inner.chance.one_in(6);
        let mut plan = inner.filtered(whole, depth + 1);
        if whole {
            plan.select.retain(|selected| selected.value.is_aggregate());
            plan.select.push(Selected { value: Value::Count { cast: None }, name: "n".into() });
        } else {
            plan.order = inner.order(&plan, if many { 1 } else { 0 });
        }
        if many && !whole {
            plan.limit = inner.chance.one_in(2).then(|| inner.chance.between(0, 6));
            plan.offset = if inner.chance.one_in(4) { inner.chance.between(0, 4) } else { 0 };
        }
        let inner = self.chance.one_in(4);
        Embed { name: format!("e{index}"), plan, on, through, many, inner }
    }

    fn show(&mut self, plan: &mut ReadPlan, index: usize, embed: &Embed) {
        match self.chance.between(0, 4) {
            0 => {}
            1 => {
                for (item, selected) in embed.plan.select.iter().enumerate() {
                    let name = format!("s{index}_{}", selected.name);
                    plan.select.push(Selected { value: Value::Spread { embed: index, item }, name });
                }
            }
            _ => plan.select.push(Selected { value: Value::Embed(index), name: format!("e{index}") }),
        }
    }

    fn value(&mut self, grouped: bool) -> Value {
        if grouped && self.chance.one_in(2) {
            let (_, function) = *self.chance.pick(Aggregate::NAMES);
            // Of the plain columns only: a sum of what a cast made is no other case.
            let field = self.column(|ty| function.takes(ty)).into();
            return match self.chance.one_in(4) {
                true => Value::Count { cast: None },
                false => Value::Aggregate { function, field, cast: None },
            };
        }
        Value::Field(self.field(|ty| !grouped || ty != ColumnType::Jsonb))
    }

    fn column(&mut self, fits: impl Fn(ColumnType) -> bool) -> usize {
        let first = self.first();
        let columns = &self.table.columns[first..first + 8];
        let fitting: Vec<usize> =
            columns.iter().enumerate().filter(|(_, c)| fits(c.ty)).map(|(i, _)| first + i).collect();
        *self.chance.pick(&fitting)
    }

    fn first(&self) -> usize {
        self.table.column("i").expect("i")
    }

    /// A column, a value within its JSON, or a cast of it.
    fn field(&mut self, fits: impl Fn(ColumnType) -> bool) -> Field {
        loop {
            let column = if self.chance.one_in(12) { 0 } else { self.column(|_| true) };
            let mut field = Field::from(column);
            let ty = self.table.columns[column].ty;
            if ty == ColumnType::Jsonb && !self.chance.one_in(4) {
                field.path = self.path();
                field.as_text = self.chance.one_in(2);
            } else if self.chance.one_in(4) {
                field.cast = Cast::named(self.cast(ty));
            }
            if fits(field.ty(self.table)) {
                return field;
            }
        }
    }

    fn path(&mut self) -> Vec<Step> {
        let key = |name: &str| Step::Key(name.to_owned());
        let paths = [
            vec![key("k")],
            vec![key("list"), Step::Index(0)],
            vec![key("list"), Step::Index(-1)],
            vec![key("list")],
            vec![key("deep"), key("q\"uote $.é")],
            vec![key("nothing"), key("there")],
            vec![key("flag")],
        ];
        self.chance.pick(&paths).clone()
    }

    fn cast(&mut self, from: ColumnType) -> &'static str {
        let choices: &[&str] = match from {
            ColumnType::Int8 => &["text", "float8", "int2", "int4", "int8"],
            ColumnType::Float8 => &["text", "int8"],
            ColumnType::Date => &["text", "timestamptz"],
            ColumnType::Timestamptz => &["text", "date"],
            ColumnType::Bool | ColumnType::Uuid => &["text"],
            ColumnType::Text | ColumnType::Jsonb => &["none"],
        };
        let chosen: &&str = self.chance.pick::<&str>(choices);
        chosen
    }

    fn filter(&mut self, depth: u32) -> Filter {
        match self.chance.between(0, if depth < 3 { 11 } else { 8 }) {
            0..=2 => {
                let field = self.field(|_| true);
                let ty = field.ty(self.table);
                let ops =
                    [Comparison::Eq, Comparison::Neq, Comparison::Gt, Comparison::Gte, Comparison::Lt, Comparison::Lte];
                // JSON is equal or not on both stores, and has an order on one.
                let op = *self.chance.pick(if ty == ColumnType::Jsonb { &ops[..2] } else { &ops });
                Filter::Compare { field, op, value: self.scalar(ty) }
            }
            3 => {
                let field = self.field(|ty| ty != ColumnType::Jsonb);
                let ty = field.ty(self.table);
                Filter::In { field, values: (0..self.chance.between(0, 5)).map(|_| self.scalar(ty)).collect() }
            }
            4 => {
                let boolean = self.chance.one_in(3);
                let field = self.field(|ty| !boolean || ty == ColumnType::Bool);
                let what = if boolean { *self.chance.pick(&[Is::True, Is::False]) } else { Is::Null };
                Filter::Is { field, what }
            }
            5 | 6 => {
                let field = self.field(|ty| ty == ColumnType::Text);
                let patterns = ["a%", "A%", "_", "%b", "a\\_b", "a\\%%", "%", "", "é", "zz\\\\", "%ñ%", "%2%", "t%e"];
                let pattern = (*self.chance.pick(&patterns)).to_owned();
                Filter::Like { field, pattern, insensitive: self.chance.one_in(2) }
            }
            7 => {
                let field = self.field(|ty| ty == ColumnType::Text);
                let pattern = (*self.chance.pick(&["^a", "b$", "[A-Z]", "^.?$", "a|z", "[0-9]{2}", "é"])).to_owned();
                Filter::Match { field, pattern, insensitive: self.chance.one_in(2) }
            }
            8 => Filter::Not(Box::new(self.filter(depth + 1))),
            9 => Filter::And((0..self.chance.between(0, 4)).map(|_| self.filter(depth + 1)).collect()),
            _ => Filter::Or((0..self.chance.between(0, 4)).map(|_| self.filter(depth + 1)).collect()),
        }
    }

    /// A value that the sample holds, or one beside it.
    fn scalar(&mut self, ty: ColumnType) -> Scalar {
        match ty {
            ColumnType::Int8 => Scalar::Int8(self.chance.between(0, 9) as i64 - 4),
            ColumnType::Float8 => Scalar::Float8(*self.chance.pick(&[0.5, -1.25, 1e10, 3.0, 0.0, -3.0])),
            ColumnType::Text => {
                let texts = [
                    "",
                    "a",
                    "A",
                    "b",
                    "ab",
                    "a_b",
                    "Z",
                    "é",
                    "zz\\",
                    "1",
                    "true",
                    "2020-02-29",
                    "Z'; drop table x; --",
                ];
                Scalar::Text((*self.chance.pick(&texts)).to_owned())
            }
            ColumnType::Bool => Scalar::Bool(self.chance.one_in(2)),
            ColumnType::Timestamptz => {
                let times =
                    ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.05Z", "2023-12-31T23:59:59Z", "2020-02-29T00:00:00Z"];
                Scalar::Timestamptz(at(self.chance.pick::<&str>(&times)))
            }
            ColumnType::Date => {
                let days = ["2020-02-29", "1999-12-31", "2024-01-01", "2023-12-31"];
                Scalar::Date(Date::parse(self.chance.pick::<&str>(&days)).expect("a date"))
            }
            ColumnType::Uuid => Scalar::Uuid(Uuid::from_u128(self.chance.between(0, 6).into())),
            ColumnType::Jsonb => {
                let documents = ["1", "\"1\"", "null", "true", "[1, \"two\", 2.50]", "{\"k\": 1.0}", "2.5", "{}"];
                Scalar::Jsonb((*self.chance.pick(&documents)).to_owned())
            }
        }
    }
}
