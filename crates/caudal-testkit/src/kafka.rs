//! A Kafka cluster for tests: librdkafka's own mock.
//!
//! It speaks the real protocol on real ports, so any process can use it, but it is no broker. What it lacks, as its source
//! says and as was seen: records are kept in memory only and at most 5 MiB (of compressed batches) or 100,000 batches a
//! partition, the oldest go first; repetitions of an idempotent producer are not recognised; aborted transactions are
//! visible; there is no controller and no admin request, so topics are made as they are asked for (4
//! partitions) or by [`create_topic`](Kafka::create_topic); a fetch that finds nothing is answered only after `fetch.wait.max.ms`; the first
//! member of a group waits three seconds, each later one a session's length less a second.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{DefaultProducerContext, FutureProducer, FutureRecord};

type Cluster = MockCluster<'static, DefaultProducerContext>;
type Deed = Box<dyn FnOnce(&Cluster) + Send>;

/// Every broker of the cluster.
const ALL: i32 = -1;
const BROKERS: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(10);

/// Options that make the mock usable and quick enough.
pub const OPTIONS: &str =
    "allow.auto.create.topics=true&session.timeout.ms=3000&heartbeat.interval.ms=500&fetch.wait.max.ms=50";

/// A mock cluster, gone when it is dropped. It lives on a thread of its own, because it cannot be shared.
#[derive(Debug)]
pub struct Kafka {
    servers: String,
    deeds: Option<Sender<Deed>>,
    thread: Option<JoinHandle<()>>,
}

impl Kafka {
    pub fn start() -> Result<Self> {
        let (deeds, wanted) = channel::<Deed>();
        let (tell, told) = channel();
        let thread = std::thread::Builder::new().name("mock Kafka".to_owned()).spawn(move || {
            let cluster = match MockCluster::new(BROKERS) {
                Ok(cluster) => cluster,
                Err(error) => return drop(tell.send(Err(error))),
            };
            drop(tell.send(Ok(cluster.bootstrap_servers())));
            wanted.into_iter().for_each(|deed| deed(&cluster));
        })?;
        let servers = told.recv().context("the mock cluster ended")??;
        Ok(Self { servers, deeds: Some(deeds), thread: Some(thread) })
    }

    /// `host:port` of each broker.
    pub fn servers(&self) -> &str {
        &self.servers
    }

    pub fn url(&self) -> String {
        format!("kafka://{}?{OPTIONS}", self.servers)
    }

    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        let topic = topic.to_owned();
        Ok(self.with(move |cluster| cluster.create_topic(&topic, partitions, BROKERS))??)
    }

    /// Cuts off every client and takes no new one. What is stored stays.
    pub fn down(&self) -> Result<()> {
        Ok(self.with(|cluster| cluster.broker_down(ALL))??)
    }

    pub fn up(&self) -> Result<()> {
        Ok(self.with(|cluster| cluster.broker_up(ALL))??)
    }

    /// Does something with the cluster, on its thread: injected errors, leaders, delays.
    pub fn with<T: Send + 'static>(&self, deed: impl FnOnce(&Cluster) -> T + Send + 'static) -> Result<T> {
        let (tell, told) = channel();
        let deeds = self.deeds.as_ref().context("the mock cluster is stopped")?;
        deeds
            .send(Box::new(move |cluster| drop(tell.send(deed(cluster)))))
            .map_err(|_| anyhow!("the mock cluster ended"))?;
        Ok(told.recv()?)
    }

    /// Publishes one record with Kafka's own client, without Caudal.
    pub async fn publish(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        headers: &[(String, String)],
        body: Option<&[u8]>,
    ) -> Result<()> {
        let producer: FutureProducer = ClientConfig::new().set("bootstrap.servers", &self.servers).create()?;
        let all = OwnedHeaders::new_with_capacity(headers.len());
        let all = headers.iter().fold(all, |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let record = FutureRecord { topic, partition: None, payload: body, key, timestamp: None, headers: Some(all) };
        producer.send(record, PATIENCE).await.map_err(|(error, _)| error)?;
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.deeds.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
