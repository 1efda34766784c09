//! A read as a value: what a request asks of a table, checked against the catalogue, before any SQL.
//!
//! HTTP parses its grammar into a [`ReadPlan`]; each store writes its own SQL from it. Values are typed here, so that both
//! stores refuse the same ones, and are always bound, never spliced into SQL.

use std::sync::Arc;

use uuid::Uuid;

use crate::limits::{READ_IN_VALUES_MAX, READ_TERMS_MAX};
use crate::schema::{Column, ColumnType, Table};
use crate::time::{Date, Instant};

/// Rows of one table, some columns, filtered, ordered and cut.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadPlan {
    pub table: Arc<Table>,
    /// Indices into the table's columns, in answer order, each with the name it has in the answer.
    pub select: Vec<Selected>,
    pub filter: Vec<Filter>,
    pub order: Vec<OrderBy>,
    pub limit: Option<u64>,
    pub offset: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    pub column: usize,
    pub name: String,
}

/// One condition. A list of them holds when all hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    Compare {
        column: usize,
        op: Comparison,
        value: Scalar,
    },
    /// SQL `LIKE` with `%` and `_`; case-sensitive on both stores.
    Like {
        column: usize,
        pattern: String,
    },
    In {
        column: usize,
        values: Vec<Scalar>,
    },
    Is {
        column: usize,
        what: Is,
    },
    Not(Box<Filter>),
    And(Vec<Filter>),
    Or(Vec<Filter>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    Null,
    True,
    False,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrderBy {
    pub column: usize,
    pub descending: bool,
    /// As in PostgreSQL: without a word, nulls come last ascending and first descending.
    pub nulls_first: bool,
}

/// A value of a column's type.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Int8(i64),
    Float8(f64),
    Text(String),
    Bool(bool),
    Timestamptz(Instant),
    Date(Date),
    Uuid(Uuid),
    /// JSON text.
    Jsonb(String),
    /// As it was written, for a column whose type is the database's own: it reads it as it reads a literal in SQL, and says
    /// so when it cannot ([`StoreError::Asked`](crate::error::StoreError::Asked)).
    Literal(String),
}

impl Scalar {
    /// Reads `text` as a value of a column; `None` when it is none.
    pub fn of(column: &Column, text: &str) -> Option<Self> {
        match column.declared {
            Some(_) => (!text.contains('\0')).then(|| Self::Literal(text.to_owned())),
            None => Self::parse(column.ty, text),
        }
    }

    /// Reads `text` as a value of `ty`; `None` when it is none.
    pub fn parse(ty: ColumnType, text: &str) -> Option<Self> {
        if text.contains('\0') {
            return None;
        }
        Some(match ty {
            ColumnType::Int8 => Self::Int8(text.trim().parse().ok()?),
            ColumnType::Float8 => Self::Float8(text.trim().parse().ok()?),
            ColumnType::Text => Self::Text(text.to_owned()),
            ColumnType::Bool => Self::Bool(match text {
                "true" | "t" => true,
                "false" | "f" => false,
                _ => return None,
            }),
            ColumnType::Timestamptz => Self::Timestamptz(parse_instant(text)?),
            ColumnType::Date => Self::Date(Date::parse(text)?),
            ColumnType::Uuid => Self::Uuid(Uuid::try_parse(text).ok()?),
            ColumnType::Jsonb => Self::Jsonb(crate::json::check(text.as_bytes()).ok()?.to_owned()),
        })
    }
}

/// An instant as clients write it in a filter: RFC 3339, or without a zone (UTC), or a bare date.
fn parse_instant(text: &str) -> Option<Instant> {
    Instant::parse(text)
        .or_else(|| Instant::parse(&format!("{text}Z")))
        .or_else(|| Instant::parse(&text.replace(' ', "+")))
        .or_else(|| Date::parse(text).map(|d| Instant(i64::from(d.0) * 86_400_000_000)))
}

/// Why a plan was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("at most {READ_TERMS_MAX} filters and order terms in one read")]
    TooManyTerms,
    #[error("at most {READ_IN_VALUES_MAX} values in one in.(…)")]
    TooManyValues,
}

impl ReadPlan {
    /// All columns of `table`, in order of its primary key, at most `limit` rows.
    pub fn all(table: Arc<Table>) -> Self {
        let select = table.columns.iter().enumerate().map(|(column, c)| Selected { column, name: c.name.clone() });
        let select = select.collect();
        Self { table, select, filter: Vec::new(), order: Vec::new(), limit: None, offset: 0 }
    }

    /// Refuses plans over the limits.
    pub fn check(&self) -> Result<(), PlanError> {
        if terms(&self.filter) + self.order.len() > READ_TERMS_MAX {
            return Err(PlanError::TooManyTerms);
        }
        if has_long_in(&self.filter) {
            return Err(PlanError::TooManyValues);
        }
        Ok(())
    }

    /// The types of the answer's columns, in order.
    pub fn types(&self) -> Vec<ColumnType> {
        self.select.iter().map(|s| self.table.columns[s.column].ty).collect()
    }
}

fn terms(filters: &[Filter]) -> usize {
    let count = |f: &Filter| match f {
        Filter::And(inner) | Filter::Or(inner) => 1 + terms(inner),
        Filter::Not(inner) => terms(std::slice::from_ref(inner)),
        _ => 1,
    };
    filters.iter().map(count).sum()
}

fn has_long_in(filters: &[Filter]) -> bool {
    filters.iter().any(|f| match f {
        Filter::In { values, .. } => values.len() > READ_IN_VALUES_MAX,
        Filter::And(inner) | Filter::Or(inner) => has_long_in(inner),
        Filter::Not(inner) => has_long_in(std::slice::from_ref(inner)),
        _ => false,
    })
}
