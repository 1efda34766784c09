//! Conditions and orders of a plan.

use super::{Field, Place, Scalar};
use crate::limits::READ_IN_VALUES_MAX;
use crate::schema::Table;

/// One condition. A list of them holds when all hold.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    Compare {
        field: Field,
        op: Comparison,
        value: Scalar,
    },
    /// SQL `LIKE` with `%` and `_`.
    Like {
        field: Field,
        pattern: String,
        /// Beyond ASCII, PostgreSQL folds by the locale of the database, SQLite by Unicode.
        insensitive: bool,
    },
    /// A regular expression somewhere in the text, in the store's own dialect.
    Match {
        field: Field,
        pattern: String,
        insensitive: bool,
    },
    In {
        field: Field,
        values: Vec<Scalar>,
    },
    Is {
        field: Field,
        what: Is,
    },
    /// Full text search in text or JSON. PostgreSQL only.
    Search {
        field: Field,
        how: Search,
        config: Option<String>,
        query: String,
    },
    /// Containment, overlap, and how ranges lie to each other. PostgreSQL only.
    Spatial {
        field: Field,
        how: Spatial,
        value: Scalar,
    },
    /// Whether there are related rows.
    Related {
        embed: usize,
        exists: bool,
    },
    /// Rows that come after a place in an order, nulls where the order has them. Never within [`Filter::Not`].
    After {
        order: Vec<OrderBy>,
        /// One value a term.
        place: Place,
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

/// How the words of a search are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// With PostgreSQL's operators.
    Query,
    /// All of them.
    Plain,
    /// One after the other.
    Phrase,
    /// As web search engines do.
    Web,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spatial {
    Contains,
    ContainedBy,
    Overlaps,
    StrictlyLeft,
    StrictlyRight,
    NotRight,
    NotLeft,
    Adjacent,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderBy {
    /// A column of the to-one embed with this index, or of the table itself.
    pub embed: Option<usize>,
    pub field: Field,
    pub descending: bool,
    /// As in PostgreSQL: without a word, nulls come last ascending and first descending.
    pub nulls_first: bool,
}

impl OrderBy {
    /// Ascending, nulls last.
    pub fn column(column: usize) -> Self {
        Self { embed: None, field: column.into(), descending: false, nulls_first: false }
    }

    /// Whether some row of `table`, whose order this is, may have a null here.
    pub fn may_be_null(&self, table: &Table) -> bool {
        self.embed.is_some() || !self.field.path.is_empty() || table.columns[self.field.column].nullable
    }
}

pub(super) fn terms(filters: &[Filter]) -> usize {
    let count = |f: &Filter| match f {
        Filter::And(inner) | Filter::Or(inner) => 1 + terms(inner),
        Filter::Not(inner) => terms(std::slice::from_ref(inner)),
        Filter::After { order, .. } => order.len(),
        _ => 1,
    };
    filters.iter().map(count).sum()
}

pub(super) fn has_long_in(filters: &[Filter]) -> bool {
    filters.iter().any(|f| match f {
        Filter::In { values, .. } => values.len() > READ_IN_VALUES_MAX,
        Filter::And(inner) | Filter::Or(inner) => has_long_in(inner),
        Filter::Not(inner) => has_long_in(std::slice::from_ref(inner)),
        _ => false,
    })
}
