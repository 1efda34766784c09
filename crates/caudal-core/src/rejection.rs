//! Why one record (or one request) was not taken, in words that stay stable across releases.

use std::borrow::Cow;
use std::fmt;

/// A stable reason. Its [`name`](Code::name) is what clients match on, what a dead letter's `reason` holds, and the file
/// name of its page under `docs/errors/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    EmptyBody,
    MalformedJson,
    InvalidUtf8,
    DuplicateKey,
    TooDeep,
    NulCharacter,
    NumberOutOfRange,
    TooManyMembers,
    StringTooLong,
    RecordTooLarge,
    Schema,
    UnknownField,
    KeyMissing,
    KeyInvalid,
    MalformedCsv,
    MalformedEvent,
    Conflict,
    Refused,
    Poison,
}

impl Code {
    /// Every code, for the tests that hold the pages under `docs/errors/` to this list.
    pub const ALL: [Code; 19] = [
        Code::EmptyBody,
        Code::MalformedJson,
        Code::InvalidUtf8,
        Code::DuplicateKey,
        Code::TooDeep,
        Code::NulCharacter,
        Code::NumberOutOfRange,
        Code::TooManyMembers,
        Code::StringTooLong,
        Code::RecordTooLarge,
        Code::Schema,
        Code::UnknownField,
        Code::KeyMissing,
        Code::KeyInvalid,
        Code::MalformedCsv,
        Code::MalformedEvent,
        Code::Conflict,
        Code::Refused,
        Code::Poison,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Code::EmptyBody => "empty_body",
            Code::MalformedJson => "malformed_json",
            Code::InvalidUtf8 => "invalid_utf8",
            Code::DuplicateKey => "duplicate_key",
            Code::TooDeep => "too_deep",
            Code::NulCharacter => "nul_character",
            Code::NumberOutOfRange => "number_out_of_range",
            Code::TooManyMembers => "too_many_members",
            Code::StringTooLong => "string_too_long",
            Code::RecordTooLarge => "record_too_large",
            Code::Schema => "schema",
            Code::UnknownField => "unknown_field",
            Code::KeyMissing => "key_missing",
            Code::KeyInvalid => "key_invalid",
            Code::MalformedCsv => "malformed_csv",
            Code::MalformedEvent => "malformed_event",
            Code::Conflict => "conflict",
            Code::Refused => "refused",
            Code::Poison => "poison",
        }
    }

    /// Whether the bytes could not even be read as a document (`true`), or were read and broke a rule (`false`).
    ///
    /// Over HTTP the first is `400`, the second `422`.
    pub fn is_malformed(self) -> bool {
        matches!(
            self,
            Code::EmptyBody
                | Code::MalformedJson
                | Code::InvalidUtf8
                | Code::DuplicateKey
                | Code::TooDeep
                | Code::KeyInvalid
                | Code::MalformedCsv
                | Code::MalformedEvent
        )
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One record's refusal: what rule, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub code: Code,
    /// JSON Pointer (RFC 6901) to the fault inside the record; empty for the whole record.
    pub pointer: String,
    /// One plain sentence for the producer. Bounded, and holds no more of the caller's bytes than a short excerpt.
    pub detail: Cow<'static, str>,
}

impl Rejection {
    pub fn new(code: Code, pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, pointer: pointer.into(), detail: detail.into() }
    }

    /// A refusal of the record as a whole.
    pub fn whole(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code, String::new(), detail)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)?;
        if !self.pointer.is_empty() {
            write!(f, " (at {})", self.pointer)?;
        }
        Ok(())
    }
}

/// One token of a JSON Pointer, escaped as RFC 6901 §3 says.
pub fn pointer_to(field: &str) -> String {
    let mut pointer = String::with_capacity(field.len() + 1);
    pointer.push('/');
    for c in field.chars().take(64) {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
    pointer
}
