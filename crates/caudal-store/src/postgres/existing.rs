//! The careful way's first step: which rows of a batch are there already, and which are the same.

use std::sync::Arc;

use caudal_core::outcome::RowOutcome;
use caudal_core::ports::AppendBatch;
use caudal_core::rejection::Rejection;
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{ID, LEADING_COLUMNS, Table};
use foldhash::{HashMap, HashSet};
use tokio_postgres::Error;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::connect::{Conn, Query};
use super::sql::{column_list, quoted};
use super::wire::push_row;
use crate::compare::{conflict, first_difference};

/// The id of a written row.
pub(super) fn id_of(batch: &AppendBatch, index: usize) -> Uuid {
    batch.rows.row(index).next().flatten().map(field::uuid).unwrap_or_default()
}

pub(super) async fn prepare(conn: &mut Conn, table: &Table) -> Result<Arc<Query>, Error> {
    let columns = std::iter::once(ID).chain(table.content().map(|(_, c)| c.name.as_str()));
    let sql = format!("select {} from {} where _id = any($1)", column_list(columns), quoted(&table.name));
    conn.prepare(&sql, &[Type::UUID_ARRAY]).await
}

/// The content of the stored rows that have ids of a batch.
#[derive(Debug, Default)]
pub(super) struct Existing {
    content: RowBatch,
    by_id: HashMap<Uuid, usize>,
    /// Those whose rows have left the table.
    expired: HashSet<Uuid>,
}

impl Existing {
    /// `expired` asks for the ids that have left the table. It goes second: a row that leaves in between is found by it.
    pub(super) async fn fetch(
        conn: &Conn,
        query: &Query,
        expired: Option<&Query>,
        batch: &AppendBatch,
    ) -> Result<Self, Error> {
        let ids: Vec<Uuid> = (0..batch.rows.len()).map(|i| id_of(batch, i)).collect();
        let mut existing = Self::default();
        for row in conn.query(query, &[&ids]).await? {
            existing.by_id.insert(row.try_get(0)?, existing.content.len());
            push_row(&mut existing.content, &row, 1)?;
        }
        if let Some(expired) = expired {
            for row in conn.query(expired, &[&ids]).await? {
                existing.expired.insert(row.try_get(0)?);
            }
        }
        Ok(existing)
    }
}

/// How a batch falls apart: which rows to store, and how the others end.
#[derive(Debug)]
pub(super) struct Sorted {
    /// One a row; those in `store` count as stored, which the database must confirm.
    pub(super) outcomes: Vec<RowOutcome>,
    pub(super) store: Vec<usize>,
}

/// Each row against what is stored, then against the row of the same id before it in the batch. A row that the database
/// refused leaves its id to the next one.
pub(super) fn sort(batch: &AppendBatch, existing: &Existing, refused: &HashMap<usize, Rejection>) -> Sorted {
    let mut sorted = Sorted { outcomes: Vec::with_capacity(batch.rows.len()), store: Vec::new() };
    let mut firsts: HashMap<Uuid, usize> = HashMap::default();
    for index in 0..batch.rows.len() {
        let row = batch.rows.row(index);
        let id = id_of(batch, index);
        let difference = if let Some(rejection) = refused.get(&index) {
            sorted.outcomes.push(RowOutcome::Bad(rejection.clone()));
            continue;
        } else if let Some(at) = existing.by_id.get(&id) {
            first_difference(&batch.table, row, existing.content.row(*at))
        } else if existing.expired.contains(&id) {
            // Its content is not there to compare.
            None
        } else if let Some(first) = firsts.get(&id) {
            first_difference(&batch.table, row, batch.rows.row(*first).skip(LEADING_COLUMNS))
        } else {
            firsts.insert(id, index);
            sorted.store.push(index);
            sorted.outcomes.push(RowOutcome::Stored);
            continue;
        };
        sorted.outcomes.push(match difference {
            None => RowOutcome::Duplicate,
            Some(column) => RowOutcome::Bad(conflict(column)),
        });
    }
    sorted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use caudal_core::ports::OnBadRow;
    use caudal_core::rejection::Code;
    use caudal_core::schema::{Column, ColumnType, Origin};
    use caudal_core::time::Instant;
    use caudal_core::topic::TopicName;

    use super::*;

    fn batch(rows: &[(u128, i64)]) -> AppendBatch {
        let columns = vec![Column::new("n", ColumnType::Int8, true, Origin::Property)];
        let table = Arc::new(Table::of_topic("t", columns, false));
        let mut batch = AppendBatch::new(table, TopicName::parse("t").expect("a name"), OnBadRow::Report);
        for (id, n) in rows {
            let mut row = batch.rows.begin(6);
            row.uuid(Uuid::from_u128(*id));
            row.null();
            row.text("test");
            row.timestamp(Instant(0));
            row.int8(*n);
            row.null();
            row.finish();
        }
        batch
    }

    fn stored(rows: &[(u128, i64)]) -> Existing {
        let mut existing = Existing::default();
        for (id, n) in rows {
            existing.by_id.insert(Uuid::from_u128(*id), existing.content.len());
            let mut row = existing.content.begin(2);
            row.int8(*n);
            row.null();
            row.finish();
        }
        existing
    }

    fn words(sorted: &Sorted) -> String {
        let word = |outcome: &RowOutcome| match outcome {
            RowOutcome::Stored => 's',
            RowOutcome::Duplicate => 'd',
            RowOutcome::Bad(r) if r.code == Code::Conflict => 'c',
            RowOutcome::Bad(_) => 'r',
        };
        sorted.outcomes.iter().map(word).collect()
    }

    #[test]
    fn each_row_has_one_fate() {
        let refused = |rows: &[usize]| {
            rows.iter().map(|row| (*row, crate::compare::refused("23514", "no"))).collect::<HashMap<_, _>>()
        };
        let rows = batch(&[(1, 1), (2, 2), (1, 1), (1, 5), (3, 3), (3, 4), (4, 4)]);
        let sorted = sort(&rows, &stored(&[(2, 2), (4, 0)]), &HashMap::default());
        assert_eq!((words(&sorted).as_str(), sorted.store.as_slice()), ("sddcscc", &[0, 4][..]));
        // A refused row leaves its id to the next one.
        let sorted = sort(&rows, &stored(&[(2, 2), (4, 0)]), &refused(&[0, 2]));
        assert_eq!((words(&sorted).as_str(), sorted.store.as_slice()), ("rdrsscc", &[3, 4][..]));
    }
}
