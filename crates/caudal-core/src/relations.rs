//! The tables that Caudal did not make, and how they refer to each other, as one value: read from the database whole, and
//! replaced whole when that changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::schema::Table;

/// One end of a foreign key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyEnd {
    pub schema: String,
    pub table: String,
    /// In the order of the key: each column belongs to the one in the same place of the other end.
    pub columns: Vec<String>,
}

impl KeyEnd {
    pub fn new(schema: impl Into<String>, table: impl Into<String>, columns: Vec<String>) -> Self {
        Self { schema: schema.into(), table: table.into(), columns }
    }
}

/// Rows of `from` refer to at most one row of `to`. A view has the keys of the tables whose columns it shows, under the
/// same names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignKey {
    pub name: String,
    pub from: KeyEnd,
    pub to: KeyEnd,
    /// At most one row of `from` refers to each row of `to`.
    pub one_to_one: bool,
}

/// What was found in the schemas that are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    schemas: Vec<String>,
    home: String,
    tables: BTreeMap<String, BTreeMap<String, Arc<Table>>>,
    keys: Vec<ForeignKey>,
}

impl Relations {
    /// `schemas` in the order in which they are served: the first is where names without a schema are looked up. `home` is the
    /// schema that Caudal's own tables are in. Foreign keys count when both ends are among `tables`.
    pub fn new(schemas: &[String], home: impl Into<String>, tables: Vec<Table>, keys: Vec<ForeignKey>) -> Self {
        let mut by_schema: BTreeMap<String, BTreeMap<String, Arc<Table>>> = BTreeMap::new();
        for table in tables {
            let schema = table.schema.clone().unwrap_or_default();
            by_schema.entry(schema).or_default().insert(table.name.clone(), Arc::new(table));
        }
        let shown = |end: &KeyEnd| {
            let table = by_schema.get(&end.schema).and_then(|tables| tables.get(&end.table));
            table.is_some_and(|table| end.columns.iter().all(|column| table.column(column).is_some()))
        };
        let mut keys: Vec<_> = keys.into_iter().filter(|key| shown(&key.from) && shown(&key.to)).collect();
        keys.sort();
        keys.dedup();
        Self { schemas: schemas.to_vec(), home: home.into(), tables: by_schema, keys }
    }

    /// A table by name, in one schema or in the first that is served.
    pub fn table(&self, schema: Option<&str>, name: &str) -> Option<&Arc<Table>> {
        let schema = schema.or_else(|| self.schemas.first().map(String::as_str))?;
        self.tables.get(schema)?.get(name)
    }

    /// By schema, then by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.tables.values().flat_map(BTreeMap::values)
    }

    /// The schemas that are served, in their order.
    pub fn schemas(&self) -> &[String] {
        &self.schemas
    }

    /// Where Caudal's own tables are.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// The keys by which rows of this table refer to others (to-one).
    pub fn keys_from(&self, table: &Table) -> impl Iterator<Item = &ForeignKey> {
        self.keys.iter().filter(move |key| self.is_of(&key.from, table))
    }

    /// The keys by which other rows refer to this table's (to-many, or to-one where the key is one-to-one).
    pub fn keys_to(&self, table: &Table) -> impl Iterator<Item = &ForeignKey> {
        self.keys.iter().filter(move |key| self.is_of(&key.to, table))
    }

    fn is_of(&self, end: &KeyEnd, table: &Table) -> bool {
        end.table == table.name && end.schema == table.schema.as_deref().unwrap_or(&self.home)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Column, ColumnType};

    fn table(schema: &str, name: &str, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|name| Column::found(*name, ColumnType::Int8, true, None));
        Table::found(schema, name, columns.collect(), vec![0])
    }

    fn key(from: (&str, &str, &str), to: (&str, &str, &str)) -> ForeignKey {
        let end = |(schema, table, column): (&str, &str, &str)| KeyEnd::new(schema, table, vec![column.into()]);
        ForeignKey { name: format!("{}_{}", from.1, from.2), from: end(from), to: end(to), one_to_one: false }
    }

    #[test]
    fn names_are_looked_up_in_the_first_schema_unless_another_is_said() {
        let tables = vec![table("a", "t", &["x"]), table("b", "t", &["y"]), table("b", "u", &["z"])];
        let relations = Relations::new(&["b".into(), "a".into()], "public", tables, Vec::new());
        let column = |schema, name| relations.table(schema, name).map(|t| t.columns[0].name.as_str());
        assert_eq!(column(None, "t"), Some("y"));
        assert_eq!(column(Some("a"), "t"), Some("x"));
        assert_eq!((column(Some("a"), "u"), column(Some("c"), "t")), (None, None));
        assert_eq!(relations.tables().count(), 3);
        assert_eq!(Relations::default().table(None, "t"), None);
    }

    #[test]
    fn keys_are_found_from_both_ends_and_only_between_tables_that_are_shown() {
        let tables = vec![table("a", "line", &["order_id"]), table("a", "order", &["id"])];
        let seen = key(("a", "line", "order_id"), ("a", "order", "id"));
        let hidden_column = key(("a", "line", "secret"), ("a", "order", "id"));
        let hidden_table = key(("a", "line", "order_id"), ("b", "order", "id"));
        let keys = vec![seen.clone(), hidden_column, hidden_table, seen.clone()];
        let relations = Relations::new(&["a".into()], "a", tables, keys);
        let (line, order) = (relations.table(None, "line").unwrap(), relations.table(None, "order").unwrap());
        assert_eq!(relations.keys_from(line).collect::<Vec<_>>(), [&seen]);
        assert_eq!(relations.keys_to(order).collect::<Vec<_>>(), [&seen]);
        assert_eq!(relations.keys_from(order).chain(relations.keys_to(line)).count(), 0);
        // One of Caudal's own has no schema of its own: it is in the home schema.
        let mut own = Table::clone(order);
        own.schema = None;
        assert_eq!(relations.keys_to(&own).count(), 1);
    }
}
