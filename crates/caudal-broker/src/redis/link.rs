//! One connection to Redis, and what is known of the topics over it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::topic::TopicName;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::address::Address;
use super::entry::add;
use super::error::{code, ends_connection, explain};
use super::gap::{Counts, Standing, number};
use crate::current::Connection;
use crate::remote::RemoteConfig;

/// How long a server may take to answer before it counts as away.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Messages and bytes that are sent in one go.
const CHUNK_MESSAGES: usize = 1000;
const CHUNK_BYTES: usize = 256 * 1024;
/// Parts of `PART_BYTES` that may wait for their replies at once, so that a reply comes soon after its chunk was sent.
const WINDOW: u32 = 256;
const PART_BYTES: usize = 16 * 1024;

pub(super) struct Link {
    pub(super) address: Arc<Address>,
    connection: MultiplexedConnection,
    over: watch::Sender<Option<Over>>,
    window: Semaphore,
    making: tokio::sync::Mutex<()>,
    topics: Mutex<HashMap<TopicName, Arc<Stream>>>,
    /// Each subscription's task holds a receiver of it while it lives.
    pub(super) pumps: watch::Sender<()>,
    /// The tasks of subscriptions that were dropped.
    leaving: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Over {
    /// By us: what is out can still be given back.
    Closing,
    Broken(Arc<str>),
}

/// A topic's stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) key: Arc<str>,
    /// Nobody named it in the configuration, so nobody else reads its past and we may trim it.
    pub(super) ours: bool,
}

impl Link {
    pub(super) async fn connect(address: &Arc<Address>) -> Result<Self, BrokerError> {
        let connection = connection(address, PATIENCE).await?;
        let link = Self {
            address: address.clone(),
            connection,
            over: watch::Sender::new(None),
            window: Semaphore::new(WINDOW as usize),
            making: tokio::sync::Mutex::default(),
            topics: Mutex::default(),
            pumps: watch::Sender::new(()),
            leaving: Mutex::default(),
        };
        // Whoever gave no password is let in, and told so only now.
        link.ask(&redis::cmd("PING")).await.map_err(|error| explain(error, address, "caudal:*"))?;
        Ok(link)
    }

    /// Sends one command on the connection that everybody shares.
    pub(super) async fn ask(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = self.connection.clone().send_packed_command(command).await;
        self.noted(answer.and_then(Value::extract_error))
    }

    /// Sends many at once; the answer to each, or the first error.
    pub(super) async fn ask_all(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let answers = self.connection.clone().send_packed_commands(commands, 0, commands.len()).await;
        self.noted(answers.and_then(|answers| answers.into_iter().map(Value::extract_error).collect()))
    }

    /// Remembers an error that ends the connection.
    pub(super) fn noted<T>(&self, outcome: RedisResult<T>) -> RedisResult<T> {
        if let Some(error) = outcome.as_ref().err().filter(|error| ends_connection(error)) {
            self.end(Over::Broken(format!("Redis at {}: {error}", self.address.server()).into()));
        }
        outcome
    }

    pub(super) fn explain(&self, error: RedisError, key: &str) -> BrokerError {
        explain(error, &self.address, key)
    }

    /// The first end is the one that counts.
    fn end(&self, over: Over) {
        self.over.send_if_modified(|state| {
            let first = state.is_none();
            state.get_or_insert(over);
            first
        });
    }

    /// Resolves when the connection is of no more use.
    pub(super) async fn ended(&self) -> Over {
        let mut over = self.over.subscribe();
        let over = over.wait_for(Option::is_some).await.ok().and_then(|over| over.clone());
        over.unwrap_or(Over::Closing)
    }

    /// Adds messages in order; returns when the server answered for each.
    pub(super) async fn publish(&self, key: &str, messages: Vec<Message>) -> Result<(), BrokerError> {
        let mut rest = &messages[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |message: &&Message| {
                bytes += message.body.len();
                bytes <= CHUNK_BYTES
            };
            let count = rest.iter().take(CHUNK_MESSAGES).take_while(fits).count().max(1);
            let (chunk, after) = rest.split_at(count);
            self.add(key, chunk).await?;
            rest = after;
        }
        Ok(())
    }

    async fn add(&self, key: &str, messages: &[Message]) -> Result<(), BrokerError> {
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        let parts = u32::try_from(bytes / PART_BYTES + 1).unwrap_or(WINDOW).min(WINDOW);
        let added = async {
            let _room = self.window.acquire_many(parts).await.map_err(BrokerError::unavailable)?;
            let mut pipeline = Pipeline::with_capacity(messages.len());
            for message in messages {
                pipeline.add_command(add(key, message));
            }
            self.ask_all(&pipeline).await.map_err(|error| self.explain(error, key))
        };
        let ids = tokio::select! {
            biased;
            ids = added => ids?,
            Over::Broken(why) = self.ended() => return Err(BrokerError::unavailable(why.to_string())),
        };
        match ids.iter().all(|id| matches!(id, Value::BulkString(_))) {
            true => Ok(()),
            false => Err(BrokerError::unavailable(format!("stream {key} in Redis is gone"))),
        }
    }

    /// The topic's stream with the groups of all subscriptions that are known beforehand, made if they are missing. What
    /// is published later is then kept for each of them.
    pub(super) async fn topic(&self, topic: &TopicName, config: &RemoteConfig) -> Result<Arc<Stream>, BrokerError> {
        if let Some(known) = self.known(topic) {
            return Ok(known);
        }
        let _alone = self.making.lock().await;
        if let Some(known) = self.known(topic) {
            return Ok(known);
        }
        let place = config.place(topic);
        let ours = place.publish.is_none();
        let key: Arc<str> = place.publish.unwrap_or_else(|| format!("caudal:{topic}")).into();
        match &place.consume {
            Some(group) => self.group(&key, group, config.create).await?,
            None => {
                for group in &config.subscriptions {
                    self.group(&key, group, config.create).await?;
                }
            }
        }
        let stream = Arc::new(Stream { key, ours });
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.clone(), stream.clone());
        Ok(stream)
    }

    /// Makes a group that reads from the stream's beginning, unless it is there.
    pub(super) async fn group(&self, key: &str, group: &str, create: bool) -> Result<(), BrokerError> {
        if create {
            let make = redis::cmd("XGROUP").arg("CREATE").arg(key).arg(group).arg("0").arg("MKSTREAM").to_owned();
            return match self.ask(&make).await {
                Ok(_) => self.begins(key, group).await.map_err(|error| self.explain(error, key)),
                Err(error) if code(&error) == "BUSYGROUP" => Ok(()),
                Err(error) => Err(self.explain(error, key)),
            };
        }
        let missing = match self.ask(redis::cmd("XINFO").arg("GROUPS").arg(key)).await {
            Ok(groups) => match Standing::all(groups).iter().any(|standing| standing.group == group) {
                true => return Ok(()),
                false => "group",
            },
            Err(error) if error.to_string().contains("no such key") => "stream",
            Err(error) => return Err(self.explain(error, key)),
        };
        Err(BrokerError::Setup(format!(
            "Redis at {} has no {missing} for subscription {group} of stream {key}; make it with: redis-cli XGROUP CREATE \
             {key} {group} 0 MKSTREAM",
            self.address.server()
        )))
    }

    /// What was gone before the group was made is not missing for it.
    async fn begins(&self, key: &str, group: &str) -> RedisResult<()> {
        let counts = Counts::of(self.ask(redis::cmd("XINFO").arg("STREAM").arg(key)).await?);
        let Some(gone) = counts.gone() else { return Ok(()) };
        let at = redis::cmd("XGROUP").arg("SETID").arg(key).arg(group).arg("0").arg("ENTRIESREAD").arg(gone).to_owned();
        self.ask(&at).await.map(drop)
    }

    /// How many entries a group has not acked, if the server can tell.
    pub(super) async fn waiting(&self, key: &str, group: &str) -> Result<Option<u64>, BrokerError> {
        let mut both = Pipeline::with_capacity(2);
        both.cmd("XLEN").arg(key).cmd("XINFO").arg("GROUPS").arg(key);
        let [length, groups] = <[Value; 2]>::try_from(self.ask_all(&both).await.map_err(|e| self.explain(e, key))?)
            .map_err(|_| BrokerError::unavailable("Redis answered oddly"))?;
        let length = number(&length).unwrap_or_default();
        let standing = Standing::all(groups).into_iter().find(|standing| standing.group == group);
        // A server counts what was trimmed before it was read as lag for good.
        Ok(standing.and_then(|standing| Some(standing.lag?.min(length) + standing.pending)))
    }

    fn known(&self, topic: &TopicName) -> Option<Arc<Stream>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    /// Looks again, the next time, whether the topic is there.
    pub(super) fn forget(&self, topic: &TopicName) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    pub(super) fn leaves(&self, pump: JoinHandle<()>) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|pump| !pump.is_finished());
        leaving.push(pump);
    }

    /// Waits until dropped subscriptions have given back what they had, so that it comes before what is newer.
    pub(super) async fn all_left(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::time::timeout(PATIENCE, futures_util::future::join_all(leaving)).await;
    }

    /// Lets publishes end, and has subscriptions give back what they hold.
    pub(super) async fn close(&self) {
        let _ = tokio::time::timeout(PATIENCE, self.window.acquire_many(WINDOW)).await;
        self.end(Over::Closing);
        let _ = tokio::time::timeout(PATIENCE, self.pumps.closed()).await;
    }
}

impl Connection for Link {
    fn is_broken(&self) -> bool {
        self.over.borrow().is_some()
    }
}

/// A connection whose every answer comes within a time.
pub(super) async fn connection(address: &Address, within: Duration) -> Result<MultiplexedConnection, BrokerError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_WITHIN))
        .set_response_timeout(Some(within))
        .set_pipeline_buffer_size(1024);
    let connecting = address.client.get_multiplexed_async_connection_with_config(&config);
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(connection) => connection.map_err(|error| explain(error, address, "caudal:*")),
        Err(_) => Err(BrokerError::unavailable(format!("Redis at {} does not answer", address.server()))),
    }
}
