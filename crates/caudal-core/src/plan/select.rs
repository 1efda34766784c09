//! What a plan answers with.

use std::sync::Arc;

use super::ReadPlan;
use crate::schema::{ColumnType, Table};

/// A value of the answer, and the name it has there.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    pub value: Value,
    pub name: String,
}

impl Selected {
    pub fn column(column: usize, name: impl Into<String>) -> Self {
        Self { value: Value::Field(column.into()), name: name.into() }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Field(Field),
    /// How many rows the group has.
    Count {
        cast: Option<Cast>,
    },
    Aggregate {
        function: Aggregate,
        field: Field,
        cast: Option<Cast>,
    },
    /// The rows of an embed as JSON: an array, or an object or null where there is at most one.
    Embed(usize),
    /// One item of an embed's own select, in this row: the value where there is at most one row, else a JSON array of them.
    Spread {
        embed: usize,
        item: usize,
    },
    /// What a term of an order compares. Values of declared types travel as text of the store's own, from which
    /// [`Scalar::Exact`](super::Scalar::Exact) is the same value again.
    Ordered {
        embed: Option<usize>,
        field: Field,
    },
}

impl Value {
    pub fn is_aggregate(&self) -> bool {
        matches!(self, Self::Count { .. } | Self::Aggregate { .. })
    }
}

/// A column, a path into its JSON, and the type it is turned into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Index into the table's columns.
    pub column: usize,
    pub path: Vec<Step>,
    /// With a path: the value's text (`->>`) instead of its JSON.
    pub as_text: bool,
    pub cast: Option<Cast>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    /// Negative ones count from the end.
    Index(i32),
}

impl From<usize> for Field {
    fn from(column: usize) -> Self {
        Self { column, path: Vec::new(), as_text: false, cast: None }
    }
}

impl Field {
    /// Nothing but the column.
    pub fn is_column(&self) -> bool {
        self.path.is_empty() && self.cast.is_none()
    }

    pub fn ty(&self, table: &Table) -> ColumnType {
        match (&self.cast, self.path.is_empty(), self.as_text) {
            (Some(cast), ..) => cast.ty,
            (None, true, _) => table.columns[self.column].ty,
            (None, false, true) => ColumnType::Text,
            (None, false, false) => ColumnType::Jsonb,
        }
    }
}

/// A type that values can be turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    /// As SQL has it.
    pub name: &'static str,
    /// How the values travel.
    pub ty: ColumnType,
}

impl Cast {
    /// Every type that there is, by all its names; the first of a row is the one that is used.
    pub const NAMES: &[(&[&str], ColumnType)] = &[
        (&["text", "varchar", "character varying"], ColumnType::Text),
        (&["int8", "bigint"], ColumnType::Int8),
        (&["int4", "int", "integer"], ColumnType::Int8),
        (&["int2", "smallint"], ColumnType::Int8),
        (&["float8", "float", "double precision"], ColumnType::Float8),
        (&["bool", "boolean"], ColumnType::Bool),
        (&["date"], ColumnType::Date),
        (&["timestamptz", "timestamp with time zone"], ColumnType::Timestamptz),
        (&["uuid"], ColumnType::Uuid),
        (&["jsonb", "json"], ColumnType::Jsonb),
    ];

    /// Whether both stores can make it of values of `from`.
    pub fn takes(self, from: ColumnType) -> bool {
        use ColumnType::{Date, Float8, Int8, Text, Timestamptz};
        match (from, self.ty) {
            (from, to) if from == to => true,
            (Text, _) | (_, Text) => true,
            (Int8, Float8) | (Float8, Int8) | (Timestamptz, Date) | (Date, Timestamptz) => true,
            _ => false,
        }
    }

    /// A type by one of its names.
    pub fn named(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let (names, ty) = Self::NAMES.iter().find(|(names, _)| names.contains(&name.as_str()))?;
        Some(Self { name: names[0], ty: *ty })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    Sum,
    Avg,
    Count,
    Max,
    Min,
}

impl Aggregate {
    pub const NAMES: &[(&str, Self)] =
        &[("sum", Self::Sum), ("avg", Self::Avg), ("count", Self::Count), ("max", Self::Max), ("min", Self::Min)];

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    /// Whether both stores have it for this type.
    pub fn takes(self, ty: ColumnType) -> bool {
        use ColumnType::{Date, Float8, Int8, Text, Timestamptz};
        match self {
            Self::Count => true,
            Self::Sum | Self::Avg => matches!(ty, Int8 | Float8),
            Self::Max | Self::Min => matches!(ty, Int8 | Float8 | Text | Timestamptz | Date),
        }
    }

    /// What it makes of values of `ty`. A sum of whole numbers may be larger than any of their type: it travels as JSON's number.
    pub fn ty(self, ty: ColumnType) -> ColumnType {
        match (self, ty) {
            (Self::Count, _) => ColumnType::Int8,
            (Self::Avg, _) => ColumnType::Float8,
            (Self::Sum, ColumnType::Int8) => ColumnType::Jsonb,
            (_, ty) => ty,
        }
    }
}

/// Rows of another table that belong to each row of this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Embed {
    /// How the request calls it.
    pub name: String,
    /// What of them: its own columns, filters, order and limits.
    pub plan: ReadPlan,
    /// Which column of this table's row is equal to which column of the other's; with `through`, of the table between.
    pub on: Vec<(usize, usize)>,
    pub through: Option<Link>,
    /// There may be more than one.
    pub many: bool,
    /// A row without any is left out.
    pub inner: bool,
}

/// The table between two that are related many to many.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    pub table: Arc<Table>,
    /// Which of its columns is equal to which of the embedded table's.
    pub on: Vec<(usize, usize)>,
}
