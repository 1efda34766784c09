//! The scanner against a corpus in the spirit of JSONTestSuite, and at its exact bounds.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use caudal_core::json::{check, same};
use caudal_core::rejection::Code::{
    self, DuplicateKey, EmptyBody, InvalidUtf8, MalformedJson, NulCharacter, NumberOutOfRange, StringTooLong, TooDeep,
    TooManyMembers,
};
use serde_json::Value;

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
