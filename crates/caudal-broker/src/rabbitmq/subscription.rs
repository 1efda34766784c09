//! One consumer of one queue, on a channel of its own.
//!
//! RabbitMQ gives back what is not settled when the channel closes, at once, and what a process had when it died as soon
//! as it sees the broken connection (at the latest after two heartbeats). It cannot hold a message back: `nack` with a
//! delay keeps it here, where it counts as out, until the time has come or the subscription ends. It closes a channel on
//! which a message stays unsettled for its `consumer_timeout` (30 minutes unless changed).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Marks};
use caudal_core::ports::Subscription;
use tokio::time::Instant;

use super::amqp::{self, Channel, Connection, Delivered, Event, Failure, Load, Method};
use super::error::{self, Act};
use super::incoming;
use super::tags::{Ack, Tags, Taken};
use super::topology::Queue;
use super::url::Url;
use super::window::Window;

#[derive(Debug)]
pub(super) struct Consumer {
    channel: Channel,
    url: Url,
    queue: String,
    /// Consumers of this channel so far; each is named by its number.
    consumers: u32,
    buffer: VecDeque<Delivered>,
    tags: Tags,
    window: Window,
    held: Vec<Held>,
}

/// Deliveries that are to be given back later.
#[derive(Debug)]
struct Held {
    until: Instant,
    tags: Vec<u64>,
}

impl Consumer {
    pub(super) async fn start(
        connection: &Arc<Connection>,
        queue: Queue,
        url: &Url,
        average: Arc<AtomicUsize>,
    ) -> Result<Self, BrokerError> {
        let queue = queue.name;
        let window = Window::new(average);
        let refused = |failure| error::doing(Act::Consume(&queue), failure, url);
        let mut channel = Channel::open(connection).await.map_err(refused)?;
        channel.call(|out, id| amqp::qos(out, id, window.size())).await.map_err(refused)?;
        channel.call(|out, id| amqp::consume(out, id, &queue, &name(0))).await.map_err(refused)?;
        let (url, buffer, tags, held) = (url.clone(), VecDeque::new(), Tags::new(), Vec::new());
        Ok(Self { channel, url, queue, consumers: 0, buffer, tags, window, held })
    }

    /// What is out, for those who count what waits: RabbitMQ tells only what is ready.
    pub(super) fn load(&self) -> &Arc<Load> {
        &self.channel.load
    }

    fn broken(&self, failure: Failure) -> BrokerError {
        if let Failure::Overrun { messages, bytes } = failure {
            self.window.overrun(messages, bytes);
        }
        error::doing(Act::Consume(&self.queue), failure, &self.url)
    }

    /// Takes what has come already.
    fn gather(&mut self) -> Result<(), BrokerError> {
        while let Some(event) = self.channel.try_next() {
            let event = event.map_err(|failure| self.broken(failure))?;
            self.take(event)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event) -> Result<(), BrokerError> {
        match event {
            Event::Deliveries(deliveries) => {
                for delivered in deliveries {
                    self.tags.came(delivered.tag, delivered.bytes());
                    self.window.note(delivered.bytes());
                    self.buffer.push_back(delivered);
                }
                if self.tags.count() >= u64::from(self.window.size())
                    && let Some(size) = self.window.used_up()
                {
                    self.resize(size);
                }
                Ok(())
            }
            Event::Method(Method::Cancel) => Err(BrokerError::unavailable(format!(
                "RabbitMQ ended the subscription to queue \"{}\": the queue was deleted, or its leader moved",
                self.queue
            ))),
            _ => Ok(()),
        }
    }

    /// Puts a consumer with another prefetch in the place of the one there is, which has all that it may have: nothing is on
    /// its way to it. The server does one thing after the other, so nobody waits.
    fn resize(&mut self, size: u16) {
        let (old, new) = (name(self.consumers), name(self.consumers + 1));
        self.consumers += 1;
        self.tags.count_anew();
        self.channel.send(|out, id| {
            amqp::cancel(out, id, &old);
            amqp::qos(out, id, size);
            amqp::consume(out, id, &self.queue, &new);
        });
    }

    fn hand_out(&mut self, messages_max: usize, bytes_max: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(self.buffer.len().min(messages_max));
        let mut bytes = 0_usize;
        while let Some(delivered) = self.buffer.front() {
            bytes = bytes.saturating_add(delivered.bytes());
            if !deliveries.is_empty() && (deliveries.len() >= messages_max || bytes > bytes_max) {
                break;
            }
            deliveries.push(incoming::delivery(delivered));
            self.buffer.pop_front();
        }
        deliveries
    }

    fn take_off(&mut self, tags: &[u64]) -> Taken {
        let taken = self.tags.take(tags);
        self.channel.load.remove(taken.tags.len() as u64, taken.bytes);
        taken
    }

    fn give_back(&mut self, tags: &[u64]) {
        let taken = self.take_off(tags);
        self.channel.send(|out, id| taken.tags.iter().for_each(|tag| amqp::nack(out, id, *tag)));
    }

    fn give_back_what_is_due(&mut self) {
        let now = Instant::now();
        for held in self.held.extract_if(.., |held| held.until <= now).collect::<Vec<_>>() {
            self.give_back(&held.tags);
        }
    }

    /// The numbers of deliveries mean nothing once the channel that gave them is closed.
    fn open(&mut self) -> Result<(), BrokerError> {
        if self.channel.is_open() {
            return Ok(());
        }
        // The reason waits in the channel, behind deliveries that are void now.
        loop {
            match self.channel.try_next() {
                Some(Ok(_)) => {}
                Some(Err(failure)) => return Err(self.broken(failure)),
                None => return Err(self.broken(Failure::Lost("the channel is closed".into()))),
            }
        }
    }
}

fn name(consumer: u32) -> String {
    format!("caudal-{consumer}")
}

#[async_trait]
impl Subscription for Consumer {
    async fn receive(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            self.gather()?;
            self.give_back_what_is_due();
            if !self.buffer.is_empty() {
                return Ok(self.hand_out(messages_max, bytes_max));
            }
            let due = self.held.iter().map(|held| held.until).min();
            tokio::select! {
                event = self.channel.next() => {
                    let event = event.map_err(|failure| self.broken(failure))?;
                    self.take(event)?;
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    async fn ack(&mut self, settled: &Marks) -> Result<(), BrokerError> {
        self.open()?;
        let taken = self.take_off(&settled.tags);
        let acks = self.tags.acks(&taken);
        self.channel.send(|out, id| {
            acks.iter().for_each(|Ack { tag, multiple }| amqp::ack(out, id, *tag, *multiple));
        });
        self.give_back_what_is_due();
        Ok(())
    }

    async fn nack(&mut self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        self.open()?;
        if after.is_zero() {
            self.give_back(&unsettled.tags);
        } else {
            self.held.push(Held { until: Instant::now() + after, tags: unsettled.tags.clone() });
        }
        Ok(())
    }
}
