//! Schema evolution online: only ever by adding nullable columns.

use std::sync::Arc;

use caudal_core::encode::Encoder;
use caudal_core::error::StoreError;
use caudal_core::json_schema::column_type_for;
use caudal_core::limits::TOPIC_NAME_BYTES_MAX;
use caudal_core::ports::{DriftNote, Store};
use caudal_core::schema::{Column, ColumnType, Origin};

use crate::topic::Topic;

/// Columns that one topic may grow by itself; after that, unknown fields stay in `_extra`.
const COLUMNS_MAX: usize = 500;

/// Adds a column for each field in `notes` that has a usable name and type. Returns the new encoder, or `None` when nothing
/// was added.
pub(crate) async fn add_columns(
    topic: &Topic,
    store: &dyn Store,
    notes: &[DriftNote],
) -> Result<Option<Arc<Encoder>>, StoreError> {
    let _one_at_a_time = topic.evolving.lock().await;
    let table = topic.table();
    let mut wanted: Vec<Column> = Vec::new();
    for note in notes {
        let Some(ty) = column_type_for(&note.json_type) else { continue };
        if !usable(&note.field)
            || table.column(&note.field).is_some()
            || table.columns.len() + wanted.len() >= COLUMNS_MAX
        {
            continue;
        }
        match wanted.iter_mut().find(|c| c.name == note.field) {
            // Two types for one new field in one batch: numbers widen, anything else is kept as JSON.
            Some(column) => column.ty = common(column.ty, ty),
            None => wanted.push(Column::new(note.field.clone(), ty, true, Origin::Property)),
        }
    }
    if wanted.is_empty() {
        // Somebody else may have added them since the batch was encoded.
        let stale = notes.iter().any(|n| table.column(&n.field).is_some());
        return Ok(stale.then(|| topic.encoder()));
    }
    let mut grown = (*table).clone();
    let before_extra = grown.columns.len() - 1;
    grown.columns.splice(before_extra..before_extra, wanted.iter().cloned());
    store.ensure_table(&grown).await?;
    topic.extend(&wanted);
    let names: Vec<_> = wanted.iter().map(|c| format!("{} {}", c.name, c.ty.name())).collect();
    tracing::info!(topic = %topic.name, columns = ?names, "added columns for fields that the schema does not name");
    Ok(Some(topic.encoder()))
}

/// Columns that an earlier process added: taken over on start, so that the fields keep going there.
pub(crate) fn adopt(topic: &Topic, beyond: &[Column]) {
    use caudal_core::schema::UnknownFields::Add;
    if topic.encoder().schema.unknown == Add {
        let own: Vec<_> = beyond.iter().filter(|c| usable(&c.name)).cloned().collect();
        topic.extend(&own);
    }
}

fn usable(field: &str) -> bool {
    !field.is_empty()
        && !field.starts_with(['_', '$'])
        && field.len() <= TOPIC_NAME_BYTES_MAX
        && !field.chars().any(char::is_control)
}

fn common(a: ColumnType, b: ColumnType) -> ColumnType {
    match (a, b) {
        (a, b) if a == b => a,
        (ColumnType::Int8, ColumnType::Float8) | (ColumnType::Float8, ColumnType::Int8) => ColumnType::Float8,
        _ => ColumnType::Jsonb,
    }
}
