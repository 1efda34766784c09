//! Tables: which columns a topic (or one of Caudal's own tables) has.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// What a column holds. The list is short on purpose: each type has one spelling in JSON, one in each store and one in a
/// [`row`](crate::row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    Int8,
    Float8,
    Text,
    Bool,
    Timestamptz,
    Date,
    Uuid,
    Jsonb,
}

impl ColumnType {
    pub fn name(self) -> &'static str {
        match self {
            ColumnType::Int8 => "int8",
            ColumnType::Float8 => "float8",
            ColumnType::Text => "text",
            ColumnType::Bool => "bool",
            ColumnType::Timestamptz => "timestamptz",
            ColumnType::Date => "date",
            ColumnType::Uuid => "uuid",
            ColumnType::Jsonb => "jsonb",
        }
    }
}

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One of Caudal's own, written with the row.
    System,
    /// One of Caudal's own, filled by the database: `_stored_at`, `_row`.
    Database,
    /// A property of the topic's schema, `payload`, or a column of a table that Caudal did not make.
    Property,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub ty: ColumnType,
    pub nullable: bool,
    pub origin: Origin,
    /// The type as the database spells it, where it is none of ours. [`ty`](Self::ty) then says how its values travel: as an
    /// `int8`, as the JSON that the database makes of them, or as their text. Values for it in a filter are left to the
    /// database to read ([`Scalar::Literal`](crate::plan::Scalar::Literal)).
    pub declared: Option<Arc<str>>,
}

impl Column {
    pub fn new(name: impl Into<String>, ty: ColumnType, nullable: bool, origin: Origin) -> Self {
        Self { name: name.into(), ty, nullable, origin, declared: None }
    }

    /// A column of a table that Caudal did not make.
    pub fn found(name: impl Into<String>, ty: ColumnType, nullable: bool, declared: Option<Arc<str>>) -> Self {
        Self { name: name.into(), ty, nullable, origin: Origin::Property, declared }
    }

    /// The type's name for readers: the database's own word for it where it has one.
    pub fn type_name(&self) -> &str {
        self.declared.as_deref().unwrap_or(self.ty.name())
    }
}

/// A table as readers see it, columns in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Where a table that Caudal did not make was found. `None`: one of Caudal's own, wherever its connections land.
    pub schema: Option<String>,
    pub name: String,
    pub columns: Vec<Column>,
    /// Indices of the primary key's columns, in its order: `_id` alone for Caudal's own. Empty for a table without one, whose
    /// rows have no total order: pages of it may repeat and skip rows that sort alike.
    pub key: Vec<usize>,
    /// Whether records are taken in for it, as for a topic.
    pub insertable: bool,
    /// How long after storing records leave it, if they do. Their keys are then looked for among those that left before a row is
    /// stored.
    pub expires: Option<Duration>,
}

pub const ID: &str = "_id";
pub const KEY: &str = "_key";
pub const SOURCE: &str = "_source";
pub const PUBLISHED_AT: &str = "_published_at";
pub const STORED_AT: &str = "_stored_at";
pub const ROW: &str = "_row";
pub const EXTRA: &str = "_extra";
pub const PAYLOAD: &str = "payload";

/// The columns that lead every row as written: `_id`, `_key`, `_source`, `_published_at`.
pub const LEADING_COLUMNS: usize = 4;

impl Table {
    /// The table of a topic: Caudal's columns around `properties`. `numbered` adds `_row`, the row number in order of storing.
    pub fn of_topic(name: impl Into<String>, properties: Vec<Column>, numbered: bool) -> Self {
        use ColumnType::{Int8, Jsonb, Text, Timestamptz, Uuid};
        let mut columns = vec![
            Column::new(ID, Uuid, false, Origin::System),
            Column::new(KEY, Text, true, Origin::System),
            Column::new(SOURCE, Text, false, Origin::System),
            Column::new(PUBLISHED_AT, Timestamptz, false, Origin::System),
            Column::new(STORED_AT, Timestamptz, false, Origin::Database),
        ];
        if numbered {
            columns.push(Column::new(ROW, Int8, false, Origin::Database));
        }
        columns.extend(properties);
        columns.push(Column::new(EXTRA, Jsonb, true, Origin::System));
        Self { schema: None, name: name.into(), columns, key: vec![0], insertable: true, expires: None }
    }

    /// The dead letters of every topic, readable like any other table.
    pub fn dead_letters() -> Self {
        use ColumnType::{Int8, Jsonb, Text, Timestamptz, Uuid};
        let column = |name, ty, nullable| Column::new(name, ty, nullable, Origin::System);
        Self {
            schema: None,
            name: "_dead_letters".into(),
            key: vec![0],
            insertable: false,
            expires: None,
            columns: vec![
                column(ID, Uuid, false),
                column("topic", Text, false),
                column("transaction_id", Uuid, false),
                column("key", Text, true),
                column("source", Text, false),
                column("reason", Text, false),
                column("detail", Text, false),
                column("pointer", Text, false),
                column("payload", Text, false),
                column("payload_encoding", Text, false),
                column("attributes", Jsonb, true),
                column("published_at", Timestamptz, false),
                column("dead_at", Timestamptz, false),
                column("state", Text, false),
                column("attempts", Int8, false),
                column("settled_at", Timestamptz, true),
                column("outcome", Text, true),
            ],
        }
    }

    /// The confirmations of every topic, readable like any other table.
    pub fn confirmations() -> Self {
        use ColumnType::{Bool, Int8, Text, Timestamptz, Uuid};
        let column = |name, ty, nullable| Column::new(name, ty, nullable, Origin::System);
        Self {
            schema: None,
            name: "_confirmations".into(),
            key: vec![0],
            insertable: false,
            expires: None,
            columns: vec![
                column(ID, Uuid, false),
                column("topic", Text, false),
                column("lane", Text, false),
                column("state", Text, false),
                column("attempts", Int8, false),
                column("crashes", Int8, false),
                column("maybe_done", Bool, false),
                column("since", Timestamptz, false),
                column("first_sent", Timestamptz, true),
                column("due", Timestamptz, true),
                column("at", Timestamptz, true),
                column("code", Int8, true),
                column("detail", Text, false),
            ],
        }
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// A table that Caudal did not make, readable only.
    pub fn found(schema: impl Into<String>, name: impl Into<String>, columns: Vec<Column>, key: Vec<usize>) -> Self {
        let schema = Some(schema.into());
        Self { schema, name: name.into(), columns, key, insertable: false, expires: None }
    }

    /// The same table with the values of declared types as text, for encodings that have no JSON in them.
    pub fn as_text(&self) -> Self {
        let mut table = self.clone();
        table.columns.iter_mut().filter(|c| c.declared.is_some()).for_each(|c| c.ty = ColumnType::Text);
        table
    }

    /// The columns that a [`RowBatch`](crate::row::RowBatch) for this table holds, in order.
    pub fn written(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|c| c.origin != Origin::Database)
    }

    /// Among the written columns, those whose values are the message's content: the ones compared to tell a duplicate from
    /// a conflict. Yields (position among the written columns, column).
    pub fn content(&self) -> impl Iterator<Item = (usize, &Column)> {
        self.written().enumerate().skip(LEADING_COLUMNS)
    }
}

/// What to do with a field that the schema does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownFields {
    /// Keep it in `_extra`.
    #[default]
    Keep,
    /// Reject the record.
    Reject,
    /// Add a nullable column for it, online.
    Add,
}

/// Limits on one property beyond its type; from the JSON Schema keywords of the same names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checks {
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: Option<f64>,
    pub exclusive_maximum: Option<f64>,
    pub min_length: Option<usize>,
    pub max_length: Option<usize>,
    /// Allowed values as JSON texts.
    pub one_of: Option<Vec<String>>,
}

impl Checks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One property of a typed topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Property {
    pub name: String,
    pub ty: ColumnType,
    /// An explicit `null` is allowed.
    pub nullable: bool,
    /// The field must be present.
    pub required: bool,
    pub checks: Checks,
}

/// How a topic's messages become rows.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSchema {
    /// `None`: any JSON document, kept whole in `payload`.
    pub properties: Option<Vec<Property>>,
    pub unknown: UnknownFields,
    /// Names of the properties whose values together are the dedup key; empty when the producer names its messages.
    pub key: Vec<String>,
    pub table: Arc<Table>,
}

impl RecordSchema {
    /// A topic that keeps each message whole.
    pub fn untyped(name: &str, numbered: bool) -> Self {
        let payload = Column::new(PAYLOAD, ColumnType::Jsonb, false, Origin::Property);
        Self {
            properties: None,
            unknown: UnknownFields::Keep,
            key: Vec::new(),
            table: Arc::new(Table::of_topic(name, vec![payload], numbered)),
        }
    }

    /// A topic with one column a property.
    pub fn typed(
        name: &str,
        properties: Vec<Property>,
        unknown: UnknownFields,
        key: Vec<String>,
        numbered: bool,
    ) -> Self {
        let columns = properties.iter().map(|p| {
            // A column is never NOT NULL: evolution adds columns to rows that lack them, and `required` is checked on the way in.
            Column::new(p.name.clone(), p.ty, true, Origin::Property)
        });
        let table = Arc::new(Table::of_topic(name, columns.collect(), numbered));
        Self { properties: Some(properties), unknown, key, table }
    }
}
