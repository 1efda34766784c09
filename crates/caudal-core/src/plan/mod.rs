//! A read as a value: what a request asks of tables, checked against the catalogue, before any SQL.
//!
//! HTTP parses its grammar into a [`ReadPlan`]; each store writes its own SQL from it. Values are typed here, so that both
//! stores refuse the same ones, and are always bound, never spliced into SQL.

mod after;
mod filter;
mod scalar;
mod select;

use std::sync::Arc;

pub use after::{Place, is_row_comparison};
pub use filter::{Comparison, Filter, Is, OrderBy, Search, Spatial};
pub use scalar::Scalar;
pub use select::{Aggregate, Cast, Embed, Field, Link, Selected, Step, Value};

use crate::limits::{READ_IN_VALUES_MAX, READ_TERMS_MAX};
use crate::schema::{Column, ColumnType, Origin, Table};

/// Rows of one table, some columns and what is related to them, filtered, ordered and cut.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadPlan {
    pub table: Arc<Table>,
    /// In answer order. When one is an aggregate, the rows are grouped by all that are none.
    pub select: Vec<Selected>,
    /// Related rows that the select or a filter speaks of, by index.
    pub embeds: Vec<Embed>,
    pub filter: Vec<Filter>,
    pub order: Vec<OrderBy>,
    pub limit: Option<u64>,
    pub offset: u64,
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
    /// All columns of `table`, in the store's own order.
    pub fn all(table: Arc<Table>) -> Self {
        let select = table.columns.iter().enumerate().map(|(column, c)| Selected::column(column, c.name.clone()));
        let select = select.collect();
        let (embeds, filter, order) = (Vec::new(), Vec::new(), Vec::new());
        Self { table, select, embeds, filter, order, limit: None, offset: 0 }
    }

    /// Refuses plans over the limits; what is embedded counts too.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.terms() > READ_TERMS_MAX {
            return Err(PlanError::TooManyTerms);
        }
        if self.has_long_in() {
            return Err(PlanError::TooManyValues);
        }
        Ok(())
    }

    fn terms(&self) -> usize {
        let embedded: usize = self.embeds.iter().map(|embed| embed.plan.terms()).sum();
        filter::terms(&self.filter) + self.order.len() + embedded
    }

    fn has_long_in(&self) -> bool {
        filter::has_long_in(&self.filter) || self.embeds.iter().any(|embed| embed.plan.has_long_in())
    }

    /// Whether rows are put together: each row of the answer is a group.
    pub fn is_grouped(&self) -> bool {
        self.select.iter().any(|selected| selected.value.is_aggregate())
    }

    /// The types of the answer's columns, in order.
    pub fn types(&self) -> Vec<ColumnType> {
        self.columns().iter().map(|column| column.ty).collect()
    }

    /// The answer's columns, in order.
    pub fn columns(&self) -> Vec<Column> {
        self.select.iter().map(|selected| self.column(selected)).collect()
    }

    fn column(&self, selected: &Selected) -> Column {
        let named = |ty| Column::new(selected.name.clone(), ty, true, Origin::Property);
        let of = |field: &Field| {
            let declared = field.is_column().then(|| self.table.columns[field.column].declared.clone()).flatten();
            Column { declared, ..named(field.ty(&self.table)) }
        };
        match &selected.value {
            Value::Field(field) => of(field),
            Value::Count { cast } => named(cast.map_or(ColumnType::Int8, |cast| cast.ty)),
            Value::Aggregate { function, field, cast } => match (cast, function) {
                (Some(cast), _) => named(cast.ty),
                (None, Aggregate::Max | Aggregate::Min) => of(field),
                (None, function) => named(function.ty(field.ty(&self.table))),
            },
            Value::Embed(_) => named(ColumnType::Jsonb),
            Value::Ordered { embed, field } => {
                let table = embed.map_or(&self.table, |embed| &self.embeds[embed].plan.table);
                let declared = field.is_column() && table.columns[field.column].declared.is_some();
                named(if declared { ColumnType::Text } else { field.ty(table) })
            }
            Value::Spread { embed, item } => {
                let embed = &self.embeds[*embed];
                match embed.many {
                    true => named(ColumnType::Jsonb),
                    false => Column { name: selected.name.clone(), ..embed.plan.column(&embed.plan.select[*item]) },
                }
            }
        }
    }
}
