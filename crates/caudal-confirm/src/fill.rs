//! Templates and the record that fills them.

use bytes::Bytes;
use caudal_core::confirm::ports::Call;
use caudal_core::confirm::template::{Filling, Json, TemplateError, Text};
use serde_json::{Map, Value};

/// A call with its record read, where a template takes from it.
pub(crate) struct Filler {
    record: Map<String, Value>,
    key: String,
    attempt: u32,
}

impl Filler {
    /// `reads`: whether any template takes from the record, which is parsed only then.
    ///
    /// # Errors
    /// A sentence, when the record is no JSON object.
    pub(crate) fn new(call: &Call<'_>, reads: bool) -> Result<Self, String> {
        let record = match reads {
            true => serde_json::from_slice(&call.item.record)
                .map_err(|_| "the record is no JSON object, so no template fits it".to_owned())?,
            false => Map::new(),
        };
        Ok(Self { record, key: call.key.to_string(), attempt: call.attempt })
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    fn filling(&self) -> Filling<'_> {
        Filling { record: &self.record, key: &self.key, attempt: self.attempt }
    }

    pub(crate) fn text(&self, template: &Text, escape: impl Fn(&str, &mut String)) -> Result<String, TemplateError> {
        template.fill(&self.filling(), escape)
    }

    pub(crate) fn json(&self, template: &Json) -> Result<Bytes, TemplateError> {
        Ok(template.fill(&self.filling())?.to_string().into())
    }
}

/// Puts a value in as it is.
pub(crate) fn verbatim(value: &str, out: &mut String) {
    out.push_str(value);
}

/// Whether the template takes from the record.
pub(crate) fn reads(template: &Text) -> bool {
    template.properties().next().is_some()
}

/// What is wrong with a template that cannot be read, without its text, which may hold a token.
pub(crate) fn unreadable(error: &TemplateError) -> String {
    match error {
        TemplateError::Unclosed(_) => "it opens a placeholder with ${ and does not close it".to_owned(),
        TemplateError::Unnamed(_) => "it has a placeholder without a name".to_owned(),
        fits => fits.to_string(),
    }
}
