//! The driver's and the server's errors in the words of the port.

use caudal_core::error::BrokerError;
use redis::{ErrorKind, RedisError};

use super::address::Address;

/// The code of the first error that the server answered with: `NOGROUP`, `BUSYGROUP`, `OOM`.
pub(super) fn code(error: &RedisError) -> String {
    match error.clone().into_server_errors() {
        Some(errors) => errors.first().map(|(_, error)| error.code().to_owned()).unwrap_or_default(),
        None => error.code().unwrap_or_default().to_owned(),
    }
}

/// Whether the connection is of no more use: it broke, or it leads to a server that is no primary any more.
pub(super) fn ends_connection(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || matches!(&*code(error), "READONLY" | "NOAUTH")
}

/// What an error means for somebody who wanted to use a stream.
pub(super) fn explain(error: RedisError, address: &Address, key: &str) -> BrokerError {
    let (server, user) = (address.server(), address.user());
    let code = code(&error);
    let text = error.to_string();
    match code.as_str() {
        "OOM" | "MISCONF" => BrokerError::Full(error.into()),
        "NOAUTH" if address.is_anonymous() => BrokerError::Setup(format!(
            "Redis at {server} lets nobody in without a password; put it in the broker's URL: redis://USER:PASSWORD@HOST"
        )),
        "NOPERM" => BrokerError::Setup(format!(
            "Redis at {server} does not let {user} do what Caudal needs ({}); allow it with: redis-cli ACL SETUSER {} \
             '~{key}' {NEEDED}",
            said(&error),
            address.user_name()
        )),
        "WRONGTYPE" => BrokerError::Setup(format!(
            "key {key} in Redis is not a stream; name another one in the topic's publish_to, or remove it with: redis-cli \
             DEL {key}"
        )),
        "MOVED" | "ASK" | "CROSSSLOT" => BrokerError::Setup(format!(
            "Redis at {server} is a node of a cluster and does not hold stream {key}; name the node that does in the \
             broker's URL"
        )),
        "ERR" if text.contains("unknown command") => BrokerError::Setup(format!(
            "Redis at {server} is too old or restricted ({}); Caudal needs 6.2 or later",
            said(&error)
        )),
        _ if matches!(error.kind(), ErrorKind::AuthenticationFailed) || code == "WRONGPASS" => BrokerError::Setup(
            format!("Redis at {server} does not let {user} in; check the user and the password in the broker's URL"),
        ),
        _ if text.contains("certificate") => BrokerError::Setup(format!(
            "Redis at {server} showed a certificate that is not trusted ({text}); name the file of the authority that \
             signed it with ?tls_ca=FILE in the broker's URL"
        )),
        _ if text.contains("refused to switch database") => BrokerError::Setup(format!(
            "Redis at {server} does not have or allow the database that the broker's URL names ({text}); name another"
        )),
        _ => BrokerError::unavailable(format!("Redis at {server}: {text}")),
    }
}

/// What Caudal's user must be allowed. `client` and `config` are of use but not needed.
const NEEDED: &str =
    "+xadd +xgroup +xreadgroup +xack +xclaim +xautoclaim +xpending +xinfo +xlen +xtrim +memory +info +ping";

fn said(error: &RedisError) -> String {
    let errors = error.clone().into_server_errors();
    let first = errors.as_deref().and_then(|errors| errors.first());
    first.and_then(|(_, error)| error.details()).map_or_else(|| error.to_string(), str::to_owned)
}
