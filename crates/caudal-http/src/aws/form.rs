//! The parameters of AWS's query protocol: a form whose names spell out lists and structures.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::fault::{Answered, Fault, MALFORMED, MISSING};

/// Name and value of each parameter.
#[derive(Debug, Default, Clone)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// # Errors
    /// What is not percent-encoded UTF-8: a message is never stored in other words than its sender's.
    pub(crate) fn parse(body: &[u8]) -> Answered<Self> {
        let bad = |_| Fault::new(&MALFORMED, "the body is not a form in percent-encoded UTF-8");
        let text = std::str::from_utf8(body).map_err(bad)?;
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().map(|text| text.into_owned()).map_err(bad)
        };
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(name)?, decode(value)?))
        };
        text.split('&').filter(|pair| !pair.is_empty()).map(pair).collect::<Answered<_>>().map(Self)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    pub(crate) fn required(&mut self, name: &'static str) -> Answered<String> {
        let missing = || Fault::new(&MISSING, format!("The request must contain the parameter {name}."));
        self.take(name).ok_or_else(missing)
    }

    /// Takes out the items of a list (`name.1`, `name.2` or `name.1.Field`), in order of their numbers, with their own
    /// parameters each. An item that is a plain value has one without a name.
    pub(crate) fn list(&mut self, name: &str) -> Vec<Form> {
        let mut items: BTreeMap<u32, Form> = BTreeMap::new();
        let mut others = Vec::with_capacity(self.0.len());
        for (parameter, value) in self.0.drain(..) {
            let rest = parameter.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
            let (number, field) = rest.map_or(("", ""), |rest| rest.split_once('.').unwrap_or((rest, "")));
            match number.parse() {
                Ok(number) => items.entry(number).or_default().0.push((field.to_owned(), value)),
                Err(_) => others.push((parameter, value)),
            }
        }
        self.0 = others;
        items.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_structures_come_apart() {
        let body = b"Action=PublishBatch&E.member.10.Id=c&E.member.2.Id=b&E.member.2.A.entry.1.Name=n&E.member.1.Id=a%2B+%C3%BC&E.member=x";
        let mut form = Form::parse(body).unwrap();
        let mut entries = form.list("E.member");
        let ids: Vec<_> = entries.iter_mut().map(|entry| entry.required("Id").unwrap()).collect();
        assert_eq!(ids, ["a+ ü", "b", "c"]);
        let mut attributes = entries[1].list("A.entry");
        assert_eq!((attributes.len(), attributes[0].take("Name").as_deref()), (1, Some("n")));
        assert_eq!((form.get("Action"), form.get("E.member"), form.get("Id")), (Some("PublishBatch"), Some("x"), None));
        let mut names = Form::parse(b"AttributeName.1=All&AttributeName.2=QueueArn&AttributeNames=no").unwrap();
        let names: Vec<_> = names.list("AttributeName").into_iter().filter_map(|mut item| item.take("")).collect();
        assert_eq!(names, ["All", "QueueArn"]);
    }

    #[test]
    fn what_is_not_utf_8_is_refused() {
        assert!(Form::parse(b"Message=%ff").is_err() && Form::parse(b"Message=\xff").is_err());
        assert!(Form::parse(b"").unwrap().get("Action").is_none());
        assert!(Form::parse(b"Action").unwrap().required("Message").is_err());
    }
}
