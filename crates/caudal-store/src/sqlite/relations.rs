//! Tables that Caudal did not make, from SQLite's own list of them.
//!
//! SQLite converts a value that is written towards its column's *affinity*, and takes it as it is when it cannot: unless a
//! table is `STRICT`, any value may be in any column. So a column travels as one of our types only where nothing else can be
//! in it, and as JSON, whatever each value is, elsewhere.

use std::collections::BTreeMap;

use caudal_core::error::StoreError;
use caudal_core::relations::{ForeignKey, KeyEnd, Relations};
use caudal_core::schema::{Column, ColumnType, Table};
use rusqlite::{Connection, Row};

use super::error::store_error;

/// The one schema that a file has.
const MAIN: &str = "main";
/// What is Caudal's own; served under its own rules as far as it is served.
const OWN: &str = "('_caudal_migrations', '_confirm_adopted', '_confirm_aside', '_confirm_brought', '_confirm_contradictions', '_confirm_counts',
    '_confirm_deferred', '_confirm_lanes', '_confirm_leased', '_confirm_leases', '_confirm_outcomes', '_confirm_positions',
    '_confirm_ready', '_confirm_tried', '_confirm_workers', '_confirmations', '_dead_letters', '_drift', '_expired', '_ledger',
    '_numbers', '_positions', '_retention', '_secrets')";

pub(super) fn relations(conn: &Connection, schemas: &[String]) -> Result<Relations, StoreError> {
    if let Some(stray) = schemas.iter().find(|schema| *schema != MAIN) {
        return Err(StoreError::Setup(format!(
            "read.schemas names {stray}, and SQLite has one schema, {MAIN}: set it to [\"{MAIN}\"]"
        )));
    }
    // One snapshot, so that tables and keys fit each other.
    let transaction = conn.unchecked_transaction().map_err(store_error)?;
    let found = tables(&transaction).map_err(store_error)?;
    let keys = keys(&transaction, &found).map_err(store_error)?;
    Ok(Relations::new(schemas, MAIN, found.into_values().collect(), keys))
}

/// SQLite counts the changes of its schema itself.
pub(super) fn mark(conn: &Connection) -> Result<String, StoreError> {
    let version: i64 = conn.query_row("pragma schema_version", [], |row| row.get(0)).map_err(store_error)?;
    Ok(version.to_string())
}

fn tables(conn: &Connection) -> rusqlite::Result<BTreeMap<String, Table>> {
    let sql = format!(
        "select name, strict from pragma_table_list where schema = '{MAIN}' and type in ('table', 'view', 'virtual')
            and name not like 'sqlite\\_%' escape '\\' and name not in {OWN}"
    );
    let mut statement = conn.prepare(&sql)?;
    let listed = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
    let mut tables = BTreeMap::new();
    for listed in listed {
        let (name, strict) = listed?;
        match table(conn, &name, strict) {
            Ok(table) => drop(tables.insert(name, table)),
            // A view over what is gone: nobody can read it, and everything else can be.
            Err(error) => tracing::warn!(view = name, %error, "a view cannot be read and is left out"),
        }
    }
    Ok(tables)
}

fn table(conn: &Connection, name: &str, strict: bool) -> rusqlite::Result<Table> {
    let sql = "select name, type, \"notnull\", pk from pragma_table_xinfo(?1) where hidden <> 1 order by cid";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([name])?;
    let mut table = Table::found(MAIN, name, Vec::new(), Vec::new());
    let mut places: Vec<(i64, usize)> = Vec::new();
    while let Some(row) = rows.next()? {
        let place: i64 = row.get(3)?;
        if place > 0 {
            places.push((place, table.columns.len()));
        }
        table.columns.push(column(row, strict)?);
    }
    places.sort_unstable();
    table.key = places.into_iter().map(|(_, column)| column).collect();
    number_of_row(conn, &mut table)?;
    Ok(table)
}

fn column(row: &Row<'_>, strict: bool) -> rusqlite::Result<Column> {
    let declared: String = row.get(1)?;
    let (ty, exact) = travels(&declared, strict);
    let declared = (!exact).then(|| if declared.is_empty() { "any".into() } else { declared.as_str().into() });
    Ok(Column::found(row.get::<_, String>(0)?, ty, !row.get::<_, bool>(2)?, declared))
}

/// A single `INTEGER PRIMARY KEY` is SQLite's own number of the row, which only ever is a number: it travels as one.
fn number_of_row(conn: &Connection, table: &mut Table) -> rusqlite::Result<()> {
    let [only] = table.key[..] else { return Ok(()) };
    let column = &table.columns[only];
    let is_integer = column.declared.as_deref().is_some_and(|declared| declared.eq_ignore_ascii_case("integer"));
    // A table whose key is not the row's number has an index for it.
    let sql = "select not exists (select 1 from pragma_index_list(?1) where origin = 'pk')";
    if is_integer && conn.query_row(sql, [&table.name], |row| row.get(0))? {
        let column = &mut table.columns[only];
        (column.ty, column.declared) = (ColumnType::Int8, None);
    }
    Ok(())
}

/// How a declared type's values travel, and whether they all are of exactly that one of ours. "Determination Of Column Affinity"
/// in SQLite's "Datatypes" has the rules in this order.
fn travels(declared: &str, strict: bool) -> (ColumnType, bool) {
    let upper = declared.to_ascii_uppercase();
    let has = |word: &str| upper.contains(word);
    if strict {
        return match upper.as_str() {
            "INT" | "INTEGER" => (ColumnType::Int8, true),
            "REAL" => (ColumnType::Float8, true),
            "TEXT" => (ColumnType::Text, true),
            "BLOB" => (ColumnType::Text, false),
            _ => (ColumnType::Jsonb, false),
        };
    }
    // Text affinity: numbers become text on their way in, blobs stay what they are.
    let text = !has("INT") && (has("CHAR") || has("CLOB") || has("TEXT"));
    (if text { ColumnType::Text } else { ColumnType::Jsonb }, false)
}

/// A foreign key as SQLite lists it: its target, its columns, and the target's where it names them.
type Listed = (String, Vec<String>, Vec<Option<String>>);

fn keys(conn: &Connection, tables: &BTreeMap<String, Table>) -> rusqlite::Result<Vec<ForeignKey>> {
    let mut keys = Vec::new();
    for table in tables.values() {
        let sql = "select id, \"table\", \"from\", \"to\" from pragma_foreign_key_list(?1) order by id, seq";
        let mut statement = conn.prepare_cached(sql)?;
        let mut rows = statement.query([&table.name])?;
        let mut by_id: BTreeMap<i64, Listed> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (_, from, to) = by_id.entry(row.get(0)?).or_insert((row.get(1)?, Vec::new(), Vec::new()));
            from.push(row.get(2)?);
            to.push(row.get(3)?);
        }
        for (target, from, to) in by_id.into_values() {
            keys.extend(key(conn, tables, table, &target, from, to)?);
        }
    }
    Ok(keys)
}

/// A key names the columns that it refers to, or means the primary key. SQLite compares names of tables without their case.
fn key(
    conn: &Connection,
    tables: &BTreeMap<String, Table>,
    table: &Table,
    target: &str,
    from: Vec<String>,
    to: Vec<Option<String>>,
) -> rusqlite::Result<Option<ForeignKey>> {
    let Some(target) = tables.values().find(|t| t.name.eq_ignore_ascii_case(target)) else { return Ok(None) };
    let to: Vec<String> = match to.into_iter().collect() {
        Some(named) => named,
        None => target.key.iter().map(|column| target.columns[*column].name.clone()).collect(),
    };
    let spelled = |table: &Table, names: Vec<String>| -> Vec<String> {
        let spelling =
            |name: String| table.columns.iter().find(|c| c.name.eq_ignore_ascii_case(&name)).map(|c| c.name.clone());
        names.into_iter().filter_map(spelling).collect()
    };
    let (from, to) = (spelled(table, from), spelled(target, to));
    if from.len() != to.len() || from.is_empty() {
        return Ok(None);
    }
    let one_to_one = is_unique(conn, table, &from)?;
    let name = format!("{}_{}_fkey", table.name, from.join("_"));
    let (from, to) = (KeyEnd::new(MAIN, &table.name, from), KeyEnd::new(MAIN, &target.name, to));
    Ok(Some(ForeignKey { name, from, to, one_to_one }))
}

/// Whether some of these columns, or all, have a value together at most once.
fn is_unique(conn: &Connection, table: &Table, columns: &[String]) -> rusqlite::Result<bool> {
    let within = |names: &[&str]| !names.is_empty() && names.iter().all(|name| columns.iter().any(|c| c == name));
    let key: Vec<&str> = table.key.iter().map(|column| table.columns[*column].name.as_str()).collect();
    if within(&key) {
        return Ok(true);
    }
    // A result without a name is an expression.
    let sql = "select i.name, coalesce(c.name, '') from pragma_index_list(?1) i, pragma_index_info(i.name) c
               where i.\"unique\" and not i.partial order by i.name";
    let mut statement = conn.prepare_cached(sql)?;
    let pairs = statement.query_map([&table.name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut indexes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in pairs {
        let (index, column) = pair?;
        indexes.entry(index).or_default().push(column);
    }
    Ok(indexes.values().any(|names| within(&names.iter().map(String::as_str).collect::<Vec<_>>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_anything_else_travels_as_a_type_of_ours() {
        use ColumnType::{Float8, Int8, Jsonb, Text};
        let strict = ["INT", "integer", "REAL", "TEXT", "BLOB", "ANY"].map(|ty| travels(ty, true));
        assert_eq!(strict, [(Int8, true), (Int8, true), (Float8, true), (Text, true), (Text, false), (Jsonb, false)]);
        for text in ["TEXT", "varchar(20)", "NCHAR(1)", "CLOB", "CHARACTER VARYING"] {
            assert_eq!(travels(text, false), (Text, false), "{text}");
        }
        // "CHARINT" has integer affinity: INT comes first.
        for any in ["INTEGER", "CHARINT", "REAL", "NUMERIC(10,2)", "DATETIME", "BLOB", "", "FLOATING POINT"] {
            assert_eq!(travels(any, false), (Jsonb, false), "{any}");
        }
    }
}
