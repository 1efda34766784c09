//! Migrations, and tables that match what topics ask for.

use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::schema::{Column, ColumnType, ID, Origin, ROW, STORED_AT, Table};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::PostgresStore;
use super::citus;
use super::error::store_error;
use super::sql::quoted;
use crate::migration::Migration;

const MIGRATIONS: [Migration; 6] = [
    Migration { name: "0001_system", sql: include_str!("migrations/0001_system.sql") },
    Migration { name: "0002_retention", sql: include_str!("migrations/0002_retention.sql") },
    Migration { name: "0003_marks", sql: include_str!("migrations/0003_marks.sql") },
    Migration { name: "0004_confirm", sql: include_str!("migrations/0004_confirm.sql") },
    Migration { name: "0005_confirm_find", sql: include_str!("migrations/0005_confirm_find.sql") },
    Migration { name: "0006_move", sql: include_str!("migrations/0006_move.sql") },
];

/// The advisory lock of everything that changes the schema: "caudal" in ASCII.
const SCHEMA_LOCK: &str = "select pg_advisory_xact_lock(109270967378284)";

/// Changing a busy table waits for its readers and makes writers wait behind it: give up soon, try again later.
const ALTER_ATTEMPTS: u32 = 5;
const ALTER_PAUSE: Duration = Duration::from_millis(300);

pub(super) async fn migrate(store: &PostgresStore) -> Result<Vec<String>, StoreError> {
    if is_up_to_date(store).await? {
        return Ok(Vec::new());
    }
    let mut conn = store.connector.connect().await?;
    let mut applied = Vec::new();
    for migration in &MIGRATIONS {
        let transaction = conn.client.transaction().await.map_err(store_error)?;
        // Waiting for another runner is not a fault: it must not run into the usual bounds.
        let begin = format!(
            "set local lock_timeout = 0; set local statement_timeout = 0; {SCHEMA_LOCK};
             create table if not exists _caudal_migrations (
               name text primary key, checksum text not null, applied_at timestamptz not null default now())"
        );
        transaction.batch_execute(&begin).await.map_err(store_error)?;
        let sql = "select checksum from _caudal_migrations where name = $1";
        let found = transaction.query_typed(sql, &[(&migration.name, Type::TEXT)]).await.map_err(store_error)?;
        let found: Option<&str> = found.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        if migration.is_applied(found)? {
            continue;
        }
        transaction.batch_execute(migration.sql).await.map_err(store_error)?;
        let sql = "insert into _caudal_migrations (name, checksum) values ($1, $2)";
        let values = [(&migration.name as _, Type::TEXT), (&migration.checksum() as _, Type::TEXT)];
        transaction.execute_typed(sql, &values).await.map_err(store_error)?;
        transaction.commit().await.map_err(store_error)?;
        applied.push(migration.name.to_owned());
    }
    Ok(applied)
}

/// Looks without a lock, on a connection that will be used anyway: usually there is nothing to do, and many processes may
/// start at once.
async fn is_up_to_date(store: &PostgresStore) -> Result<bool, StoreError> {
    let sql = "select 1 from pg_catalog.pg_class where oid = to_regclass('_caudal_migrations')";
    if store.ask_over(&store.writers, sql, &[], true).await?.is_empty() {
        return Ok(false);
    }
    let rows = store.ask_over(&store.writers, "select name, checksum from _caudal_migrations", &[], true).await?;
    for migration in &MIGRATIONS {
        let found = rows.iter().find(|row| row.try_get(0).is_ok_and(|name: &str| name == migration.name));
        let checksum: Option<&str> = found.map(|row| row.try_get(1)).transpose().map_err(store_error)?;
        if !migration.is_applied(checksum)? {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) async fn ensure_table(store: &PostgresStore, table: &Table) -> Result<Vec<Column>, StoreError> {
    if table.expires.is_some() {
        citus::check(table, !store.ask_over(&store.writers, citus::IS_THERE, &[], true).await?.is_empty())?;
    }
    let there = store.ask_over(&store.writers, COLUMNS, &[(&quoted(&table.name), Type::TEXT)], true).await?;
    if let Some(there) = &found(&there)?
        && missing(table, there)?.is_empty()
    {
        return Ok(beyond(table, there));
    }
    let conn = store.connector.connect().await?;
    let mut attempt = 1;
    loop {
        match ensure_once(&conn.client, table).await {
            Err(StoreError::Unavailable(cause)) if attempt < ALTER_ATTEMPTS && is_locked(&*cause) => {
                let _ = conn.client.batch_execute("rollback").await;
                tracing::info!(table = table.name, attempt, "the table is in use; adding columns later");
                attempt += 1;
                tokio::time::sleep(ALTER_PAUSE * attempt).await;
            }
            result => return result,
        }
    }
}

fn is_locked(cause: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    let code = cause.downcast_ref::<Error>().and_then(Error::code);
    code.is_some_and(|code| matches!(code.code(), "55P03" | "40P01"))
}

async fn ensure_once(client: &Client, table: &Table) -> Result<Vec<Column>, StoreError> {
    let citus = citus::is_there(client).await?;
    let begin = format!("begin; set local statement_timeout = 0; {SCHEMA_LOCK}; set local lock_timeout = '2s'");
    client.batch_execute(&begin).await.map_err(store_error)?;
    let changes = match columns(client, table).await? {
        None if citus => format!("{}; {}", create_sql(table), citus::distribute_sql(table)),
        None => create_sql(table),
        Some(there) => alter_sql(table, &missing(table, &there)?),
    };
    client.batch_execute(&format!("{changes}; commit")).await.map_err(store_error)?;
    let there = columns(client, table).await?.unwrap_or_default();
    missing(table, &there)?;
    Ok(beyond(table, &there))
}

/// A column as the server has it; `ty` is `None` for types that Caudal has no word for.
struct Found {
    name: String,
    sql_type: String,
    ty: Option<ColumnType>,
    not_null: bool,
}

const COLUMNS: &str = "select attname::text, format_type(atttypid, atttypmod), attnotnull from pg_attribute
    where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum";

async fn columns(client: &Client, table: &Table) -> Result<Option<Vec<Found>>, StoreError> {
    let name = quoted(&table.name);
    found(&client.query_typed(COLUMNS, &[(&name, Type::TEXT)]).await.map_err(store_error)?)
}

fn found(rows: &[Row]) -> Result<Option<Vec<Found>>, StoreError> {
    let found = rows.iter().map(|row| {
        let sql_type: String = row.try_get(1)?;
        Ok(Found { name: row.try_get(0)?, ty: column_type(&sql_type), sql_type, not_null: row.try_get(2)? })
    });
    let found: Vec<Found> = found.collect::<Result<_, Error>>().map_err(store_error)?;
    Ok((!found.is_empty()).then_some(found))
}

fn column_type(sql_type: &str) -> Option<ColumnType> {
    Some(match sql_type {
        "bigint" => ColumnType::Int8,
        "double precision" => ColumnType::Float8,
        "text" => ColumnType::Text,
        "boolean" => ColumnType::Bool,
        "timestamp with time zone" => ColumnType::Timestamptz,
        "date" => ColumnType::Date,
        "uuid" => ColumnType::Uuid,
        "jsonb" => ColumnType::Jsonb,
        _ => return None,
    })
}

/// The columns to add; fails when the table cannot become what is asked for by adding alone.
fn missing<'t>(table: &'t Table, there: &[Found]) -> Result<Vec<&'t Column>, StoreError> {
    let mut missing = Vec::new();
    for column in &table.columns {
        match there.iter().find(|found| found.name == column.name) {
            Some(found) if found.ty == Some(column.ty) => {}
            Some(found) => {
                return Err(StoreError::Setup(format!(
                    "column {} of table {} is {}, and the topic's schema wants {}: change one of them",
                    column.name,
                    table.name,
                    found.sql_type,
                    column.ty.name()
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

/// What is there and was not asked for, as far as Caudal has words for it.
fn beyond(table: &Table, there: &[Found]) -> Vec<Column> {
    let unknown = there.iter().filter(|found| table.column(&found.name).is_none());
    unknown.filter_map(|f| Some(Column::new(f.name.clone(), f.ty?, !f.not_null, Origin::Property))).collect()
}

pub(super) fn create_sql(table: &Table) -> String {
    let name = quoted(&table.name);
    let columns: Vec<String> = table.columns.iter().map(column_sql).collect();
    let mut sql = format!("create table {name} ({})", columns.join(", "));
    if table.column(STORED_AT).is_some() {
        // Rows arrive in its order, so a block range index is a thousandth of a tree and serves time ranges as well.
        sql.push_str(&format!("; create index on {name} using brin ({STORED_AT}) with (autosummarize = on)"));
    }
    sql
}

pub(super) fn alter_sql(table: &Table, missing: &[&Column]) -> String {
    let add = missing.iter().map(|c| format!("add column if not exists {}", column_sql(c))).collect::<Vec<_>>();
    if add.is_empty() { String::new() } else { format!("alter table {} {}", quoted(&table.name), add.join(", ")) }
}

/// Text is in the "C" collation: compared, ordered and indexed by its bytes, the same on every machine and on SQLite.
fn column_sql(column: &Column) -> String {
    let mut sql = format!("{} {}", quoted(&column.name), column.ty.name());
    if column.ty == ColumnType::Text {
        sql.push_str(" collate \"C\"");
    }
    match column.name.as_str() {
        ID => sql.push_str(" primary key"),
        STORED_AT => sql.push_str(" not null default now()"),
        ROW => sql.push_str(" generated by default as identity"),
        _ if !column.nullable => sql.push_str(" not null"),
        _ => {}
    }
    sql
}
