//! Redis Streams: a stream a topic, a consumer group a subscription. Redis 7 or its kin; with 6.2 no loss is noticed.
//!
//! Where to read: [`address`] what the URL says, [`link`] one connection and the topics over it, [`entry`] how a message
//! looks there, [`pump`] and [`subscription`] how messages are read and settled, [`group`] how what is out stays ours and
//! is given back, [`gap`] how a loss is noticed, [`trim`] when entries go, [`probe`] what a confirmation is worth.
//!
//! Bounds: what a killed process had out comes again within about ten seconds ([`group::MIN_IDLE`]), what a dropped
//! subscription had, at once. A server that is silent counts as away after five seconds.

mod address;
mod entry;
mod error;
mod gap;
mod group;
mod link;
mod names;
mod out;
mod probe;
mod pump;
mod subscription;
mod trim;

use std::sync::Arc;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Positions, Probe, Publish, Subscription, TopicState};
use caudal_core::topic::TopicName;
use uuid::Uuid;

use self::address::Address;
use self::group::Group;
use self::link::Link;
use self::names::Names;
use crate::current::Current;
use crate::remote::RemoteConfig;

/// A Redis server.
#[derive(Debug)]
pub struct RedisBroker {
    config: RemoteConfig,
    address: Arc<Address>,
    names: Arc<Names>,
    current: Current<Link>,
}

impl RedisBroker {
    /// Reads the URL; Redis need not answer yet.
    pub async fn open(config: RemoteConfig) -> Result<Self, BrokerError> {
        let address = Arc::new(Address::parse(&config.url)?);
        Ok(Self { config, address, names: Arc::default(), current: Current::new() })
    }

    async fn link(&self) -> Result<Arc<Link>, BrokerError> {
        self.current.get(Link::connect(&self.address)).await
    }
}

#[async_trait]
impl Publish for RedisBroker {
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let link = self.link().await?;
        let stream = link.topic(topic, &self.config).await?;
        let outcome = link.publish(&stream.key, messages).await;
        if outcome.is_err() {
            // The stream may be gone: then it is made again, with its groups.
            link.forget(topic);
        }
        outcome
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        _positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let link = self.link().await?;
        link.all_left().await;
        link.forget(topic);
        let stream = link.topic(topic, &self.config).await?;
        let group = self.config.place(topic).consume.unwrap_or_else(|| subscription.to_owned());
        link.group(&stream.key, &group, self.config.create).await?;
        let name = self.names.take(&stream.key, &group);
        let group = Group::new(&link, stream.key.clone(), group, name.consumer());
        Ok(Box::new(pump::open(group, name, stream.ours).await?))
    }

    async fn topic_state(&self, topic: &TopicName, subscription: &str) -> Result<TopicState, BrokerError> {
        let link = self.link().await?;
        let stream = link.topic(topic, &self.config).await?;
        let group = self.config.place(topic).consume.unwrap_or_else(|| subscription.to_owned());
        let waiting = link.waiting(&stream.key, &group).await?;
        let usage = link.ask(redis::cmd("MEMORY").arg("USAGE").arg(&*stream.key)).await;
        let bytes = usage.ok().and_then(|value| redis::from_redis_value(value).ok());
        Ok(TopicState { lanes: Vec::new(), waiting, bytes })
    }

    /// A stream is not searched: that would read its whole backlog from the server.
    async fn find(&self, _: &TopicName, _: &dyn Positions, _: Uuid) -> Result<Option<Message>, BrokerError> {
        Ok(None)
    }

    async fn probe(&self, _: &[TopicName]) -> Result<Probe, BrokerError> {
        self.link().await?.probe().await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        if let Some(link) = self.current.close().await {
            link.close().await;
        }
        Ok(())
    }
}
