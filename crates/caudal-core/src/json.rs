//! A strict, borrowing JSON scanner: each message is read once, and nothing is built that the row does not need.
//!
//! It accepts RFC 8259 minus what no column can keep faithfully. The deviations, each with its own
//! [`Code`](crate::rejection::Code): repeated keys in one object, U+0000, numbers beyond an IEEE double's range, and
//! documents over the bounds in [`limits`](crate::limits). A property test holds it to `serde_json` on everything else.

mod field;
mod keys;
mod path;
mod record;
mod same;

pub use field::{write_field, write_field_plain, write_row};
pub use path::{as_text, item, member};
pub use record::{read_record, same_record};
pub use same::same;

use std::borrow::Cow;

use keys::Keys;

use crate::limits::{JSON_DEPTH_MAX, JSON_KEY_BYTES_MAX, JSON_MEMBERS_MAX, JSON_STRING_BYTES_MAX};
use crate::rejection::{Code, Rejection};

/// Where and why scanning stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// Byte offset into the document.
    pub at: usize,
    pub what: &'static str,
}

impl Fault {
    pub fn reject(self) -> Rejection {
        Rejection::whole(self.code, format!("{} at byte {}", self.what, self.at))
    }
}

/// The kind of the value that starts at the scanner's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

impl Kind {
    /// The name JSON Schema gives to it; `number` covers integers.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Number => "number",
            Kind::Bool => "boolean",
            Kind::Null => "null",
        }
    }
}

/// A cursor over one JSON document.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
    depth: u32,
}

type Scan<T> = Result<T, Fault>;

impl<'a> Scanner<'a> {
    /// Starts on `document`, which must be UTF-8 without a byte order mark.
    pub fn new(document: &'a [u8]) -> Scan<Self> {
        if document.starts_with(b"\xef\xbb\xbf") {
            return Err(Fault { code: Code::InvalidUtf8, at: 0, what: "byte order mark" });
        }
        let text = std::str::from_utf8(document).map_err(|e| Fault {
            code: Code::InvalidUtf8,
            at: e.valid_up_to(),
            what: "not UTF-8",
        })?;
        Ok(Self { text, bytes: document, pos: 0, depth: 0 })
    }

    pub fn position(&self) -> usize {
        self.pos
    }

    /// The document's text between two positions.
    pub fn slice(&self, from: usize, to: usize) -> &'a str {
        &self.text[from..to]
    }

    fn fault<T>(&self, what: &'static str) -> Scan<T> {
        Err(Fault { code: Code::MalformedJson, at: self.pos, what })
    }

    fn limit<T>(&self, code: Code, what: &'static str) -> Scan<T> {
        Err(Fault { code, at: self.pos, what })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.pos) {
            self.pos += 1;
        }
    }

    /// The kind of the next value, without consuming it.
    pub fn kind(&mut self) -> Scan<Kind> {
        self.skip_space();
        match self.bytes.get(self.pos) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => self.fault("expected a value"),
            None if self.pos == 0 => self.limit(Code::EmptyBody, "empty document"),
            None => self.fault("unexpected end"),
        }
    }

    /// Consumes `byte` after optional white space.
    fn expect(&mut self, byte: u8, what: &'static str) -> Scan<()> {
        self.skip_space();
        if self.bytes.get(self.pos) == Some(&byte) {
            self.pos += 1;
            Ok(())
        } else {
            self.fault(what)
        }
    }

    fn open(&mut self, byte: u8) -> Scan<()> {
        self.expect(byte, "expected an object or array")?;
        self.depth += 1;
        if self.depth > JSON_DEPTH_MAX {
            return self.limit(Code::TooDeep, "nested too deeply");
        }
        Ok(())
    }

    /// Enters an object; call [`next_key`](Self::next_key) until it returns `None`.
    pub fn open_object(&mut self) -> Scan<()> {
        self.open(b'{')
    }

    /// Enters an array; call [`next_item`](Self::next_item) until it returns `false`.
    pub fn open_array(&mut self) -> Scan<()> {
        self.open(b'[')
    }

    /// Moves past a separator or the closing `close`; `false` at the end. `first` tells the first call.
    fn step(&mut self, first: bool, close: u8) -> Scan<bool> {
        self.skip_space();
        match self.bytes.get(self.pos) {
            Some(&b) if b == close => {
                self.pos += 1;
                self.depth -= 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.pos += 1;
                self.skip_space();
                if self.bytes.get(self.pos) == Some(&close) {
                    return self.fault("trailing comma");
                }
                Ok(true)
            }
            Some(_) if first => Ok(true),
            Some(_) => self.fault("expected a comma or the end of the object or array"),
            None => self.fault("unexpected end"),
        }
    }

    /// The next key of the open object with its colon consumed, or `None` at its end.
    pub fn next_key(&mut self, first: bool) -> Scan<Option<Cow<'a, str>>> {
        if !self.step(first, b'}')? {
            return Ok(None);
        }
        if self.bytes.get(self.pos) != Some(&b'"') {
            return self.fault("expected a key");
        }
        let key = self.string()?;
        if key.len() > JSON_KEY_BYTES_MAX {
            return self.limit(Code::StringTooLong, "key too long");
        }
        self.expect(b':', "expected a colon")?;
        Ok(Some(key))
    }

    /// Whether another item of the open array follows.
    pub fn next_item(&mut self, first: bool) -> Scan<bool> {
        self.step(first, b']')
    }

    /// Consumes a string and unescapes it; borrows when there is nothing to unescape.
    pub fn string(&mut self) -> Scan<Cow<'a, str>> {
        self.expect(b'"', "expected a string")?;
        let start = self.pos;
        let plain = self.plain_run();
        self.pos += plain;
        let value = match self.bytes.get(self.pos) {
            Some(b'"') => {
                self.pos += 1;
                Cow::Borrowed(&self.text[start..self.pos - 1])
            }
            _ => Cow::Owned(self.string_with_escapes(start)?),
        };
        if value.len() > JSON_STRING_BYTES_MAX {
            return self.limit(Code::StringTooLong, "string too long");
        }
        Ok(value)
    }

    /// Bytes until the next quote, backslash or control character.
    fn plain_run(&self) -> usize {
        let rest = &self.bytes[self.pos..];
        rest.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(rest.len())
    }

    fn string_with_escapes(&mut self, start: usize) -> Scan<String> {
        let mut out = String::from(&self.text[start..self.pos]);
        loop {
            match self.bytes.get(self.pos) {
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    self.pos += 1;
                    let c = self.escape()?;
                    out.push(c);
                }
                Some(b) if *b < 0x20 => return self.fault("control character in a string"),
                Some(_) => {
                    let run = self.plain_run();
                    out.push_str(&self.text[self.pos..self.pos + run]);
                    self.pos += run;
                }
                None => return self.fault("unterminated string"),
            }
        }
    }

    fn escape(&mut self) -> Scan<char> {
        let Some(&b) = self.bytes.get(self.pos) else { return self.fault("unterminated string") };
        self.pos += 1;
        Ok(match b {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => {
                self.pos -= 1;
                return self.fault("unknown escape");
            }
        })
    }

    fn unicode_escape(&mut self) -> Scan<char> {
        let high = self.hex4()?;
        let code = match high {
            0 => return self.limit(Code::NulCharacter, "U+0000 in a string"),
            0xd800..0xdc00 => {
                if self.bytes.get(self.pos..self.pos + 2) != Some(b"\\u") {
                    return self.fault("lone surrogate");
                }
                self.pos += 2;
                let low = self.hex4()?;
                if !(0xdc00..0xe000).contains(&low) {
                    return self.fault("lone surrogate");
                }
                0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
            }
            code => code,
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.fault("lone surrogate"),
        }
    }

    fn hex4(&mut self) -> Scan<u32> {
        let Some(digits) = self.bytes.get(self.pos..self.pos + 4) else {
            return self.fault("truncated unicode escape");
        };
        let mut code = 0;
        for &d in digits {
            let Some(v) = (d as char).to_digit(16) else { return self.fault("bad unicode escape") };
            code = code * 16 + v;
        }
        self.pos += 4;
        Ok(code)
    }

    /// Consumes a number and returns its text, exactly as written.
    pub fn number(&mut self) -> Scan<&'a str> {
        self.skip_space();
        let start = self.pos;
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        match self.peek() {
            Some(b'0') => self.pos += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.fault("expected a digit"),
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.pos += 1;
            }
            self.some_digits()?;
        }
        let text = &self.text[start..self.pos];
        // Short plain numbers cannot leave a double's range; only look closer at the others.
        let suspicious = text.len() > 300 || text.bytes().any(|b| b | 0x20 == b'e');
        if suspicious && (text.parse::<f64>().is_ok_and(f64::is_infinite) || is_too_fine(text)) {
            return self.limit(Code::NumberOutOfRange, "number out of range");
        }
        Ok(text)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.pos).copied()
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.pos += 1;
        }
    }

    fn some_digits(&mut self) -> Scan<()> {
        let start = self.pos;
        self.digits();
        if self.pos == start { self.fault("expected a digit") } else { Ok(()) }
    }

    /// Consumes `true` or `false`.
    pub fn boolean(&mut self) -> Scan<bool> {
        self.skip_space();
        if self.word(b"true") {
            Ok(true)
        } else if self.word(b"false") {
            Ok(false)
        } else {
            self.fault("expected true or false")
        }
    }

    /// Consumes `null`.
    pub fn null(&mut self) -> Scan<()> {
        self.skip_space();
        if self.word(b"null") { Ok(()) } else { self.fault("expected null") }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.bytes[self.pos..].starts_with(word);
        if found {
            self.pos += word.len();
        }
        found
    }

    /// Consumes any value, checking every rule on the way, and returns its text.
    pub fn value(&mut self) -> Scan<&'a str> {
        let kind = self.kind()?;
        let start = self.pos;
        match kind {
            Kind::Object => self.object()?,
            Kind::Array => self.array()?,
            Kind::String => drop(self.string()?),
            Kind::Number => drop(self.number()?),
            Kind::Bool => drop(self.boolean()?),
            Kind::Null => self.null()?,
        }
        Ok(&self.text[start..self.pos])
    }

    fn object(&mut self) -> Scan<()> {
        self.open_object()?;
        let mut seen = Keys::default();
        let mut first = true;
        while let Some(key) = self.next_key(first)? {
            first = false;
            if !seen.insert(key) {
                return self.limit(Code::DuplicateKey, "key appears twice in one object");
            }
            if seen.len() > JSON_MEMBERS_MAX {
                return self.limit(Code::TooManyMembers, "too many members");
            }
            self.value()?;
        }
        Ok(())
    }

    fn array(&mut self) -> Scan<()> {
        self.open_array()?;
        let mut items = 0;
        while self.next_item(items == 0)? {
            items += 1;
            if items > JSON_MEMBERS_MAX {
                return self.limit(Code::TooManyMembers, "too many items");
            }
            self.value()?;
        }
        Ok(())
    }

    /// Fails unless only white space is left.
    pub fn end(&mut self) -> Scan<()> {
        self.skip_space();
        if self.pos == self.bytes.len() { Ok(()) } else { self.fault("data after the document") }
    }
}

/// Digits after the point that PostgreSQL's `numeric`, and so its `jsonb`, can hold.
const FRACTION_DIGITS_MAX: i64 = 16_383;

/// Whether a number has more digits after the point than a store can keep.
fn is_too_fine(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64);
    // An exponent that is no i64 is far out, whichever way.
    let exponent = exponent.parse::<i64>().unwrap_or(i64::MAX);
    exponent.saturating_abs() > FRACTION_DIGITS_MAX || fraction - exponent > FRACTION_DIGITS_MAX
}

/// Checks one document against every rule of this module and returns its text without outer white space.
pub fn check(document: &[u8]) -> Result<&str, Fault> {
    let mut scanner = Scanner::new(document)?;
    let text = scanner.value()?;
    scanner.end()?;
    Ok(text)
}

/// Appends `text` to `out` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut start = 0;
    for (i, &b) in bytes.iter().enumerate() {
        if b >= 0x20 && b != b'"' && b != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[start..i]);
        start = i + 1;
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b => out.extend_from_slice(format!("\\u{b:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[start..]);
    out.push(b'"');
}
