//! One subscription as the worker uses it: a buffer that a task fills, and the settling of what was handed out.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, Subject};
use async_trait::async_trait;
use bytes::Bytes;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Marks};
use caudal_core::ports::Subscription;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::gap::Gaps;
use super::incoming::{self, Told};
use super::link::{Link, PATIENCE};
use super::out::Out;
use super::sift::Unreadable;
use crate::current::closed;

pub(super) const ACK: Bytes = Bytes::from_static(b"+ACK");
pub(super) const NAK: Bytes = Bytes::from_static(b"-NAK");

pub(super) struct NatsSubscription {
    pub(super) link: Arc<Link>,
    pub(super) inbox: Arc<Inbox>,
    /// Settlements that were given to the task.
    pub(super) sent: u64,
    /// Dropping the sender tells the task to give back what is out.
    pub(super) pump: Option<(mpsc::Sender<Settlement>, JoinHandle<()>)>,
}

/// One word for many deliveries.
pub(super) struct Settlement {
    pub(super) replies: Vec<Subject>,
    pub(super) word: Bytes,
}

impl Drop for NatsSubscription {
    fn drop(&mut self) {
        if let Some((settlements, pump)) = self.pump.take() {
            drop(settlements);
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
    /// The last settlement that the server answered.
    pub(super) confirmed: watch::Sender<u64>,
}

struct State {
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    out: Out,
    /// Tags of messages that the driver must not be given before they are settled.
    unreadable: HashSet<u64>,
    ended: Option<String>,
}

impl Inbox {
    pub(super) fn new() -> Self {
        let state = State {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            out: Out::new(),
            unreadable: HashSet::new(),
            ended: None,
        };
        Self {
            state: Mutex::new(state),
            arrived: Notify::new(),
            taken: Notify::new(),
            confirmed: watch::Sender::new(0),
        }
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

    pub(super) fn put_unreadable(&self, unreadable: Vec<Unreadable>) {
        let now = Instant::now();
        let mut state = self.lock();
        for unreadable in unreadable {
            let tag = state.out.add(unreadable.reply.clone(), now);
            let delivery = unreadable.delivery(tag);
            state.unreadable.insert(tag);
            state.waiting_bytes += weight(&delivery);
            state.waiting.push_back(delivery);
        }
    }

    pub(super) fn has_unreadable(&self) -> bool {
        !self.lock().unreadable.is_empty()
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
        // Wakes who waits for an answer that does not come any more.
        self.confirmed.send_modify(|_| {});
        state.out.drain()
    }

    fn ended(&self) -> Option<BrokerError> {
        self.lock().ended.as_ref().map(|why| BrokerError::unavailable(why.clone()))
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
        tags.iter().for_each(|tag| _ = state.unreadable.remove(tag));
        tags.into_iter().filter_map(|tag| state.out.take(tag)).collect()
    }
}

fn weight(delivery: &Delivery) -> usize {
    delivery.message.body.len() + delivery.message.attributes.as_ref().map_or(0, Bytes::len)
}

impl NatsSubscription {
    /// Has the task say one word of each delivery.
    async fn tell(&mut self, tags: &[u64], word: Bytes) -> Result<(), BrokerError> {
        let replies = self.inbox.settle(tags);
        if replies.is_empty() {
            return Ok(());
        }
        if let Some((settlements, _)) = &self.pump
            && settlements.send(Settlement { replies, word }).await.is_ok()
        {
            self.sent += 1;
            return Ok(());
        }
        Err(self.inbox.ended().unwrap_or_else(closed))
    }

    /// Waits until the server has answered a settlement and all before it.
    async fn confirmed(&self, settlement: u64) -> Result<(), BrokerError> {
        let mut confirmed = self.inbox.confirmed.subscribe();
        let answered = async {
            let _ = confirmed.wait_for(|at| *at >= settlement || self.inbox.ended().is_some()).await;
        };
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(()) => self.inbox.ended().map_or(Ok(()), Err),
            Err(_) => Err(BrokerError::unavailable(format!("NATS did not take acks within {PATIENCE:?}"))),
        }
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

    /// Confirmed by the server one ack later, so that it works on these while the next batch is stored. An ack that is lost in
    /// between hands over again what the store knows already.
    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError> {
        let before = self.sent;
        self.tell(&settled.tags, ACK).await?;
        self.confirmed(before).await
    }

    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        let word = match after.as_nanos() {
            0 => NAK,
            nanos => Bytes::from(format!("-NAK {{\"delay\": {nanos}}}")),
        };
        self.tell(&unsettled.tags, word).await?;
        self.confirmed(self.sent).await
    }
}
