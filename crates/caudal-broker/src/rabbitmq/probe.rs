//! What RabbitMQ's confirmation of a publish is worth: it depends on the queues that a message reaches.
//!
//! A quorum queue "persists all data to disks before doing anything" and confirms "when a majority has accepted it" (RabbitMQ
//! documentation, "Quorum Queues" and "Consumer Acknowledgements and Publisher Confirms"); its log is synced with
//! fdatasync before an entry counts as written (rabbitmq/ra, `wal_sync_method`). A classic queue's messages are written "in
//! batches after an interval", which newer releases leave to the operating system.

use std::sync::Arc;

use caudal_core::error::BrokerError;
use caudal_core::message::Durability;
use caudal_core::ports::Probe;
use caudal_core::topic::TopicName;

use super::amqp::{self, Argument, Connection, Failure};
use super::error::PRECONDITION_FAILED;
use super::topology::{Queue, Topology, ask};

pub(super) async fn probe(
    topology: &Topology,
    connection: &Arc<Connection>,
    topics: &[TopicName],
) -> Result<Probe, BrokerError> {
    let mut reasons = Vec::new();
    let mut durability = Durability::Power;
    for topic in topics {
        topology.ensure(connection, topic).await?;
        for subscription in &topology.config.subscriptions {
            let queue = topology.queue(topic, subscription);
            let (class, reason) = queue_durability(topology, connection, &queue).await?;
            durability = durability.min(class);
            reasons.push(reason);
        }
        let exchange = topology.exchange(topic);
        if !exchange.ours {
            reasons.push(format!(
                "exchange \"{}\" is not Caudal's own: the word holds for the queue above, and whether it is bound to it only \
                 shows when something is published",
                exchange.name
            ));
        }
    }
    if topics.is_empty() {
        reasons.push(
            "queues that Caudal makes are quorum queues, which sync a message to disk before they confirm it".into(),
        );
    }
    if durability == Durability::Power {
        reasons.push(
            "how many members the queues have is not to be seen by AMQP: with a single one, a lost disk is a lost queue; \
             rabbitmq-queues quorum_status QUEUE tells, and three or more members survive the loss of one"
                .into(),
        );
    }
    reasons.push(
        "what others publish to a topic is deduplicated by message-id; RabbitMQ gives none to a message that has none, so \
         set the topic's key unless every producer sets it"
            .into(),
    );
    Ok(Probe { product: connection.product.clone(), durability, reasons })
}

async fn queue_durability(
    topology: &Topology,
    connection: &Arc<Connection>,
    queue: &Queue,
) -> Result<(Durability, String), BrokerError> {
    let name = &queue.name;
    Ok(match kind(topology, connection, queue).await? {
        Some(kind) if kind == "quorum" => (
            Durability::Power,
            format!(
                "\"{name}\" is a quorum queue: a message is confirmed once a majority of its members synced it to disk"
            ),
        ),
        Some(kind) if kind == "transient" => {
            (Durability::Unknown, format!("\"{name}\" is not durable: a restart of RabbitMQ loses what is in it"))
        }
        Some(kind) if kind == "stream" => (
            Durability::Process,
            format!(
                "\"{name}\" is a stream: its members write without syncing; a quorum queue syncs before it confirms"
            ),
        ),
        Some(kind) => (
            Durability::Process,
            format!(
                "\"{name}\" is a {kind} queue on one machine: a message is confirmed once it is written, and not every \
                 release syncs it to disk first; a quorum queue does"
            ),
        ),
        None => (
            Durability::Unknown,
            format!(
                "of what type \"{name}\" is cannot be seen without the configure permission for it; \
                 rabbitmqctl list_queues -p {} name type tells",
                topology.url.vhost
            ),
        ),
    })
}

/// The type of a queue that exists; `transient` if it does not outlive a restart.
///
/// AMQP has no question for it. But declaring a queue again makes nothing, and is refused with the first argument that
/// differs and the value it has. So we say what we were told until the type is what differs, or nothing.
async fn kind(topology: &Topology, connection: &Arc<Connection>, queue: &Queue) -> Result<Option<String>, BrokerError> {
    if queue.ours && topology.config.create {
        return Ok(Some("quorum".to_owned())); // or making it would have been refused
    }
    let mut arguments = vec![("x-queue-type".into(), Argument::Text("quorum".into()))];
    for _ in 0..ARGUMENTS_MAX {
        match ask(connection, |out, id| amqp::queue_declare(out, id, &queue.name, Some(&arguments))).await {
            Ok(_) => return Ok(Some("quorum".to_owned())),
            Err(Failure::Refused(close)) if close.code == PRECONDITION_FAILED => match difference(&close.text) {
                Some((name, has)) if name == "x-queue-type" => {
                    let Some(Argument::Text(kind)) = has else { return Ok(Some("classic".to_owned())) };
                    return Ok(Some(kind.into_owned()));
                }
                Some((name, _)) if name == "durable" => return Ok(Some("transient".to_owned())),
                Some((name, Some(has))) => arguments.push((name.into(), has)),
                _ => return Ok(None),
            },
            Err(Failure::Refused(_)) => return Ok(None),
            Err(failure) => return Err(BrokerError::unavailable(failure)),
        }
    }
    Ok(None)
}

/// Arguments that a queue may have.
const ARGUMENTS_MAX: usize = 24;

/// The argument that differs and the value that the queue has: `… inequivalent arg 'x-max-length' for queue 'q' in vhost '/':
/// received none but current is the value '5' of type 'long'`.
fn difference(text: &str) -> Option<(String, Option<Argument>)> {
    let (_, rest) = text.split_once("inequivalent arg '")?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, current) = rest.split_once("but current is ")?;
    let mut quoted = current.split('\'').skip(1).step_by(2);
    let has = quoted.next().and_then(|value| match quoted.next() {
        None | Some("longstr") => Some(Argument::Text(value.to_owned().into())),
        Some("bool") => value.parse().ok().map(Argument::Flag),
        Some(_) => value.parse().ok().map(Argument::Number),
    });
    Some((name.to_owned(), has))
}
