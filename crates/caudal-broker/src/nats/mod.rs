//! NATS JetStream: a stream a topic, a durable pull consumer a subscription.
//!
//! Where to read: [`address`] what the URL says, [`link`] one connection, [`fate`] how it ends, [`place`] where a topic
//! lives, [`confirm`] how a publish is confirmed, [`pump`] and [`subscription`] how messages are read and settled, [`gap`]
//! how a loss in the stream is noticed, [`sift`] what becomes of messages that cannot be read, [`wreck`] what a broken
//! connection leaves behind, [`trim`] when messages go, [`probe`] what a confirmation is worth.
//!
//! Bounds: what a killed process had out comes again within ten seconds (`ack_wait`), what a dropped subscription had, at
//! once; after a broken connection at once what had arrived, within ten seconds what had not. A server that is away is noticed at once when it closes the connection, and after about six seconds when it is silent.

mod address;
mod confirm;
mod error;
mod fate;
mod gap;
mod incoming;
mod link;
mod out;
mod place;
mod probe;
mod pump;
mod sift;
mod subscription;
mod trim;
mod wreck;

use std::sync::Arc;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Positions, Probe, Publish, Subscription, TopicState};
use caudal_core::topic::TopicName;
use uuid::Uuid;

use self::address::Address;
use self::confirm::Failure;
use self::link::Link;
use self::wreck::Wrecks;
use crate::current::Current;
use crate::remote::RemoteConfig;

/// A NATS account with JetStream.
#[derive(Debug)]
pub struct NatsBroker {
    config: RemoteConfig,
    address: Arc<Address>,
    current: Current<Link>,
    wrecks: Arc<Wrecks>,
}

impl NatsBroker {
    /// Reads the URL; NATS need not answer yet.
    pub async fn open(config: RemoteConfig) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(&config.url)?);
        Ok(Self { config, address, current: Current::new(), wrecks: Arc::default() })
    }

    async fn link(&self) -> Result<Arc<Link>, BrokerError> {
        self.current.get(Link::connect(&self.address)).await
    }
}

#[async_trait]
impl Publish for NatsBroker {
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let link = self.link().await?;
        let stream = link.topic(topic, &self.config).await?;
        let confirmed = link.confirmations.publish(&link.client, &stream.stream, &stream.subject, messages);
        let outcome = tokio::select! {
            outcome = confirmed => outcome?,
            over = link.fate.ended() => return Err(over.error()),
            refused = link.fate.refused(stream.subject.as_str()) => return Err(refused),
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(Failure::NoStream) => {
                link.forget(topic);
                Err(BrokerError::unavailable(format!("no stream in NATS takes {} any more", stream.subject)))
            }
            Err(Failure::Refusal(refusal)) => {
                Err(refusal.explain(&format!("store a message in stream {}", stream.stream)))
            }
            Err(Failure::Strange(what)) => {
                Err(BrokerError::unavailable(format!("NATS confirmed a message oddly: {what}")))
            }
        }
    }
}

#[async_trait]
impl Broker for NatsBroker {
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        _positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let link = self.link().await?;
        link.all_left().await;
        // A stream that was deleted meanwhile is looked for, and made, again.
        link.forget(topic);
        let stream = link.topic(topic, &self.config).await?;
        let place = self.config.place(topic);
        let consumer = link.consumer(&stream, &place, subscription, self.config.create).await?;
        let mut unreadable = Vec::new();
        if let Some(wreck) = self.wrecks.take(&stream, &consumer) {
            if wreck.is_of(&link) {
                unreadable = link.sift(&stream, &consumer).await?;
            }
            wreck.give_back(&link, &consumer).await;
        }
        Ok(Box::new(pump::open(link, stream, consumer, unreadable, self.wrecks.clone()).await?))
    }

    async fn topic_state(&self, topic: &TopicName, subscription: &str) -> Result<TopicState, BrokerError> {
        let link = self.link().await?;
        let stream = link.topic(topic, &self.config).await?;
        let place = self.config.place(topic);
        let consumer = link.consumer(&stream, &place, subscription, self.config.create).await?;
        let info = link.stream_info(&stream.stream).await?;
        let bytes = info.and_then(|info| info["state"]["bytes"].as_u64());
        Ok(TopicState { lanes: Vec::new(), waiting: Some(consumer.waiting), bytes })
    }

    /// A stream is not searched: that would read its whole backlog from the server.
    async fn find(&self, _: &TopicName, _: &dyn Positions, _: Uuid) -> Result<Option<Message>, BrokerError> {
        Ok(None)
    }

    async fn probe(&self, topics: &[TopicName]) -> Result<Probe, BrokerError> {
        let link = self.link().await?;
        let mut streams = Vec::new();
        for topic in topics {
            streams.push((topic.as_str(), link.topic(topic, &self.config).await?));
        }
        let streams: Vec<_> = streams.iter().map(|(topic, stream)| (*topic, &**stream)).collect();
        link.probe(&streams).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        if let Some(link) = self.current.close().await {
            link.close().await;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.servers_named())
    }
}
