//! What a URL says about the table.

use std::ops::RangeInclusive;

use caudal_core::error::StoreError;

const SHARDS_DEFAULT: u16 = 16;
/// A lease's number has ten bits for its shard.
const SHARDS: RangeInclusive<u16> = 1..=1024;

const FORM: &str =
    "dynamodb:<table> or dynamodb://<region>/<table>, then as needed ?endpoint=<URL>&create=true&shards=<1 to 1024>";

/// A URL of the form `dynamodb://<region>/<table>?…`, taken apart. It holds no secret: credentials come from the environment, a
/// profile or a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Left out: what the environment or the profile says.
    pub(super) region: Option<String>,
    pub(super) table: String,
    /// An emulator, or a proxy before AWS.
    pub(super) endpoint: Option<String>,
    /// Make the table when it is missing.
    pub(super) create: bool,
    /// For lanes that are new; a lane keeps the number that it was made with.
    pub(super) shards: u16,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, StoreError> {
        let rest = url.strip_prefix("dynamodb:").ok_or_else(|| wrong("it does not begin with dynamodb:"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (region, table) = match place.strip_prefix("//") {
            Some(place) => {
                place.split_once('/').ok_or_else(|| wrong("the table's name is missing after the region"))?
            }
            None => ("", place),
        };
        if !region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return Err(wrong("what follows dynamodb:// is the name of a region, such as eu-west-1"));
        }
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if !(3..=255).contains(&table.len()) || !table.bytes().all(fits) {
            return Err(wrong("a table's name has 3 to 255 letters, digits, dots, dashes and underscores"));
        }
        let region = (!region.is_empty()).then(|| region.to_owned());
        let mut address =
            Self { region, table: table.to_owned(), endpoint: None, create: false, shards: SHARDS_DEFAULT };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            address.set(name, value)?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        match name {
            "endpoint" if value.starts_with("http://") || value.starts_with("https://") => {
                self.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            "endpoint" => return Err(wrong("endpoint must begin with http:// or https://")),
            "create" if value == "true" || value == "false" => self.create = value == "true",
            "create" => return Err(wrong("create is true or false")),
            "shards" => {
                let shards = value.parse().ok().filter(|shards| SHARDS.contains(shards));
                self.shards = shards.ok_or_else(|| wrong("shards is a number from 1 to 1024"))?;
            }
            other => return Err(wrong(&format!("it has no option {other:?}"))),
        }
        Ok(())
    }

    /// Whether AWS cannot be meant: it is never spoken to in the clear.
    pub(super) fn is_plain_http(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}

fn wrong(why: &str) -> StoreError {
    StoreError::Setup(format!("the URL is not one for DynamoDB: {why}; the form is {FORM}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() -> Result<(), StoreError> {
        let bare = Address::parse("dynamodb:confirmations")?;
        assert_eq!((bare.region.as_deref(), bare.table.as_str(), bare.shards), (None, "confirmations", 16));
        assert!(!bare.create && !bare.is_plain_http());
        let local =
            Address::parse("dynamodb://eu-west-1/c_1.x?endpoint=http://127.0.0.1:5000/&create=true&shards=1024")?;
        assert_eq!((local.region.as_deref(), local.table.as_str(), local.shards), (Some("eu-west-1"), "c_1.x", 1024));
        assert_eq!(local.endpoint.as_deref(), Some("http://127.0.0.1:5000"));
        assert!(local.create && local.is_plain_http());
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_said() {
        for url in [
            "sqs:",
            "dynamodb:",
            "dynamodb:ab",
            "dynamodb://eu-west-1",
            "dynamodb://Not A Region/table",
            "dynamodb:ta ble",
            "dynamodb:table?endpoint=localhost",
            "dynamodb:table?create=maybe",
            "dynamodb:table?shards=0",
            "dynamodb:table?shards=1025",
            "dynamodb:table?what=1",
        ] {
            let said = Address::parse(url).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(said.contains("dynamodb://<region>"), "{url}: {said}");
        }
    }
}
