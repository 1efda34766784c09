//! Reading a queue: long polls that go on by themselves, a bounded shelf, and receipts that are kept alive.
//!
//! One task reads a queue for all subscriptions of this process that read it. It outlives them by a moment: a long poll that
//! was abandoned would take messages along and hide them, so what it brings goes to the next subscription, or back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Mark};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::address::Address;
use super::client::Aws;
use super::failure::{Call, Failure};
use super::place::Queue;
use super::settle::{BATCH_MAX, Settler};
use super::shelf::{Arrival, Lease, Receipt, Shelf};
use crate::current::closed;
use crate::sqs::record::Record;

/// Polls under way at once for one queue, when there is much.
const POLLS_MAX: usize = 8;
/// What may lie here: enough for the next batch while one commits.
const LYING_MESSAGES_MAX: usize = 5_000;
const LYING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Requests under way at once that keep messages hidden.
const CHORES_MAX: usize = 16;
/// Before the next try, when a lease could not be renewed or too many messages are out.
const PAUSE: Duration = Duration::from_secs(1);

/// One queue as this process reads it.
#[derive(Debug)]
pub(crate) struct Reader {
    aws: Aws,
    queue: Arc<Queue>,
    settler: Settler,
    visibility: Duration,
    wait: Duration,
    state: Mutex<State>,
    /// For the task: something changed.
    changed: Notify,
    /// For subscriptions: look again.
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    shelf: Shelf,
    subscriptions: usize,
    next_subscription: u64,
    /// Receipts to be made visible again.
    back: Vec<Receipt>,
    /// Why the polls stopped; the subscriptions there are learn of it, and the next one begins anew.
    failure: Option<Failure>,
    /// Which polls' failures still matter.
    generation: u64,
    running: bool,
    closed: bool,
}

impl Reader {
    pub(crate) fn new(aws: Aws, queue: Queue, address: &Address) -> Arc<Self> {
        let queue = Arc::new(queue);
        let settler = Settler::new(aws.clone(), queue.clone());
        let (state, changed, arrived) = Default::default();
        let (visibility, wait) = (address.visibility, address.wait);
        Arc::new(Self { aws, queue, settler, visibility, wait, state, changed, arrived })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read for one subscription more; returns its number. `alive` is held while the task runs.
    pub(crate) fn attach(self: &Arc<Self>, alive: &mpsc::Sender<()>) -> Result<u64, BrokerError> {
        let mut state = self.lock();
        if state.closed {
            return Err(closed());
        }
        if state.failure.take().is_some() {
            state.generation += 1;
        }
        state.subscriptions += 1;
        state.next_subscription += 1;
        if !std::mem::replace(&mut state.running, true) {
            let (reader, alive) = (self.clone(), alive.clone());
            tokio::spawn(async move {
                Task::new(&reader).run().await;
                drop(alive);
            });
        }
        self.changed.notify_one();
        Ok(state.next_subscription)
    }

    /// Gives back what a subscription had.
    pub(crate) fn detach(&self, subscription: u64) {
        let mut state = self.lock();
        let mut back = state.shelf.give_back_all_of(subscription);
        state.back.append(&mut back);
        state.subscriptions -= 1;
        drop(state);
        self.changed.notify_one();
    }

    /// Ends all reading and gives everything back.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
        self.arrived.notify_waiters();
    }

    /// Waits for messages. Cancel-safe: they are taken and returned without a wait in between.
    pub(crate) async fn receive(&self, by: u64, messages: usize, bytes: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.lock();
                if state.closed {
                    return Err(closed());
                }
                let taken = state.shelf.take(by, messages, bytes);
                if !taken.is_empty() {
                    self.changed.notify_one();
                    return Ok(taken);
                }
                if let Some(failure) = &state.failure {
                    return Err(failure.clone().into());
                }
            }
            arrived.await;
        }
    }

    /// Settles deliveries for good. They stay known until AWS said so, so that settling can be repeated.
    pub(crate) async fn settle(&self, tags: &[u64]) -> Result<(), BrokerError> {
        let receipts = {
            let state = self.lock();
            if state.closed {
                return Err(closed());
            }
            state.shelf.receipts(tags)
        };
        self.settler.delete(receipts).await?;
        self.lock().shelf.settled(tags);
        Ok(())
    }

    pub(crate) async fn give_back(&self, tags: &[u64], after: Duration) -> Result<(), BrokerError> {
        let receipts = self.lock().shelf.give_back(tags);
        Ok(self.settler.hide(receipts, after).await?)
    }

    /// One long poll.
    async fn poll(&self, generation: u64) -> Landed {
        let call = Call { action: "sqs:ReceiveMessage", resource: &self.queue.arn };
        let asked = self
            .aws
            .sqs
            .receive_message()
            .queue_url(&self.queue.url)
            .max_number_of_messages(BATCH_MAX as i32)
            .wait_time_seconds(self.wait.as_secs() as i32)
            .visibility_timeout(self.visibility.as_secs() as i32)
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .message_system_attribute_names(MessageSystemAttributeName::MessageGroupId);
        let answered = asked.send().await.map_err(|error| Failure::of(&error, call));
        let arrivals = answered.map(|answer| {
            let messages = answer.messages.unwrap_or_default();
            messages.into_iter().filter_map(|message| arrival(&self.queue, message)).collect()
        });
        Landed::Poll { generation, arrivals }
    }

    /// Keeps what is left of a lease hidden for another while.
    async fn renew(&self, lease: Lease, receipts: Vec<Receipt>) -> Landed {
        let sent = Instant::now();
        let renew_at = match self.settler.hide(receipts, self.visibility).await {
            Ok(()) => sent + self.visibility / 2,
            Err(failure) => {
                tracing::warn!(%failure, "messages could not be kept hidden; they may come twice");
                Instant::now() + PAUSE.min(self.visibility / 4)
            }
        };
        Landed::Lease(Lease { renew_at, ..lease })
    }

    async fn return_all(&self, receipts: Vec<Receipt>) -> Landed {
        if let Err(failure) = self.settler.hide(receipts, Duration::ZERO).await {
            let after = self.visibility.as_secs();
            tracing::debug!(%failure, "messages could not be given back; they come again after {after} s");
        }
        Landed::Returned
    }
}

/// What a request of the task brought.
enum Landed {
    Poll { generation: u64, arrivals: Result<Vec<Arrival>, Failure> },
    Lease(Lease),
    Returned,
}

/// The task that reads a queue.
struct Task<'a> {
    reader: &'a Reader,
    requests: FuturesUnordered<BoxFuture<'a, Landed>>,
    polls: usize,
    /// Polls that the queue seems to be worth.
    wanted: usize,
    /// What a poll brought last: what another may bring.
    batch_bytes: usize,
    paused_until: Instant,
}

impl<'a> Task<'a> {
    fn new(reader: &'a Reader) -> Self {
        Self {
            reader,
            requests: FuturesUnordered::new(),
            polls: 0,
            wanted: 1,
            batch_bytes: 0,
            paused_until: Instant::now(),
        }
    }

    async fn run(mut self) {
        while let Some(until) = self.start_what_is_due() {
            tokio::select! {
                Some(landed) = self.requests.next() => self.land(landed),
                () = self.reader.changed.notified() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// Starts polls, renewals and returns; says when to look again, or `None` at the end.
    fn start_what_is_due(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut state = self.reader.lock();
        let over = state.closed || state.subscriptions == 0;
        if over {
            let mut lying = state.shelf.give_back_lying();
            state.back.append(&mut lying);
        }
        if !state.back.is_empty() {
            let back = std::mem::take(&mut state.back);
            self.requests.push(Box::pin(self.reader.return_all(back)));
        }
        while self.requests.len() - self.polls < CHORES_MAX
            && let Some((lease, receipts)) = state.shelf.due(now)
        {
            self.requests.push(Box::pin(self.reader.renew(lease, receipts)));
        }
        let (lying, bytes) = state.shelf.lying();
        while !over
            && state.failure.is_none()
            && now >= self.paused_until
            && self.polls < self.wanted
            && lying + (self.polls + 1) * BATCH_MAX <= LYING_MESSAGES_MAX
            && bytes + self.polls * self.batch_bytes < LYING_BYTES_MAX
        {
            self.requests.push(Box::pin(self.reader.poll(state.generation)));
            self.polls += 1;
        }
        if over && self.requests.is_empty() {
            state.running = false;
            return None;
        }
        let idle = now + Duration::from_secs(60);
        let renewal = state.shelf.next_renewal().filter(|_| self.requests.len() - self.polls < CHORES_MAX);
        let resume = Some(self.paused_until).filter(|until| *until > now);
        Some([renewal, resume].into_iter().flatten().fold(idle, Instant::min))
    }

    fn land(&mut self, landed: Landed) {
        let mut state = self.reader.lock();
        let (generation, arrivals) = match landed {
            Landed::Returned => return,
            Landed::Lease(lease) => return state.shelf.keep(lease),
            Landed::Poll { generation, arrivals } => (generation, arrivals),
        };
        self.polls -= 1;
        match arrivals {
            Ok(arrivals) => {
                self.wanted = match arrivals.len() {
                    0 => (self.wanted / 2).max(1),
                    // It came alone, as it was published: one poll at a time keeps up.
                    1 => self.wanted,
                    _ => (self.wanted + 1).min(POLLS_MAX),
                };
                if state.closed || state.subscriptions == 0 {
                    state.back.extend(arrivals.into_iter().map(|arrival| arrival.receipt));
                } else if !arrivals.is_empty() {
                    self.batch_bytes = arrivals.iter().map(|arrival| arrival.delivery.message.body.len()).sum();
                    state.shelf.put(arrivals, Instant::now() + self.reader.visibility / 2);
                }
            }
            Err(Failure::TooManyOut(why)) => {
                tracing::warn!(why, "the queue hands out no more until something is settled");
                self.paused_until = Instant::now() + PAUSE;
            }
            Err(failure) if generation == state.generation => state.failure = Some(failure),
            Err(_) => {}
        }
        drop(state);
        self.reader.arrived.notify_waiters();
    }
}

/// A message without a receipt could never be settled; AWS sends none.
fn arrival(queue: &Queue, message: Message) -> Option<Arrival> {
    let receipt = Receipt::from(message.receipt_handle?);
    let mut system = message.attributes.unwrap_or_default();
    let mut number = |name| system.remove(&name).and_then(|value| value.parse::<i64>().ok());
    let attempt = number(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
    let sent_at_ms = number(MessageSystemAttributeName::SentTimestamp);
    let group = queue.fifo.then(|| system.remove(&MessageSystemAttributeName::MessageGroupId)).flatten();
    let attributes = message.message_attributes.unwrap_or_default().into_iter().filter_map(|(name, value)| {
        let binary = || value.binary_value.as_ref().map(|blob| STANDARD.encode(blob.as_ref()));
        Some((name, value.string_value.clone().or_else(binary)?))
    });
    let record = Record {
        queue_arn: queue.arn.clone(),
        message_id: message.message_id.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        attributes: attributes.collect(),
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX),
        sent_at_ms,
    };
    Some(Arrival { delivery: record.delivery(Mark::Tag(0)), receipt, group: group.map(Into::into) })
}
