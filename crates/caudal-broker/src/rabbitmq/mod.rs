//! RabbitMQ, by AMQP 0-9-1. Tested with RabbitMQ 3.10; what is used is the same in 4.
//!
//! Two connections: RabbitMQ stops reading from connections that publish when it runs out of memory or disk, and
//! acknowledgements must get through all the same. Each is made when it is first needed and again when it broke. A topic
//! has one task that publishes ([`publisher`]), a subscription has a channel of its own ([`subscription`]), and exchanges
//! and queues are looked at or made whenever one of these starts ([`topology`]).
//!
//! Several subscriptions of one name, in one process or many, share the queue's messages: then the order of a key holds
//! only among the messages that the same one got.

mod amqp;
mod error;
mod incoming;
mod probe;
mod publisher;
mod subscription;
mod tags;
mod topology;
mod url;
mod window;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::ports::{Broker, Positions, Probe, Publish, Subscription, TopicState};
use caudal_core::topic::TopicName;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::current::{self, Current, closed};
use crate::remote::RemoteConfig;
use amqp::{Connection, Failure, Load, Method};
use error::{Act, NOT_FOUND};
use publisher::Publisher;
use subscription::Consumer;
use topology::Topology;
use url::Url;

/// How long what is being published may take when the process ends.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

type Publishers = HashMap<TopicName, (Publisher, JoinHandle<()>)>;

/// A RabbitMQ server or cluster.
#[derive(Debug)]
pub struct RabbitMqBroker {
    site: Arc<Site>,
    /// `None` once closed.
    publishers: Mutex<Option<Publishers>>,
}

/// What everything here shares.
#[derive(Debug)]
struct Site {
    topology: Topology,
    publishing: Current<Connection>,
    consuming: Current<Connection>,
    queues: Mutex<HashMap<String, Known>>,
}

/// What is known of a queue that this process consumes.
#[derive(Debug, Default)]
struct Known {
    /// What each subscription has of it that is not settled.
    loads: Vec<Weak<Load>>,
    /// The average size of its messages.
    average: Arc<AtomicUsize>,
}

impl current::Connection for Connection {
    fn is_broken(&self) -> bool {
        !self.is_open()
    }
}

impl Site {
    async fn publishing(&self) -> Result<Arc<Connection>, BrokerError> {
        self.publishing.get(Connection::open(&self.topology.url)).await
    }

    /// Also for questions.
    async fn consuming(&self) -> Result<Arc<Connection>, BrokerError> {
        self.consuming.get(Connection::open(&self.topology.url)).await
    }
}

impl RabbitMqBroker {
    /// The server need not answer yet.
    ///
    /// # Errors
    /// The URL is wrong.
    pub async fn open(config: RemoteConfig) -> Result<Self, BrokerError> {
        let url = Url::parse(&config.url)?;
        let topology = Topology { config, url };
        let (publishing, consuming) = (Current::new(), Current::new());
        let site = Arc::new(Site { topology, publishing, consuming, queues: Mutex::default() });
        Ok(Self { site, publishers: Mutex::new(Some(HashMap::new())) })
    }

    fn publisher(&self, topic: &TopicName) -> Result<Publisher, BrokerError> {
        let mut publishers = lock(&self.publishers);
        let publishers = publishers.as_mut().ok_or_else(closed)?;
        let start = || Publisher::start(self.site.clone(), topic.clone());
        Ok(publishers.entry(topic.clone()).or_insert_with(start).0.clone())
    }

    /// How many messages of a queue this process has that are not settled.
    fn out(&self, queue: &str) -> u64 {
        let queues = lock(&self.site.queues);
        let loads = queues.get(queue).into_iter().flat_map(|known| known.loads.iter().filter_map(Weak::upgrade));
        loads.map(|load| load.messages.load(Ordering::Relaxed)).sum()
    }
}

#[async_trait]
impl Publish for RabbitMqBroker {
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError> {
        let publisher = self.publisher(topic)?;
        if messages.is_empty() {
            return Ok(());
        }
        publisher.publish(messages).await
    }
}

#[async_trait]
impl Broker for RabbitMqBroker {
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        _positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let Site { topology, queues, .. } = &*self.site;
        let connection = self.site.consuming().await?;
        let queue = topology.ensure_queue(&connection, topic, subscription).await?;
        let name = queue.name.clone();
        let average = lock(queues).entry(name.clone()).or_default().average.clone();
        let consumer = Consumer::start(&connection, queue, &topology.url, average).await?;
        let mut queues = lock(queues);
        let loads = &mut queues.entry(name).or_default().loads;
        loads.retain(|load| load.strong_count() > 0);
        loads.push(Arc::downgrade(consumer.load()));
        drop(queues);
        Ok(Box::new(consumer))
    }

    /// The server tells how many messages are ready to be handed over, and nothing of those that are out with others.
    async fn topic_state(&self, topic: &TopicName, subscription: &str) -> Result<TopicState, BrokerError> {
        let topology = &self.site.topology;
        let queue = topology.queue(topic, subscription).name;
        let connection = self.site.consuming().await?;
        match topology::ask(&connection, |out, id| amqp::queue_declare(out, id, &queue, None)).await {
            Ok(Method::QueueDeclareOk { ready }) => {
                Ok(TopicState { waiting: Some(u64::from(ready) + self.out(&queue)), ..TopicState::default() })
            }
            Ok(_) => Err(BrokerError::unavailable("RabbitMQ answered something else than it was asked")),
            Err(Failure::Refused(close)) if close.code == NOT_FOUND => {
                Err(BrokerError::UnknownTopic(topic.to_string()))
            }
            Err(failure) => Err(error::doing(Act::Look(&queue), failure, &topology.url)),
        }
    }

    /// A queue can only be read by taking messages from it.
    async fn find(&self, _: &TopicName, _: &dyn Positions, _: Uuid) -> Result<Option<Message>, BrokerError> {
        Ok(None)
    }

    async fn probe(&self, topics: &[TopicName]) -> Result<Probe, BrokerError> {
        let connection = self.site.consuming().await?;
        probe::probe(&self.site.topology, &connection, topics).await
    }

    async fn close(&self) -> Result<(), BrokerError> {
        let publishers = lock(&self.publishers).take().unwrap_or_default();
        // A task ends when its publisher is dropped, after what it was given.
        let tasks = publishers.into_values().map(|(_, task)| task);
        let _ = tokio::time::timeout(FINISH_WITHIN, futures_util::future::join_all(tasks)).await;
        for connection in [self.site.publishing.close().await, self.site.consuming.close().await].into_iter().flatten()
        {
            connection.close().await;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
