//! One message as SNS and SQS carry it: its text, its attributes, their digests and their limits.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::fault::{Answered, CONTENTS, Fault, INVALID, MISSING};
use super::form::Form;
use crate::pushed;

/// Bytes of one message, and of one batch, with their attributes.
pub(crate) const MESSAGE_BYTES_MAX: usize = 262_144;
const ATTRIBUTES_MAX: usize = 10;
const ATTRIBUTE_NAME_MAX: usize = 256;

/// A message that is to be published.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// Its name within a batch.
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) subject: Option<String>,
    pub(crate) attributes: Vec<Attribute>,
    /// SQS's own attributes: `AWSTraceHeader`.
    pub(crate) system: Vec<Attribute>,
    pub(crate) group: Option<String>,
    pub(crate) deduplication: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    /// `String`, `Number` or `Binary`, perhaps with a word of the sender's after a dot.
    pub(crate) data_type: String,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Binary(Vec<u8>),
}

impl Attribute {
    /// # Errors
    /// A type that is none, or a value that is missing or not of its type.
    pub(crate) fn new(
        name: String,
        data_type: Option<String>,
        text: Option<String>,
        binary: Option<String>,
    ) -> Answered<Self> {
        let bad = |why: &str| {
            let name: String = name.chars().take(80).collect();
            Fault::new(&INVALID, format!("The message attribute '{name}' {why}."))
        };
        let data_type = data_type.filter(|t| !t.is_empty()).ok_or_else(|| bad("must contain a data type"))?;
        let value = match (data_type.split('.').next(), text, binary) {
            (Some("String" | "Number"), Some(text), None) => Value::Text(text),
            (Some("Binary"), None, Some(binary)) => {
                Value::Binary(STANDARD.decode(binary).map_err(|_| bad("holds a BinaryValue that is not base64"))?)
            }
            (Some("String" | "Number" | "Binary"), ..) => return Err(bad("must contain one value, of its type")),
            _ => return Err(bad("has a type other than String, Number and Binary")),
        };
        let empty = matches!(&value, Value::Text(text) if text.is_empty());
        let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if empty || matches!(&value, Value::Binary(bytes) if bytes.is_empty()) {
            return Err(bad("must contain a non-empty value"));
        }
        if name.is_empty() || name.len() > ATTRIBUTE_NAME_MAX || !name.bytes().all(letters) {
            return Err(bad(
                "has a name of other characters than letters, digits, '_', '-' and '.', or none, or too many",
            ));
        }
        if data_type.starts_with("Number") && !matches!(&value, Value::Text(text) if text.parse::<f64>().is_ok()) {
            return Err(bad("is a Number and has another value"));
        }
        Ok(Self { name, data_type, value })
    }

    /// Reads `….Name`, `….Value.DataType` and the value of each item of a list.
    pub(crate) fn list(form: &mut Form, name: &str) -> Answered<Vec<Self>> {
        let read = |mut item: Form| {
            let name = item.required("Name")?;
            Self::new(name, item.take("Value.DataType"), item.take("Value.StringValue"), item.take("Value.BinaryValue"))
        };
        form.list(name).into_iter().map(read).collect()
    }

    fn value_bytes(&self) -> &[u8] {
        match &self.value {
            Value::Text(text) => text.as_bytes(),
            Value::Binary(bytes) => bytes,
        }
    }

    fn shown(&self) -> String {
        match &self.value {
            Value::Text(text) => text.clone(),
            Value::Binary(bytes) => STANDARD.encode(bytes),
        }
    }
}

impl Entry {
    pub(crate) fn bytes(&self) -> usize {
        let of =
            |attribute: &Attribute| attribute.name.len() + attribute.data_type.len() + attribute.value_bytes().len();
        self.text.len() + self.attributes.iter().map(of).sum::<usize>()
    }

    /// The limits that both services have.
    pub(crate) fn check(&self) -> Answered<()> {
        if self.text.is_empty() {
            return Err(Fault::new(&MISSING, "The request must contain a message that is not empty."));
        }
        if self.bytes() > MESSAGE_BYTES_MAX {
            let message = format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {MESSAGE_BYTES_MAX} bytes."
            );
            return Err(Fault::new(&INVALID, message));
        }
        if let Some(bad) = self.text.chars().find(|c| !is_carried(*c)) {
            let message = format!(
                "Invalid characters found: U+{:04X}. Messages hold #x9, #xA, #xD and what is not a control.",
                u32::from(bad)
            );
            return Err(Fault::new(&CONTENTS, message));
        }
        if self.attributes.len() > ATTRIBUTES_MAX {
            return Err(Fault::new(
                &INVALID,
                format!("Number of message attributes exceeds the allowed maximum [{ATTRIBUTES_MAX}]."),
            ));
        }
        Ok(())
    }

    /// What travels beside the message: its attributes by name, and what else its sender said of it.
    pub(crate) fn kept_attributes(&self) -> Option<Bytes> {
        let said = [("Subject", &self.subject), ("MessageGroupId", &self.group)];
        let said = said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?)));
        let attributes = self.system.iter().chain(&self.attributes).map(|a| (a.name.clone(), a.shown()));
        pushed::attributes(said.chain(attributes))
    }

    pub(crate) fn body_md5(&self) -> String {
        hex(&Md5::digest(self.text.as_bytes()))
    }
}

/// What SQS takes: the characters of XML 1.0.
fn is_carried(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The digest that clients compare with their own: name, type and value of each attribute, in order of the names, each with
/// its length before it.
pub(crate) fn attributes_md5(attributes: &[Attribute]) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let mut sorted: Vec<&Attribute> = attributes.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut digest = Md5::new();
    let add = |digest: &mut Md5, bytes: &[u8]| {
        digest.update((bytes.len() as u32).to_be_bytes());
        digest.update(bytes);
    };
    for attribute in sorted {
        add(&mut digest, attribute.name.as_bytes());
        add(&mut digest, attribute.data_type.as_bytes());
        digest.update([if matches!(attribute.value, Value::Binary(_)) { 2 } else { 1 }]);
        add(&mut digest, attribute.value_bytes());
    }
    Some(hex(&digest.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(data_type: &str, text: Option<&str>, binary: Option<&str>) -> Answered<Attribute> {
        Attribute::new("timestamp".into(), Some(data_type.into()), text.map(str::to_owned), binary.map(str::to_owned))
    }

    #[test]
    fn digests_are_those_of_sqs() {
        let digest = |value| attributes_md5(&[attribute("Number", Some(value), None).unwrap()]).unwrap();
        // What moto and other emulators hold SQS to.
        assert_eq!(digest("1493147359900"), "235c5c510d26fb653d073faed50ae77c");
        assert_eq!(digest("1493147359901"), "994258b45346a2cc3f9cbb611aa7af30");
        assert_eq!(attributes_md5(&[]), None);
        let two =
            ["b", "a"].map(|name| Attribute { name: name.into(), ..attribute("String", Some("x"), None).unwrap() });
        assert_eq!(attributes_md5(&two), attributes_md5(&[two[1].clone(), two[0].clone()]));
        let body = Entry { text: "This is a test message".into(), ..Entry::default() };
        assert_eq!(body.body_md5(), "fafb00f5732ab283681e124bf8747ed1");
    }

    #[test]
    fn attributes_count_and_are_kept() {
        let binary = attribute("Binary.png", None, Some("AAH/")).unwrap();
        assert_eq!(binary.value, Value::Binary(vec![0, 1, 255]));
        let mut entry = Entry { text: "{}".into(), attributes: vec![binary], ..Entry::default() };
        assert_eq!(entry.bytes(), 2 + "timestamp".len() + "Binary.png".len() + 3);
        entry.subject = Some("S".into());
        assert_eq!(entry.kept_attributes().unwrap(), r#"{"Subject":"S","timestamp":"AAH/"}"#);
        assert_eq!(Entry { text: "{}".into(), ..Entry::default() }.kept_attributes(), None);
    }
}
