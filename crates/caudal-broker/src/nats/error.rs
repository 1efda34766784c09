//! The driver's and the server's errors in the words of the port.

use std::error::Error;

use async_nats::{ConnectError, ConnectErrorKind, rustls};
use caudal_core::error::BrokerError;
use serde_json::Value;

use super::address::{Address, Login};

/// An error that JetStream answered with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{description} (NATS error {code})")]
pub(super) struct Refusal {
    pub(super) code: u64,
    status: u64,
    description: String,
}

pub(super) const STREAM_NOT_FOUND: u64 = 10059;
pub(super) const CONSUMER_NOT_FOUND: u64 = 10014;
/// Another stream has the subject.
pub(super) const SUBJECT_OVERLAP: u64 = 10065;
/// Somebody else made it meanwhile, with other settings.
pub(super) const STREAM_EXISTS: u64 = 10058;
const NOT_ENABLED: [u64; 2] = [10076, 10039];
const TOO_LARGE: [u64; 2] = [10054, 10097];
const NO_ROOM: [u64; 5] = [10023, 10047, 10002, 10028, 10122];
const STORE_FAILED: u64 = 10077;

impl Refusal {
    /// The error in an answer, if it is one.
    pub(super) fn of(answer: &Value) -> Option<Self> {
        let error = answer.get("error")?;
        let number = |name: &str| error.get(name).and_then(Value::as_u64).unwrap_or_default();
        let description = error.get("description").and_then(Value::as_str).unwrap_or("no reason given").to_owned();
        Some(Self { code: number("err_code"), status: number("code"), description })
    }

    /// What it means for somebody who wanted `what` done.
    pub(super) fn explain(self, what: &str) -> BrokerError {
        let text = self.description.to_ascii_lowercase();
        let full = text.contains("no space") || (text.contains("maximum") && text.contains("exceeded"));
        match self.code {
            code if NOT_ENABLED.contains(&code) => BrokerError::Setup(NO_JETSTREAM.to_owned()),
            code if TOO_LARGE.contains(&code) => BrokerError::Refused(self.to_string()),
            code if NO_ROOM.contains(&code) => BrokerError::Full(self.into()),
            STORE_FAILED if full => BrokerError::Full(self.into()),
            _ if (400..500).contains(&self.status) => BrokerError::Setup(format!("NATS refuses to {what}: {self}")),
            _ => BrokerError::unavailable(self),
        }
    }
}

pub(super) const NO_JETSTREAM: &str = "JetStream is not enabled on this NATS server or for this account: start nats-server \
     with -js and -sd DIRECTORY, or give it a jetstream block";

/// Why there is no connection.
pub(super) fn connecting(error: ConnectError, address: &Address) -> BrokerError {
    let servers = address.servers_named();
    if let Some(why) = certificate_fault(&error) {
        return BrokerError::Setup(format!(
            "NATS at {servers} showed a certificate that is not trusted ({why}); name the file of the authority that signed \
             it with ?tls_ca=FILE in the broker's URL"
        ));
    }
    let user = address.user_named();
    match (error.kind(), &address.login, &address.creds) {
        (ConnectErrorKind::AuthorizationViolation, Login::Nobody, None) => BrokerError::Setup(format!(
            "NATS at {servers} lets nobody in without credentials; put them in the broker's URL: \
             nats://USER:PASSWORD@HOST, nats://TOKEN@HOST, or ?creds=FILE"
        )),
        (ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication, ..) => BrokerError::Setup(
            format!("NATS at {servers} does not let {user} in; check the credentials in the broker's URL"),
        ),
        _ => BrokerError::unavailable(format!("cannot reach NATS at {servers}: {}", chain(&error))),
    }
}

/// What TLS has against the server's certificate.
fn certificate_fault(error: &ConnectError) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        // An I/O error does not name what it wraps as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        let inner = inner.map_or(error, |inner| inner as &(dyn Error + 'static));
        if let Some(rustls::Error::InvalidCertificate(why)) = inner.downcast_ref::<rustls::Error>() {
            return Some(why.to_string());
        }
        cause = error.source();
    }
    None
}

/// An error with its causes.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
