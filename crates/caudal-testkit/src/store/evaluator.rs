//! What a plan means, said a second time: over rows in memory, without SQL.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use caudal_core::json;
use caudal_core::plan::{
    Aggregate, Cast, Comparison, Embed, Field, Filter, Is, OrderBy, ReadPlan, Scalar, Step, Value,
};
use caudal_core::row::Row;
use caudal_core::schema::{ColumnType, Table};
use caudal_core::time::Instant;
use uuid::Uuid;

pub(super) type Values = Vec<Option<Scalar>>;
pub(super) type Held = (Uuid, Values);

/// Rows of tables by name: each its `_id` and the values of its columns from `first` on.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) first: usize,
    pub(super) tables: BTreeMap<String, Vec<Held>>,
}

impl Rows {
    pub(super) fn of(&self, table: &Table) -> &[Held] {
        &self.tables[&table.name]
    }

    /// The answer to a plan. In order where the plan says one; without one any order is right.
    pub(super) fn answer(&self, plan: &ReadPlan) -> Vec<Values> {
        self.among(plan, self.of(&plan.table).iter().collect())
    }

    /// The answer of a plan that sees these rows and no others.
    pub(super) fn among(&self, plan: &ReadPlan, mut found: Vec<&Held>) -> Vec<Values> {
        found.retain(|row| self.fits(plan, row));
        if !plan.is_grouped() && !plan.order.is_empty() {
            found.sort_by(|a, b| self.sorted(plan, a, b));
        }
        let answer = match plan.is_grouped() {
            true => self.grouped(plan, &found),
            false => found.iter().map(|row| self.shown(plan, row)).collect(),
        };
        let limit = plan.limit.map_or(usize::MAX, |limit| limit as usize);
        answer.into_iter().skip(plan.offset as usize).take(limit).collect()
    }

    fn shown(&self, plan: &ReadPlan, row: &Held) -> Values {
        plan.select.iter().map(|selected| self.value(plan, row, &selected.value)).collect()
    }

    pub(super) fn fits(&self, plan: &ReadPlan, row: &Held) -> bool {
        plan.filter.iter().all(|filter| self.holds(plan, filter, row) == Some(true))
            && plan.embeds.iter().all(|embed| !embed.inner || !self.related(embed, row).is_empty())
    }

    /// The key comes last, in the direction of the term before it.
    fn sorted(&self, plan: &ReadPlan, a: &Held, b: &Held) -> Ordering {
        let place: Values = plan.order.iter().map(|term| self.ordered(plan, b, term)).collect();
        let ids = if plan.order.last().is_some_and(|term| term.descending) { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
        self.placed(plan, &plan.order, a, &place).then(ids)
    }

    /// How a row lies to a place in an order.
    fn placed(&self, plan: &ReadPlan, order: &[OrderBy], row: &Held, place: &[Option<Scalar>]) -> Ordering {
        let mut found = Ordering::Equal;
        for (term, value) in order.iter().zip(place) {
            let nulls = if term.nulls_first { Ordering::Less } else { Ordering::Greater };
            found = found.then_with(|| match (self.ordered(plan, row, term), value) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => nulls,
                (Some(_), None) => nulls.reverse(),
                (Some(a), Some(b)) if term.descending => compare(b, &a),
                (Some(a), Some(b)) => compare(&a, b),
            });
        }
        found
    }

    fn ordered(&self, plan: &ReadPlan, row: &Held, term: &OrderBy) -> Option<Scalar> {
        match term.embed {
            None => self.field(row, &term.field),
            Some(embed) => {
                let related = self.related(&plan.embeds[embed], row);
                related.first().and_then(|row| self.field(row, &term.field))
            }
        }
    }

    fn grouped(&self, plan: &ReadPlan, found: &[&Held]) -> Vec<Values> {
        let plain = |row: &Held| -> Values {
            let shown = plan.select.iter().filter(|selected| !selected.value.is_aggregate());
            shown.map(|selected| self.value(plan, row, &selected.value)).collect()
        };
        let mut groups: BTreeMap<String, Vec<&Held>> = BTreeMap::new();
        for row in found {
            groups.entry(format!("{:?}", plain(row))).or_default().push(row);
        }
        if plan.select.iter().all(|selected| selected.value.is_aggregate()) && groups.is_empty() {
            groups.insert(String::new(), Vec::new());
        }
        let of = |rows: &[&Held]| -> Values {
            let each = plan.select.iter().map(|selected| match &selected.value {
                Value::Count { .. } => Some(Scalar::Int8(rows.len() as i64)),
                Value::Aggregate { function, field, .. } => {
                    aggregate(*function, rows.iter().filter_map(|row| self.field(row, field)).collect())
                }
                plain => rows.first().and_then(|row| self.value(plan, row, plain)),
            });
            each.collect()
        };
        groups.values().map(|rows| of(rows)).collect()
    }

    fn value(&self, plan: &ReadPlan, row: &Held, value: &Value) -> Option<Scalar> {
        match value {
            Value::Field(field) => self.field(row, field),
            Value::Embed(embed) => {
                let embed = &plan.embeds[*embed];
                let names: Vec<&str> = embed.plan.select.iter().map(|selected| selected.name.as_str()).collect();
                let objects: Vec<String> = self.embedded(embed, row).iter().map(|row| object(&names, row)).collect();
                match embed.many {
                    true => Some(Scalar::Jsonb(format!("[{}]", objects.join(",")))),
                    false => objects.into_iter().next().map(Scalar::Jsonb),
                }
            }
            Value::Spread { embed, item } => {
                let embed = &plan.embeds[*embed];
                let values: Vec<Option<Scalar>> =
                    self.embedded(embed, row).into_iter().map(|mut row| row.swap_remove(*item)).collect();
                match embed.many {
                    true => {
                        let values: Vec<String> = values.iter().map(as_json).collect();
                        Some(Scalar::Jsonb(format!("[{}]", values.join(","))))
                    }
                    false => values.into_iter().next().flatten(),
                }
            }
            other => panic!("{other:?} is no value of a row"),
        }
    }

    /// The rows of an embed that belong to a row, before its limits; once for each row between.
    fn related<'r>(&'r self, embed: &Embed, row: &Held) -> Vec<&'r Held> {
        let mut found = self.joined(embed, row);
        found.retain(|inner| self.fits(&embed.plan, inner));
        found
    }

    fn embedded(&self, embed: &Embed, row: &Held) -> Vec<Values> {
        self.among(&embed.plan, self.joined(embed, row))
    }

    fn joined<'r>(&'r self, embed: &Embed, row: &Held) -> Vec<&'r Held> {
        let there = self.of(&embed.plan.table);
        let same = |one: &Held, a: usize, other: &Held, b: usize| {
            let pair = self.field(one, &a.into()).zip(self.field(other, &b.into()));
            pair.is_some_and(|(a, b)| compare(&a, &b).is_eq())
        };
        let all = |one: &Held, other: &Held, on: &[(usize, usize)]| on.iter().all(|(a, b)| same(one, *a, other, *b));
        let Some(through) = &embed.through else {
            return there.iter().filter(|inner| all(row, inner, &embed.on)).collect();
        };
        let between = self.of(&through.table).iter().filter(|link| all(row, link, &embed.on));
        between.flat_map(|link| there.iter().filter(move |inner| all(link, inner, &through.on))).collect()
    }

    fn field(&self, (id, values): &Held, field: &Field) -> Option<Scalar> {
        let mut value = match field.column {
            0 => Some(Scalar::Uuid(*id)),
            column => values[column - self.first].clone(),
        };
        if !field.path.is_empty() {
            let Some(Scalar::Jsonb(document)) = value else { return None };
            let mut found: &str = &document;
            for step in &field.path {
                found = match step {
                    Step::Key(key) => json::member(found, key)?,
                    Step::Index(index) => json::item(found, (*index).into())?,
                };
            }
            value = match field.as_text {
                true => json::as_text(found).map(Scalar::Text),
                false => Some(Scalar::Jsonb(found.to_owned())),
            };
        }
        match field.cast {
            Some(to) => value.map(|value| cast(value, to)),
            None => value,
        }
    }

    /// SQL's three values: `None` is unknown.
    pub(super) fn holds(&self, plan: &ReadPlan, filter: &Filter, row: &Held) -> Option<bool> {
        match filter {
            Filter::Compare { field, op, value: right } => self.field(row, field).map(|left| {
                if let (Scalar::Jsonb(left), Scalar::Jsonb(right)) = (&left, right) {
                    return json::same(left, right) == (*op == Comparison::Eq);
                }
                let order = compare(&left, right);
                match op {
                    Comparison::Eq => order.is_eq(),
                    Comparison::Neq => order.is_ne(),
                    Comparison::Gt => order.is_gt(),
                    Comparison::Gte => order.is_ge(),
                    Comparison::Lt => order.is_lt(),
                    Comparison::Lte => order.is_le(),
                }
            }),
            Filter::Like { field, pattern, insensitive } => self.text(row, field).map(|text| {
                let fold = |text: &str| -> Vec<char> {
                    if *insensitive { text.to_lowercase().chars().collect() } else { text.chars().collect() }
                };
                like(&fold(&text), &fold(pattern))
            }),
            Filter::Match { field, pattern, insensitive } => self.text(row, field).map(|text| {
                let built = regex::RegexBuilder::new(pattern).case_insensitive(*insensitive).build();
                built.expect("a pattern").is_match(&text)
            }),
            Filter::In { values, .. } if values.is_empty() => Some(false),
            Filter::In { field, values } => {
                self.field(row, field).map(|left| values.iter().any(|v| compare(&left, v).is_eq()))
            }
            Filter::Is { field, what } => Some(match (what, self.field(row, field)) {
                (Is::Null, found) => found.is_none(),
                (Is::True, found) => found == Some(Scalar::Bool(true)),
                (Is::False, found) => found == Some(Scalar::Bool(false)),
            }),
            Filter::After { order, place } => Some(self.placed(plan, order, row, place).is_gt()),
            Filter::Related { embed, exists } => Some(self.related(&plan.embeds[*embed], row).is_empty() != *exists),
            Filter::Not(inner) => self.holds(plan, inner, row).map(|b| !b),
            Filter::And(inner) => self.tree(plan, inner, row, false),
            Filter::Or(inner) => self.tree(plan, inner, row, true),
            other => panic!("{other:?} is not for every store"),
        }
    }

    /// `decides` is the value of one that decides for all.
    fn tree(&self, plan: &ReadPlan, filters: &[Filter], row: &Held, decides: bool) -> Option<bool> {
        let all: Vec<_> = filters.iter().map(|f| self.holds(plan, f, row)).collect();
        match () {
            () if all.contains(&Some(decides)) => Some(decides),
            () if all.contains(&None) => None,
            () => Some(!decides),
        }
    }

    fn text(&self, row: &Held, field: &Field) -> Option<String> {
        self.field(row, field).map(|value| match value {
            Scalar::Text(text) => text,
            other => panic!("{other:?} is no text"),
        })
    }
}

fn object(names: &[&str], values: &Values) -> String {
    let member = |(name, value): (&&str, &Option<Scalar>)| format!("{}:{}", quoted(name), as_json(value));
    let members: Vec<String> = names.iter().zip(values).map(member).collect();
    format!("{{{}}}", members.join(","))
}

/// A value within JSON.
fn as_json(value: &Option<Scalar>) -> String {
    match value {
        None => "null".to_owned(),
        Some(Scalar::Int8(v)) => v.to_string(),
        Some(Scalar::Float8(v)) => format!("{v:?}"),
        Some(Scalar::Bool(v)) => v.to_string(),
        Some(Scalar::Jsonb(v)) => v.clone(),
        Some(Scalar::Text(v)) => quoted(v),
        Some(Scalar::Timestamptz(v)) => quoted(&v.to_string()),
        Some(Scalar::Date(v)) => quoted(&v.to_string()),
        Some(Scalar::Uuid(v)) => quoted(&v.to_string()),
        Some(other) => panic!("{other:?} is of no table of ours"),
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    json::write_string(&mut out, text);
    String::from_utf8(out).expect("JSON is UTF-8")
}

pub(super) fn compare(a: &Scalar, b: &Scalar) -> Ordering {
    match (a, b) {
        (Scalar::Int8(a), Scalar::Int8(b)) => a.cmp(b),
        (Scalar::Float8(a), Scalar::Float8(b)) => a.total_cmp(b),
        (Scalar::Text(a), Scalar::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Scalar::Bool(a), Scalar::Bool(b)) => a.cmp(b),
        (Scalar::Timestamptz(a), Scalar::Timestamptz(b)) => a.cmp(b),
        (Scalar::Date(a), Scalar::Date(b)) => a.cmp(b),
        (Scalar::Uuid(a), Scalar::Uuid(b)) => a.cmp(b),
        (a, b) => panic!("{a:?} and {b:?} have no order"),
    }
}

fn like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|i| like(&text[i..], rest)),
        ['\\', c, rest @ ..] => text.first() == Some(c) && like(&text[1..], rest),
        ['_', rest @ ..] => !text.is_empty() && like(&text[1..], rest),
        [c, rest @ ..] => text.first() == Some(c) && like(&text[1..], rest),
    }
}

/// The casts that [`super::differential`] makes.
fn cast(value: Scalar, to: Cast) -> Scalar {
    match (value, to.name) {
        (Scalar::Int8(v), "text") => Scalar::Text(v.to_string()),
        (Scalar::Int8(v), "float8") => Scalar::Float8(v as f64),
        (Scalar::Int8(v), "int2" | "int4" | "int8") => Scalar::Int8(v),
        (Scalar::Float8(v), "int8") => Scalar::Int8(v.round_ties_even() as i64),
        (Scalar::Float8(v), "text") => Scalar::Text(if v.fract() == 0.0 { format!("{v:.0}") } else { v.to_string() }),
        (Scalar::Bool(v), "text") => Scalar::Text(v.to_string()),
        (Scalar::Uuid(v), "text") => Scalar::Text(v.to_string()),
        (Scalar::Date(v), "text") => Scalar::Text(v.to_string()),
        (Scalar::Date(v), "timestamptz") => Scalar::Timestamptz(Instant(i64::from(v.0) * 86_400_000_000)),
        (Scalar::Timestamptz(v), "date") => Scalar::Date(v.date()),
        (Scalar::Timestamptz(v), "text") => Scalar::Text(v.to_string().replace('T', " ").replace("+00:00", "+00")),
        (value, name) => panic!("{value:?} is not cast to {name}"),
    }
}

fn aggregate(function: Aggregate, values: Vec<Scalar>) -> Option<Scalar> {
    if function == Aggregate::Count {
        return Some(Scalar::Int8(values.len() as i64));
    }
    let number = |value: &Scalar| match value {
        Scalar::Int8(v) => *v as f64,
        Scalar::Float8(v) => *v,
        other => panic!("{other:?} is no number"),
    };
    let count = values.len();
    match (function, values.first()?) {
        (Aggregate::Max, _) => values.into_iter().max_by(compare),
        (Aggregate::Min, _) => values.into_iter().min_by(compare),
        (Aggregate::Avg, _) => Some(Scalar::Float8(values.iter().map(number).sum::<f64>() / count as f64)),
        (Aggregate::Sum, Scalar::Int8(_)) => {
            let whole = |value: &Scalar| if let Scalar::Int8(v) = value { i128::from(*v) } else { 0 };
            Some(Scalar::Jsonb(values.iter().map(whole).sum::<i128>().to_string()))
        }
        _ => Some(Scalar::Float8(values.iter().map(number).sum())),
    }
}

/// A store's row as values.
pub(super) fn decoded(types: &[ColumnType], row: Row<'_>) -> Values {
    types.iter().zip(row).map(|(ty, bytes)| bytes.map(|bytes| Scalar::read(*ty, bytes))).collect()
}

/// Whether two values are the same; JSON by meaning.
pub(super) fn same(a: &Option<Scalar>, b: &Option<Scalar>) -> bool {
    match (a, b) {
        (Some(Scalar::Jsonb(a)), Some(Scalar::Jsonb(b))) => json::same(a, b),
        (a, b) => a == b,
    }
}
