//! A record as its JSON object, and the row that it was.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::same;
use crate::row::{RowBatch, RowWriter};
use crate::schema::{Column, ColumnType, ID, PUBLISHED_AT, ROW, SOURCE, STORED_AT, Table};
use crate::time::{Date, Instant};

/// Where a record comes from that was nowhere but with its confirmation.
const MOVED: &str = "confirm move";

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Reads what [`write_row`](super::write_row) wrote of the record `id` of a topic: appends its written columns as a row, and returns
/// when it was stored. Its number, where it has one, is left out: each store gives its own. One that was never stored, but made pending
/// `since` then by itself, does not say when it came and whence; it came then, from here.
///
/// # Errors
/// What in the document cannot be a record of this table, in words.
pub fn read_record(
    rows: &mut RowBatch,
    table: &Table,
    document: &[u8],
    (id, since): (Uuid, Instant),
) -> Result<Instant, String> {
    let members = members(document).ok_or_else(|| "it is not a JSON object".to_owned())?;
    if let Some(name) = members.keys().find(|name| *name != ROW && table.column(name).is_none()) {
        return Err(format!("it has {name:?}, for which {} has no column", table.name));
    }
    if members.get(ID).and_then(|value| Uuid::try_parse(&text(value)?).ok()) != Some(id) {
        return Err(format!("its {ID} is not the transaction's"));
    }
    let stored = match members.get(STORED_AT) {
        None => since,
        Some(value) => {
            text(value).and_then(|text| Instant::parse(&text)).ok_or_else(|| format!("its {STORED_AT} is no time"))?
        }
    };
    let columns: Vec<&Column> = table.written().collect();
    let mut row = rows.begin(columns.len());
    for column in columns {
        let value = members.get(column.name.as_str()).map(|value| value.get());
        match value.filter(|value| *value != "null" || (column.ty == ColumnType::Jsonb && !column.nullable)) {
            None if column.nullable => row.null(),
            None if column.name == SOURCE && value.is_none() => row.text(MOVED),
            None if column.name == PUBLISHED_AT && value.is_none() => row.timestamp(since),
            None => return Err(format!("it has no {:?}, and the column takes no null", column.name)),
            Some(value) => field(&mut row, column.ty, value)
                .ok_or_else(|| format!("its {:?} is no {}", column.name, column.type_name()))?,
        }
    }
    row.finish();
    Ok(stored)
}

fn field(row: &mut RowWriter<'_>, ty: ColumnType, value: &str) -> Option<()> {
    match ty {
        ColumnType::Int8 => row.int8(value.parse().ok()?),
        ColumnType::Float8 => row.float8(value.parse().ok()?),
        ColumnType::Bool => row.boolean(value.parse().ok()?),
        ColumnType::Jsonb => row.json(value.as_bytes()),
        ColumnType::Text => row.text(&serde_json::from_str::<String>(value).ok()?),
        ColumnType::Timestamptz => row.timestamp(Instant::parse(&serde_json::from_str::<String>(value).ok()?)?),
        ColumnType::Date => row.date(Date::parse(&serde_json::from_str::<String>(value).ok()?)?),
        ColumnType::Uuid => row.uuid(uuid::Uuid::try_parse(&serde_json::from_str::<String>(value).ok()?).ok()?),
    }
    Some(())
}

/// Whether two stores mean the same record. A member that is null is as good as none; the number is each store's own; and of what
/// Caudal adds to a record (its name begins with `_`), only what both have is compared.
pub fn same_record(a: &[u8], b: &[u8]) -> bool {
    if a == b {
        return true;
    }
    let (Some(a), Some(b)) = (members(a), members(b)) else { return false };
    let missing = |name: &str, value: &RawValue| value.get() == "null" || name.starts_with('_');
    let of_a = a.iter().all(|(name, value)| match b.get(name) {
        _ if name == ROW => true,
        Some(other) => same(value.get(), other.get()),
        None => missing(name, value),
    });
    of_a && b.iter().all(|(name, value)| a.contains_key(name) || missing(name, value))
}

fn members(document: &[u8]) -> Option<Members<'_>> {
    serde_json::from_slice(document).ok()
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::write_row;
    use crate::schema::Origin;

    fn table(numbered: bool) -> Table {
        let column = |name: &str, ty, nullable| Column::new(name, ty, nullable, Origin::Property);
        let columns = vec![
            column("n", ColumnType::Int8, true),
            column("f", ColumnType::Float8, true),
            column("b", ColumnType::Bool, true),
            column("day", ColumnType::Date, true),
            column("note", ColumnType::Text, true),
            column("payload", ColumnType::Jsonb, false),
        ];
        Table::of_topic("payments", columns, numbered)
    }

    fn document(table: &Table) -> Vec<u8> {
        let mut all = RowBatch::default();
        let mut row = all.begin(table.columns.len());
        row.uuid(Uuid::from_u128(7));
        row.null();
        row.text("tes\"t");
        row.timestamp(Instant::parse("2024-05-06T07:08:09.000001Z").expect("an instant"));
        row.timestamp(Instant::parse("2024-05-06T07:08:10Z").expect("an instant"));
        row.int8(-7);
        row.float8(0.1);
        row.boolean(true);
        row.date(Date::parse("2024-02-29").expect("a date"));
        row.null();
        row.json(b"null");
        row.null();
        row.finish();
        let mut out = Vec::new();
        write_row(&mut out, &table.columns, all.row(0));
        out
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let table = table(false);
        let document = document(&table);
        let mut rows = RowBatch::default();
        let (id, since) = (Uuid::from_u128(7), Instant(7));
        let stored = read_record(&mut rows, &table, &document, (id, since)).expect("a record");
        assert_eq!(stored, Instant::parse("2024-05-06T07:08:10Z").expect("an instant"));
        let mut again = Vec::new();
        write_row(&mut again, table.written(), rows.row(0));
        assert!(same_record(&document, &again), "{}", String::from_utf8_lossy(&again));
        let text = String::from_utf8(document).expect("text");
        for (from, to, wrong) in [
            ("\"_source\":\"tes\\\"t\"", "\"_source\":null", "_source"),
            ("\"n\":-7", "\"n\":1.5", "\"n\" is no int8"),
            ("\"n\":-7", "\"m\":-7", "\"m\""),
            ("\"day\":\"2024-02-29\"", "\"day\":\"2023-02-29\"", "\"day\""),
            ("\"_stored_at\":\"", "\"_stored_at\":\"x", "_stored_at"),
            ("000000000007", "000000000008", "_id is not"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let why = read_record(&mut rows, &table, changed.as_bytes(), (id, since)).expect_err("no record");
            assert!(why.contains(wrong), "{why}");
        }
        assert_eq!(rows.len(), 1, "what could not be read left nothing behind");
        // One that was made pending by itself.
        let own = format!(r#"{{"_id":"{id}","payload":{{}}}}"#);
        assert_eq!(read_record(&mut rows, &table, own.as_bytes(), (id, since)), Ok(since));
        let values: Vec<_> = rows.row(1).collect();
        assert_eq!((values[2], values[3]), (Some(&b"confirm move"[..]), Some(&since.0.to_be_bytes()[..])));
    }

    #[test]
    fn records_are_compared_by_what_they_mean() {
        let same = |a: &str, b: &str| same_record(a.as_bytes(), b.as_bytes());
        assert!(same(r#"{"a":1.0,"_row":1,"p":{"x":1,"y":2}}"#, r#"{"p":{"y":2,"x":1},"a":1,"_row":9,"z":null}"#));
        assert!(same(r#"{"a":1}"#, r#"{"a":1,"_stored_at":"2024-05-06T07:08:10Z"}"#));
        assert!(!same(r#"{"a":1,"_source":"x"}"#, r#"{"a":1,"_source":"y"}"#));
        assert!(!same(r#"{"a":1}"#, r#"{"a":1,"b":0}"#));
        assert!(!same(r#"{"a":1,"b":0}"#, r#"{"a":1}"#));
        assert!(!same(r#"{"a":null}"#, r#"{"a":0}"#));
    }
}
