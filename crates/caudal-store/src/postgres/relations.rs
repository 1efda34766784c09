//! Tables that Caudal did not make: what there is to read, of what types, and which foreign keys lie between.

use std::collections::HashMap;

use caudal_core::error::StoreError;
use caudal_core::relations::{ForeignKey, KeyEnd, Relations};
use caudal_core::schema::{Column, ColumnType, Table};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::PostgresStore;
use super::error::store_error;
use super::views::{Traced, with_views};

/// Caudal's own, in its home schema: what is served of them is served under their own rules.
const OWN: [&str; 21] = [
    "_caudal_migrations",
    "_confirm_adopted",
    "_confirm_aside",
    "_confirm_brought",
    "_confirm_contradictions",
    "_confirm_counts",
    "_confirm_deferred",
    "_confirm_lanes",
    "_confirm_leases",
    "_confirm_outcomes",
    "_confirm_ready",
    "_confirm_tried",
    "_confirm_workers",
    "_confirmations",
    "_dead_letters",
    "_drift",
    "_expired",
    "_ledger",
    "_positions",
    "_retention",
    "_secrets",
];

/// Partitions are left out (their parent has their rows), and so is what this user may not read.
const COLUMNS: &str = "select n.nspname::text, c.relname::text, a.attname::text,
         a.atttypid, t.typtype::text, t.typcategory::text, format_type(a.atttypid, a.atttypmod),
         exists (select from pg_cast k where k.castsource = a.atttypid and k.castmethod = 'f'
                 and k.casttarget = 'json'::regtype),
         a.attnotnull, coalesce(array_position(i.indkey::int2[], a.attnum), -1)
    from pg_namespace n
    join pg_class c on c.relnamespace = n.oid
    join pg_attribute a on a.attrelid = c.oid
    join pg_type t on t.oid = a.atttypid
    left join pg_index i on i.indrelid = c.oid and i.indisprimary
   where n.nspname = any($1) and c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
     and a.attnum > 0 and not a.attisdropped
     and not (n.nspname = current_schema() and c.relname = any($2))
     and has_schema_privilege(n.oid, 'usage') and has_column_privilege(c.oid, a.attnum, 'select')
   order by n.nspname, c.relname, a.attnum";

/// Of every schema: views that are served may show tables that are not. Keys of partitions repeat their parents'.
const KEYS: &str = "select k.conname::text, fn.nspname::text, f.relname::text, array(
           select a.attname::text from unnest(k.conkey) with ordinality u (n, place)
             join pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.n order by place),
         tn.nspname::text, t.relname::text, array(
           select a.attname::text from unnest(k.confkey) with ordinality u (n, place)
             join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.n order by place),
         exists (select from pg_index i where i.indrelid = k.conrelid and i.indisunique and i.indpred is null
                 and i.indexprs is null and (i.indkey::int2[])[0:i.indnkeyatts - 1] <@ k.conkey)
    from pg_constraint k
    join pg_class f on f.oid = k.conrelid join pg_namespace fn on fn.oid = f.relnamespace
    join pg_class t on t.oid = k.confrelid join pg_namespace tn on tn.oid = t.relnamespace
   where k.contype = 'f' and k.conparentid = 0";

/// Which schemas are not there, and where Caudal's own tables are.
const SCHEMAS: &str = "select current_schema()::text,
    array(select s from unnest($1::text[]) s where not exists (select from pg_namespace where nspname = s))";

/// Every change of a table, a column, a key, a view or a permission writes a new version of a row of these, with the changing
/// transaction's number. Analysing and vacuuming do not.
const MARK: &str = "with n as (select oid, xmin from pg_namespace where nspname = any($1)),
         c as (select c.oid, c.xmin from pg_class c join n on n.oid = c.relnamespace)
    select sum(hashtextextended(what, 0))::text from (
      select 'n' || oid || ' ' || xmin from n
      union all select 'c' || oid || ' ' || xmin from c
      union all select 'a' || c.oid || ' ' || a.attnum || ' ' || a.xmin from pg_attribute a join c on c.oid = a.attrelid
      union all select 'k' || k.oid || ' ' || k.xmin from pg_constraint k
      union all select 'r' || r.oid || ' ' || r.xmin from pg_rewrite r join c on c.oid = r.ev_class
    ) changes (what)";

pub(super) async fn relations(store: &PostgresStore, schemas: &[String]) -> Result<Relations, StoreError> {
    let wanted = (&schemas as _, Type::TEXT_ARRAY);
    let rows = store.ask(SCHEMAS, std::slice::from_ref(&wanted), true).await?;
    let row = rows.first().ok_or_else(|| StoreError::fatal("PostgreSQL named no schema"))?;
    let home: Option<String> = row.try_get(0).map_err(store_error)?;
    let missing: Vec<String> = row.try_get(1).map_err(store_error)?;
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(StoreError::Setup(format!(
            "read.schemas names {missing}, which the database does not have: create it, or correct the setting"
        )));
    }
    let own = OWN.map(str::to_owned).to_vec();
    let rows = store.ask(COLUMNS, &[wanted, (&own, Type::TEXT_ARRAY)], true).await?;
    let tables = tables(&rows).map_err(store_error)?;
    let keys = store.ask(KEYS, &[], true).await?;
    let keys: Vec<ForeignKey> = keys.iter().map(key).collect::<Result<_, _>>().map_err(store_error)?;
    let traced = store.ask(super::views::TRACED, &[], true).await?;
    let traced: Vec<Traced> = traced.iter().map(Traced::read).collect::<Result<_, _>>().map_err(store_error)?;
    Ok(Relations::new(schemas, home.unwrap_or_default(), tables, with_views(keys, &traced)))
}

pub(super) async fn mark(store: &PostgresStore, schemas: &[String]) -> Result<String, StoreError> {
    let rows = store.ask(MARK, &[(&schemas, Type::TEXT_ARRAY)], true).await?;
    let mark: Option<String> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?.flatten();
    Ok(mark.unwrap_or_default())
}

/// From rows in the order of schema, table, column.
fn tables(rows: &[Row]) -> Result<Vec<Table>, tokio_postgres::Error> {
    let mut tables: Vec<Table> = Vec::new();
    // For each table, which of its columns is at which place of the key.
    let mut keys: HashMap<usize, Vec<(i32, usize)>> = HashMap::new();
    for row in rows {
        let (schema, name): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        if tables.last().is_none_or(|last| last.name != name || last.schema.as_deref() != Some(schema)) {
            tables.push(Table::found(schema, name, Vec::new(), Vec::new()));
        }
        let at = tables.len() - 1;
        let place: i32 = row.try_get(9)?;
        if place >= 0 {
            keys.entry(at).or_default().push((place, tables[at].columns.len()));
        }
        tables[at].columns.push(column(row)?);
    }
    for (at, mut places) in keys {
        places.sort_unstable();
        // A key of which a column may not be read orders nothing.
        let whole = places.iter().zip(0..).all(|((place, _), expected)| *place == expected);
        if whole {
            tables[at].key = places.into_iter().map(|(_, column)| column).collect();
        }
    }
    Ok(tables)
}

fn column(row: &Row) -> Result<Column, tokio_postgres::Error> {
    let (oid, kind, category): (u32, &str, &str) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let declared: &str = row.try_get(6)?;
    let (ty, exact) = travels(oid, kind, category, row.try_get(7)?);
    let declared = (!exact).then(|| declared.into());
    Ok(Column::found(row.try_get::<_, &str>(2)?, ty, !row.try_get::<_, bool>(8)?, declared))
}

/// How a type's values travel, and whether it is exactly that one of ours. What PostgreSQL's `to_json` writes as anything but
/// a string travels as its JSON, and so does what it spells otherwise there than as text: the digits are then PostgreSQL's own.
fn travels(oid: u32, kind: &str, category: &str, casts_to_json: bool) -> (ColumnType, bool) {
    let Some(ty) = Type::from_oid(oid) else {
        let json = matches!(kind, "c" | "d") || category == "A" || casts_to_json;
        return (if json { ColumnType::Jsonb } else { ColumnType::Text }, false);
    };
    match ty {
        Type::INT8 => (ColumnType::Int8, true),
        Type::FLOAT8 => (ColumnType::Float8, true),
        Type::TEXT => (ColumnType::Text, true),
        Type::BOOL => (ColumnType::Bool, true),
        Type::TIMESTAMPTZ => (ColumnType::Timestamptz, true),
        Type::DATE => (ColumnType::Date, true),
        Type::UUID => (ColumnType::Uuid, true),
        Type::JSONB => (ColumnType::Jsonb, true),
        Type::INT2 | Type::INT4 => (ColumnType::Int8, false),
        Type::FLOAT4 | Type::NUMERIC | Type::JSON | Type::TIMESTAMP => (ColumnType::Jsonb, false),
        // Cast to text, `char(n)` loses its blanks and `inet` gains a prefix, unlike in JSON.
        Type::BPCHAR | Type::INET => (ColumnType::Jsonb, false),
        _ if category == "A" || kind == "c" => (ColumnType::Jsonb, false),
        _ => (ColumnType::Text, false),
    }
}

fn key(row: &Row) -> Result<ForeignKey, tokio_postgres::Error> {
    let end =
        |at: usize| Ok(KeyEnd { schema: row.try_get(at)?, table: row.try_get(at + 1)?, columns: row.try_get(at + 2)? });
    Ok(ForeignKey { name: row.try_get(0)?, from: end(1)?, to: end(4)?, one_to_one: row.try_get(7)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_travel_as_their_json_would_be() {
        use ColumnType::{Int8, Jsonb, Text, Uuid};
        let of = |ty: Type, kind, category| travels(ty.oid(), kind, category, false);
        assert_eq!(of(Type::UUID, "b", "U"), (Uuid, true));
        assert_eq!(of(Type::INT2, "b", "N"), (Int8, false));
        assert_eq!(of(Type::NUMERIC, "b", "N"), (Jsonb, false));
        assert_eq!(of(Type::INT4_ARRAY, "b", "A"), (Jsonb, false));
        assert_eq!(of(Type::INT4_RANGE, "r", "R"), (Text, false));
        assert_eq!(of(Type::BYTEA, "b", "U"), (Text, false));
        // No number of a type that comes with PostgreSQL.
        assert_eq!(travels(99_999, "c", "C", false), (Jsonb, false));
        assert_eq!(travels(99_999, "e", "E", false), (Text, false));
        assert_eq!(travels(99_999, "d", "S", false), (Jsonb, false));
        assert_eq!(travels(99_999, "b", "U", true), (Jsonb, false));
        assert_eq!(travels(99_999, "b", "A", false), (Jsonb, false));
    }
}
