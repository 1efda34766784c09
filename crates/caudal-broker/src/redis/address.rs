//! What a broker URL says: `redis://user:password@host:6379/0`, or `rediss://…?tls_ca=FILE` with TLS.

use caudal_core::error::BrokerError;
use percent_encoding::percent_decode_str;
use redis::{Client, ClientTlsConfig, IntoConnectionInfo, TlsCertificates};

const EXAMPLE: &str = "redis://user:password@host:6379";

/// Where the server is and how to get in. Prints without the password.
pub(super) struct Address {
    pub(super) client: Client,
    server: String,
    user: Option<String>,
    has_password: bool,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let wrong = |what: &str| BrokerError::Setup(format!("the broker's URL {what}; it is like {EXAMPLE}"));
        let mut url = redis::parse_redis_url(url).ok_or_else(|| wrong("is no URL of Redis"))?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
        let server = format!("{}://{host}:{}", url.scheme(), url.port().unwrap_or(6379));
        let user = percent_decode_str(url.username()).decode_utf8_lossy().into_owned();
        let has_password = url.password().is_some();
        let parameters: Vec<_> = url.query_pairs().into_owned().collect();
        let (mut authority, mut certificate, mut key) = (None, None, None);
        for (name, file) in parameters {
            let place = match name.as_str() {
                "tls_ca" => &mut authority,
                "tls_cert" => &mut certificate,
                "tls_key" => &mut key,
                _ => {
                    return Err(wrong(&format!(
                        "has a parameter {name:?}, and only tls_ca, tls_cert and tls_key are known"
                    )));
                }
            };
            let read = std::fs::read(&file).map_err(|e| BrokerError::Setup(format!("{name} {file}: {e}")))?;
            *place = Some(read);
        }
        url.set_query(None);
        let info = url.into_connection_info().map_err(|error| wrong(&format!("cannot be used: {error}")))?;
        let client_tls =
            certificate.zip(key).map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let client = match server.starts_with("rediss") {
            true => {
                provide_cryptography();
                Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: authority })
            }
            false => Client::open(info),
        };
        let client = client.map_err(|error| wrong(&format!("cannot be used: {error}")))?;
        Ok(Self { client, server, user: Some(user).filter(|user| !user.is_empty()), has_password })
    }

    /// The server without credentials, for sentences.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// The user without the password, for sentences.
    pub(super) fn user(&self) -> String {
        match &self.user {
            Some(user) => format!("user {user:?}"),
            None if self.has_password => "user \"default\"".to_owned(),
            None => "a client without a password".to_owned(),
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        !self.has_password
    }

    /// As `ACL SETUSER` names it.
    pub(super) fn user_name(&self) -> &str {
        self.user.as_deref().unwrap_or("default")
    }
}

/// The driver takes the process's default and panics where features leave a choice.
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may be first, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_never_told_with_their_password() {
        let address = Address::parse("redis://a%40b:secret@host/3").expect("it is a URL");
        assert_eq!((address.server(), address.user().as_str()), ("redis://host:6379", "user \"a@b\""));
        for (url, what) in [
            ("redis:x", "names no host"),
            ("amqp://u:secret@a", "no URL of Redis"),
            ("redis://u:secret@a/x", "cannot be used"),
            ("redis://u:secret@a?db=1", "\"db\""),
            ("rediss://u:secret@a?tls_ca=/no/such/file", "/no/such/file"),
        ] {
            let Err(error) = Address::parse(url) else { panic!("{url} is taken") };
            let error = error.to_string();
            assert!(error.contains(what) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
