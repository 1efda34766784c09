//! Which index would make a read cheap: said by both stores when a read is refused for what it costs.

use caudal_core::plan::{Comparison, Filter, ReadPlan};
use caudal_core::schema::ColumnType;

/// Columns of one index; more rarely help.
const COLUMNS_MAX: usize = 3;

/// The columns that an index for this plan begins with: those compared for equality, then those in order or in a range. Empty
/// when none can help.
pub(crate) fn index_columns(plan: &ReadPlan) -> Vec<&str> {
    let (mut equal, mut ranged) = (Vec::new(), Vec::new());
    for filter in &plan.filter {
        match filter {
            Filter::Compare { field, op: Comparison::Eq, .. } | Filter::In { field, .. } => equal.push(field),
            Filter::Compare { op: Comparison::Neq, .. } => {}
            Filter::Compare { field, .. } => ranged.push(field),
            _ => {}
        }
    }
    let order = plan.order.iter().filter(|term| term.embed.is_none()).map(|term| &term.field);
    let mut columns: Vec<usize> = Vec::new();
    let fields = equal.into_iter().chain(order).chain(ranged);
    for column in fields.filter(|field| field.is_column()).map(|field| field.column) {
        if !columns.contains(&column) && plan.table.columns[column].ty != ColumnType::Jsonb {
            columns.push(column);
        }
    }
    columns.truncate(COLUMNS_MAX);
    columns.into_iter().map(|column| plan.table.columns[column].name.as_str()).collect()
}
