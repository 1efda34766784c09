//! Conditions, with values of their columns' types.

use caudal_core::plan::{Comparison, Field, Filter, Is, ReadPlan, Scalar, Search, Spatial};
use caudal_core::schema::{ColumnType, Table};

use super::{bad_filter, embed_named, is_declared, select};
use crate::problem::{Problem, excerpt};
use crate::read::query::{self, Compared, Condition, Logic, Operation, Quantifier, Test, Truth};

/// UTF-8 bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 1024;

pub(super) fn filter(plan: &ReadPlan, condition: &Condition) -> Result<Filter, Problem> {
    let filter = match condition {
        Condition::Tree { negated, logic, conditions } => {
            let all: Vec<Filter> = conditions.iter().map(|c| filter(plan, c)).collect::<Result<_, _>>()?;
            let tree = if *logic == Logic::And { Filter::And(all) } else { Filter::Or(all) };
            negate(tree, *negated)
        }
        Condition::Field { field, test } => {
            if field.json.is_empty()
                && plan.table.column(&field.name).is_none()
                && let Some(embed) = embed_named(plan, &field.name)
            {
                return related(embed, &field.name, test);
            }
            let field = select::field(&plan.table, field)?;
            negate(operation(&plan.table, field, &test.operation)?, test.negated)
        }
    };
    Ok(filter)
}

fn negate(filter: Filter, negated: bool) -> Filter {
    if negated { Filter::Not(Box::new(filter)) } else { filter }
}

/// `rel=is.null` and `rel=not.is.null`: rows without, and with, related ones.
fn related(embed: usize, name: &str, test: &Test) -> Result<Filter, Problem> {
    let exists = match &test.operation {
        Operation::Is(Truth::Null) => test.negated,
        Operation::Is(Truth::NotNull) => !test.negated,
        _ => {
            let detail =
                format!("of the relation {:?} it can only be asked whether it is.null or not.is.null", excerpt(name));
            return Err(Problem::bad_request("related_filter", detail));
        }
    };
    Ok(Filter::Related { embed, exists })
}

fn operation(table: &Table, field: Field, operation: &Operation) -> Result<Filter, Problem> {
    match operation {
        Operation::Compare { how, quantifier: None, value } => compare(table, field, *how, value),
        Operation::Compare { how, quantifier: Some(quantifier), value } => {
            let each = array(value)?;
            let each = each.iter().map(|value| compare(table, field.clone(), *how, value)).collect::<Result<_, _>>()?;
            Ok(if *quantifier == Quantifier::Any { Filter::Or(each) } else { Filter::And(each) })
        }
        // Null is distinct from every value.
        Operation::Distinct(value) => {
            let value = scalar(table, &field, value)?;
            let null = Filter::Is { field: field.clone(), what: Is::Null };
            Ok(Filter::Or(vec![null, Filter::Compare { field, op: Comparison::Neq, value }]))
        }
        Operation::In(values) => {
            let values = values.iter().map(|value| scalar(table, &field, value)).collect::<Result<_, _>>()?;
            Ok(Filter::In { field, values })
        }
        Operation::Is(truth) => is(table, field, *truth),
        Operation::Search { how, config, query } => search(table, field, *how, config.as_deref(), query),
        Operation::Spatial { how, value } => spatial(table, field, *how, value),
    }
}

fn compare(table: &Table, field: Field, how: Compared, value: &str) -> Result<Filter, Problem> {
    let op = match how {
        Compared::Eq => Comparison::Eq,
        Compared::Neq => Comparison::Neq,
        Compared::Gt => Comparison::Gt,
        Compared::Gte => Comparison::Gte,
        Compared::Lt => Comparison::Lt,
        Compared::Lte => Comparison::Lte,
        Compared::Like | Compared::ILike => {
            let pattern = pattern(table, &field, "like", value)?.replace('*', "%");
            return Ok(Filter::Like { field, pattern, insensitive: how == Compared::ILike });
        }
        Compared::Match | Compared::IMatch => {
            let pattern = pattern(table, &field, "match", value)?.to_owned();
            return Ok(Filter::Match { field, pattern, insensitive: how == Compared::IMatch });
        }
    };
    let value = scalar(table, &field, value)?;
    Ok(Filter::Compare { field, op, value })
}

fn pattern<'v>(table: &Table, field: &Field, word: &str, value: &'v str) -> Result<&'v str, Problem> {
    if field.ty(table) != ColumnType::Text {
        return Err(bad_filter(format!("{word} works on text, which {} is not", called(table, field))));
    }
    match value.len() > PATTERN_BYTES_MAX {
        true => Err(bad_filter(format!("a pattern has at most {PATTERN_BYTES_MAX} bytes"))),
        false => Ok(value),
    }
}

fn scalar(table: &Table, field: &Field, text: &str) -> Result<Scalar, Problem> {
    let column = &table.columns[field.column];
    let value = match field.path.is_empty() {
        true => Scalar::of(column, text),
        false => Scalar::parse(field.ty(table), text),
    };
    value.ok_or_else(|| {
        let ty = if field.path.is_empty() { column.type_name() } else { field.ty(table).name() };
        let detail = format!("{:?} is not a value of {} ({ty})", excerpt(text), column.name);
        Problem::bad_request("bad_value", detail)
    })
}

fn is(table: &Table, field: Field, truth: Truth) -> Result<Filter, Problem> {
    let boolean = field.ty(table) == ColumnType::Bool;
    let of = |what| Filter::Is { field: field.clone(), what };
    match truth {
        Truth::Null => Ok(of(Is::Null)),
        Truth::NotNull => Ok(negate(of(Is::Null), true)),
        Truth::True if boolean => Ok(of(Is::True)),
        Truth::False if boolean => Ok(of(Is::False)),
        Truth::Unknown if boolean => Ok(of(Is::Null)),
        _ => Err(bad_filter(format!(
            "is takes null or not_null; only boolean columns, which {} is not, have true, false and unknown",
            called(table, &field)
        ))),
    }
}

fn search(
    table: &Table,
    field: Field,
    how: query::Search,
    config: Option<&str>,
    query: &str,
) -> Result<Filter, Problem> {
    let searchable = is_declared(table, &field) || matches!(field.ty(table), ColumnType::Text | ColumnType::Jsonb);
    if !searchable {
        return Err(bad_filter(format!(
            "text search works on text, JSON and tsvector, which {} is not",
            called(table, &field)
        )));
    }
    let how = match how {
        query::Search::Fts => Search::Query,
        query::Search::Plain => Search::Plain,
        query::Search::Phrase => Search::Phrase,
        query::Search::Web => Search::Web,
    };
    Ok(Filter::Search { field, how, config: config.map(str::to_owned), query: query.to_owned() })
}

fn spatial(table: &Table, field: Field, how: query::Spatial, value: &str) -> Result<Filter, Problem> {
    let how = match how {
        query::Spatial::Contains => Spatial::Contains,
        query::Spatial::ContainedBy => Spatial::ContainedBy,
        query::Spatial::Overlaps => Spatial::Overlaps,
        query::Spatial::StrictlyLeft => Spatial::StrictlyLeft,
        query::Spatial::StrictlyRight => Spatial::StrictlyRight,
        query::Spatial::NotRight => Spatial::NotRight,
        query::Spatial::NotLeft => Spatial::NotLeft,
        query::Spatial::Adjacent => Spatial::Adjacent,
    };
    let contains = matches!(how, Spatial::Contains | Spatial::ContainedBy);
    let has_it = is_declared(table, &field) || (contains && field.ty(table) == ColumnType::Jsonb);
    if !has_it {
        return Err(bad_filter(format!(
            "{} has no such operator: JSON has cs and cd, arrays and ranges have all",
            called(table, &field)
        )));
    }
    let value = scalar(table, &field, value)?;
    Ok(Filter::Spatial { field, how, value })
}

fn called(table: &Table, field: &Field) -> String {
    let column = &table.columns[field.column];
    format!("{:?} ({})", column.name, if field.is_column() { column.type_name() } else { field.ty(table).name() })
}

/// The elements of `{a,"b,c"}`.
fn array(text: &str) -> Result<Vec<String>, Problem> {
    let bad = || bad_filter(format!("any and all take an array, {{a,b}}, which {:?} is not", excerpt(text)));
    let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(bad)?;
    if inner.is_empty() {
        return Ok(Vec::new());
    }
    let mut elements = vec![String::new()];
    let (mut quoted, mut chars) = (false, inner.chars());
    while let Some(c) = chars.next() {
        let Some(last) = elements.last_mut() else { continue };
        match c {
            '\\' => last.push(chars.next().ok_or_else(bad)?),
            '"' => quoted = !quoted,
            ',' if !quoted => elements.push(String::new()),
            '{' | '}' if !quoted => return Err(bad()),
            c => last.push(c),
        }
    }
    if quoted { Err(bad()) } else { Ok(elements) }
}
