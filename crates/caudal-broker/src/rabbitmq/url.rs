//! `amqp://user:password@host:port/vhost?heartbeat=10`, as RabbitMQ's own "URI specification" and "URI query parameters"
//! have it.

use std::borrow::Cow;
use std::time::Duration;

use caudal_core::error::BrokerError;
use percent_encoding::percent_decode_str;

/// Short enough to notice within seconds that a server is gone without a word.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    pub(super) heartbeat: Duration,
    pub(super) tls: Option<Tls>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    pub(super) authority_file: Option<String>,
    pub(super) certificate_file: Option<String>,
    pub(super) key_file: Option<String>,
}

impl Url {
    /// # Errors
    /// Never quotes the URL, which holds the password.
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let wrong = |what: &str| {
            BrokerError::Setup(format!(
                "broker.url is no AMQP URL: {what}; it is like amqp://user:password@host:5672/vhost"
            ))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no ://"))?;
        let tls = match scheme {
            "amqp" => None,
            "amqps" => Some(Tls::default()),
            _ => return Err(wrong("it begins with neither amqp:// nor amqps://")),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match address.strip_prefix('[').and_then(|address| address.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.filter(|port| !port.is_empty()) {
            Some(port) => port.parse().map_err(|_| wrong("its port is no number"))?,
            None if tls.is_some() => 5671,
            None => 5672,
        };
        // Without a login RabbitMQ's own default, which only works on the same machine.
        let (user, password) = if login.is_empty() { ("guest", "guest") } else { (user, password) };
        let mut url = Self {
            host: if host.is_empty() { "localhost".to_owned() } else { host.to_owned() },
            port,
            user: decoded(user).ok_or_else(|| wrong("its user is not UTF-8"))?,
            password: decoded(password).ok_or_else(|| wrong("its password is not UTF-8"))?,
            vhost: if vhost.is_empty() {
                "/".to_owned()
            } else {
                decoded(vhost).ok_or_else(|| wrong("its vhost is not UTF-8"))?
            },
            heartbeat: HEARTBEAT,
            tls,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            url.option(pair)?;
        }
        if let Some(Tls { certificate_file, key_file, .. }) = &url.tls
            && certificate_file.is_some() != key_file.is_some()
        {
            return Err(wrong("certfile and keyfile go together"));
        }
        Ok(url)
    }

    fn option(&mut self, pair: &str) -> Result<(), BrokerError> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).unwrap_or_default();
        match (name, &mut self.tls) {
            ("heartbeat", _) => {
                let seconds = value.parse::<u16>().ok().filter(|seconds| *seconds > 0);
                let seconds = seconds.ok_or_else(|| {
                    BrokerError::Setup("heartbeat in broker.url is a number of seconds from 1 to 65535".to_owned())
                })?;
                self.heartbeat = Duration::from_secs(seconds.into());
            }
            ("cacertfile", Some(tls)) => tls.authority_file = Some(value),
            ("certfile", Some(tls)) => tls.certificate_file = Some(value),
            ("keyfile", Some(tls)) => tls.key_file = Some(value),
            ("cacertfile" | "certfile" | "keyfile", None) => {
                return Err(BrokerError::Setup(format!("{name} in broker.url needs amqps://")));
            }
            _ => {
                return Err(BrokerError::Setup(format!(
                    "broker.url has an option {name}, which is unknown; there are heartbeat, cacertfile, certfile and keyfile"
                )));
            }
        }
        Ok(())
    }
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

/// Without the password.
impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Url").field("at", &self.to_string()).field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (String, u16, String, String, String) {
        let url = Url::parse(url).expect("a URL");
        (url.host, url.port, url.user, url.password, url.vhost)
    }

    fn of(host: &str, port: u16, user: &str, password: &str, vhost: &str) -> (String, u16, String, String, String) {
        (host.into(), port, user.into(), password.into(), vhost.into())
    }

    #[test]
    fn the_parts_of_a_url() {
        assert_eq!(parts("amqp://"), of("localhost", 5672, "guest", "guest", "/"));
        assert_eq!(parts("amqp://h"), of("h", 5672, "guest", "guest", "/"));
        assert_eq!(parts("amqps://h/"), of("h", 5671, "guest", "guest", "/"));
        assert_eq!(parts("amqp://u:p%40%2f@h:1/a%2fb"), of("h", 1, "u", "p@/", "a/b"));
        assert_eq!(parts("amqp://u:p@ss@h/v"), of("h", 5672, "u", "p@ss", "v"));
        assert_eq!(parts("amqp://u@[::1]:7/%2f"), of("::1", 7, "u", "", "/"));
        assert_eq!(Url::parse("amqp://h?heartbeat=3").expect("a URL").heartbeat, Duration::from_secs(3));
        let tls = Url::parse("amqps://h/v?cacertfile=%2Fca.pem").expect("a URL").tls.expect("TLS");
        assert_eq!(tls.authority_file.as_deref(), Some("/ca.pem"));
    }

    #[test]
    fn a_wrong_url_is_refused_without_its_password() {
        for url in [
            "secret",
            "http://u:secret@h",
            "amqp://u:secret@h:port/",
            "amqp://u:secret@h?heartbeat=0",
            "amqp://u:secret@h?hartbeat=1",
            "amqp://u:secret@h?cacertfile=a",
            "amqps://u:secret@h?certfile=a",
            "amqp://u:secret%ff@h",
        ] {
            let error = Url::parse(url).expect_err(url).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", Url::parse("amqp://u:secret@h").expect("a URL")).contains("secret"));
    }
}
