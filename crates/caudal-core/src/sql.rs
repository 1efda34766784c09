//! SQL that an analyst wrote: what is asked of a store, what comes back, and how it is refused.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::BoxStream;

use crate::error::StoreError;
use crate::row::RowBatch;
use crate::schema::{ColumnType, Table};

/// One statement that reads.
#[derive(Debug, Clone)]
pub struct SqlQuery {
    /// Exactly one `select`, `values`, `table` or `with … select`.
    pub text: String,
    /// The answer ends after so many rows.
    pub limit: Option<u64>,
    /// The catalogue's tables: a store without types of its own finds there what a column holds.
    pub tables: Vec<Arc<Table>>,
}

/// The rows of a statement. Columns may share a name.
pub struct SqlAnswer {
    pub columns: Vec<(String, ColumnType)>,
    /// Batches in bounded memory. Dropping the stream ends the statement.
    pub rows: BoxStream<'static, Result<RowBatch, StoreError>>,
}

impl fmt::Debug for SqlAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlAnswer").field("columns", &self.columns).finish_non_exhaustive()
    }
}

/// Why a statement brought no rows.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    #[error("{}", .0.message)]
    Refused(Box<SqlFault>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl SqlError {
    /// The statement cannot run; its author can change that.
    pub fn mistake(code: impl Into<String>, message: impl Into<String>) -> SqlFault {
        SqlFault::new(SqlFaultKind::Mistake, code, message)
    }

    /// The statement asks for more than reading.
    pub fn forbidden(code: impl Into<String>, message: impl Into<String>) -> SqlFault {
        SqlFault::new(SqlFaultKind::Forbidden, code, message)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlFaultKind {
    Mistake,
    Forbidden,
}

/// What the database, or Caudal on its behalf, said about a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlFault {
    pub kind: SqlFaultKind,
    /// SQLSTATE, or SQLite's name of its result code.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where in the statement, in characters from 1.
    pub position: Option<u32>,
}

impl SqlFault {
    pub fn new(kind: SqlFaultKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, code: code.into(), message: message.into(), detail: None, hint: None, position: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn at(mut self, position: Option<u32>) -> Self {
        self.position = position;
        self
    }
}

impl From<SqlFault> for SqlError {
    fn from(fault: SqlFault) -> Self {
        Self::Refused(Box::new(fault))
    }
}
