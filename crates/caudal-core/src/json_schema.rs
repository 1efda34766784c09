//! JSON Schema 2020-12 to columns.
//!
//! Flat object schemas with scalar properties are checked while scanning, with no document in memory. Keywords beyond that
//! (`pattern`, `allOf`, nested objects, …) are reported in [`Compiled::beyond`], and the engine checks such topics with a
//! full validator as well.

use serde_json::{Map, Value};

use crate::limits::TOPIC_NAME_BYTES_MAX;
use crate::schema::{Checks, ColumnType, Property};

/// A schema as columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    pub properties: Vec<Property>,
    /// `additionalProperties: false`.
    pub closed: bool,
    /// Keywords that need a full validator.
    pub beyond: Vec<String>,
}

/// Why a schema cannot become a table; each is one sentence for whoever wrote the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    #[error("the schema must be a JSON object with \"type\": \"object\" and \"properties\"")]
    NotAnObject,
    #[error("property {0:?}: names starting with '_' are Caudal's own; rename it")]
    Reserved(String),
    #[error("property {0:?}: a column name has 1 to {TOPIC_NAME_BYTES_MAX} bytes and no control characters")]
    Name(String),
    #[error("property {0:?} must be a schema object")]
    NotASchema(String),
    #[error("\"required\" names {0:?}, which is not among the properties")]
    RequiredUnknown(String),
    #[error("the key names {0:?}, which is not among the properties")]
    KeyUnknown(String),
    #[error("confirm.lane names {0:?}, which is not among the properties, or not a string")]
    LaneUnknown(String),
}

const ANNOTATIONS: [&str; 13] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "$anchor",
];

/// Reads a schema. Property order in the document is column order.
pub fn compile(schema: &Value) -> Result<Compiled, SchemaError> {
    let object = schema.as_object().ok_or(SchemaError::NotAnObject)?;
    let properties = object.get("properties").and_then(Value::as_object).ok_or(SchemaError::NotAnObject)?;
    if object.get("type").is_some_and(|t| t != "object") {
        return Err(SchemaError::NotAnObject);
    }
    let mut beyond = Vec::new();
    let mut compiled = Vec::with_capacity(properties.len());
    for (name, schema) in properties {
        compiled.push(property(name, schema, &mut beyond)?);
    }
    for name in object.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let found = compiled.iter_mut().find(|p| p.name == name);
        found.ok_or_else(|| SchemaError::RequiredUnknown(name.to_owned()))?.required = true;
    }
    let additional = object.get("additionalProperties");
    let known = ["type", "properties", "required", "additionalProperties"];
    let rest = object.keys().filter(|k| !known.contains(&k.as_str()) && !ANNOTATIONS.contains(&k.as_str()));
    beyond.extend(rest.cloned());
    if additional.is_some_and(|a| !a.is_boolean()) {
        beyond.push("additionalProperties".to_owned());
    }
    Ok(Compiled { properties: compiled, closed: additional == Some(&Value::Bool(false)), beyond })
}

fn property(name: &str, schema: &Value, beyond: &mut Vec<String>) -> Result<Property, SchemaError> {
    if name.starts_with('_') {
        return Err(SchemaError::Reserved(name.to_owned()));
    }
    if name.is_empty() || name.len() > TOPIC_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(SchemaError::Name(name.to_owned()));
    }
    let free = Map::new();
    let schema = match schema {
        Value::Object(schema) => schema,
        Value::Bool(true) => &free,
        _ => return Err(SchemaError::NotASchema(name.to_owned())),
    };
    let types = types(schema);
    let nullable = types.is_empty() || types.contains(&"null");
    let solid: Vec<&str> = types.into_iter().filter(|t| *t != "null").collect();
    let ty = column_type(&solid, schema.get("format").and_then(Value::as_str));
    let mut checks = Checks::default();
    for (keyword, value) in schema {
        if !take(&mut checks, ty, keyword, value) {
            beyond.push(format!("{name}.{keyword}"));
        }
    }
    // A column of free JSON says nothing of its own about which types are allowed.
    if ty == ColumnType::Jsonb && !solid.is_empty() {
        beyond.push(format!("{name}.type"));
    }
    let lists_no_null = |values: &Value| values.as_array().is_some_and(|v| !v.iter().any(Value::is_null));
    let nullable = nullable && !schema.get("enum").is_some_and(lists_no_null);
    Ok(Property { name: name.to_owned(), ty, nullable, required: false, checks })
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn column_type(types: &[&str], format: Option<&str>) -> ColumnType {
    match (types, format) {
        (["integer"], _) => ColumnType::Int8,
        (["number"], _) => ColumnType::Float8,
        (["boolean"], _) => ColumnType::Bool,
        (["string"], Some("date-time")) => ColumnType::Timestamptz,
        (["string"], Some("date")) => ColumnType::Date,
        (["string"], Some("uuid")) => ColumnType::Uuid,
        (["string"], _) => ColumnType::Text,
        _ => ColumnType::Jsonb,
    }
}

/// Takes one keyword of a property into its checks; `false` when only a full validator can hold it.
fn take(checks: &mut Checks, ty: ColumnType, keyword: &str, value: &Value) -> bool {
    let numeric = matches!(ty, ColumnType::Int8 | ColumnType::Float8);
    let length = || value.as_u64().map(|n| n as usize);
    match keyword {
        "type" | "format" => true,
        "minimum" if numeric => {
            checks.minimum = value.as_f64();
            true
        }
        "maximum" if numeric => {
            checks.maximum = value.as_f64();
            true
        }
        "exclusiveMinimum" if numeric => {
            checks.exclusive_minimum = value.as_f64();
            true
        }
        "exclusiveMaximum" if numeric => {
            checks.exclusive_maximum = value.as_f64();
            true
        }
        "minLength" if ty == ColumnType::Text => {
            checks.min_length = length();
            true
        }
        "maxLength" if ty == ColumnType::Text => {
            checks.max_length = length();
            true
        }
        "enum" => take_values(checks, ty, value.as_array().map_or(&[], Vec::as_slice)),
        "const" => take_values(checks, ty, std::slice::from_ref(value)),
        _ => ANNOTATIONS.contains(&keyword),
    }
}

/// `null` among the values is left to the property's `nullable`.
fn take_values(checks: &mut Checks, ty: ColumnType, values: &[Value]) -> bool {
    let mut allowed = Vec::with_capacity(values.len());
    for value in values.iter().filter(|v| !v.is_null()) {
        match (ty, value) {
            (ColumnType::Text, Value::String(text)) => allowed.push(text.clone()),
            (ColumnType::Int8, Value::Number(n)) if n.is_i64() => allowed.push(n.to_string()),
            _ => return false,
        }
    }
    checks.one_of = Some(allowed);
    true
}

/// The column type for a field that a topic with `unknown_fields = "add"` meets for the first time.
pub fn column_type_for(json_type: &str) -> Option<ColumnType> {
    Some(match json_type {
        "integer" => ColumnType::Int8,
        "number" => ColumnType::Float8,
        "string" => ColumnType::Text,
        "boolean" => ColumnType::Bool,
        "object" | "array" => ColumnType::Jsonb,
        _ => return None,
    })
}
