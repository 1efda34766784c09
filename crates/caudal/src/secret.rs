//! URLs that may hold a password: printed without it, everywhere.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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

/// A secret that is nothing but one: never shown, not even by the error that refuses it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("****")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut several = deserializer.deserialize_any(SecretsVisitor)?;
        match several.0.len() {
            1 => Ok(several.0.remove(0)),
            _ => Err(de::Error::custom("here stands one secret, in quotes")),
        }
    }
}

/// Several secrets that are valid at once. One may be written without the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Secrets(Vec<Secret>);

impl Secrets {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn expose(&self) -> Vec<&str> {
        self.0.iter().map(Secret::expose).collect()
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretsVisitor)
    }
}

struct SecretsVisitor;

impl<'de> Visitor<'de> for SecretsVisitor {
    type Value = Secrets;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("secrets in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Secrets, E> {
        Ok(Secrets(vec![Secret(text.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Secrets, A::Error> {
        let mut secrets = Vec::new();
        while let Some(secret) = list.next_element()? {
            secrets.push(secret);
        }
        Ok(Secrets(secrets))
    }

    // The default says which number it met.
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secrets, E> {
        Err(E::custom("a secret is written in quotes"))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secrets, E> {
        Err(E::custom("a secret is written in quotes"))
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

    #[test]
    fn secrets_are_read_and_never_shown() {
        #[derive(Debug, Deserialize, Serialize)]
        struct Both {
            one: Secret,
            several: Secrets,
        }
        let both: Both = toml::from_str("one = 'a1s3cr'\nseveral = ['b2s3cr', 'c3s3cr']").unwrap();
        assert_eq!((both.one.expose(), both.several.expose()), ("a1s3cr", vec!["b2s3cr", "c3s3cr"]));
        let shown = format!("{both:?} {}", toml::to_string(&both).unwrap());
        assert!(!shown.contains("s3cr") && shown.contains("****"), "{shown}");
        let single: Both = toml::from_str("one = 'a'\nseveral = 'b'").unwrap();
        assert_eq!(single.several.expose(), ["b"]);
        for number in ["one = 739\nseveral = []", "one = 'a'\nseveral = [739]", "one = 73.9\nseveral = []"] {
            let error = toml::from_str::<Both>(number).unwrap_err();
            assert!(error.message().contains("in quotes") && !error.message().contains("73"), "{}", error.message());
        }
    }
}
