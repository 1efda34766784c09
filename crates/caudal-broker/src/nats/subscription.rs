//! One subscription as the worker uses it: a buffer that a task fills, and the settling of what was handed out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, Subject};
use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Marks};
use caudal_core::ports::Subscription;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::error::chain;
use super::gap::Gaps;
use super::incoming::{self, Told};
use super::link::Link;
use super::out::Out;

pub(super) const ACK: Bytes = Bytes::from_static(b"+ACK");
pub(super) const NAK: Bytes = Bytes::from_static(b"-NAK");

pub(super) struct NatsSubscription {
    pub(super) link: Arc<Link>,
    pub(super) inbox: Arc<Inbox>,
    /// Dropping the sender tells the task to give back what is out.
    pub(super) pump: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        if let Some((leaving, pump)) = self.pump.take() {
            drop(leaving);
            self.link.leaves(pump);
        }
    }
}

/// What the task and the worker share.
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Something came, or nothing will any more.
    arrived: Notify,
    /// There is room again.
    pub(super) taken: Notify,
}

struct State {
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    out: Out,
    ended: Option<String>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), waiting_bytes: 0, out: Out::new(), ended: None };
        Self { state: Mutex::new(state), arrived: Notify::new(), taken: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in what came, in order.
    pub(super) fn put(&self, came: Vec<(Message, Told)>, life: &str, gaps: &mut Gaps) {
        let now = Instant::now();
        let mut state = self.lock();
        for (message, told) in came {
            let missing = gaps.before(told.numbers);
            let Some(reply) = message.reply.clone() else { continue };
            let tag = state.out.add(reply, now);
            let delivery = incoming::delivery(message, told, missing, life, tag);
            state.waiting_bytes += weight(&delivery);
            state.waiting.push_back(delivery);
        }
        self.arrived.notify_one();
    }

    /// Messages and bytes that the worker did not take yet.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting.len(), state.waiting_bytes)
    }

    pub(super) fn untouched(&self, since: Duration) -> Vec<Subject> {
        self.lock().out.untouched(since, Instant::now())
    }

    /// Nothing comes any more. Gives back all that is out, in order.
    pub(super) fn end(&self, why: String) -> Vec<Subject> {
        let mut state = self.lock();
        state.ended.get_or_insert(why);
        state.waiting.clear();
        state.waiting_bytes = 0;
        self.arrived.notify_one();
        state.out.drain()
    }

    /// What is there, within the bounds; an error once nothing comes any more.
    fn take(&self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.lock();
        if let Some(why) = &state.ended {
            return Err(BrokerError::unavailable(why.clone()));
        }
        let mut count = 0;
        let mut bytes = 0;
        for delivery in state.waiting.iter().take(messages_max.max(1)) {
            let weight = weight(delivery);
            if count > 0 && bytes + weight > bytes_max {
                break;
            }
            count += 1;
            bytes += weight;
        }
        state.waiting_bytes -= bytes;
        Ok(state.waiting.drain(..count).collect())
    }

    fn settle(&self, tags: &[u64]) -> Vec<Subject> {
        let mut tags = tags.to_vec();
        tags.sort_unstable();
        let mut state = self.lock();
        tags.into_iter().filter_map(|tag| state.out.take(tag)).collect()
    }
}

fn weight(delivery: &Delivery) -> usize {
    delivery.message.body.len() + delivery.message.attributes.as_ref().map_or(0, Bytes::len)
}

impl NatsSubscription {
    /// Sends one word for each delivery and waits for the server's answer to the last. It takes them in the order in which
    /// they are sent, so its answer stands for all.
    async fn tell(&self, tags: &[u64], word: Bytes) -> Result<(), BrokerError> {
        let mut replies = self.inbox.settle(tags);
        let Some(last) = replies.pop() else { return Ok(()) };
        for reply in replies {
            let sent = self.link.client.publish(reply, word.clone()).await;
            sent.map_err(|error| BrokerError::unavailable(chain(&error)))?;
        }
        self.link.request(last, word).await.map(drop)
    }
}

#[async_trait]
impl Subscription for NatsSubscription {
    async fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let taken = self.inbox.take(messages_max, bytes_max)?;
            if !taken.is_empty() {
                self.inbox.taken.notify_one();
                return Ok(taken);
            }
            self.inbox.arrived.notified().await;
        }
    }

    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError> {
        self.tell(&settled.tags, ACK).await
    }

    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        let word = match after.as_nanos() {
            0 => NAK,
            nanos => Bytes::from(format!("-NAK {{\"delay\": {nanos}}}")),
        };
        self.tell(&unsettled.tags, word).await
    }
}
