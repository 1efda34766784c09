//! From a message's bytes to a row: every type, every refusal with its code and pointer, every way to a key.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::Arc;

use caudal_core::encode::{Drift, Encoder, Incoming, check_key};
use caudal_core::json_schema;
use caudal_core::rejection::{Code, Rejection};
use caudal_core::row::{RowBatch, field};
use caudal_core::schema::{RecordSchema, UnknownFields};
use caudal_core::time::{Date, Instant};
use caudal_core::topic::{Identity, TopicName};
use serde_json::{Value, json};
use uuid::Uuid;

fn schema() -> Value {
    json!({ "type": "object", "required": ["i"], "properties": {
        "i": { "type": "integer" },
        "f": { "type": ["number", "null"] },
        "t": { "type": ["string", "null"] },
        "b": { "type": "boolean" },
        "at": { "type": "string", "format": "date-time" },
        "day": { "type": "string", "format": "date" },
        "u": { "type": "string", "format": "uuid" },
        "j": {},
        "small": { "type": "integer", "minimum": 1, "maximum": 3 },
        "open": { "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 },
        "short": { "type": "string", "minLength": 2, "maxLength": 3 },
        "one": { "enum": ["a", "b"], "type": "string" },
        "two": { "const": 2, "type": "integer" }
    } })
}

fn encoder(unknown: UnknownFields, key: &[&str]) -> Encoder {
    let compiled = json_schema::compile(&schema()).unwrap();
    assert!(compiled.beyond.is_empty(), "{:?}", compiled.beyond);
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    let schema = RecordSchema::typed("t", compiled.properties, unknown, key, false);
    Encoder::new(&TopicName::parse("t").unwrap(), Arc::new(schema))
}

fn untyped() -> Encoder {
    Encoder::new(&TopicName::parse("t").unwrap(), Arc::new(RecordSchema::untyped("t", false)))
}

const AT: Instant = Instant(123_456_789);
const FRESH: Uuid = Uuid::from_u128(7);

fn incoming(body: &str) -> Incoming<'_> {
    Incoming { id: None, key: None, source: "http", published_at: AT, attributes: None, body: body.as_bytes() }
}

/// The fields after the leading four, as they are in the row.
fn encode(encoder: &Encoder, incoming: &Incoming<'_>) -> Result<Vec<Option<Vec<u8>>>, Rejection> {
    let mut rows = RowBatch::default();
    encoder.encode(incoming, || FRESH, &mut rows, &mut Drift::default())?;
    assert_eq!(rows.len(), 1);
    let fields: Vec<Option<Vec<u8>>> = rows.row(0).map(|field| field.map(<[u8]>::to_vec)).collect();
    assert_eq!(fields.len(), encoder.schema.table.written().count());
    Ok(fields)
}

fn refused(body: &str) -> (Code, String) {
    let encoder = encoder(UnknownFields::Keep, &[]);
    let mut rows = RowBatch::default();
    rows.begin(0).finish();
    let before = rows.clone();
    let rejection = encoder.encode(&incoming(body), || FRESH, &mut rows, &mut Drift::default()).unwrap_err();
    assert_eq!(rows, before, "{body} left something in the batch");
    assert!(!rejection.detail.is_empty());
    (rejection.code, rejection.pointer)
}

#[test]
fn every_type_arrives_in_its_column() {
    let body = r#"{"i": -9223372036854775808, "f": 0.1, "t": "ñ\n\"x\"", "b": true, "at": "2024-01-01T00:00:00.000001Z",
        "day": "2024-02-29", "u": "018f9c00-0000-7000-8000-0000000000ff", "j": {"k": [1, 12345678901234567890]}}"#;
    let fields = encode(&encoder(UnknownFields::Keep, &[]), &incoming(body)).unwrap();
    let of = |i: usize| fields[i].as_deref().unwrap();
    assert_eq!(field::uuid(of(0)), FRESH);
    assert_eq!(fields[1], None);
    assert_eq!(field::text(of(2)), "http");
    assert_eq!(field::timestamp(of(3)), AT);
    assert_eq!(field::int8(of(4)), i64::MIN);
    assert_eq!(field::float8(of(5)), 0.1);
    assert_eq!(field::text(of(6)), "ñ\n\"x\"");
    assert!(field::boolean(of(7)));
    assert_eq!(field::timestamp(of(8)), Instant::parse("2024-01-01T00:00:00.000001Z").unwrap());
    assert_eq!(field::date(of(9)), Date::parse("2024-02-29").unwrap());
    assert_eq!(field::uuid(of(10)), Uuid::from_u128(0x018f9c00_0000_7000_8000_0000000000ff));
    assert_eq!(field::json(of(11)), r#"{"k": [1, 12345678901234567890]}"#, "byte for byte");
    assert!(fields[12..].iter().all(Option::is_none));
}

#[test]
fn integers_may_be_written_as_whole_numbers() {
    for (text, value) in
        [("1.0", 1), ("1e3", 1000), ("-0", 0), ("-0.0", 0), ("12.50e1", 125), ("9007199254740991.0", (1 << 53) - 1)]
    {
        let fields = encode(&encoder(UnknownFields::Keep, &[]), &incoming(&format!("{{\"i\": {text}}}"))).unwrap();
        assert_eq!(field::int8(fields[4].as_deref().unwrap()), value, "{text}");
    }
    let exact = encode(&encoder(UnknownFields::Keep, &[]), &incoming("{\"i\": 1, \"f\": 9007199254740992}")).unwrap();
    assert_eq!(field::float8(exact[5].as_deref().unwrap()), 9007199254740992.0);
}

#[test]
fn every_refusal_has_its_code_and_pointer() {
    for (body, code, pointer) in [
        ("", Code::EmptyBody, ""),
        ("{\"i\": 1", Code::MalformedJson, ""),
        ("{\"i\": 1} x", Code::MalformedJson, ""),
        ("7", Code::Schema, ""),
        ("[1, 2", Code::MalformedJson, ""),
        ("{\"t\": 7", Code::MalformedJson, ""),
        ("{}", Code::Schema, "/i"),
        ("{\"i\": null}", Code::Schema, "/i"),
        ("{\"i\": \"1\"}", Code::Schema, "/i"),
        ("{\"i\": 1.5}", Code::Schema, "/i"),
        ("{\"i\": 9223372036854775808}", Code::NumberOutOfRange, "/i"),
        ("{\"i\": 1e19}", Code::NumberOutOfRange, "/i"),
        ("{\"i\": 9007199254740993.0}", Code::NumberOutOfRange, "/i"),
        ("{\"i\": 1, \"f\": 9007199254740993}", Code::NumberOutOfRange, "/f"),
        ("{\"i\": 1, \"f\": 1e400}", Code::NumberOutOfRange, ""),
        ("{\"i\": 1, \"f\": \"1\"}", Code::Schema, "/f"),
        ("{\"i\": 1, \"t\": 1}", Code::Schema, "/t"),
        ("{\"i\": 1, \"b\": 0}", Code::Schema, "/b"),
        ("{\"i\": 1, \"b\": null}", Code::Schema, "/b"),
        ("{\"i\": 1, \"at\": \"2024-01-01\"}", Code::Schema, "/at"),
        ("{\"i\": 1, \"at\": 0}", Code::Schema, "/at"),
        ("{\"i\": 1, \"day\": \"2024-01-01T00:00:00Z\"}", Code::Schema, "/day"),
        ("{\"i\": 1, \"u\": \"018f9c00000070008000000000000001\"}", Code::Schema, "/u"),
        ("{\"i\": 1, \"small\": 0}", Code::Schema, "/small"),
        ("{\"i\": 1, \"small\": 4}", Code::Schema, "/small"),
        ("{\"i\": 1, \"open\": 0}", Code::Schema, "/open"),
        ("{\"i\": 1, \"open\": 1}", Code::Schema, "/open"),
        ("{\"i\": 1, \"short\": \"é\"}", Code::Schema, "/short"),
        ("{\"i\": 1, \"short\": \"éééé\"}", Code::Schema, "/short"),
        ("{\"i\": 1, \"one\": \"c\"}", Code::Schema, "/one"),
        ("{\"i\": 1, \"two\": 3}", Code::Schema, "/two"),
        ("{\"i\": 1, \"i\": 1}", Code::DuplicateKey, "/i"),
        ("{\"i\": 1, \"i\": null}", Code::DuplicateKey, "/i"),
        ("{\"i\": 1, \"x/~y\": 1, \"x/~y\": 2}", Code::DuplicateKey, "/x~1~0y"),
        ("{\"i\": 1, \"j\": {\"a\": 1, \"a\": 1}}", Code::DuplicateKey, ""),
        ("{\"i\": 1, \"t\": \"\\u0000\"}", Code::NulCharacter, ""),
        ("{\"i\": 1, \"j\": [\"\\u0000\"]}", Code::NulCharacter, ""),
    ] {
        assert_eq!(refused(body), (code, pointer.to_owned()), "{body}");
    }
    // What cannot be read wins over what breaks a rule, wherever it stands.
    assert_eq!(refused("{\"i\": \"x\", \"t\": tru}").0, Code::MalformedJson);
    let long = format!("{{\"i\": 1, \"t\": \"{}\"}}", "x".repeat(1_000_001));
    assert_eq!(refused(&long).0, Code::StringTooLong);
    assert_eq!(refused(&" ".repeat(4 * 1024 * 1024 + 1)).0, Code::RecordTooLarge);
}

#[test]
fn good_values_at_the_edges_are_taken() {
    for body in [
        "{\"i\": 1, \"f\": null, \"t\": null, \"j\": null}",
        "{\"i\": 1, \"small\": 1}",
        "{\"i\": 1, \"small\": 3.0}",
        "{\"i\": 1, \"open\": 0.5}",
        "{\"i\": 1, \"short\": \"éé\"}",
        "{\"i\": 1, \"one\": \"\\u0061\"}",
        "{\"i\": 1, \"two\": 2}",
        " { \"\\u0069\" : 1 } ",
    ] {
        encode(&encoder(UnknownFields::Keep, &[]), &incoming(body)).unwrap_or_else(|e| panic!("{body}: {e}"));
    }
}

#[test]
fn strangers_are_kept_noted_or_refused() {
    let body = r#"{"x": 1, "i": 1, "y\n": {"a": 1.50}, "z": null}"#;
    let keep = encoder(UnknownFields::Keep, &[]);
    let fields = encode(&keep, &incoming(body)).unwrap();
    let extra = field::json(fields.last().unwrap().as_deref().unwrap());
    assert_eq!(extra, r#"{"x":1,"y\n":{"a": 1.50},"z":null}"#);
    let mut drift = Drift::default();
    keep.encode(&incoming(body), || FRESH, &mut RowBatch::default(), &mut drift).unwrap();
    keep.encode(&incoming("{\"i\": 1, \"x\": 1.5}"), || FRESH, &mut RowBatch::default(), &mut drift).unwrap();
    let notes: Vec<_> = drift.into_notes().into_iter().map(|n| (n.field, n.json_type, n.count)).collect();
    let expected = [("x", "integer"), ("x", "number"), ("y\n", "object"), ("z", "null")];
    assert_eq!(notes, expected.map(|(field, ty)| (field.to_owned(), ty.to_owned(), 1)));
    let reject = encoder(UnknownFields::Reject, &[]);
    let rejection = encode(&reject, &incoming("{\"i\": 1, \"a/b~\": 1}")).unwrap_err();
    assert_eq!((rejection.code, rejection.pointer.as_str()), (Code::UnknownField, "/a~1b~0"));
    // A random name in every record cannot make the report grow without bound.
    let mut drift = Drift::default();
    for n in 0..1_000 {
        let body = format!("{{\"i\": 1, \"name{n}\": 1}}");
        keep.encode(&incoming(&body), || FRESH, &mut RowBatch::default(), &mut drift).unwrap();
    }
    assert_eq!(drift.into_notes().len(), 100);
}

#[test]
fn attributes_travel_beside_strangers() {
    let with = Incoming { attributes: Some(b"{\"type\":\"t\"}"), ..incoming("{\"i\": 1, \"x\": 2}") };
    let fields = encode(&encoder(UnknownFields::Keep, &[]), &with).unwrap();
    let extra = field::json(fields.last().unwrap().as_deref().unwrap());
    assert_eq!(extra, r#"{"x":2,"$attributes":{"type":"t"}}"#);
    let fields = encode(&untyped(), &Incoming { attributes: Some(b"{}"), ..incoming("1") }).unwrap();
    assert_eq!(field::json(fields.last().unwrap().as_deref().unwrap()), r#"{"$attributes":{}}"#);
}

#[test]
fn a_topic_without_a_schema_keeps_the_document_as_it_came() {
    for (body, kept) in [(" {\"a\" : 1.50} \n", "{\"a\" : 1.50}"), ("null", "null"), ("[1 , 2]", "[1 , 2]")] {
        let fields = encode(&untyped(), &incoming(body)).unwrap();
        assert_eq!(field::json(fields[4].as_deref().unwrap()), kept);
    }
    assert_eq!(encode(&untyped(), &incoming("{\"a\": 1, \"a\": 1}")).unwrap_err().code, Code::DuplicateKey);
}

fn identity(encoder: &Encoder, incoming: &Incoming<'_>) -> (Uuid, Option<String>) {
    let encoded = encoder.encode(incoming, || FRESH, &mut RowBatch::default(), &mut Drift::default()).unwrap();
    (encoded.id, encoded.key)
}

#[test]
fn ids_come_from_keys_or_are_fresh_or_stay() {
    let topic = Identity::of(&TopicName::parse("t").unwrap());
    let plain = encoder(UnknownFields::Keep, &[]);
    assert_eq!(identity(&plain, &incoming("{\"i\": 1}")), (FRESH, None));
    let keyed = Incoming { key: Some("k"), ..incoming("{\"i\": 1}") };
    assert_eq!(identity(&plain, &keyed), (topic.transaction_id("k"), Some("k".to_owned())));
    assert_eq!(topic.transaction_id("k").get_version_num(), 5);
    let arrived = Incoming { id: Some(Uuid::from_u128(9)), ..keyed };
    assert_eq!(identity(&plain, &arrived).0, Uuid::from_u128(9));
    let other = Identity::of(&TopicName::parse("u").unwrap());
    assert_ne!(topic.transaction_id("k"), other.transaction_id("k"));
}

#[test]
fn key_columns_make_the_key() {
    let body = r#"{"i": 1, "f": 1.5, "t": "a\",b", "b": true, "at": "2024-01-01T01:00:00+01:00", "day": "2024-01-01",
        "u": "018F9C00-0000-7000-8000-0000000000FF"}"#;
    for (columns, key) in [
        (&["i"][..], "1"),
        (&["f"], "1.5"),
        (&["t"], "a\",b"),
        (&["b"], "true"),
        (&["at"], "2024-01-01T00:00:00+00:00"),
        (&["day"], "2024-01-01"),
        (&["u"], "018f9c00-0000-7000-8000-0000000000ff"),
        (&["t", "i"], r#"["a\",b",1]"#),
        (&["i", "t"], r#"[1,"a\",b"]"#),
        (&["day", "at", "b"], r#"["2024-01-01","2024-01-01T00:00:00+00:00",true]"#),
    ] {
        // The topic's own key wins over the producer's.
        let with_key = Incoming { key: Some("ignored"), ..incoming(body) };
        assert_eq!(identity(&encoder(UnknownFields::Keep, columns), &with_key).1.as_deref(), Some(key), "{columns:?}");
    }
    // The same value in another spelling is the same key.
    let by_number = encoder(UnknownFields::Keep, &["i"]);
    assert_eq!(identity(&by_number, &incoming("{\"i\": 10}")).0, identity(&by_number, &incoming("{\"i\": 1e1}")).0);
    let by_text = encoder(UnknownFields::Keep, &["i", "t"]);
    for (body, pointer) in [("{\"i\": 1}", "/t"), ("{\"i\": 1, \"t\": null}", "/t")] {
        let rejection = encode(&by_text, &incoming(body)).unwrap_err();
        assert_eq!((rejection.code, rejection.pointer.as_str()), (Code::KeyMissing, pointer));
    }
}

#[test]
fn keys_have_bounds() {
    for good in ["k", "ñ €", "a b", &"k".repeat(1024)] {
        assert_eq!(check_key(good).as_deref(), Ok(good));
    }
    for bad in ["", "a\nb", "\0", "\u{7f}", "tab\t", &"k".repeat(1025)] {
        assert_eq!(check_key(bad).unwrap_err().code, Code::KeyInvalid, "{bad:.20}");
    }
    let long = encoder(UnknownFields::Keep, &["t"]);
    let body = format!("{{\"i\": 1, \"t\": \"{}\"}}", "x".repeat(2000));
    assert_eq!(encode(&long, &incoming(&body)).unwrap_err().code, Code::KeyInvalid);
}

#[test]
fn schemas_that_cannot_be_tables_say_why() {
    for (schema, says) in [
        (json!([]), "must be a JSON object"),
        (json!({ "type": "array" }), "must be a JSON object"),
        (json!({ "type": "object" }), "must be a JSON object"),
        (json!({ "properties": { "_id": {} } }), "Caudal's own"),
        (json!({ "properties": { "": {} } }), "column name"),
        (json!({ "properties": { "a": 1 } }), "schema object"),
        (json!({ "properties": {}, "required": ["a"] }), "not among the properties"),
    ] {
        let error = json_schema::compile(&schema).unwrap_err().to_string();
        assert!(error.contains(says), "{schema}: {error}");
    }
    let beyond =
        json!({ "properties": { "a": { "type": "string", "pattern": "x" }, "b": { "type": "object" } }, "allOf": [] });
    assert_eq!(json_schema::compile(&beyond).unwrap().beyond, ["a.pattern", "b.type", "allOf"]);
}
