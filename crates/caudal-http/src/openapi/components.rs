//! What the operations share: parameters, and the schemas of bodies. Tables and topics are those that there are now.

use caudal_core::schema::{Column, ColumnType, Table};
use serde_json::{Map, Value, json};

/// The value that a column has in JSON.
fn column(column: &Column) -> Value {
    let mut schema = match column.ty {
        ColumnType::Int8 => json!({ "type": "integer", "format": "int64" }),
        ColumnType::Float8 => json!({ "type": "number", "format": "double" }),
        ColumnType::Text => json!({ "type": "string" }),
        ColumnType::Bool => json!({ "type": "boolean" }),
        ColumnType::Timestamptz => json!({ "type": "string", "format": "date-time" }),
        ColumnType::Date => json!({ "type": "string", "format": "date" }),
        ColumnType::Uuid => json!({ "type": "string", "format": "uuid" }),
        ColumnType::Jsonb => json!({}),
    };
    if column.nullable && schema.get("type").is_some() {
        schema["type"] = json!([schema["type"], "null"]);
    }
    schema["description"] = column.ty.name().into();
    schema
}

/// A row of a table. Nothing is required: `select` leaves columns out and adds names.
pub(super) fn row(table: &Table) -> Value {
    let properties: Map<String, Value> = table.columns.iter().map(|c| (c.name.clone(), column(c))).collect();
    json!({ "type": "object", "properties": properties })
}

/// A filter on a column, as a query parameter.
pub(super) fn filter(column: &Column) -> Value {
    let example = match column.ty {
        ColumnType::Int8 | ColumnType::Float8 => "gte.1",
        ColumnType::Bool => "is.true",
        ColumnType::Timestamptz | ColumnType::Date => "gte.2024-01-01",
        ColumnType::Uuid => "eq.018f9c00-0000-7000-8000-000000000001",
        ColumnType::Text => "like.A*",
        ColumnType::Jsonb => "is.null",
    };
    let description = format!("{}; <operator>.<value>, such as {example}", column.ty.name());
    json!({ "name": column.name, "in": "query", "description": description, "schema": { "type": "string" }, "example": example })
}

fn query(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": schema })
}

fn path(name: &str, schema: Value, description: &str) -> Value {
    json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
}

fn header(name: &str, description: &str) -> Value {
    json!({ "name": name, "in": "header", "description": description, "schema": { "type": "string" } })
}

/// `components/parameters`.
pub(super) fn parameters(topics: &[String], tables: &[String], database: &str) -> Value {
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let uuid = || json!({ "type": "string", "format": "uuid" });
    json!({
        "topic": path("topic", json!({ "type": "string", "enum": topics }), "A topic of this server"),
        "table": path("table", json!({ "type": "string", "enum": tables }), "A table of this server"),
        "id": path("id", uuid(), "A transaction_id"),
        "dataId": path("id", text(), "A transaction_id, or a row number"),
        "code": path("code", json!({ "type": "string", "pattern": "^[a-z_]{1,60}$" }), "The code of a problem"),
        "queue": path("queue", json!({ "type": "string", "enum": topics }), "A queue's name: the topic"),
        "database": path("db", json!({ "type": "string", "enum": [database] }), "The name of the database"),
        "statementInPath": path("statement", json!({ "type": "string", "minLength": 1 }), "The statement, percent-encoded"),
        "statement": {
            "name": "q", "in": "query", "required": true, "schema": { "type": "string", "minLength": 1 },
            "description": "One select, values, table or with … select", "example": "select 1 as one"
        },
        "select": query("select", text(), "Columns, with aliases: a,other:b"),
        "order": query("order", text(), "Columns, each with .asc or .desc and .nullsfirst or .nullslast"),
        "limit": query("limit", count(), "Rows at most"),
        "offset": query("offset", count(), "Rows to leave out first"),
        "cursor": query("cursor", text(), "Where a page begins, as the Link of the page before said; in place of offset"),
        "and": query("and", text(), "Conditions that must all hold: (a.eq.1,b.gt.2)"),
        "or": query("or", text(), "Conditions of which one must hold: (a.eq.1,b.gt.2)"),
        "topicQuery": query("topic", text(), "Only this topic"),
        "count": query("count", json!({ "type": "string", "enum": ["exact"] }), "Count the tables' rows as well"),
        "dryRun": query("dry_run", json!({ "type": "boolean" }), "Only count what matches"),
        "prefer": header("Prefer", "count=exact: the number of all rows that match, in Content-Range"),
        "preferPublish": header("Prefer", "respond-async, wait=<seconds>, handling=strict, return=minimal"),
        "idempotencyKey": header("Idempotency-Key", "The producer's own name for what is sent: repeating it changes nothing"),
        "ifNoneMatch": header("If-None-Match", "The ETag of a record that is there already"),
        "lastEventId": header("Last-Event-ID", "Where to go on"),
    })
}

/// `components/schemas` without the tables' rows.
pub(super) fn schemas() -> Map<String, Value> {
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties });
    let text = json!({ "type": "string" });
    let all = json!({
        "Text": text,
        "Object": { "type": "object" },
        "Status": object(&["status"], json!({ "status": text })),
        "Rows": { "type": ["array", "object"], "items": { "type": "object" } },
        "SqlRows": { "type": "array", "items": { "type": "object" } },
        "Topic": object(&["topic", "typed", "key", "columns"], json!({
            "topic": text, "typed": { "type": "boolean" }, "key": { "type": "array", "items": text },
            "columns": { "type": "array", "items": object(&["name", "type", "nullable"], json!({
                "name": text, "type": text, "nullable": { "type": "boolean" } })) } })),
        "Topics": object(&["topics"], json!({ "topics": { "type": "array", "items": reference("Topic") } })),
        "Drift": object(&["topic", "fields"], json!({ "topic": text, "fields": { "type": "array", "items": { "type": "object" } } })),
        "Published": object(&["topic"], json!({
            "topic": text, "transaction_id": { "type": "string", "format": "uuid" },
            "state": { "type": "string", "enum": ["stored", "queued", "duplicate"] },
            "records_total": { "type": "integer" }, "records": { "type": "array", "items": { "type": "object" } } })),
        "Receipt": object(&["transaction_id", "state"], json!({ "transaction_id": text, "state": text, "topic": text })),
        "DeadLetter": object(&["id", "topic", "reason", "payload", "state"], json!({
            "id": text, "topic": text, "reason": text, "payload": text, "state": text })),
        "Books": object(&["unaccounted", "topics"], json!({
            "unaccounted": { "type": "integer" }, "topics": { "type": "array", "items": { "type": "object" } } })),
        "Publication": object(&["status", "transaction_id"], json!({ "status": text, "transaction_id": text })),
        "Datos": object(&["id", "datos"], json!({ "id": {}, "datos": {} })),
        "Problem": object(&["code", "type", "title", "status", "detail"], json!({
            "code": text, "type": text, "title": text, "status": { "type": "integer" }, "detail": text, "pointer": text })),
        "PostgrestProblem": object(&["code", "message", "details", "hint"], json!({
            "code": text, "message": text, "caudal_code": text })),
    });
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}
