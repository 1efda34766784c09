//! What a statement's answer looks like: which of its columns travel in binary as they are, and how the others are brought to a
//! type that rows have.

use std::fmt::Write;

use caudal_core::limits::SQL_ROW_BYTES_MAX;
use caudal_core::schema::ColumnType;
use tokio_postgres::types::{Kind, Type};

/// How one column is selected from the statement and what it is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    AsIs(ColumnType),
    /// Widened by a cast.
    Cast(&'static str, ColumnType),
    /// The value as PostgreSQL writes it in JSON: every digit of a number, arrays, records.
    Json,
    /// The same without the quotes: times as ISO 8601 writes them, enumerations, addresses, intervals.
    JsonText,
}

impl Form {
    fn of(ty: &Type) -> Self {
        match *ty {
            Type::INT8 => Self::AsIs(ColumnType::Int8),
            Type::FLOAT8 => Self::AsIs(ColumnType::Float8),
            Type::BOOL => Self::AsIs(ColumnType::Bool),
            Type::TEXT | Type::VARCHAR => Self::AsIs(ColumnType::Text),
            Type::UUID => Self::AsIs(ColumnType::Uuid),
            Type::TIMESTAMPTZ => Self::AsIs(ColumnType::Timestamptz),
            Type::DATE => Self::AsIs(ColumnType::Date),
            Type::JSONB => Self::AsIs(ColumnType::Jsonb),
            Type::INT2 | Type::INT4 | Type::OID => Self::Cast("pg_catalog.int8", ColumnType::Int8),
            // By way of text: 0.1 stays 0.1.
            Type::FLOAT4 => Self::Cast("pg_catalog.text::pg_catalog.float8", ColumnType::Float8),
            Type::BPCHAR | Type::NAME | Type::CHAR | Type::UNKNOWN | Type::REGCLASS => {
                Self::Cast("pg_catalog.text", ColumnType::Text)
            }
            Type::NUMERIC | Type::JSON | Type::RECORD => Self::Json,
            _ => match ty.kind() {
                Kind::Array(_) | Kind::Composite(_) => Self::Json,
                Kind::Domain(inner) => Self::of_domain(inner),
                _ => Self::JsonText,
            },
        }
    }

    /// The column's values are sent as those of the type below.
    fn of_domain(inner: &Type) -> Self {
        match Self::of(inner) {
            Self::AsIs(ty) => Self::Cast(super::super::wire::type_name(ty), ty),
            other => other,
        }
    }

    fn column_type(self) -> ColumnType {
        match self {
            Self::AsIs(ty) | Self::Cast(_, ty) => ty,
            Self::Json => ColumnType::Jsonb,
            Self::JsonText => ColumnType::Text,
        }
    }

    /// Whether a value may be large.
    fn varies(self) -> bool {
        matches!(self.column_type(), ColumnType::Text | ColumnType::Jsonb)
    }

    fn write(self, out: &mut String, column: &str) {
        let _ = match self {
            Self::AsIs(_) => write!(out, "{column}"),
            Self::Cast(to, _) => write!(out, "{column}::{to}"),
            Self::Json => write!(out, "pg_catalog.to_json({column})::pg_catalog.text"),
            Self::JsonText => {
                write!(out, "pg_catalog.to_json({column}) operator(pg_catalog.#>>) '{{}}'::pg_catalog.text[]")
            }
        };
    }
}

/// A statement inside one of ours, which selects its columns in forms that can be read.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) sql: String,
    /// Where the analyst's statement begins in `sql`, in characters.
    pub(super) before: u32,
    pub(super) columns: Vec<(String, ColumnType)>,
    /// Columns that arrive as text and are JSON.
    pub(super) json: Vec<bool>,
}

/// What stands behind the size in the error of a row that is too large.
pub(super) const TOO_LARGE: &str = " bytes in one row";

impl Shape {
    /// Inside a `from (…)` nothing can stand but a query that reads: the server's own grammar sees to it. The alias renames the
    /// columns, since two may have the same name.
    ///
    /// A row comes in one message, whatever its size, so the server measures it before it sends it: the first column
    /// is only given out when the row is within bounds, and a text that is no boolean ends the statement otherwise.
    pub(super) fn of(text: &str, described: &[(String, Type)], limit: Option<u64>) -> Self {
        let forms: Vec<Form> = described.iter().map(|(_, ty)| Form::of(ty)).collect();
        let mut sql = String::from("select ");
        let sizes: Vec<String> =
            forms.iter().enumerate().filter(|(_, f)| f.varies()).map(|(i, f)| size(i, *f)).collect();
        for (i, form) in forms.iter().enumerate() {
            sql.push_str(if i == 0 { "" } else { ", " });
            if i == 0 && !sizes.is_empty() {
                let total = sizes.join(" + ");
                let _ = write!(
                    sql,
                    "case when case when {total} <= {SQL_ROW_BYTES_MAX} then true \
                     else (({total})::pg_catalog.text || '{TOO_LARGE}')::pg_catalog.bool end then "
                );
                form.write(&mut sql, "q.c0");
                sql.push_str(" end");
            } else {
                form.write(&mut sql, &format!("q.c{i}"));
            }
        }
        sql.push_str(" from (");
        let before = sql.chars().count() as u32;
        sql.push_str(text);
        // A line of its own: the statement may end in a comment.
        sql.push_str("\n) as q(");
        for i in 0..forms.len() {
            let _ = write!(sql, "{}c{i}", if i == 0 { "" } else { ", " });
        }
        sql.push(')');
        if let Some(limit) = limit {
            let _ = write!(sql, " limit {}", limit.min(i64::MAX as u64));
        }
        let columns =
            described.iter().zip(&forms).map(|((name, _), form)| (name.clone(), form.column_type())).collect();
        Self { sql, before, columns, json: forms.iter().map(|form| *form == Form::Json).collect() }
    }
}

/// The size of a text is known without unpacking it.
fn size(index: usize, form: Form) -> String {
    match form {
        Form::AsIs(ColumnType::Text) => format!("coalesce(pg_catalog.octet_length(q.c{index}), 0)::pg_catalog.int8"),
        _ => format!("coalesce(pg_catalog.pg_column_size(q.c{index}), 0)::pg_catalog.int8"),
    }
}
