//! Migrations, and tables that match what topics ask for.

use caudal_core::error::StoreError;
use caudal_core::schema::{Column, ColumnType, ID, Origin, ROW, Table};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::error::store_error;
use super::sql::quoted;
use super::values::sql_type;
use super::writer::now;
use crate::migration::Migration;

const MIGRATIONS: [Migration; 6] = [
    Migration { name: "0001_system", sql: include_str!("migrations/0001_system.sql") },
    Migration { name: "0002_retention", sql: include_str!("migrations/0002_retention.sql") },
    Migration { name: "0003_marks", sql: include_str!("migrations/0003_marks.sql") },
    Migration { name: "0004_confirm", sql: include_str!("migrations/0004_confirm.sql") },
    Migration { name: "0005_confirm_find", sql: include_str!("migrations/0005_confirm_find.sql") },
    Migration { name: "0006_move", sql: include_str!("migrations/0006_move.sql") },
];

/// Each in a transaction that takes the write lock first: one runner at a time, a kill leaves all of one or nothing.
pub(super) fn migrate(conn: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut applied = Vec::new();
    for migration in &MIGRATIONS {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
        transaction
            .execute_batch(
                "create table if not exists _caudal_migrations (
                   name text not null primary key, checksum text not null, applied_at text not null)",
            )
            .map_err(store_error)?;
        let sql = "select checksum from _caudal_migrations where name = ?1";
        let found: Option<String> =
            transaction.query_row(sql, [migration.name], |row| row.get(0)).optional().map_err(store_error)?;
        if migration.is_applied(found.as_deref())? {
            continue;
        }
        transaction.execute_batch(migration.sql).map_err(store_error)?;
        let sql = "insert into _caudal_migrations (name, checksum, applied_at) values (?1, ?2, ?3)";
        let values = params![migration.name, migration.checksum(), now().to_string()];
        transaction.execute(sql, values).map_err(store_error)?;
        transaction.commit().map_err(store_error)?;
        applied.push(migration.name.to_owned());
    }
    Ok(applied)
}

pub(super) fn ensure_table(conn: &mut Connection, table: &Table) -> Result<Vec<Column>, StoreError> {
    let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
    let there = columns(&transaction, table).map_err(store_error)?;
    let changes = match there.is_empty() {
        true => create_sql(table),
        false => alter_sql(table, &missing(table, &there)?),
    };
    transaction.execute_batch(&changes).map_err(store_error)?;
    transaction.commit().map_err(store_error)?;
    Ok(there.into_iter().filter(|c| table.column(&c.name).is_none()).filter_map(Found::column).collect())
}

struct Found {
    name: String,
    sql_type: String,
    not_null: bool,
}

impl Found {
    fn column(self) -> Option<Column> {
        let ty = match self.sql_type.to_ascii_uppercase().as_str() {
            "INTEGER" => ColumnType::Int8,
            "REAL" => ColumnType::Float8,
            "TEXT" => ColumnType::Text,
            _ => return None,
        };
        Some(Column::new(self.name, ty, !self.not_null, Origin::Property))
    }
}

fn columns(conn: &Connection, table: &Table) -> rusqlite::Result<Vec<Found>> {
    let mut statement = conn.prepare("select name, type, \"notnull\" from pragma_table_info(?1)")?;
    let rows = statement.query_map([&table.name], |row| {
        Ok(Found { name: row.get(0)?, sql_type: row.get(1)?, not_null: row.get(2)? })
    })?;
    rows.collect()
}

/// The columns to add; fails when the table cannot become what is asked for by adding alone.
fn missing<'t>(table: &'t Table, there: &[Found]) -> Result<Vec<&'t Column>, StoreError> {
    let mut missing = Vec::new();
    for column in &table.columns {
        match there.iter().find(|found| found.name == column.name) {
            Some(found) if found.sql_type.eq_ignore_ascii_case(sql_type(column.ty)) => {}
            Some(found) => {
                return Err(StoreError::Setup(format!(
                    "column {} of table {} is {}, and the topic's schema wants {} ({}): change one of them",
                    column.name,
                    table.name,
                    found.sql_type,
                    column.ty.name(),
                    sql_type(column.ty)
                )));
            }
            None if column.nullable => missing.push(column),
            None => {
                return Err(StoreError::Setup(format!(
                    "table {} exists without the column {}, so it is not a topic's table: rename the topic or the table",
                    table.name, column.name
                )));
            }
        }
    }
    Ok(missing)
}

/// `_row`, where there is one, is SQLite's own row number under a name.
fn create_sql(table: &Table) -> String {
    let numbered = table.column(ROW).is_some();
    let columns = table.columns.iter().map(|column| match column.name.as_str() {
        ID if numbered => format!("{ID} text not null unique"),
        ID => format!("{ID} text not null primary key"),
        ROW => format!("{ROW} integer primary key"),
        _ => column_sql(column),
    });
    format!("create table {} ({})", quoted(&table.name), columns.collect::<Vec<_>>().join(", "))
}

fn alter_sql(table: &Table, missing: &[&Column]) -> String {
    let name = quoted(&table.name);
    missing.iter().map(|column| format!("alter table {name} add column {};", column_sql(column))).collect()
}

fn column_sql(column: &Column) -> String {
    let not_null = if column.nullable { "" } else { " not null" };
    format!("{} {}{not_null}", quoted(&column.name), sql_type(column.ty))
}
