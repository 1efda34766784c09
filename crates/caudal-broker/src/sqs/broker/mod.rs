//! The broker's ports over SNS and SQS.
//!
//! A Caudal topic is an SNS topic; a subscription is an SQS queue that it fans out to. Place names can put an existing topic
//! or queue there instead. Order is kept per message group in FIFO topics, and not at all in standard ones.

mod address;
mod client;
mod failure;
mod fetch;
mod place;
mod policy;
mod probe;
mod publish;
mod settle;
mod shelf;
mod topology;
mod waiting;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Marks, Message};
use caudal_core::ports::{Broker, Positions, Probe, Publish, Subscription, TopicState};
use caudal_core::topic::TopicName;
use tokio::sync::mpsc;
use uuid::Uuid;

use self::address::Address;
use self::client::Aws;
use self::failure::Failure;
use self::fetch::Reader;
use self::place::{Plan, Queue};
use self::publish::Publisher;
use self::topology::Topology;
use crate::current::{Connection, Current, closed};
use crate::remote::RemoteConfig;

/// How long closing waits for requests under way, beyond a long poll.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// SNS and SQS, or something that speaks their language.
pub struct SqsBroker {
    config: RemoteConfig,
    address: Address,
    topology: Topology,
    topics: Mutex<HashMap<TopicName, Arc<Topic>>>,
    /// By URL.
    readers: Mutex<HashMap<String, Arc<Reader>>>,
    /// Held by every task; `None` once closed.
    alive: Mutex<Option<mpsc::Sender<()>>>,
    ended: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

/// What is known of one topic.
struct Topic {
    plan: Plan,
    current: Current<Entrance>,
    /// Making the same things twice at once would make them twice.
    making: tokio::sync::Mutex<()>,
}

/// The way into a topic whose parts were all seen to be there.
struct Entrance {
    publisher: Publisher,
    gone: AtomicBool,
}

impl Connection for Entrance {
    fn is_broken(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for SqsBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqsBroker").field("address", &self.address).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqsBroker {
    /// Takes region and credentials from where AWS programs have them. AWS need not answer yet.
    pub async fn open(config: RemoteConfig) -> Result<Self, BrokerError> {
        let address = Address::parse(&config.url)?;
        let topology =
            Topology { aws: Aws::new(&address).await?, create: config.create, visibility: address.visibility };
        let (alive, ended) = mpsc::channel(1);
        let (topics, readers) = Default::default();
        let (alive, ended) = (Mutex::new(Some(alive)), tokio::sync::Mutex::new(ended));
        Ok(Self { config, address, topology, topics, readers, alive, ended })
    }

    fn topic(&self, name: &TopicName) -> Result<Arc<Topic>, BrokerError> {
        let mut topics = lock(&self.topics);
        if let Some(topic) = topics.get(name) {
            return Ok(topic.clone());
        }
        let plan = Plan::of(name, &self.config.place(name), self.address.fifo)?;
        let topic = Arc::new(Topic { plan, current: Current::new(), making: tokio::sync::Mutex::default() });
        topics.insert(name.clone(), topic.clone());
        Ok(topic)
    }

    fn alive(&self) -> Result<mpsc::Sender<()>, BrokerError> {
        lock(&self.alive).clone().ok_or_else(closed)
    }

    /// The way into a topic, with all its subscriptions in place.
    async fn entrance(&self, topic: &Topic) -> Result<Arc<Entrance>, BrokerError> {
        let alive = self.alive()?;
        let make = async {
            let _making = topic.making.lock().await;
            let target = self.topology.target(&topic.plan, &self.config.subscriptions).await?;
            let publisher = Publisher::start(self.topology.aws.clone(), target, alive);
            Ok(Entrance { publisher, gone: AtomicBool::new(false) })
        };
        topic.current.get(make).await
    }

    async fn queue(&self, topic: &Topic, subscription: &str) -> Result<Queue, BrokerError> {
        let _making = topic.making.lock().await;
        Ok(self.topology.subscription(&topic.plan, subscription).await?)
    }

    fn reader(&self, queue: Queue) -> Arc<Reader> {
        let mut readers = lock(&self.readers);
        let make = || Reader::new(self.topology.aws.clone(), queue.clone(), &self.address);
        readers.entry(queue.url.clone()).or_insert_with(make).clone()
    }
}

#[async_trait]
impl Publish for SqsBroker {
    async fn publish(&self, topic: &TopicName, messages: Vec<Message>) -> Result<(), BrokerError> {
        let place = self.topic(topic)?;
        if messages.is_empty() {
            return Ok(());
        }
        let entrance = self.entrance(&place).await?;
        match entrance.publisher.publish(topic, messages).await {
            Err(Failure::Missing(why)) => {
                // Somebody took it away; the producer's next try finds it made again, or learns what to do.
                entrance.gone.store(true, Ordering::Relaxed);
                Err(BrokerError::unavailable(why))
            }
            done => Ok(done?),
        }
    }
}

#[async_trait]
impl Broker for SqsBroker {
    async fn subscribe(
        &self,
        topic: &TopicName,
        subscription: &str,
        _positions: Arc<dyn Positions>,
    ) -> Result<Box<dyn Subscription>, BrokerError> {
        let alive = self.alive()?;
        let queue = self.queue(&*self.topic(topic)?, subscription).await?;
        let reader = self.reader(queue);
        let number = reader.attach(&alive)?;
        Ok(Box::new(SqsSubscription { reader, number }))
    }

    async fn topic_state(&self, topic: &TopicName, subscription: &str) -> Result<TopicState, BrokerError> {
        let queue = self.topic(topic)?.plan.queue(subscription);
        match self.topology.waiting(&queue).await {
            Ok(waiting) => Ok(TopicState { waiting: Some(waiting), ..TopicState::default() }),
            Err(Failure::Missing(_)) => Err(BrokerError::UnknownTopic(topic.to_string())),
            Err(failure) => Err(failure.into()),
        }
    }

    /// A queue cannot be searched.
    async fn find(&self, _: &TopicName, _: &dyn Positions, _: Uuid) -> Result<Option<Message>, BrokerError> {
        Ok(None)
    }

    async fn probe(&self, topics: &[TopicName]) -> Result<Probe, BrokerError> {
        let place = |name| Ok((self.topic(name)?.plan.clone(), self.config.subscriptions.clone()));
        let places = topics.iter().map(place).collect::<Result<Vec<_>, BrokerError>>()?;
        Ok(probe::probe(&self.topology, places).await?)
    }

    async fn close(&self) -> Result<(), BrokerError> {
        lock(&self.alive).take();
        let readers: Vec<Arc<Reader>> = lock(&self.readers).values().cloned().collect();
        readers.iter().for_each(|reader| reader.close());
        let topics: Vec<Arc<Topic>> = lock(&self.topics).values().cloned().collect();
        for topic in topics {
            drop(topic.current.close().await);
        }
        let mut ended = self.ended.lock().await;
        if tokio::time::timeout(self.address.wait + CLOSE_WITHIN, ended.recv()).await.is_err() {
            tracing::warn!("requests to AWS were still under way; what they brought comes again");
        }
        Ok(())
    }
}

/// One subscription's part in the reading of a queue.
#[derive(Debug)]
struct SqsSubscription {
    reader: Arc<Reader>,
    number: u64,
}

#[async_trait]
impl Subscription for SqsSubscription {
    async fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        self.reader.receive(self.number, messages_max, bytes_max).await
    }

    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError> {
        self.reader.settle(&settled.tags).await
    }

    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        self.reader.give_back(&unsettled.tags, after).await
    }
}

impl Drop for SqsSubscription {
    fn drop(&mut self) {
        self.reader.detach(self.number);
    }
}
