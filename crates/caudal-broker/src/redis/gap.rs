//! Entries that were removed before their group read them, told from what Redis 7 counts.
//!
//! A stream counts what was ever added, a group how many of those it has read. When the oldest entry left is beyond where
//! the group stands, all that it read and whatever is missing is gone, so the difference is exact. Entries deleted in the
//! middle of what is still there cannot be told from entries that somebody else read, and are not reported.

use std::collections::HashMap;

use redis::Value;

use super::entry::{EntryId, array};

/// Where a group stands in its stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) group: String,
    pub(super) pending: u64,
    pub(super) delivered: EntryId,
    /// Entries that were added up to there; not known after some deletions.
    read: Option<u64>,
    pub(super) lag: Option<u64>,
}

/// A stream's counts.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) length: u64,
    pub(super) added: Option<u64>,
    /// The oldest entry that is left.
    pub(super) first: Option<EntryId>,
    pub(super) last: EntryId,
}

impl Standing {
    /// From an answer to `XINFO GROUPS`.
    pub(super) fn all(groups: Value) -> Vec<Self> {
        let standing = |group| {
            let mut group = fields(array(group));
            let group_name = group.remove("name").and_then(|name| redis::from_redis_value(name).ok());
            let value = |name: &str| group.get(name).and_then(number);
            Self {
                group: group_name.unwrap_or_default(),
                pending: value("pending").unwrap_or_default(),
                delivered: group.get("last-delivered-id").and_then(EntryId::of).unwrap_or_default(),
                read: value("entries-read"),
                lag: value("lag"),
            }
        };
        array(groups).into_iter().map(standing).collect()
    }

    /// Entries that are gone between what the group read and what is left.
    pub(super) fn missing(&self, counts: &Counts) -> u64 {
        let beyond = match counts.first {
            Some(first) => first > self.delivered,
            None => counts.last > self.delivered,
        };
        match (self.read, counts.gone()) {
            (Some(read), Some(gone)) if beyond => gone.saturating_sub(read),
            _ => 0,
        }
    }
}

impl Counts {
    /// Entries that were added and are gone, if the server counts.
    pub(super) fn gone(&self) -> Option<u64> {
        self.added.map(|added| added.saturating_sub(self.length))
    }

    /// From an answer to `XINFO STREAM`.
    pub(super) fn of(stream: Value) -> Self {
        let stream = fields(array(stream));
        let value = |name: &str| stream.get(name).and_then(number);
        let first = stream.get("first-entry").and_then(|entry| match entry {
            Value::Array(parts) => parts.first().and_then(EntryId::of),
            _ => None,
        });
        let last = stream.get("last-generated-id").and_then(EntryId::of).unwrap_or_default();
        Self { length: value("length").unwrap_or_default(), added: value("entries-added"), first, last }
    }
}

/// Names and values in turn, as a map.
pub(super) fn fields(values: Vec<Value>) -> HashMap<String, Value> {
    let mut values = values.into_iter();
    let mut fields = HashMap::new();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        if let Ok(name) = redis::from_redis_value::<String>(name) {
            fields.insert(name, value);
        }
    }
    fields
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_gone_beyond_the_group_is_missing() {
        let id = |ms| EntryId { ms, seq: 0 };
        let stands = |at, read| Standing { delivered: id(at), read, ..Standing::default() };
        // Ten were added; six are left, from the fifth on.
        let trimmed = Counts { length: 6, added: Some(10), first: Some(id(5)), last: id(10) };
        for (standing, missing) in [
            (stands(2, Some(2)), 2),
            (stands(4, Some(4)), 0),
            (stands(7, Some(7)), 0),
            (stands(2, None), 0),
            (stands(0, Some(0)), 4),
        ] {
            assert_eq!(standing.missing(&trimmed), missing, "{standing:?}");
        }
        let emptied = Counts { length: 0, added: Some(10), first: None, last: id(10) };
        assert_eq!((stands(4, Some(4)).missing(&emptied), stands(10, Some(10)).missing(&emptied)), (6, 0));
        let old = Counts { added: None, ..trimmed };
        assert_eq!(stands(2, Some(2)).missing(&old), 0, "a server before 7");
    }
}
