//! One subscription as the worker uses it: a buffer that a task fills, and the settling of what was handed out.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Mark, Marks};
use caudal_core::ports::Subscription;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::entry::{Entry, EntryId};
use super::group::Group;
use super::out::{Held, Out};
use crate::current::copy;

/// Messages that may wait here for the worker; two of its batches.
const AHEAD_MESSAGES: usize = 20_000;
const AHEAD_BYTES: usize = 8 * 1024 * 1024;
/// Deliveries that may be out.
const OUT_MAX: usize = 100_000;

pub(super) struct RedisSubscription {
    pub(super) group: Group,
    pub(super) inbox: Arc<Inbox>,
    /// Dropping the sender tells the task to give back what is out.
    pub(super) pump: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Drop for RedisSubscription {
    fn drop(&mut self) {
        if let Some((leaving, pump)) = self.pump.take() {
            drop(leaving);
            self.group.link.leaves(pump);
        }
    }
}

/// What the task and the worker share.
pub(super) struct Inbox {
    key: Arc<str>,
    state: Mutex<State>,
    /// Something came, or nothing will any more.
    arrived: Notify,
    /// There is room again.
    pub(super) taken: Notify,
    /// Something was given back.
    pub(super) delayed: Notify,
}

struct State {
    waiting: VecDeque<Delivery>,
    waiting_bytes: usize,
    out: Out,
    /// What the worker gave back, by when it is due. It stays ours.
    delayed: BTreeMap<(Instant, EntryId), Held>,
    /// Entries that are gone and no delivery has told of yet.
    missing: u64,
    ended: Option<BrokerError>,
}

impl Inbox {
    pub(super) fn new(key: &Arc<str>, missing: u64) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            out: Out::new(),
            delayed: BTreeMap::new(),
            missing,
            ended: None,
        };
        Self {
            key: key.clone(),
            state: Mutex::new(state),
            arrived: Notify::new(),
            taken: Notify::new(),
            delayed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts in what came, in order. Gives back the ids of what was deleted, which is missing and to be acked away.
    pub(super) fn put(&self, entries: Vec<Entry>, missing: u64, attempt: impl Fn(EntryId) -> u32) -> Vec<EntryId> {
        let touched = Instant::now();
        let mut gone = Vec::new();
        let mut state = self.lock();
        state.missing += missing;
        for entry in entries {
            if entry.fields.is_none() {
                state.missing += 1;
                gone.push(entry.id);
                continue;
            }
            let attempt = attempt(entry.id);
            let tag = state.out.add(Held { id: entry.id, attempt, touched });
            let missing = std::mem::take(&mut state.missing);
            let delivery = Delivery { attempt, missing, ..entry.delivery(&self.key, tag) };
            state.waiting_bytes += weight(&delivery);
            state.waiting.push_back(delivery);
        }
        if !state.waiting.is_empty() {
            self.arrived.notify_one();
        }
        gone
    }

    /// Messages and bytes that there is room for; none until the worker took half of what there was.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        let state = self.lock();
        let messages = AHEAD_MESSAGES.saturating_sub(state.waiting.len()).min(OUT_MAX.saturating_sub(state.out.len()));
        let bytes = AHEAD_BYTES.saturating_sub(state.waiting_bytes);
        (messages >= AHEAD_MESSAGES / 2 && bytes >= AHEAD_BYTES / 2).then_some((messages, bytes))
    }

    pub(super) fn out(&self) -> usize {
        self.lock().out.len()
    }

    pub(super) fn untouched(&self, since: Duration) -> Vec<EntryId> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut ids: Vec<_> = state.out.untouched(since, now).collect();
        ids.extend(state.delayed.values_mut().filter_map(|held| held.touch(since, now)));
        ids
    }

    /// When the first of what was given back is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.lock().delayed.keys().next().map(|(due, _)| *due)
    }

    /// What is due, at most so many.
    pub(super) fn due(&self, most: usize) -> Vec<Held> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut due = Vec::new();
        while due.len() < most
            && let Some(first) = state.delayed.first_entry().filter(|first| first.key().0 <= now)
        {
            due.push(first.remove());
        }
        due
    }

    /// Nothing comes any more. Says what was never handed out.
    pub(super) fn end(&self, why: BrokerError) -> HashSet<EntryId> {
        let mut state = self.lock();
        state.ended.get_or_insert(why);
        let waiting = std::mem::take(&mut state.waiting);
        state.waiting_bytes = 0;
        self.arrived.notify_one();
        let tag = |delivery: Delivery| if let Mark::Tag(tag) = delivery.mark { Some(tag) } else { None };
        waiting.into_iter().filter_map(tag).filter_map(|tag| state.out.take(tag)).map(|held| held.id).collect()
    }

    /// What is there, within the bounds; an error once nothing comes any more.
    fn take(&self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        let mut state = self.lock();
        if let Some(why) = &state.ended {
            return Err(copy(why));
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

    fn settle(&self, tags: &[u64]) -> Vec<EntryId> {
        let mut state = self.lock();
        let settled = tags.iter().filter_map(|tag| state.out.take(*tag)).map(|held| held.id).collect();
        self.taken.notify_one();
        settled
    }

    fn delay(&self, tags: &[u64], after: Duration) {
        let due = Instant::now() + after;
        let mut state = self.lock();
        for tag in tags {
            if let Some(held) = state.out.take(*tag) {
                state.delayed.insert((due, held.id), held);
            }
        }
        self.delayed.notify_one();
    }
}

fn weight(delivery: &Delivery) -> usize {
    delivery.message.body.len() + delivery.message.attributes.as_ref().map_or(0, bytes::Bytes::len)
}

#[async_trait]
impl Subscription for RedisSubscription {
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
        self.group.ack(&self.inbox.settle(&settled.tags)).await
    }

    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        self.inbox.delay(&unsettled.tags, after);
        Ok(())
    }
}
