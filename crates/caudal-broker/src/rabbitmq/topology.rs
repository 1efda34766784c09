//! Where topics live: an exchange that publishes to every subscription's queue.
//!
//! What Caudal makes is named `caudal.<topic>` (a durable fanout exchange) and `caudal.<topic>.<subscription>` (a durable
//! quorum queue). Where the configuration names others, they are used as they are and never made or changed, except that
//! our own exchange is bound to a queue of theirs, so that what is published to the topic arrives.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::BrokerError;
use caudal_core::topic::TopicName;

use super::amqp::{self, Argument, Channel, Connection, Failure, Method};
use super::error::{self, Act, NOT_FOUND};
use super::url::Url;
use crate::remote::RemoteConfig;

pub(super) const PREFIX: &str = "caudal.";
/// Quorum queues fsync before they confirm, count hand-overs, and give back in order. RabbitMQ 4 drops a message after 20
/// hand-overs unless it is told otherwise, and 3 cannot be told "never": a limit that is not reached leaves it to Caudal,
/// which makes a dead letter of such a message that can be read and sent back.
const QUEUE: [(Cow<'static, str>, Argument); 2] = [
    (Cow::Borrowed("x-queue-type"), Argument::Text(Cow::Borrowed("quorum"))),
    (Cow::Borrowed("x-delivery-limit"), Argument::Number(1_000_000)),
];

/// A quorum queue's node writes down that it has the queue only up to a second later (rabbitmq/ra, `ra_directory`: a
/// file that is saved every 500 ms while it changes). Killed before, it starts the queue anew, without what was confirmed and
/// without ever electing a leader (rabbitmq/rabbitmq-server#15725; seen with 3.10.8). So a queue that was not there is not
/// used earlier than this.
const SETTLE: Duration = Duration::from_millis(1500);

/// What is published to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) name: String,
    pub(super) routing_key: String,
    pub(super) ours: bool,
}

/// What is consumed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    pub(super) name: String,
    pub(super) ours: bool,
}

/// What exists, and what may be made.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) config: RemoteConfig,
    pub(super) url: Url,
}

impl Topology {
    /// `publish_to` is an exchange, or `exchange/routing-key`; without a name before the slash, the default exchange, whose
    /// routing keys are queues.
    pub(super) fn exchange(&self, topic: &TopicName) -> Exchange {
        match self.config.place(topic).publish {
            None => Exchange { name: format!("{PREFIX}{topic}"), routing_key: String::new(), ours: true },
            Some(place) => {
                let (name, routing_key) = place.split_once('/').unwrap_or((&place, ""));
                Exchange { name: name.to_owned(), routing_key: routing_key.to_owned(), ours: false }
            }
        }
    }

    pub(super) fn queue(&self, topic: &TopicName, subscription: &str) -> Queue {
        match self.config.place(topic).consume {
            None => Queue { name: format!("{PREFIX}{topic}.{subscription}"), ours: true },
            Some(name) => Queue { name, ours: false },
        }
    }

    fn queues(&self, topic: &TopicName) -> Vec<Queue> {
        let mut queues: Vec<Queue> = self.config.subscriptions.iter().map(|name| self.queue(topic, name)).collect();
        queues.dedup();
        queues
    }

    /// Sees to it that what is published to the topic reaches every subscription that is known.
    pub(super) async fn ensure(&self, connection: &Arc<Connection>, topic: &TopicName) -> Result<(), BrokerError> {
        self.ensure_route(connection, &self.exchange(topic), &self.queues(topic)).await
    }

    /// Sees to it that there is something to consume from.
    pub(super) async fn ensure_queue(
        &self,
        connection: &Arc<Connection>,
        topic: &TopicName,
        subscription: &str,
    ) -> Result<Queue, BrokerError> {
        let queue = self.queue(topic, subscription);
        if queue.ours {
            self.ensure_route(connection, &self.exchange(topic), std::slice::from_ref(&queue)).await?;
        } else if !self.has_queue(connection, &queue.name).await? {
            let mut missing = Missing::default();
            missing.queue(&queue, &self.url.vhost);
            return Err(missing.explain(&self.url));
        }
        Ok(queue)
    }

    async fn ensure_route(
        &self,
        connection: &Arc<Connection>,
        exchange: &Exchange,
        queues: &[Queue],
    ) -> Result<(), BrokerError> {
        self.look(connection, exchange, queues).await?;
        if !self.config.create {
            return Ok(());
        }
        let url = &self.url;
        let mut channel = Channel::open(connection).await.map_err(BrokerError::unavailable)?;
        if exchange.ours {
            let name = &exchange.name;
            let made = channel.call(|out, id| amqp::exchange_declare(out, id, name, "fanout", false)).await;
            made.map_err(|failure| error::doing(Act::MakeExchange(name), failure, url))?;
        }
        let mut made_one = false;
        for Queue { name, ours } in queues {
            if *ours {
                made_one |= !self.has_queue(connection, name).await?;
                let made = channel.call(|out, id| amqp::queue_declare(out, id, name, Some(&QUEUE))).await;
                made.map_err(|failure| error::doing(Act::MakeQueue(name), failure, url))?;
            }
            // The default exchange is bound to every queue and takes no more bindings.
            if (*ours || exchange.ours) && !exchange.name.is_empty() {
                let Exchange { name: from, routing_key, .. } = exchange;
                let bound = channel.call(|out, id| amqp::bind(out, id, name, from, routing_key)).await;
                let act = Act::Bind { queue: name, exchange: from };
                bound.map_err(|failure| error::doing(act, failure, url))?;
            }
        }
        if made_one {
            tokio::time::sleep(SETTLE).await;
        }
        Ok(())
    }

    /// Whether everything is there that we do not make.
    async fn look(
        &self,
        connection: &Arc<Connection>,
        exchange: &Exchange,
        queues: &[Queue],
    ) -> Result<(), BrokerError> {
        let vhost = &self.url.vhost;
        let given = |ours: bool| !(ours && self.config.create);
        let mut missing = Missing::default();
        let no_exchange = given(exchange.ours) && !self.has_exchange(connection, &exchange.name).await?;
        if no_exchange {
            missing.exchange(exchange, vhost);
        }
        for queue in queues.iter().filter(|queue| given(queue.ours)) {
            let no_queue = !self.has_queue(connection, &queue.name).await?;
            if no_queue {
                missing.queue(queue, vhost);
            }
            if no_queue || no_exchange {
                missing.binding(exchange, queue, vhost);
            }
        }
        match missing.things.is_empty() {
            true => Ok(()),
            false => Err(missing.explain(&self.url)),
        }
    }

    async fn has_exchange(&self, connection: &Arc<Connection>, name: &str) -> Result<bool, BrokerError> {
        if name.is_empty() {
            return Ok(true);
        }
        self.has(connection, name, |out, id| amqp::exchange_declare(out, id, name, "", true)).await
    }

    async fn has_queue(&self, connection: &Arc<Connection>, name: &str) -> Result<bool, BrokerError> {
        self.has(connection, name, |out, id| amqp::queue_declare(out, id, name, None)).await
    }

    async fn has(
        &self,
        connection: &Arc<Connection>,
        name: &str,
        look: impl FnOnce(&mut bytes::BytesMut, u16),
    ) -> Result<bool, BrokerError> {
        match ask(connection, look).await {
            Ok(_) => Ok(true),
            Err(Failure::Refused(close)) if close.code == NOT_FOUND => Ok(false),
            Err(failure) => Err(error::doing(Act::Look(name), failure, &self.url)),
        }
    }
}

/// Asks one question on a channel of its own: a refusal closes the channel.
pub(super) async fn ask(
    connection: &Arc<Connection>,
    question: impl FnOnce(&mut bytes::BytesMut, u16),
) -> Result<Method, Failure> {
    Channel::open(connection).await?.call(question).await
}

/// What is not there, and how it is made.
#[derive(Debug, Default)]
struct Missing {
    things: Vec<String>,
    commands: Vec<String>,
}

impl Missing {
    fn exchange(&mut self, exchange: &Exchange, vhost: &str) {
        let Exchange { name, routing_key, .. } = exchange;
        let kind = if routing_key.is_empty() { "fanout" } else { "topic" };
        self.things.push(format!("no exchange \"{name}\""));
        self.commands
            .push(format!("rabbitmqadmin --vhost={vhost} declare exchange name={name} type={kind} durable=true"));
    }

    fn queue(&mut self, queue: &Queue, vhost: &str) {
        let name = &queue.name;
        let value = |argument: &Argument| match argument {
            Argument::Text(text) => format!("\"{text}\""),
            Argument::Number(number) => number.to_string(),
            Argument::Flag(flag) => flag.to_string(),
        };
        let arguments: Vec<String> =
            QUEUE.iter().map(|(name, argument)| format!("\"{name}\":{}", value(argument))).collect();
        self.things.push(format!("no queue \"{name}\""));
        self.commands.push(format!(
            "rabbitmqadmin --vhost={vhost} declare queue name={name} durable=true arguments='{{{}}}'",
            arguments.join(",")
        ));
    }

    fn binding(&mut self, exchange: &Exchange, queue: &Queue, vhost: &str) {
        if !exchange.name.is_empty() {
            self.commands.push(bind_command(exchange, &queue.name, vhost));
        }
    }

    fn explain(self, url: &Url) -> BrokerError {
        BrokerError::Setup(format!(
            "RabbitMQ at {url} has in virtual host \"{}\" {}; make what is missing with {}",
            url.vhost,
            self.things.join(" and "),
            self.commands.join(" && ")
        ))
    }
}

pub(super) fn bind_command(exchange: &Exchange, queue: &str, vhost: &str) -> String {
    let Exchange { name, routing_key, .. } = exchange;
    format!(
        "rabbitmqadmin --vhost={vhost} declare binding source={name} destination={queue} routing_key=\"{routing_key}\""
    )
}
