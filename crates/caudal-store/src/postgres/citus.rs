//! Citus: where the extension is there, a topic's table is spread over its workers by `_id`.
//!
//! By `_id` because it is the primary key, which must contain the column that rows are spread by, and because every look for a
//! duplicate and every read of a record names it, so each goes to one shard. All topics are spread alike (one colocation group), so
//! that joins over `_id` stay on one worker. Caudal's own tables are small and stay on the coordinator, in the same transaction.
//!
//! Citus cannot be installed where this is tested. What is tested is the SQL (`docs/citus.md`).

use caudal_core::error::StoreError;
use caudal_core::schema::{ID, Table};
use tokio_postgres::Client;

use super::error::store_error;
use super::sql::quoted;

/// Yields a row where it is.
pub(super) const IS_THERE: &str = "select 1 from pg_extension where extname = 'citus'";

pub(super) async fn is_there(client: &Client) -> Result<bool, StoreError> {
    Ok(!client.query_typed(IS_THERE, &[]).await.map_err(store_error)?.is_empty())
}

/// # Errors
/// What a topic asks for and a distributed table cannot do.
pub(super) fn check(table: &Table, citus: bool) -> Result<(), StoreError> {
    match citus && table.expires.is_some() {
        true => Err(StoreError::Setup(format!(
            "topic {} has a retention, which is not offered on Citus: remove it, or delete by a job of your own",
            table.name
        ))),
        false => Ok(()),
    }
}

/// Runs in the transaction that made the table, which is empty then: nothing has to be moved.
pub(super) fn distribute_sql(table: &Table) -> String {
    let name = quoted(&table.name).replace('\'', "''");
    format!("select create_distributed_table('{name}', '{ID}', colocate_with => 'default')")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caudal_core::schema::{Column, ColumnType, Origin};

    use super::super::catalogue::{alter_sql, create_sql};
    use super::*;

    fn topic(name: &str) -> Table {
        let columns = vec![Column::new("n", ColumnType::Int8, true, Origin::Property)];
        Table::of_topic(name, columns, true)
    }

    #[test]
    fn tables_are_spread_by_their_primary_key_in_one_group() {
        let expected = "select create_distributed_table('\"flights\"', '_id', colocate_with => 'default')";
        assert_eq!(distribute_sql(&topic("flights")), expected);
        assert!(distribute_sql(&topic("a'b")).contains("'\"a''b\"'"));
    }

    /// The rules of a distributed table: each unique constraint has the distribution column, and no default of a column is evaluated
    /// by a function that Citus would have to run on each worker.
    #[test]
    fn a_topics_table_obeys_the_rules_of_distributed_tables() {
        let sql = create_sql(&topic("flights"));
        assert!(sql.contains("\"_id\" uuid primary key"), "{sql}");
        assert_eq!(sql.matches("primary key").count() + sql.matches("unique").count(), 1, "{sql}");
        assert!(!sql.contains("references") && !sql.contains("serial") && !sql.contains("nextval"), "{sql}");
        let column = Column::new("added", ColumnType::Text, true, Origin::Property);
        let alter = alter_sql(&topic("flights"), &[&column]);
        assert_eq!(alter, "alter table \"flights\" add column if not exists \"added\" text collate \"C\"");
    }

    #[test]
    fn what_is_not_offered_is_said_before_anything_is_made() {
        let expiring = Table { expires: Some(Duration::from_secs(1)), ..topic("flights") };
        assert!(matches!(check(&expiring, true), Err(StoreError::Setup(s)) if s.contains("retention")));
        assert!(check(&expiring, false).is_ok() && check(&topic("flights"), true).is_ok());
    }
}
