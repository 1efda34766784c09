//! Into a document, a step at a time. Callers give valid JSON; anything else has no members.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The JSON of an object's member; of a name that stands twice, the last.
pub fn member<'a>(document: &'a str, key: &str) -> Option<&'a str> {
    let members: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(document).ok()?;
    members.get(key).map(|value| value.get())
}

/// The JSON of an array's element; negative indices count from the end.
pub fn item(document: &str, index: i64) -> Option<&str> {
    let items: Vec<&RawValue> = serde_json::from_str(document).ok()?;
    let index = if index < 0 { index.checked_add(items.len() as i64)? } else { index };
    items.get(usize::try_from(index).ok()?).map(|value| value.get())
}

/// A string's characters; nothing for null; of anything else its JSON.
pub fn as_text(document: &str) -> Option<String> {
    match document.trim_ascii().bytes().next()? {
        b'"' => serde_json::from_str(document).ok(),
        b'n' => None,
        _ => Some(document.trim_ascii().to_owned()),
    }
}
