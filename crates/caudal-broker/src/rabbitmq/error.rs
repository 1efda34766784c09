//! RabbitMQ's reply codes in the words of the port. Whatever somebody must act upon says how, in one sentence.

use caudal_core::error::BrokerError;

use super::amqp::{Close, Failure};
use super::topology::PREFIX;
use super::url::Url;

pub(super) const ACCESS_REFUSED: u16 = 403;
pub(super) const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
pub(super) const PRECONDITION_FAILED: u16 = 406;
const CONTENT_TOO_LARGE: u16 = 311;
const NOT_ALLOWED: u16 = 530;
const NOT_IMPLEMENTED: u16 = 540;

/// What we were about to do when the server refused.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act<'a> {
    MakeExchange(&'a str),
    MakeQueue(&'a str),
    Bind { queue: &'a str, exchange: &'a str },
    Look(&'a str),
    Consume(&'a str),
    Publish(&'a str),
}

/// Why there is no connection.
pub(super) fn connecting(failure: Failure, url: &Url) -> BrokerError {
    let Url { user, vhost, .. } = url;
    let Failure::Refused(close) = &failure else {
        return BrokerError::unavailable(format!("RabbitMQ at {url}: {failure}"));
    };
    match close.code {
        ACCESS_REFUSED => {
            let local = if user == "guest" { " (and guest is let in from the server's own machine only)" } else { "" };
            BrokerError::Setup(format!(
                "RabbitMQ at {url} does not let user \"{user}\" in: there is no such user, or it has another password{local}; \
                 make one with rabbitmqctl add_user {user} PASSWORD, or set it with rabbitmqctl change_password {user} PASSWORD"
            ))
        }
        NOT_ALLOWED if close.text.contains("not found") => BrokerError::Setup(format!(
            "RabbitMQ at {url} has no virtual host \"{vhost}\"; make it with rabbitmqctl add_vhost {vhost}"
        )),
        NOT_ALLOWED if close.text.contains("refused") => BrokerError::Setup(format!(
            "RabbitMQ at {url} does not let user \"{user}\" into virtual host \"{vhost}\"; {}",
            grant(url, None)
        )),
        _ => BrokerError::unavailable(format!("RabbitMQ at {url}: {failure}")),
    }
}

/// Why there is no TLS.
pub(super) fn securing(error: std::io::Error, url: &Url) -> BrokerError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(why)) => BrokerError::Setup(format!(
            "the certificate of RabbitMQ at {url} is not trusted ({why}); name the authority that signed it with \
             ?cacertfile=FILE in broker.url"
        )),
        _ => BrokerError::unavailable(format!("RabbitMQ at {url}: {error}")),
    }
}

/// Why it cannot be done.
pub(super) fn doing(act: Act<'_>, failure: Failure, url: &Url) -> BrokerError {
    let Failure::Refused(close) = &failure else {
        return BrokerError::unavailable(match (failure, act) {
            (Failure::Late(within), Act::Publish(name)) => format!(
                "RabbitMQ did not confirm within {within:?} what was published to exchange \"{name}\"; if it stays so, a \
                 queue there has no leader: rabbitmq-queues quorum_status QUEUE tells"
            ),
            (failure, _) => failure.to_string(),
        });
    };
    let Url { user, vhost, .. } = url;
    match (close.code, act) {
        (ACCESS_REFUSED, _) => BrokerError::Setup(format!(
            "RabbitMQ user \"{user}\" needs {} in virtual host \"{vhost}\"; {}",
            permission(act),
            grant(url, Some(act))
        )),
        (NOT_FOUND, Act::Publish(name)) => {
            BrokerError::unavailable(format!("RabbitMQ no longer has exchange \"{name}\": {close}"))
        }
        (NOT_FOUND, Act::Consume(name)) => {
            BrokerError::unavailable(format!("RabbitMQ no longer has queue \"{name}\": {close}"))
        }
        (PRECONDITION_FAILED, Act::Publish(_)) if close.text.contains("message size") => {
            BrokerError::Refused(close.text.clone())
        }
        (CONTENT_TOO_LARGE, _) => BrokerError::Refused(close.text.clone()),
        (PRECONDITION_FAILED, Act::MakeQueue(name)) => BrokerError::Setup(format!(
            "queue \"{name}\" exists in virtual host \"{vhost}\", but {}; set consume_from = \"{name}\" to take it as it is, or \
             remove it once it is empty with rabbitmqctl delete_queue -p {vhost} {name}",
            difference(close)
        )),
        (PRECONDITION_FAILED, Act::MakeExchange(name)) => BrokerError::Setup(format!(
            "exchange \"{name}\" exists in virtual host \"{vhost}\", but {}; set publish_to = \"{name}\" to take it as it is, or \
             remove it with rabbitmqadmin --vhost={vhost} delete exchange name={name}",
            difference(close)
        )),
        (RESOURCE_LOCKED | NOT_IMPLEMENTED, _) => BrokerError::Setup(format!("RabbitMQ refuses: {}", close.text)),
        _ => BrokerError::unavailable(failure),
    }
}

/// What differs, from the server's text: `… inequivalent arg 'durable' for queue 'q' in vhost '/': received 'true' but
/// current is 'false'`.
fn difference(close: &Close) -> String {
    let parsed = close.text.split_once("inequivalent arg '").and_then(|(_, rest)| {
        let (argument, rest) = rest.split_once('\'')?;
        let (_, values) = rest.split_once("received ")?;
        let (wanted, has) = values.split_once(" but current is ")?;
        Some(format!("its {argument} is {}, and Caudal needs {}", plain(has), plain(wanted)))
    });
    parsed.unwrap_or_else(|| format!("it is of another make: {}", close.text))
}

fn plain(value: &str) -> &str {
    let value = value.trim();
    if value == "none" { "not set" } else { value.strip_prefix("the value ").unwrap_or(value) }
}

fn permission(act: Act<'_>) -> String {
    match act {
        Act::MakeExchange(name) => format!("the configure permission for exchange \"{name}\""),
        Act::MakeQueue(name) => format!("the configure permission for queue \"{name}\""),
        Act::Bind { queue, exchange } => {
            format!("the write permission for queue \"{queue}\" and the read permission for exchange \"{exchange}\"")
        }
        Act::Look(name) => format!("a permission for \"{name}\""),
        Act::Consume(name) => format!("the read permission for queue \"{name}\""),
        Act::Publish(name) => format!("the write permission for exchange \"{name}\""),
    }
}

/// The command that gives it. It replaces all three patterns, so it names everything that Caudal needs.
fn grant(url: &Url, act: Option<Act<'_>>) -> String {
    let Url { user, vhost, .. } = url;
    let names: Vec<&str> = match act {
        None => Vec::new(),
        Some(Act::Bind { queue, exchange }) => vec![queue, exchange],
        Some(
            Act::MakeExchange(name) | Act::MakeQueue(name) | Act::Look(name) | Act::Consume(name) | Act::Publish(name),
        ) => vec![name],
    };
    let mut pattern = r"^caudal\.".to_owned();
    for name in names.into_iter().filter(|name| !name.starts_with(PREFIX)) {
        pattern.push_str(&format!("|^{}$", name.replace('.', r"\.")));
    }
    format!("grant it with rabbitmqctl set_permissions -p {vhost} {user} '{pattern}' '{pattern}' '{pattern}'")
}

/// The server does not read what is published.
pub(super) fn blocked(why: &str) -> BrokerError {
    let cause = format!("RabbitMQ takes no messages for now: {why}");
    // One alarm can be raised for both; free memory then does not help.
    match why.contains("disk") {
        true => BrokerError::Full(cause.into()),
        false => BrokerError::unavailable(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, text: &str) -> Failure {
        Failure::Refused(Close { code, text: text.to_owned(), class: 0, method: 0 })
    }

    #[test]
    fn a_queue_of_another_make_says_what_differs() {
        let url = Url::parse("amqp://u:secret@h/v").expect("a URL");
        for (text, difference) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost 'v': received 'quorum' but current is 'classic'",
                "its x-queue-type is 'classic', and Caudal needs 'quorum'",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost 'v': received the value '5' of type 'long' but current is none",
                "its x-delivery-limit is not set, and Caudal needs '5' of type 'long'",
            ),
            ("PRECONDITION_FAILED - something new", "it is of another make: PRECONDITION_FAILED - something new"),
        ] {
            let error = doing(Act::MakeQueue("q"), refused(PRECONDITION_FAILED, text), &url).to_string();
            assert!(error.contains(difference), "{error}");
        }
    }

    #[test]
    fn a_missing_permission_is_named_with_its_command() {
        let url = Url::parse("amqp://u:secret@h/v").expect("a URL");
        let error = doing(Act::Publish("orders.in"), refused(ACCESS_REFUSED, "ACCESS_REFUSED"), &url).to_string();
        assert!(error.contains("the write permission for exchange \"orders.in\""), "{error}");
        assert!(error.contains(r"rabbitmqctl set_permissions -p v u '^caudal\.|^orders\.in$' "), "{error}");
    }

    #[test]
    fn a_full_disk_is_told_from_full_memory() {
        assert!(matches!(blocked("low on disk"), BrokerError::Full(_)));
        assert!(matches!(blocked("low on memory"), BrokerError::Unavailable(_)));
    }
}
