//! Integers, strings and tables as AMQP 0-9-1 writes them, read without copying.
//!
//! The types of a table's values are RabbitMQ's (its "AMQP 0-9-1 errata"), which differ from the specification's.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Number};

/// Producers of foreign messages decide how deep their headers nest, and we read them by recursion.
const DEPTH_MAX: u32 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not AMQP 0-9-1: {0}")]
pub(in crate::rabbitmq) struct Malformed(pub(in crate::rabbitmq) &'static str);

/// A place in bytes that are being read.
#[derive(Debug, Clone, Copy)]
pub(in crate::rabbitmq) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(in crate::rabbitmq) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("they end too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("they end too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// Up to 255 bytes. Nobody checks that they are text.
    pub(in crate::rabbitmq) fn short(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let length = usize::from(self.u8()?);
        self.take(length).map(String::from_utf8_lossy)
    }

    pub(super) fn long(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(super) fn table(&mut self) -> Result<Table<'a>, Malformed> {
        self.long().map(|bytes| Table(Cursor(bytes)))
    }

    fn value(&mut self) -> Result<Value<'a>, Malformed> {
        Ok(match self.u8()? {
            b't' => Value::Bool(self.u8()? != 0),
            b'b' => Value::Integer(i64::from(self.array().map(i8::from_be_bytes)?)),
            b'B' => Value::Integer(i64::from(self.u8()?)),
            b's' => Value::Integer(i64::from(self.array().map(i16::from_be_bytes)?)),
            b'u' => Value::Integer(i64::from(self.u16()?)),
            b'I' => Value::Integer(i64::from(self.array().map(i32::from_be_bytes)?)),
            b'i' => Value::Integer(i64::from(self.u32()?)),
            b'l' | b'L' => Value::Integer(self.array().map(i64::from_be_bytes)?),
            b'f' => Value::Real(f64::from(self.array().map(f32::from_be_bytes)?)),
            b'd' => Value::Real(self.array().map(f64::from_be_bytes)?),
            b'D' => Value::Decimal { scale: self.u8()?, digits: self.array().map(i32::from_be_bytes)? },
            b'S' => Value::Text(self.long()?),
            b'x' => Value::Bytes(self.long()?),
            b'T' => Value::Time(self.u64()?),
            b'F' => Value::Table(self.table()?),
            b'A' => Value::Array(Cursor(self.long()?)),
            b'V' => Value::Void,
            _ => return Err(Malformed("a table holds a value of an unknown type")),
        })
    }
}

/// Named values.
#[derive(Debug, Clone, Copy)]
pub(in crate::rabbitmq) struct Table<'a>(Cursor<'a>);

impl<'a> Iterator for Table<'a> {
    type Item = Result<(Cow<'a, str>, Value<'a>), Malformed>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let entry = self.0.short().and_then(|name| Ok((name, self.0.value()?)));
        if entry.is_err() {
            self.0 = Cursor(&[]);
        }
        Some(entry)
    }
}

impl<'a> Table<'a> {
    /// The value of that name, if it is a text.
    pub(super) fn text(self, name: &str) -> Option<Cow<'a, str>> {
        self.filter_map(Result::ok).find(|(n, _)| n == name).and_then(|(_, value)| match value {
            Value::Text(text) => Some(String::from_utf8_lossy(text)),
            _ => None,
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(in crate::rabbitmq) enum Value<'a> {
    Void,
    Bool(bool),
    Integer(i64),
    Real(f64),
    Decimal {
        scale: u8,
        digits: i32,
    },
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    /// Seconds since 1970.
    Time(u64),
    Table(Table<'a>),
    Array(Cursor<'a>),
}

impl<'a> Value<'a> {
    /// Scalars as they are written, what is nested as JSON.
    pub(in crate::rabbitmq) fn text(self) -> Result<Cow<'a, str>, Malformed> {
        Ok(match self {
            Value::Text(text) | Value::Bytes(text) => String::from_utf8_lossy(text),
            Value::Void => Cow::Borrowed(""),
            other => match other.json(0)? {
                serde_json::Value::String(text) => Cow::Owned(text),
                json => Cow::Owned(json.to_string()),
            },
        })
    }

    fn json(self, depth: u32) -> Result<serde_json::Value, Malformed> {
        use serde_json::Value as Json;
        if depth > DEPTH_MAX {
            return Err(Malformed("a header nests too deeply"));
        }
        Ok(match self {
            Value::Void => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Integer(value) => Json::from(value),
            Value::Time(seconds) => Json::from(seconds),
            Value::Real(value) => Number::from_f64(value).map_or(Json::Null, Json::Number),
            Value::Decimal { scale, digits } => Json::String(decimal(scale, digits)),
            Value::Text(text) | Value::Bytes(text) => Json::String(String::from_utf8_lossy(text).into_owned()),
            Value::Table(table) => {
                let member = |entry: Result<(Cow<'_, str>, Value<'_>), Malformed>| {
                    let (name, value) = entry?;
                    Ok((name.into_owned(), value.json(depth + 1)?))
                };
                Json::Object(table.map(member).collect::<Result<Map<_, _>, Malformed>>()?)
            }
            Value::Array(mut items) => {
                let mut array = Vec::new();
                while !items.0.is_empty() {
                    array.push(items.value()?.json(depth + 1)?);
                }
                Json::Array(array)
            }
        })
    }
}

/// A decimal of so many digits behind the point.
fn decimal(scale: u8, digits: i32) -> String {
    let (sign, scale) = (if digits < 0 { "-" } else { "" }, usize::from(scale));
    let digits = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    match scale {
        0 => format!("{sign}{whole}"),
        _ => format!("{sign}{whole}.{fraction}"),
    }
}

/// At most 255 bytes of it: what is longer was refused before.
pub(super) fn put_short(out: &mut BytesMut, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u8::MAX))];
    out.put_u8(bytes.len() as u8);
    out.put_slice(bytes);
}

pub(super) fn put_long(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Puts what `write` writes behind its length.
pub(super) fn put_sized(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32(0);
    write(out);
    let size = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// One entry of a table whose value is a text.
pub(super) fn put_text(out: &mut BytesMut, name: &str, text: &str) {
    put_short(out, name);
    out.put_u8(b'S');
    put_long(out, text.as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(bytes: &[u8]) -> Result<String, Malformed> {
        Cursor(bytes).value()?.text().map(Cow::into_owned)
    }

    #[test]
    fn values_become_text() {
        assert_eq!(value(b"t\x01").as_deref(), Ok("true"));
        assert_eq!(value(b"b\xff").as_deref(), Ok("-1"));
        assert_eq!(value(b"s\xff\xfe").as_deref(), Ok("-2"));
        assert_eq!(value(b"I\x00\x00\x01\x00").as_deref(), Ok("256"));
        assert_eq!(value(b"l\xff\xff\xff\xff\xff\xff\xff\xff").as_deref(), Ok("-1"));
        assert_eq!(value(b"d\x3f\xf8\x00\x00\x00\x00\x00\x00").as_deref(), Ok("1.5"));
        assert_eq!(value(b"D\x02\x00\x00\x00\x05").as_deref(), Ok("0.05"));
        assert_eq!(value(b"D\x01\xff\xff\xff\x85").as_deref(), Ok("-12.3"));
        assert_eq!(value(b"S\x00\x00\x00\x03abc").as_deref(), Ok("abc"));
        assert_eq!(value(b"V").as_deref(), Ok(""));
        assert_eq!(value(b"T\x00\x00\x00\x00\x00\x00\x00\x07").as_deref(), Ok("7"));
        assert_eq!(value(b"A\x00\x00\x00\x04t\x00t\x01").as_deref(), Ok("[false,true]"));
        assert_eq!(value(b"F\x00\x00\x00\x09\x01aS\x00\x00\x00\x02hi").as_deref(), Ok("{\"a\":\"hi\"}"));
        assert!(value(b"Q").is_err() && value(b"").is_err() && value(b"S\x00\x00\x00\x05abc").is_err());
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |levels: usize| {
            let mut bytes = b"V".to_vec();
            for _ in 0..levels {
                let mut outer = b"A".to_vec();
                outer.extend((bytes.len() as u32).to_be_bytes());
                outer.append(&mut bytes);
                bytes = outer;
            }
            bytes
        };
        assert!(value(&nested(10)).is_ok());
        assert!(value(&nested(20_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = value(&bytes);
            for (_, value) in Table(Cursor(&bytes)).flatten() {
                let _ = value.text();
            }
        }

        #[test]
        fn texts_come_back(name in "[a-z]{0,300}", text in ".{0,300}") {
            let mut out = BytesMut::new();
            put_sized(&mut out, |out| put_text(out, &name, &text));
            let table = Cursor(&out).table().expect("a table");
            let kept = &name[..name.len().min(255)];
            let found = table.text(kept);
            prop_assert_eq!(found.as_deref(), Some(text.as_str()));
        }
    }
}
