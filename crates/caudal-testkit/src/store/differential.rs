//! Random plans: a store's answer beside the evaluator's.

use std::sync::Arc;

use caudal_core::plan::{
    Aggregate, Cast, Comparison, Field, Filter, Is, OrderBy, ReadPlan, Scalar, Selected, Step, Value,
};
use caudal_core::schema::{ColumnType, Table};
use caudal_core::time::Date;
use uuid::Uuid;

use super::evaluator::{decoded, same};
use super::reading::{read_all, sample};
use super::{Fixture, at};
use crate::chance::Chance;

/// Plans of one run; `CAUDAL_PLANS` says otherwise.
const PLANS: u64 = 400;

/// `CAUDAL_SEED` repeats a run.
pub async fn random_plans_match_the_evaluator(fx: Fixture) {
    let (table, rows) = sample(&fx, "random").await;
    let (mut chance, seed) = Chance::from_environment();
    let plans = std::env::var("CAUDAL_PLANS").ok().and_then(|n| n.parse().ok()).unwrap_or(PLANS);
    println!("{plans} plans, CAUDAL_SEED={seed}");
    let (mut filtered, mut grouped) = (0, 0);
    for number in 0..plans {
        let plan = Random { table: &table, chance: &mut chance }.plan();
        let types = plan.types();
        let expected = rows.answer(&plan);
        let found = read_all(&*fx.store, plan.clone()).await;
        let found: Vec<_> = found.rows().map(|row| decoded(&types, row)).collect();
        let equal = match plan.order.is_empty() {
            // In any order: each found row takes one of those expected.
            true => {
                let mut left = expected.clone();
                let taken = found.iter().all(|row| {
                    let place = left.iter().position(|other| row.iter().zip(other).all(|(a, b)| same(a, b)));
                    place.map(|place| left.swap_remove(place)).is_some()
                });
                taken && left.is_empty()
            }
            false => {
                found.len() == expected.len()
                    && found.iter().zip(&expected).all(|(a, b)| a.iter().zip(b).all(|(a, b)| same(a, b)))
            }
        };
        assert!(equal, "plan {number} of seed {seed}: {plan:#?}\nfound {found:#?}\nexpected {expected:#?}");
        let whole = ReadPlan { limit: None, offset: 0, ..plan.clone() };
        let count = fx.store.count(&plan).await.expect("count");
        assert_eq!(count, rows.answer(&whole).len() as u64, "plan {number} of seed {seed}: {plan:#?}");
        filtered += u64::from(!expected.is_empty() && expected.len() < rows.rows.len());
        grouped += u64::from(plan.is_grouped());
    }
    // Plans that let everything through, or nothing, show little.
    assert!(filtered * 4 > plans && grouped * 20 > plans, "{filtered} and {grouped} of {plans}");
}

struct Random<'a> {
    table: &'a Arc<Table>,
    chance: &'a mut Chance,
}

impl Random<'_> {
    fn plan(&mut self) -> ReadPlan {
        let mut plan = ReadPlan::all(self.table.clone());
        let grouped = self.chance.one_in(5);
        let items = self.chance.between(1, 5);
        plan.select = (0..items).map(|i| Selected { value: self.value(grouped), name: format!("c{i}") }).collect();
        plan.filter = (0..self.chance.between(0, 3)).map(|_| self.filter(0)).collect();
        if !plan.is_grouped() && !self.chance.one_in(3) {
            for _ in 0..self.chance.between(1, 4) {
                let field = self.field(|ty| ty != ColumnType::Jsonb);
                let (descending, nulls_first) = (self.chance.one_in(2), self.chance.one_in(2));
                plan.order.push(OrderBy { embed: None, field, descending, nulls_first });
            }
            plan.limit = self.chance.one_in(2).then(|| self.chance.between(0, 50));
            plan.offset = if self.chance.one_in(3) { self.chance.between(0, 30) } else { 0 };
        }
        plan
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
