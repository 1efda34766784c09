//! Conditions.

use caudal_core::plan::{Comparison, Field, Filter, Is, Scalar, Search, Spatial};
use caudal_core::schema::ColumnType;
use tokio_postgres::types::Type;

use super::super::wire::{Raw, RawArray, array_of, type_of};
use super::{Scope, Sql};

impl Sql {
    pub(super) fn all(&mut self, scope: Scope<'_>, filters: &[Filter], between: &str) {
        self.text.push('(');
        for (i, filter) in filters.iter().enumerate() {
            if i > 0 {
                self.text.push_str(between);
            }
            self.filter(scope, filter);
        }
        if filters.is_empty() {
            self.text.push_str(if between == " or " { "false" } else { "true" });
        }
        self.text.push(')');
    }

    fn filter(&mut self, scope: Scope<'_>, filter: &Filter) {
        match filter {
            Filter::And(filters) => self.all(scope, filters, " and "),
            Filter::Or(filters) => self.all(scope, filters, " or "),
            Filter::Not(filter) => {
                self.text.push_str("not (");
                self.filter(scope, filter);
                self.text.push(')');
            }
            Filter::Is { field, what } => {
                self.field(scope, field);
                self.text.push_str(match what {
                    Is::Null => " is null",
                    Is::True => " is true",
                    Is::False => " is false",
                });
            }
            Filter::Compare { field, op, value } => self.compare(scope, field, *op, value),
            Filter::In { field, values } => self.one_of(scope, field, values),
            Filter::Like { field, pattern, insensitive } => {
                self.field(scope, field);
                self.text.push_str(if *insensitive { " ilike " } else { " like " });
                self.bind(Raw(whole_escapes(pattern).into_bytes()), Type::TEXT);
                self.text.push_str(" escape '\\'");
            }
            Filter::Match { field, pattern, insensitive } => {
                self.field(scope, field);
                self.text.push_str(if *insensitive { " ~* " } else { " ~ " });
                self.bind(Raw(pattern.clone().into_bytes()), Type::TEXT);
            }
            Filter::Search { field, how, config, query } => self.search(scope, field, *how, config.as_deref(), query),
            Filter::Spatial { field, how, value } => {
                self.field(scope, field);
                self.text.push_str(match how {
                    Spatial::Contains => " @> ",
                    Spatial::ContainedBy => " <@ ",
                    Spatial::Overlaps => " && ",
                    Spatial::StrictlyLeft => " << ",
                    Spatial::StrictlyRight => " >> ",
                    Spatial::NotRight => " &< ",
                    Spatial::NotLeft => " &> ",
                    Spatial::Adjacent => " -|- ",
                });
                self.value_of(scope, field, value);
            }
            Filter::After { order, place } => self.after(scope, order, place),
            Filter::Related { embed, exists } => {
                self.text.push_str(if *exists { "" } else { "not " });
                self.related(scope, *embed);
            }
        }
    }

    fn compare(&mut self, scope: Scope<'_>, field: &Field, op: Comparison, value: &Scalar) {
        match op {
            // Equality means the same under every (deterministic) collation; without a word it can use any index.
            Comparison::Eq | Comparison::Neq => self.field(scope, field),
            _ => self.bytewise(scope, field),
        }
        self.text.push_str(match op {
            Comparison::Eq => " = ",
            Comparison::Neq => " <> ",
            Comparison::Gt => " > ",
            Comparison::Gte => " >= ",
            Comparison::Lt => " < ",
            Comparison::Lte => " <= ",
        });
        self.value_of(scope, field, value);
    }

    pub(super) fn value_of(&mut self, scope: Scope<'_>, field: &Field, value: &Scalar) {
        self.value_as(field.ty(&scope.plan.table), value);
    }

    pub(super) fn value_as(&mut self, ty: ColumnType, value: &Scalar) {
        let literal = matches!(value, Scalar::Literal(_) | Scalar::Exact(_));
        self.bind(encoded(value), if literal { Type::UNKNOWN } else { type_of(ty) });
    }

    fn one_of(&mut self, scope: Scope<'_>, field: &Field, values: &[Scalar]) {
        if values.iter().any(|value| matches!(value, Scalar::Literal(_))) {
            return self.literals(scope, field, values);
        }
        let ty = field.ty(&scope.plan.table);
        let mut array = RawArray::new(ty);
        values.iter().for_each(|v| array.push(Some(&encoded(v).0)));
        self.field(scope, field);
        self.text.push_str(" = any(");
        self.bind(array.finish(), array_of(ty));
        self.text.push(')');
    }

    /// One parameter a value, so that the server reads each as it reads it next to `=`.
    fn literals(&mut self, scope: Scope<'_>, field: &Field, values: &[Scalar]) {
        self.field(scope, field);
        for (i, value) in values.iter().enumerate() {
            self.text.push_str(if i == 0 { " in (" } else { ", " });
            self.bind(encoded(value), Type::UNKNOWN);
        }
        self.text.push(')');
    }

    /// Text and JSON are turned into what is searched; a column of any other type is taken as it is.
    fn search(&mut self, scope: Scope<'_>, field: &Field, how: Search, config: Option<&str>, query: &str) {
        let table = &scope.plan.table;
        let made = match field.ty(table) {
            _ if field.is_column() && table.columns[field.column].declared.is_some() => false,
            ColumnType::Text | ColumnType::Jsonb => true,
            _ => false,
        };
        let config = |sql: &mut Self| {
            if let Some(config) = config {
                sql.bind(Raw(config.as_bytes().to_vec()), Type::TEXT);
                sql.text.push_str("::text::regconfig, ");
            }
        };
        if made {
            self.text.push_str("to_tsvector(");
            config(self);
        }
        self.field(scope, field);
        self.text.push_str(if made { ") @@ " } else { " @@ " });
        self.text.push_str(match how {
            Search::Query => "to_tsquery(",
            Search::Plain => "plainto_tsquery(",
            Search::Phrase => "phraseto_tsquery(",
            Search::Web => "websearch_to_tsquery(",
        });
        config(self);
        self.bind(Raw(query.as_bytes().to_vec()), Type::TEXT);
        self.text.push(')');
    }
}

/// A pattern whose last escape has something to escape.
fn whole_escapes(pattern: &str) -> String {
    let trailing = pattern.bytes().rev().take_while(|b| *b == b'\\').count();
    if trailing % 2 == 1 { format!("{pattern}\\") } else { pattern.to_owned() }
}

fn encoded(value: &Scalar) -> Raw {
    Raw(match value {
        Scalar::Int8(v) => v.to_be_bytes().to_vec(),
        Scalar::Float8(v) => v.to_be_bytes().to_vec(),
        Scalar::Text(v) | Scalar::Literal(v) | Scalar::Exact(v) => v.as_bytes().to_vec(),
        Scalar::Bool(v) => vec![u8::from(*v)],
        Scalar::Timestamptz(v) => v.0.to_be_bytes().to_vec(),
        Scalar::Date(v) => v.0.to_be_bytes().to_vec(),
        Scalar::Uuid(v) => v.as_bytes().to_vec(),
        Scalar::Jsonb(v) => [&[1], v.as_bytes()].concat(),
    })
}
