//! Whether two documents mean the same, however they are written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Whether two documents mean the same: members in any order, strings by their characters, numbers by their exact decimal
/// value. A store may write all of these in another way than the producer did.
pub fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.trim_ascii(), b.trim_ascii());
    if a == b {
        return true;
    }
    match (a.bytes().next(), b.bytes().next()) {
        (Some(b'{'), Some(b'{')) => match (parts::<Members<'_>>(a), parts::<Members<'_>>(b)) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().zip(&b).all(|((k, a), (l, b))| k == l && same(a.get(), b.get()))
            }
            _ => false,
        },
        (Some(b'['), Some(b'[')) => match (parts::<Vec<&RawValue>>(a), parts::<Vec<&RawValue>>(b)) {
            (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a.get(), b.get())),
            _ => false,
        },
        (Some(b'"'), Some(b'"')) => parts::<String>(a).is_some_and(|a| parts(b) == Some(a)),
        (Some(b'-' | b'0'..=b'9'), Some(b'-' | b'0'..=b'9')) => decimal(a).is_some_and(|a| decimal(b) == Some(a)),
        _ => false,
    }
}

type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn parts<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok()
}

/// Sign, digits without zeros around them, and the power of ten behind them: the same for every spelling of a number.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    let exponent = exponent.checked_add((digits.len() - significant.len()) as i64)?;
    Some((negative, significant.trim_start_matches('0').to_owned(), exponent))
}
