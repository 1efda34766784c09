//! The scanner against `serde_json`, which it must agree with except for deviations that have names, and against a corpus in
//! the spirit of JSONTestSuite.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fmt;

use caudal_core::json::{check, same, write_string};
use caudal_core::rejection::Code::{
    self, DuplicateKey, EmptyBody, InvalidUtf8, MalformedJson, NulCharacter, NumberOutOfRange, StringTooLong, TooDeep,
    TooManyMembers,
};
use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// What a document holds that the scanner refuses and `serde_json` does not.
#[derive(Debug, Default, Clone, Copy)]
struct Peculiar {
    duplicate_key: bool,
    nul: bool,
    depth: usize,
}

impl Peculiar {
    fn and(self, other: Self) -> Self {
        Self {
            duplicate_key: self.duplicate_key | other.duplicate_key,
            nul: self.nul | other.nul,
            depth: self.depth.max(other.depth),
        }
    }
}

impl<'de> Deserialize<'de> for Peculiar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Look;
        impl<'de> Visitor<'de> for Look {
            type Value = Peculiar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Peculiar, E> {
                Ok(Peculiar::default())
            }
            fn visit_bool<E>(self, _: bool) -> Result<Peculiar, E> {
                Ok(Peculiar::default())
            }
            fn visit_i64<E>(self, _: i64) -> Result<Peculiar, E> {
                Ok(Peculiar::default())
            }
            fn visit_u64<E>(self, _: u64) -> Result<Peculiar, E> {
                Ok(Peculiar::default())
            }
            fn visit_f64<E>(self, _: f64) -> Result<Peculiar, E> {
                Ok(Peculiar::default())
            }
            fn visit_str<E>(self, text: &str) -> Result<Peculiar, E> {
                Ok(Peculiar { nul: text.contains('\0'), ..Peculiar::default() })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Peculiar, A::Error> {
                let mut found = Peculiar::default();
                while let Some(item) = items.next_element()? {
                    found = found.and(item);
                }
                Ok(Peculiar { depth: found.depth + 1, ..found })
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Peculiar, A::Error> {
                let (mut found, mut keys) = (Peculiar::default(), Vec::<String>::new());
                while let Some((key, value)) = members.next_entry::<String, Peculiar>()? {
                    found = found.and(value);
                    found.nul |= key.contains('\0');
                    found.duplicate_key |= keys.contains(&key);
                    keys.push(key);
                }
                Ok(Peculiar { depth: found.depth + 1, ..found })
            }
        }
        deserializer.deserialize_any(Look)
    }
}

/// Fails when scanner and `serde_json` disagree without a name for it.
fn agree(document: &[u8]) -> Result<(), TestCaseError> {
    let shown = String::from_utf8_lossy(document);
    match (check(document), serde_json::from_slice::<Value>(document)) {
        (Ok(text), Ok(value)) => {
            prop_assert_eq!(serde_json::from_str::<Value>(text).ok(), Some(value), "{}", shown);
            prop_assert_eq!(text, text.trim_matches([' ', '\t', '\n', '\r']));
        }
        (Err(fault), Err(_)) => prop_assert!(fault.at <= document.len()),
        (Ok(_), Err(error)) => prop_assert!(false, "serde_json refuses {shown}: {error}"),
        (Err(fault), Ok(_)) => {
            let peculiar: Peculiar =
                serde_json::from_slice(document).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let is_named = match fault.code {
                DuplicateKey => peculiar.duplicate_key,
                NulCharacter => peculiar.nul,
                TooDeep => peculiar.depth > 64,
                NumberOutOfRange => has_long_exponent(&shown),
                _ => false,
            };
            prop_assert!(is_named, "the scanner refuses {shown}: {fault:?}");
        }
    }
    Ok(())
}

/// Only such numbers can be finer than a store holds, or `serde_json` would have to refuse them too.
fn has_long_exponent(document: &str) -> bool {
    let mut parts = document.split(['e', 'E']).skip(1);
    parts.any(|rest| rest.trim_start_matches(['+', '-']).bytes().take_while(u8::is_ascii_digit).count() >= 5)
}

/// Numbers in all their spellings.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| f.to_string()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
    ]
}

/// Strings, escaped in one way or another.
fn string() -> impl Strategy<Value = String> {
    let plain = any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
    let escaped = proptest::collection::vec(any::<char>(), 0..12).prop_map(|chars| {
        let mut units = [0; 2];
        let escape = |c: char| c.encode_utf16(&mut units).iter().map(|u| format!("\\u{u:04X}")).collect::<String>();
        format!("\"{}\"", chars.into_iter().map(escape).collect::<String>())
    });
    prop_oneof![plain, escaped, "\"[a-c]{0,2}\"".prop_map(|text| text)]
}

/// Valid documents, with white space anywhere; keys may repeat and strings may hold NUL.
fn document() -> impl Strategy<Value = String> {
    let word = prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_owned);
    let leaf = prop_oneof![word, number(), string()];
    let space = "[ \t\r\n]{0,2}";
    let value = leaf.prop_recursive(5, 60, 8, move |inner| {
        let item = (space, inner, space).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        let member =
            (space, string(), space, item.clone()).prop_map(|(a, key, b, value)| format!("{a}{key}{b}:{value}"));
        prop_oneof![
            proptest::collection::vec(item, 0..8).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec(member, 0..8).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    });
    (space, value, space).prop_map(|(a, value, b)| format!("{a}{value}{b}"))
}

/// One change to some bytes, of the kinds that parsers get wrong.
#[derive(Debug, Clone)]
enum Change {
    Put(usize, u8),
    Insert(usize, &'static [u8]),
    Remove(usize),
    Cut(usize),
    Double(usize, usize),
}

const TROUBLE: [&[u8]; 28] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"0",
    b"-",
    b"+",
    b".",
    b"e",
    b"\0",
    b"\x1f",
    b"\x7f",
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00",
    b"\\u00",
    b"\\x",
    b"/*",
    b" ",
    b"\n",
];

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (any::<usize>(), 0..TROUBLE.len()).prop_map(|(at, i)| Change::Insert(at, TROUBLE[i])),
        any::<usize>().prop_map(Change::Remove),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), 1usize..12).prop_map(|(at, n)| Change::Double(at, n)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let place = |at: usize| at % (bytes.len() + 1);
    match *change {
        Change::Put(at, byte) if !bytes.is_empty() => {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        Change::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at % bytes.len())),
        Change::Insert(at, trouble) => {
            let at = place(at);
            bytes.splice(at..at, trouble.iter().copied());
        }
        Change::Cut(at) => {
            let at = place(at);
            bytes.truncate(at);
        }
        Change::Double(at, n) => {
            let at = place(at);
            let again = bytes[at..bytes.len().min(at + n)].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(2_000), ..ProptestConfig::default() })]

    #[test]
    fn valid_documents_are_accepted_as_serde_json_does(document in document()) {
        agree(document.as_bytes())?;
    }

    #[test]
    fn damaged_documents_get_the_same_verdict(document in document(), changes in proptest::collection::vec(change(), 1..4)) {
        let mut bytes = document.into_bytes();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        agree(&bytes)?;
    }

    #[test]
    fn any_bytes_get_the_same_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        agree(&bytes)?;
    }

    #[test]
    fn json_like_noise_gets_the_same_verdict(text in "[\\[\\]{}\",:0-9eE.+\\- truefalsn\\\\/ud]{0,24}") {
        agree(text.as_bytes())?;
    }

    #[test]
    fn written_strings_read_back(text in any::<String>()) {
        let mut out = Vec::new();
        write_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
    }

    #[test]
    fn a_number_is_the_same_in_every_spelling(digits in "[1-9][0-9]{0,25}", zeros in 0usize..20, point in 0usize..20) {
        let plain = format!("{digits}{}", "0".repeat(zeros));
        let exponent = format!("{digits}e{zeros}");
        let small = format!("0.{}{plain}E+{}", "0".repeat(point), plain.len() + point);
        prop_assert!(same(&plain, &exponent) && same(&plain, &small) && same(&exponent, &small), "{} {} {}", plain, exponent, small);
        let next = format!("{plain}.{}1", "0".repeat(point));
        let negative = format!("-{plain}");
        prop_assert!(!same(&plain, &next) && !same(&plain, &negative));
    }
}

/// 77 documents that must be taken.
const GOOD: [&str; 77] = [
    // numbers
    "0",
    "-0",
    "1",
    "-1",
    "10",
    "1234567890",
    "0.0",
    "0.5",
    "-0.0",
    "1.0",
    "1.25e2",
    "1e5",
    "1E5",
    "1e+5",
    "1e-5",
    "0e1",
    "0e+1",
    "0E-0",
    "123.456e78",
    "20e1",
    "1e-400",
    "1.7976931348623157e308",
    "-1e308",
    "9223372036854775808",
    "123456789012345678901234567890",
    "0.000000000000000000000000000000000000000000000000000000000000000000000000000001",
    // words and white space
    "null",
    "true",
    "false",
    " true ",
    "\ttrue",
    "true\n",
    "\r\nnull\r\n",
    " [ ] ",
    " { } ",
    // strings
    "\"\"",
    "\" \"",
    "\"a\"",
    "\"\\\"\"",
    "\"\\\\\"",
    "\"\\/\"",
    "\"/\"",
    "\"\\b\\f\\n\\r\\t\"",
    "\"\\u0061\"",
    "\"\\u00e9\"",
    "\"\\uD834\\uDD1E\"",
    "\"\\ud83d\\ude00\"",
    "\"\\uDBFF\\uDFFF\"",
    "\"\\u0001\"",
    "\"\\u007f\"",
    "\"\u{7f}\"",
    "\"\\uFFFF\"",
    "\"\\ufeff\"",
    "\"\u{feff}\"",
    "\"\u{2028}\u{2029}\"",
    "\"é\"",
    "\"€\"",
    "\"𝄞\"",
    "\"\u{10ffff}\"",
    "\"\\\\u0000\"",
    "\"a/*b*/c/*d//e\"",
    "\"new\u{a0}line\"",
    // arrays and objects
    "[]",
    "[null]",
    "[1,2]",
    "[1,null,\"a\",{}]",
    "[[]]",
    "[[[[]]]]",
    "[1\n,2]",
    "{}",
    "{\"a\":1}",
    "{\"\":0}",
    "{\"a\":{\"a\":{\"a\":1}}}",
    "{\"a\":1,\"b\":2}",
    "{ \"a\" : [ ] }",
    "{\"a\\u0062\":1,\"\\u0061\":2}",
    "[{\"a\":1},{\"a\":1}]",
];

/// Documents that must be refused, each for its reason.
const BAD: &[(&[u8], Code)] = &[
    (b"", EmptyBody),
    // numbers
    (b"+1", MalformedJson),
    (b"-", MalformedJson),
    (b"--1", MalformedJson),
    (b"01", MalformedJson),
    (b"-01", MalformedJson),
    (b"00", MalformedJson),
    (b"1.", MalformedJson),
    (b".5", MalformedJson),
    (b"-.5", MalformedJson),
    (b"1.e1", MalformedJson),
    (b"1e", MalformedJson),
    (b"1e+", MalformedJson),
    (b"1eE2", MalformedJson),
    (b"1.5.5", MalformedJson),
    (b"1 000", MalformedJson),
    (b"0x1F", MalformedJson),
    (b"1_000", MalformedJson),
    (b"1a", MalformedJson),
    (b"-a", MalformedJson),
    (b"- 1", MalformedJson),
    (b"NaN", MalformedJson),
    (b"-NaN", MalformedJson),
    (b"Infinity", MalformedJson),
    (b"-Infinity", MalformedJson),
    (b"Inf", MalformedJson),
    (b"\xef\xbc\x91", MalformedJson),
    (b"1e400", NumberOutOfRange),
    (b"-1e400", NumberOutOfRange),
    (b"1E999999999999", NumberOutOfRange),
    (b"[1.8e308]", NumberOutOfRange),
    // words
    (b"nul", MalformedJson),
    (b"nulll", MalformedJson),
    (b"Null", MalformedJson),
    (b"TRUE", MalformedJson),
    (b"tru", MalformedJson),
    (b"fals", MalformedJson),
    (b"truefalse", MalformedJson),
    (b"undefined", MalformedJson),
    (b"a", MalformedJson),
    (b"'a'", MalformedJson),
    // strings
    (b"\"", MalformedJson),
    (b"\"a", MalformedJson),
    (b"\"\\\"", MalformedJson),
    (b"\"\\x00\"", MalformedJson),
    (b"\"\\a\"", MalformedJson),
    (b"\"\\'\"", MalformedJson),
    (b"\"\\", MalformedJson),
    (b"\"\\u\"", MalformedJson),
    (b"\"\\u00A\"", MalformedJson),
    (b"\"\\u00G0\"", MalformedJson),
    (b"\"\\u 041\"", MalformedJson),
    (b"\"\\u+041\"", MalformedJson),
    (b"\"\\U0041\"", MalformedJson),
    (b"\"\n\"", MalformedJson),
    (b"\"\t\"", MalformedJson),
    (b"\"\x1f\"", MalformedJson),
    (b"\"\0\"", MalformedJson),
    (b"\"\\\xc3\xa9\"", MalformedJson),
    (b"\"a\"b\"", MalformedJson),
    (b"\"\\ud800\"", MalformedJson),
    (b"\"\\ud800a\"", MalformedJson),
    (b"\"\\ud800\\n\"", MalformedJson),
    (b"\"\\udc00\"", MalformedJson),
    (b"\"\\ud800\\ud800\"", MalformedJson),
    (b"\"\\udc00\\ud800\"", MalformedJson),
    (b"\"\\ud800\\u\"", MalformedJson),
    (b"\"\\ud800\\u1\"", MalformedJson),
    (b"\"\\ud834\\u0041\"", MalformedJson),
    (b"\"\\u0000\"", NulCharacter),
    (b"{\"\\u0000\":1}", NulCharacter),
    (b"[\"a\\u0000b\"]", NulCharacter),
    // UTF-8
    (b"\xff", InvalidUtf8),
    (b"\"\xff\"", InvalidUtf8),
    (b"\"\x80\"", InvalidUtf8),
    (b"\"\xc3\"", InvalidUtf8),
    (b"\"\xc0\xaf\"", InvalidUtf8),
    (b"\"\xe0\x80\xaf\"", InvalidUtf8),
    (b"\"\xed\xa0\x80\"", InvalidUtf8),
    (b"\"\xed\xb0\x80\"", InvalidUtf8),
    (b"\"\xf4\x90\x80\x80\"", InvalidUtf8),
    (b"\"\xf0\x9f\x98\"", InvalidUtf8),
    (b"\xef\xbb\xbf{}", InvalidUtf8),
    (b"\xef\xbb\xbf", InvalidUtf8),
    (b"\xff\xfe{\0}\0", InvalidUtf8),
    (b"\xfe\xff\0{\0}", InvalidUtf8),
    (b"{\"\xe9\":1}", InvalidUtf8),
    // structure
    (b" ", MalformedJson),
    (b"\n", MalformedJson),
    (b"[", MalformedJson),
    (b"]", MalformedJson),
    (b"{", MalformedJson),
    (b"}", MalformedJson),
    (b"[1", MalformedJson),
    (b"[1,", MalformedJson),
    (b"[,", MalformedJson),
    (b"[,1]", MalformedJson),
    (b"[1,]", MalformedJson),
    (b"[1,,2]", MalformedJson),
    (b"[1 2]", MalformedJson),
    (b"[1:2]", MalformedJson),
    (b"[1}", MalformedJson),
    (b"[1]]", MalformedJson),
    (b"[]]", MalformedJson),
    (b"[][]", MalformedJson),
    (b"[1];", MalformedJson),
    (b"[\x0c]", MalformedJson),
    (b"[\x0b]", MalformedJson),
    (b"[\xc2\xa0]", MalformedJson),
    (b"[\xe2\x81\xa0]", MalformedJson),
    (b"{]", MalformedJson),
    (b"{,", MalformedJson),
    (b"{,\"a\":1}", MalformedJson),
    (b"{\"a\"}", MalformedJson),
    (b"{\"a\":}", MalformedJson),
    (b"{\"a\":1,}", MalformedJson),
    (b"{\"a\" 1}", MalformedJson),
    (b"{\"a\"::1}", MalformedJson),
    (b"{\"a\",1}", MalformedJson),
    (b"{a:1}", MalformedJson),
    (b"{1:1}", MalformedJson),
    (b"{'a':1}", MalformedJson),
    (b"{null:1}", MalformedJson),
    (b"{[]:1}", MalformedJson),
    (b"{\"a\":1 \"b\":2}", MalformedJson),
    (b"{\"a\":1}}", MalformedJson),
    (b"{\"a\":1}{", MalformedJson),
    (b"{\"a\":1}//", MalformedJson),
    (b"{\"a\":/**/1}", MalformedJson),
    (b"#{}", MalformedJson),
    (b"{\"a\":1}\0", MalformedJson),
    (b"1 2", MalformedJson),
    (b"\"a\" \"b\"", MalformedJson),
    (b"*", MalformedJson),
    (b"<null>", MalformedJson),
    (b"\\u0041", MalformedJson),
    (b"[\"a\",\n4\n,1,", MalformedJson),
    (b"{\"a\":\"b\"#{}", MalformedJson),
    (b"\x7f", MalformedJson),
    (b"\0", MalformedJson),
    // keys that repeat
    (b"{\"a\":1,\"a\":1}", DuplicateKey),
    (b"{\"a\":1,\"\\u0061\":2}", DuplicateKey),
    (b"[{\"\":1,\"\":1}]", DuplicateKey),
    (b"{\"x\":{\"a\":1,\"b\":2,\"a\":3}}", DuplicateKey),
];

#[test]
fn the_corpus_is_taken_and_refused_as_it_says() {
    for good in GOOD {
        assert_eq!(check(good.as_bytes()), Ok(good.trim()), "{good:?}");
        serde_json::from_str::<Value>(good).unwrap();
    }
    for (bad, code) in BAD {
        let fault = check(bad).unwrap_err();
        assert_eq!(fault.code, *code, "{:?}: {fault:?}", String::from_utf8_lossy(bad));
        let is_named = matches!(code, DuplicateKey | NulCharacter);
        assert_eq!(serde_json::from_slice::<Value>(bad).is_ok(), is_named, "{:?}", String::from_utf8_lossy(bad));
    }
    assert!(GOOD.len() + BAD.len() >= 220, "{}", GOOD.len() + BAD.len());
}

#[test]
fn every_prefix_of_a_document_is_refused() {
    let document = r#"{"a": [1, -2.5e3, "x\u00e9\ud83d\ude00", {"b": null, "c": [true, false]}], "d": ""}"#;
    assert_eq!(check(document.as_bytes()), Ok(document));
    for end in 0..document.len() {
        assert!(check(&document.as_bytes()[..end]).is_err(), "{}", &document[..end]);
    }
}

#[test]
fn bounds_hold_exactly() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(check(nested(64).as_bytes()).is_ok());
    assert_eq!(check(nested(65).as_bytes()).unwrap_err().code, TooDeep);
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    assert!(check(objects(64).as_bytes()).is_ok());
    assert_eq!(check(objects(65).as_bytes()).unwrap_err().code, TooDeep);
    assert_eq!(check("[".repeat(10_000_000).as_bytes()).unwrap_err().code, TooDeep, "without using the stack");
    let items = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    assert!(check(items(10_000).as_bytes()).is_ok());
    assert_eq!(check(items(10_001).as_bytes()).unwrap_err().code, TooManyMembers);
    let members = |n: usize| format!("{{{}}}", (0..n).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(","));
    assert!(check(members(10_000).as_bytes()).is_ok());
    assert_eq!(check(members(10_001).as_bytes()).unwrap_err().code, TooManyMembers);
    let late_duplicate = members(9_000).replace('}', ",\"17\":0}");
    assert_eq!(check(late_duplicate.as_bytes()).unwrap_err().code, DuplicateKey);
    let key = |n: usize| format!("{{\"{}\":0}}", "é".repeat(n / 2));
    assert!(check(key(256).as_bytes()).is_ok());
    assert_eq!(check(key(258).as_bytes()).unwrap_err().code, StringTooLong);
    let string = |n: usize| format!("\"{}\"", "s".repeat(n));
    assert!(check(string(1_000_000).as_bytes()).is_ok());
    assert_eq!(check(string(1_000_001).as_bytes()).unwrap_err().code, StringTooLong);
}

#[test]
fn numbers_finer_than_a_store_holds_are_refused() {
    let fine = |digits: usize| format!("0.{}1", "0".repeat(digits - 1));
    for good in ["1e-16383", "0e-16383", "0e16383", "1.5e-16382", &fine(16_383)] {
        assert!(check(good.as_bytes()).is_ok(), "{good:.20}");
    }
    for bad in
        ["1e-16384", "1.5e-16383", "0e-16384", "0e99999999999999999999", "1e-99999999999999999999", &fine(16_384)]
    {
        assert_eq!(check(bad.as_bytes()).unwrap_err().code, NumberOutOfRange, "{bad:.20}");
    }
}

#[test]
fn a_fault_says_where() {
    for (document, at) in [("{\"a\": x}", 6), ("[1, 2", 5), ("{} {}", 3), ("[1,]", 3), ("\"\\q\"", 2)] {
        assert_eq!(check(document.as_bytes()).unwrap_err().at, at, "{document}");
    }
}

#[test]
fn sameness_goes_by_meaning() {
    for (a, b) in [
        ("{\"a\":1,\"b\":[{}]}", "{\"b\":[ { } ], \"\\u0061\":1}"),
        ("0", "-0.0e7"),
        ("1", "1.0"),
        ("1e2", "100"),
        ("\"\\u0061\"", "\"a\""),
        ("[ ]", "[]"),
    ] {
        assert!(same(a, b) && same(b, a), "{a} {b}");
    }
    for (a, b) in [
        ("{\"a\":1}", "{\"a\":2}"),
        ("{\"a\":1}", "{\"a\":1,\"b\":1}"),
        ("[1,2]", "[2,1]"),
        ("1", "\"1\""),
        ("null", "false"),
        ("0", "false"),
        ("9007199254740992", "9007199254740993"),
        ("123456789012345678901234567890", "123456789012345678901234567891"),
        ("1e-400", "0"),
        ("\"caf\u{e9}\"", "\"cafe\u{301}\""),
    ] {
        assert!(!same(a, b) && !same(b, a), "{a} {b}");
    }
}
