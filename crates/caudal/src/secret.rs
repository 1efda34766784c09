//! URLs that may hold a password: printed without it, everywhere.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// A connection URL. `Display`, `Debug` and serialisation mask what stands between the user's name and the host.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct SecretUrl(String);

impl SecretUrl {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password, for the adapter that connects.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", mask(&self.0))
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn mask(url: &str) -> String {
    let mut out = match url.split_once("://").and_then(|(scheme, rest)| {
        let authority_end = rest.find(['/', '?']).unwrap_or(rest.len());
        let at = rest[..authority_end].rfind('@')?;
        let user = rest[..at].split(':').next().unwrap_or_default();
        Some(format!("{scheme}://{user}:****{}", &rest[at..]))
    }) {
        Some(masked) => masked,
        None => url.to_owned(),
    };
    // libpq's key=value form and query parameters.
    while let Some(start) = out.find("password=").filter(|i| !out[i + 9..].starts_with("****")) {
        let value = start + "password=".len();
        let end = out[value..].find(['&', ' ']).map_or(out.len(), |i| value + i);
        out.replace_range(value..end, "****");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_never_show() {
        let cases = [
            ("postgres://ana:s3cr:et@db:5432/x?sslmode=require", "postgres://ana:****@db:5432/x?sslmode=require"),
            ("host=db user=ana password=s3cret dbname=x", "host=db user=ana password=**** dbname=x"),
            ("postgres://db/x?user=ana&password=s3cret", "postgres://db/x?user=ana&password=****"),
            ("sqlite:caudal.db", "sqlite:caudal.db"),
        ];
        for (url, shown) in cases {
            assert_eq!(SecretUrl::new(url).to_string(), shown);
            assert!(!format!("{:?}", SecretUrl::new(url)).contains("s3cr"));
        }
    }
}
