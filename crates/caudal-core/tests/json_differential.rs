//! The scanner against `serde_json`, which it must agree with except for deviations that have names.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::fmt;

use caudal_core::json::{check, same, write_string};
use caudal_core::rejection::Code::{DuplicateKey, NulCharacter, NumberOutOfRange, TooDeep};
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
