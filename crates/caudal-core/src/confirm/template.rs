//! Request bodies, URLs and headers made from a record: text with `${…}` in it.
//!
//! A name is a property of the record, or the path to one within (`${customer.name}`); `${key}` is the idempotency key and
//! `${attempt}` the number of the call. In a JSON body a string that is nothing but one placeholder becomes the value itself,
//! number, object or null; anywhere else the value's text is put in. `$${` is a literal `${`.

use serde_json::{Map, Value};

/// What fills the placeholders of one call.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    pub record: &'a Map<String, Value>,
    pub key: &'a str,
    pub attempt: u32,
}

/// A text with placeholders, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Value(Vec<String>),
}

/// A template that cannot be read, or a record that it does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("{0:?} opens a placeholder with ${{ and does not close it")]
    Unclosed(String),
    #[error("{0:?} has a placeholder without a name")]
    Unnamed(String),
    #[error("the record has no {0}")]
    Missing(String),
    #[error("{0} is no text, number or boolean, so it cannot be part of a text")]
    NotText(String),
}

impl Text {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at - 1]);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let end = rest[at..].find('}').ok_or_else(|| TemplateError::Unclosed(text.to_owned()))?;
            let name = rest[at + 2..at + end].trim();
            if name.is_empty() || name.split('.').any(str::is_empty) {
                return Err(TemplateError::Unnamed(text.to_owned()));
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Value(name.split('.').map(str::to_owned).collect()));
            rest = &rest[at + end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() || parts.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The text with every value in its place, each spelled by `escape`.
    pub fn fill(&self, with: &Filling<'_>, escape: impl Fn(&str, &mut String)) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Value(path) => match with.value(path)? {
                    Value::String(text) => escape(&text, &mut out),
                    Value::Number(number) => escape(&number.to_string(), &mut out),
                    Value::Bool(truth) => escape(if truth { "true" } else { "false" }, &mut out),
                    _ => return Err(TemplateError::NotText(path.join("."))),
                },
            }
        }
        Ok(out)
    }

    /// The names of the record's properties that it takes from.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Value(path) if path[0] != "key" && path[0] != "attempt" => Some(path[0].as_str()),
            _ => None,
        })
    }

    fn whole(&self) -> Option<&[String]> {
        match self.parts.as_slice() {
            [Part::Value(path)] => Some(path),
            _ => None,
        }
    }
}

/// A JSON document with placeholders in its strings.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// The record itself.
    Record,
    Value(Value),
    Text(Text),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub fn parse(template: &Value) -> Result<Self, TemplateError> {
        Ok(match template {
            Value::String(text) if text.contains("${") => Self::Text(Text::parse(text)?),
            Value::Array(items) => Self::Array(items.iter().map(Self::parse).collect::<Result<_, _>>()?),
            Value::Object(members) => {
                let member = |(name, value): (&String, &Value)| Ok((name.clone(), Self::parse(value)?));
                Self::Object(members.iter().map(member).collect::<Result<_, _>>()?)
            }
            other => Self::Value(other.clone()),
        })
    }

    pub fn fill(&self, with: &Filling<'_>) -> Result<Value, TemplateError> {
        Ok(match self {
            Self::Record => Value::Object(with.record.clone()),
            Self::Value(value) => value.clone(),
            Self::Text(text) => match text.whole() {
                Some(path) => with.value(path)?,
                None => Value::String(text.fill(with, |value, out| out.push_str(value))?),
            },
            Self::Array(items) => Value::Array(items.iter().map(|item| item.fill(with)).collect::<Result<_, _>>()?),
            Self::Object(members) => {
                let member = |(name, value): &(String, Json)| Ok((name.clone(), value.fill(with)?));
                Value::Object(members.iter().map(member).collect::<Result<_, TemplateError>>()?)
            }
        })
    }
}

impl Filling<'_> {
    fn value(&self, path: &[String]) -> Result<Value, TemplateError> {
        match path {
            [name] if name == "key" => return Ok(Value::String(self.key.to_owned())),
            [name] if name == "attempt" => return Ok(self.attempt.into()),
            _ => {}
        }
        let missing = || TemplateError::Missing(path.join("."));
        let mut found = self.record.get(&path[0]).ok_or_else(missing)?;
        for name in &path[1..] {
            found = found.get(name).ok_or_else(missing)?;
        }
        Ok(found.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: Value, record: Value) -> Result<Value, TemplateError> {
        let record = record.as_object().cloned().unwrap_or_default();
        Json::parse(&template)?.fill(&Filling { record: &record, key: "k-1", attempt: 2 })
    }

    #[test]
    fn a_lone_placeholder_keeps_its_type_and_others_become_text() {
        let template = json!({"amount": "${amount}", "note": "try ${attempt} of ${who.name}", "key": "${key}", "n": 1,
            "list": ["${who}", "$${x}"]});
        let record = json!({"amount": 12.50, "who": {"name": "Ana"}});
        let expected = json!({"amount": 12.50, "note": "try 2 of Ana", "key": "k-1", "n": 1,
            "list": [{"name": "Ana"}, "${x}"]});
        assert_eq!(filled(template, record).expect("filled"), expected);
    }

    #[test]
    fn what_does_not_fit_says_what_is_missing() {
        let error = |template, record| filled(template, record).expect_err("refused").to_string();
        assert_eq!(error(json!("${a.b}"), json!({"a": 1})), "the record has no a.b");
        assert_eq!(
            error(json!("x ${a}"), json!({"a": {}})),
            "a is no text, number or boolean, so it cannot be part of a text"
        );
        for bad in ["${", "x ${a", "${}", "${a..b}", "${ }"] {
            assert!(Text::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_escaped_where_they_stand() {
        let record = json!({"id": "a/b c"});
        let with = Filling { record: record.as_object().expect("an object"), key: "k", attempt: 1 };
        let text = Text::parse("https://h/${id}?x=$${id}").expect("a template");
        let escape = |value: &str, out: &mut String| out.push_str(&value.replace('/', "%2F").replace(' ', "%20"));
        assert_eq!(text.fill(&with, escape).expect("filled"), "https://h/a%2Fb%20c?x=${id}");
        assert_eq!(text.properties().collect::<Vec<_>>(), ["id"]);
    }
}
