//! What a broker URL says: `nats://user:password@host:4222,other:4222?creds=FILE&monitoring=http://host:8222`.

use std::path::PathBuf;

use async_nats::ServerAddr;
use caudal_core::error::BrokerError;
use percent_encoding::percent_decode_str;

/// Where the servers are and how to get in. Never printed: [`Address::servers_named`] is.
pub(super) struct Address {
    pub(super) servers: Vec<ServerAddr>,
    pub(super) login: Login,
    /// A file with a user's JWT and key.
    pub(super) creds: Option<PathBuf>,
    /// The authority that signed the servers' certificates, if it is not one that the system trusts.
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    /// The JetStream domain, for leaf nodes.
    pub(super) domain: Option<String>,
    /// Monitoring addresses (`host:port`), which tell what JetStream does not: how often it syncs.
    pub(super) monitoring: Vec<String>,
    /// Of streams made here.
    pub(super) replicas: u64,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Nobody,
    Token(String),
    User { name: String, password: String },
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let wrong = |what: &str| BrokerError::Setup(format!("the broker's URL {what}; it is like {EXAMPLE}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("has no scheme"))?;
        if !matches!(scheme, "nats" | "tls") {
            return Err(wrong("begins with neither nats:// nor tls://"));
        }
        let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut login = Login::Nobody;
        let mut servers = Vec::new();
        for host in hosts.trim_end_matches('/').split(',') {
            let host = match host.rsplit_once('@') {
                Some((user, host)) => {
                    login = Login::parse(user);
                    host
                }
                None => host,
            };
            let server = format!("{scheme}://{host}").parse();
            servers.push(
                server
                    .ok()
                    .filter(|s: &ServerAddr| !s.host().is_empty())
                    .ok_or_else(|| wrong("has a server that is not like host:port"))?,
            );
        }
        let mut address = Self {
            servers,
            login,
            creds: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            domain: None,
            monitoring: Vec::new(),
            replicas: 1,
        };
        for (name, value) in query.split('&').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, ""))) {
            address.set(name, decode(value))?;
        }
        Ok(address)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), BrokerError> {
        let wrong = |what: String| Err(BrokerError::Setup(format!("the broker's URL has {what}")));
        match name {
            "creds" => self.creds = Some(value.into()),
            "tls_ca" => self.tls_ca = Some(value.into()),
            "tls_cert" => self.tls_cert = Some(value.into()),
            "tls_key" => self.tls_key = Some(value.into()),
            "domain" => self.domain = Some(value),
            "monitoring" => {
                for url in value.split(',') {
                    let Some(host) = url.strip_prefix("http://") else {
                        return wrong(format!("monitoring={url}, which is not like http://host:8222"));
                    };
                    self.monitoring.push(host.trim_end_matches('/').to_owned());
                }
            }
            "replicas" => match value.parse() {
                Ok(replicas @ 1..=5) => self.replicas = replicas,
                _ => return wrong(format!("replicas={value}, which is not 1 to 5")),
            },
            _ => {
                return wrong(format!(
                    "a parameter {name:?} that NATS does not have here: creds, tls_ca, tls_cert, tls_key, domain, \
                     monitoring or replicas"
                ));
            }
        }
        Ok(())
    }

    /// The servers without credentials, for sentences.
    pub(super) fn servers_named(&self) -> String {
        let servers: Vec<_> =
            self.servers.iter().map(|s| format!("{}://{}:{}", s.scheme(), s.host(), s.port())).collect();
        servers.join(",")
    }

    /// The user without the password, for sentences.
    pub(super) fn user_named(&self) -> String {
        match (&self.creds, &self.login) {
            (Some(file), _) => format!("the user of {}", file.display()),
            (None, Login::User { name, .. }) => format!("user {name:?}"),
            (None, Login::Token(_)) => "the holder of this token".to_owned(),
            (None, Login::Nobody) => "a client without credentials".to_owned(),
        }
    }
}

const EXAMPLE: &str = "nats://user:password@host:4222";

impl Login {
    fn parse(user: &str) -> Self {
        match user.split_once(':') {
            Some((name, password)) => Self::User { name: decode(name), password: decode(password) },
            None => Self::Token(decode(user)),
        }
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"))
    }

    #[test]
    fn servers_credentials_and_parameters() {
        let address = parse("nats://a:4222");
        assert_eq!(address.servers_named(), "nats://a:4222");
        assert!(address.login == Login::Nobody);
        let address =
            parse("nats://u%40x:p%3Aw@a,b:4333/?creds=/etc/c&monitoring=http://a:8222,http://b:8222&replicas=3");
        assert_eq!(address.servers_named(), "nats://a:4222,nats://b:4333");
        assert!(address.login == Login::User { name: "u@x".into(), password: "p:w".into() });
        assert_eq!(address.monitoring, ["a:8222", "b:8222"]);
        assert_eq!((address.creds, address.replicas), (Some("/etc/c".into()), 3));
        assert!(parse("tls://tok%2Fen@a").login == Login::Token("tok/en".into()));
        assert_eq!(parse("tls://[::1]:4").servers_named(), "tls://::1:4");
    }

    #[test]
    fn wrong_urls_are_explained_without_the_password() {
        for (url, what) in [
            ("nats:x", "has no scheme"),
            ("amqp://a", "neither nats:// nor tls://"),
            ("nats://u:secret@", "not like host:port"),
            ("nats://u:secret@a:99999", "not like host:port"),
            ("nats://u:secret@a?tls=yes", "\"tls\""),
            ("nats://u:secret@a?replicas=9", "replicas=9"),
            ("nats://u:secret@a?monitoring=https://a", "http://host:8222"),
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url} is taken") };
            let error = error.to_string();
            assert!(error.contains(what) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
