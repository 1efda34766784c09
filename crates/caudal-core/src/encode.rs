//! From one message's bytes to one row: scanned once, checked against the topic's schema, written straight into the batch.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use foldhash::HashMap;
use uuid::Uuid;

use crate::json::{self, Kind, Scanner};
use crate::limits::{KEY_BYTES_MAX, RECORD_BYTES_MAX};
use crate::ports::DriftNote;
use crate::rejection::{Code, Rejection, pointer_to};
use crate::row::{RowBatch, RowWriter};
use crate::schema::{ColumnType, Property, RecordSchema, UnknownFields};
use crate::time::{Date, Instant};
use crate::topic::{Identity, TopicName};

/// Where a message's own attributes are kept in `_extra`, beside fields that the schema does not name.
pub const ATTRIBUTES_FIELD: &str = "$attributes";

/// A message on its way to becoming a row.
#[derive(Debug, Clone, Copy)]
pub struct Incoming<'a> {
    /// The id it already has (it came through a broker), or `None` to derive one.
    pub id: Option<Uuid>,
    /// The key its producer gave. The topic's own `key` columns win over it.
    pub key: Option<&'a str>,
    pub source: &'a str,
    pub published_at: Instant,
    pub attributes: Option<&'a [u8]>,
    pub body: &'a [u8],
}

/// The identity that a message got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub id: Uuid,
    pub key: Option<String>,
}

/// Fields that the schema does not name, counted over one batch.
#[derive(Debug, Default)]
pub struct Drift {
    notes: HashMap<(String, &'static str), u64>,
}

impl Drift {
    /// Distinct fields noted in one batch; a producer that sends random names cannot make the report grow without bound.
    const FIELDS_MAX: usize = 100;

    fn note(&mut self, field: &str, json_type: &'static str) {
        if let Some(count) = self.notes.get_mut(&(field.to_owned(), json_type)) {
            *count += 1;
        } else if self.notes.len() < Self::FIELDS_MAX {
            self.notes.insert((field.to_owned(), json_type), 1);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub fn into_notes(self) -> Vec<DriftNote> {
        let note = |((field, json_type), count): ((String, &str), u64)| DriftNote {
            field,
            json_type: json_type.to_owned(),
            count,
        };
        let mut notes: Vec<_> = self.notes.into_iter().map(note).collect();
        notes.sort_by(|a, b| (&a.field, &a.json_type).cmp(&(&b.field, &b.json_type)));
        notes
    }
}

/// A topic's schema, ready to encode. Cheap to share, immutable: a changed schema is a new encoder.
#[derive(Debug)]
pub struct Encoder {
    pub schema: Arc<RecordSchema>,
    pub identity: Identity,
    by_name: HashMap<String, usize>,
    key: Vec<usize>,
    written: usize,
}

/// One property's value, typed, before it is written in column order.
#[derive(Debug, Clone)]
enum Slot<'a> {
    Absent,
    Null,
    Int8(i64),
    Float8(f64),
    Text(Cow<'a, str>),
    Bool(bool),
    Timestamptz(Instant),
    Date(Date),
    Uuid(Uuid),
    Jsonb(&'a str),
}

impl Encoder {
    pub fn new(topic: &TopicName, schema: Arc<RecordSchema>) -> Self {
        let properties = schema.properties.as_deref().unwrap_or_default();
        let by_name: HashMap<_, _> = properties.iter().enumerate().map(|(i, p)| (p.name.clone(), i)).collect();
        let key = schema.key.iter().filter_map(|name| by_name.get(name).copied()).collect();
        let written = schema.table.written().count();
        Self { identity: Identity::of(topic), by_name, key, written, schema }
    }

    /// Appends the message to `rows`, or says why it cannot be a row and leaves `rows` as it was.
    ///
    /// `fresh_id` makes an id for a message without a key. Fields that the schema does not name are counted in `drift`.
    pub fn encode(
        &self,
        incoming: &Incoming<'_>,
        fresh_id: impl FnOnce() -> Uuid,
        rows: &mut RowBatch,
        drift: &mut Drift,
    ) -> Result<Encoded, Rejection> {
        if incoming.body.len() > RECORD_BYTES_MAX {
            let detail = format!("a record has at most {RECORD_BYTES_MAX} bytes");
            return Err(Rejection::whole(Code::RecordTooLarge, detail));
        }
        let mut scanner = Scanner::new(incoming.body).map_err(json::Fault::reject)?;
        match &self.schema.properties {
            None => {
                let payload = whole_value(&mut scanner).map_err(json::Fault::reject)?;
                let key = incoming.key.map(check_key).transpose()?;
                let encoded = self.identify(incoming, key, fresh_id);
                let mut row = self.begin(rows, incoming, &encoded);
                row.json(payload.as_bytes());
                finish(row, extra(Vec::new(), incoming.attributes));
                Ok(encoded)
            }
            Some(properties) => {
                let mut unknown = Vec::new();
                let slots = self.scan(properties, &mut scanner, &mut unknown, drift)?;
                let key = match self.key.is_empty() {
                    true => incoming.key.map(check_key).transpose()?,
                    false => Some(self.key_of(properties, &slots)?),
                };
                let encoded = self.identify(incoming, key, fresh_id);
                let mut row = self.begin(rows, incoming, &encoded);
                slots.iter().for_each(|slot| slot.write(&mut row));
                finish(row, extra(unknown, incoming.attributes));
                Ok(encoded)
            }
        }
    }

    fn identify(&self, incoming: &Incoming<'_>, key: Option<String>, fresh_id: impl FnOnce() -> Uuid) -> Encoded {
        let id = incoming.id.unwrap_or_else(|| match &key {
            Some(key) => self.identity.transaction_id(key),
            None => fresh_id(),
        });
        Encoded { id, key }
    }

    fn begin<'b>(&self, rows: &'b mut RowBatch, incoming: &Incoming<'_>, encoded: &Encoded) -> RowWriter<'b> {
        let mut row = rows.begin(self.written);
        row.uuid(encoded.id);
        row.text_or_null(encoded.key.as_deref());
        row.text(incoming.source);
        row.timestamp(incoming.published_at);
        row
    }

    /// Reads the record's object into one slot a property; `unknown` becomes the JSON text of the other members.
    fn scan<'a>(
        &self,
        properties: &[Property],
        scanner: &mut Scanner<'a>,
        unknown: &mut Vec<u8>,
        drift: &mut Drift,
    ) -> Result<Vec<Slot<'a>>, Rejection> {
        let kind = scanner.kind().map_err(json::Fault::reject)?;
        if kind != Kind::Object {
            // Malformed wins over wrong: only a whole, valid document is told that it should have been an object.
            whole_value(scanner).map_err(json::Fault::reject)?;
            return Err(Rejection::whole(Code::Schema, format!("must be an object, was {}", kind.name())));
        }
        let mut slots = vec![Slot::Absent; properties.len()];
        let mut refused = None;
        let mut strangers: Vec<Cow<'a, str>> = Vec::new();
        let mut expected = 0;
        let mut first = true;
        scanner.open_object().map_err(json::Fault::reject)?;
        while let Some(name) = scanner.next_key(first).map_err(json::Fault::reject)? {
            first = false;
            let Some(index) = self.property(properties, &name, expected) else {
                if strangers.contains(&name) {
                    return Err(duplicate(&name));
                }
                let wrong = self.stranger(&name, scanner, unknown, drift)?;
                refused = refused.or(wrong);
                strangers.push(name);
                if strangers.len() > crate::limits::JSON_MEMBERS_MAX {
                    return Err(Rejection::whole(Code::TooManyMembers, "too many members"));
                }
                continue;
            };
            if !matches!(slots[index], Slot::Absent) {
                return Err(duplicate(&name));
            }
            expected = index + 1;
            match read_slot(&properties[index], scanner).map_err(json::Fault::reject)? {
                Ok(slot) => slots[index] = slot,
                Err(wrong) => {
                    slots[index] = Slot::Null;
                    refused = refused.or(Some(wrong));
                }
            }
        }
        scanner.end().map_err(json::Fault::reject)?;
        match refused.or_else(|| missing(properties, &slots)) {
            Some(rejection) => Err(rejection),
            None => Ok(slots),
        }
    }

    /// Producers send fields in a steady order, so the next property in order is tried before the map.
    fn property(&self, properties: &[Property], name: &str, expected: usize) -> Option<usize> {
        match properties.get(expected) {
            Some(property) if property.name == name => Some(expected),
            _ => self.by_name.get(name).copied(),
        }
    }

    /// A member that the schema does not name.
    fn stranger(
        &self,
        name: &str,
        scanner: &mut Scanner<'_>,
        unknown: &mut Vec<u8>,
        drift: &mut Drift,
    ) -> Result<Option<Rejection>, Rejection> {
        let kind = scanner.kind().map_err(json::Fault::reject)?;
        let value = scanner.value().map_err(json::Fault::reject)?;
        drift.note(name, if kind == Kind::Number && is_integer(value) { "integer" } else { kind.name() });
        if self.schema.unknown == UnknownFields::Reject {
            let detail = "the topic's schema does not name this field and unknown_fields is \"reject\"";
            return Ok(Some(Rejection::new(Code::UnknownField, pointer_to(name), detail)));
        }
        unknown.push(if unknown.is_empty() { b'{' } else { b',' });
        json::write_string(unknown, name);
        unknown.push(b':');
        unknown.extend_from_slice(value.as_bytes());
        Ok(None)
    }

    /// The dedup key made of the key columns: one column's text, or several as a JSON array so that they cannot run together.
    fn key_of(&self, properties: &[Property], slots: &[Slot<'_>]) -> Result<String, Rejection> {
        let mut out = Vec::with_capacity(64);
        let several = self.key.len() > 1;
        for (i, &index) in self.key.iter().enumerate() {
            if several {
                out.push(if i == 0 { b'[' } else { b',' });
            }
            if !slots[index].write_key(&mut out, several) {
                let detail = "this field is part of the topic's dedup key and must be present";
                return Err(Rejection::new(Code::KeyMissing, pointer_to(&properties[index].name), detail));
            }
        }
        if several {
            out.push(b']');
        }
        check_key(&String::from_utf8_lossy(&out))
    }
}

fn whole_value<'a>(scanner: &mut Scanner<'a>) -> Result<&'a str, json::Fault> {
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

fn duplicate(name: &str) -> Rejection {
    Rejection::new(Code::DuplicateKey, pointer_to(name), "key appears twice in one object")
}

fn missing(properties: &[Property], slots: &[Slot<'_>]) -> Option<Rejection> {
    let (property, _) = properties.iter().zip(slots).find(|(p, slot)| p.required && matches!(slot, Slot::Absent))?;
    Some(Rejection::new(Code::Schema, pointer_to(&property.name), "required, but missing"))
}

fn finish(mut row: RowWriter<'_>, extra: Vec<u8>) {
    if extra.is_empty() {
        row.null();
    } else {
        row.json(&extra);
    }
    row.finish();
}

/// The text of `_extra`: unknown members (`{…` without its closing brace) and attributes.
fn extra(mut unknown: Vec<u8>, attributes: Option<&[u8]>) -> Vec<u8> {
    if let Some(attributes) = attributes {
        unknown.push(if unknown.is_empty() { b'{' } else { b',' });
        json::write_string(&mut unknown, ATTRIBUTES_FIELD);
        unknown.push(b':');
        unknown.extend_from_slice(attributes);
    }
    if !unknown.is_empty() {
        unknown.push(b'}');
    }
    unknown
}

/// Refuses keys that are empty, too long or hold control characters.
pub fn check_key(key: &str) -> Result<String, Rejection> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.bytes().any(|b| b < 0x20 || b == 0x7f) {
        let detail = format!("a dedup key has 1 to {KEY_BYTES_MAX} bytes and no control characters");
        return Err(Rejection::whole(Code::KeyInvalid, detail));
    }
    Ok(key.to_owned())
}

type SlotResult<'a> = Result<Slot<'a>, Rejection>;

/// Reads one property's value. The outer error is a malformed document, the inner one a value that breaks the schema; the
/// value is consumed either way, so that a later malformation is still found.
fn read_slot<'a>(property: &Property, scanner: &mut Scanner<'a>) -> Result<SlotResult<'a>, json::Fault> {
    let kind = scanner.kind()?;
    if kind == Kind::Null && property.ty != ColumnType::Jsonb {
        scanner.null()?;
        return Ok(if property.nullable { Ok(Slot::Null) } else { Err(wrong_type(property, kind)) });
    }
    Ok(match (property.ty, kind) {
        (ColumnType::Int8, Kind::Number) => integer(property, scanner.number()?),
        (ColumnType::Float8, Kind::Number) => float(property, scanner.number()?),
        (ColumnType::Bool, Kind::Bool) => Ok(Slot::Bool(scanner.boolean()?)),
        (ColumnType::Jsonb, _) => Ok(Slot::Jsonb(scanner.value()?)),
        (ColumnType::Text | ColumnType::Timestamptz | ColumnType::Date | ColumnType::Uuid, Kind::String) => {
            string(property, scanner.string()?)
        }
        _ => {
            scanner.value()?;
            Err(wrong_type(property, kind))
        }
    })
}

fn wrong_type(property: &Property, was: Kind) -> Rejection {
    let wanted = match property.ty {
        ColumnType::Int8 => "an integer",
        ColumnType::Float8 => "a number",
        ColumnType::Text => "a string",
        ColumnType::Bool => "a boolean",
        ColumnType::Timestamptz => "a date-time string",
        ColumnType::Date => "a date string",
        ColumnType::Uuid => "a UUID string",
        ColumnType::Jsonb => "JSON",
    };
    breach(property, format!("must be {wanted}, was {}", was.name()))
}

fn breach(property: &Property, detail: impl Into<Cow<'static, str>>) -> Rejection {
    Rejection::new(Code::Schema, pointer_to(&property.name), detail)
}

fn out_of_range(property: &Property, detail: &'static str) -> Rejection {
    Rejection::new(Code::NumberOutOfRange, pointer_to(&property.name), detail)
}

fn is_integer(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || b == b'-')
}

/// JSON Schema counts `1.0` and `1e3` as integers, so they are taken when they are exact.
fn integer<'a>(property: &Property, text: &str) -> SlotResult<'a> {
    let value = match text.parse::<i64>() {
        Ok(value) => value,
        Err(_) if is_integer(text) => {
            return Err(out_of_range(property, "beyond a 64-bit integer, so the column cannot hold it exactly"));
        }
        Err(_) => match text.parse::<f64>() {
            Ok(value) if value.fract() == 0.0 && value.abs() < MAX_SAFE => value as i64,
            Ok(value) if value.fract() == 0.0 => {
                return Err(out_of_range(property, "beyond what is exact; write the integer without exponent"));
            }
            _ => return Err(breach(property, "must be an integer, was a fraction")),
        },
    };
    check_range(property, value as f64)?;
    if let Some(allowed) = &property.checks.one_of
        && !allowed.iter().any(|a| a.parse() == Ok(value))
    {
        return Err(breach(property, "not one of the allowed values"));
    }
    Ok(Slot::Int8(value))
}

/// 2^53: below it every integer is a double, and no two of them the same one.
const MAX_SAFE: f64 = 9_007_199_254_740_992.0;

fn float<'a>(property: &Property, text: &str) -> SlotResult<'a> {
    let Ok(value) = text.parse::<f64>() else { return Err(breach(property, "must be a number")) };
    if value.abs() >= MAX_SAFE && is_integer(text) && !exact(text, value) {
        return Err(out_of_range(property, "an integer that a double cannot hold exactly"));
    }
    check_range(property, value)?;
    Ok(Slot::Float8(value))
}

fn exact(text: &str, value: f64) -> bool {
    let mut written = String::with_capacity(text.len());
    write!(written, "{value:.0}").is_ok() && written == text
}

fn check_range(property: &Property, value: f64) -> Result<(), Rejection> {
    let checks = &property.checks;
    let broken = match checks {
        c if c.minimum.is_some_and(|m| value < m) => "below the minimum",
        c if c.maximum.is_some_and(|m| value > m) => "above the maximum",
        c if c.exclusive_minimum.is_some_and(|m| value <= m) => "not above the exclusive minimum",
        c if c.exclusive_maximum.is_some_and(|m| value >= m) => "not below the exclusive maximum",
        _ => return Ok(()),
    };
    Err(breach(property, broken))
}

fn string<'a>(property: &Property, text: Cow<'a, str>) -> SlotResult<'a> {
    let checks = &property.checks;
    if checks.min_length.is_some() || checks.max_length.is_some() {
        let length = text.chars().count();
        if checks.min_length.is_some_and(|min| length < min) {
            return Err(breach(property, "shorter than minLength"));
        }
        if checks.max_length.is_some_and(|max| length > max) {
            return Err(breach(property, "longer than maxLength"));
        }
    }
    if checks.one_of.as_ref().is_some_and(|allowed| !allowed.iter().any(|a| *a == text)) {
        return Err(breach(property, "not one of the allowed values"));
    }
    let slot = match property.ty {
        ColumnType::Timestamptz => Instant::parse(&text).map(Slot::Timestamptz),
        ColumnType::Date => Date::parse(&text).map(Slot::Date),
        ColumnType::Uuid => Uuid::try_parse(&text).ok().filter(|_| text.len() == 36).map(Slot::Uuid),
        _ => return Ok(Slot::Text(text)),
    };
    slot.ok_or_else(|| match property.ty {
        ColumnType::Timestamptz => breach(property, "must be an RFC 3339 date-time with a zone"),
        ColumnType::Date => breach(property, "must be a date, YYYY-MM-DD"),
        _ => breach(property, "must be a UUID in its 36-character form"),
    })
}

impl Slot<'_> {
    fn write(&self, row: &mut RowWriter<'_>) {
        match self {
            Slot::Absent | Slot::Null => row.null(),
            Slot::Int8(v) => row.int8(*v),
            Slot::Float8(v) => row.float8(*v),
            Slot::Text(v) => row.text(v),
            Slot::Bool(v) => row.boolean(*v),
            Slot::Timestamptz(v) => row.timestamp(*v),
            Slot::Date(v) => row.date(*v),
            Slot::Uuid(v) => row.uuid(*v),
            Slot::Jsonb(v) => row.json(v.as_bytes()),
        }
    }

    /// Writes the value as part of a dedup key, as JSON when `quoted`; `false` when there is no value.
    fn write_key(&self, out: &mut Vec<u8>, quoted: bool) -> bool {
        let text = |out: &mut Vec<u8>, text: &str| match quoted {
            true => json::write_string(out, text),
            false => out.extend_from_slice(text.as_bytes()),
        };
        match self {
            Slot::Absent | Slot::Null => return false,
            Slot::Int8(v) => out.extend_from_slice(v.to_string().as_bytes()),
            Slot::Float8(v) => out.extend_from_slice(v.to_string().as_bytes()),
            Slot::Bool(v) => out.extend_from_slice(v.to_string().as_bytes()),
            Slot::Text(v) => text(out, v),
            Slot::Uuid(v) => text(out, &v.to_string()),
            Slot::Date(v) => text(out, &v.to_string()),
            Slot::Timestamptz(v) => {
                if quoted {
                    out.push(b'"');
                }
                v.write_to(out);
                if quoted {
                    out.push(b'"');
                }
            }
            Slot::Jsonb(v) => out.extend_from_slice(v.as_bytes()),
        }
        true
    }
}
