//! The task of one subscription: asks for messages while there is room, shows the server that those which are out are being
//! worked on, and gives them back in the end.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use caudal_core::error::BrokerError;
use futures_util::stream::ReadyChunks;
use futures_util::{FutureExt, StreamExt};
use serde_json::json;
use tokio::sync::{oneshot, watch};

use super::error::chain;
use super::fate::Over;
use super::gap::Gaps;
use super::incoming::Told;
use super::link::Link;
use super::place::{Consumer, TopicStream};
use super::subscription::{Inbox, NAK, NatsSubscription};
use super::trim::Trim;

/// Messages that may wait here for the worker; two of its batches.
const AHEAD_MESSAGES: usize = 20_000;
/// Bytes of them, unless the server takes messages of which two would not fit.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;
/// How long a request for messages stands while there are none.
const ASK_FOR: Duration = Duration::from_secs(20);
/// A server that has no messages says so this often.
const SIGN_EVERY: Duration = Duration::from_secs(2);
/// Messages taken from the driver at once.
const CHUNK: usize = 512;
/// What was asked for and is on its way comes within this time.
const ON_ITS_WAY: Duration = Duration::from_millis(20);
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

struct Pump {
    link: Arc<Link>,
    stream: Arc<TopicStream>,
    consumer: Consumer,
    inbox: Arc<Inbox>,
    messages: ReadyChunks<Subscriber>,
    /// Where messages and the fate of requests come: `<reply>.<request>`.
    reply: String,
    request: u64,
    /// Messages asked for that did not come yet.
    asked: usize,
    /// The last request got nothing so far.
    fruitless: bool,
    /// The next message is larger than what a request with a bound in bytes can get.
    oversized: bool,
    sign: Instant,
    gaps: Gaps,
    trim: Trim,
    _alive: watch::Receiver<()>,
}

/// Begins to read from a consumer.
pub(super) async fn open(
    link: Arc<Link>,
    stream: Arc<TopicStream>,
    consumer: Consumer,
) -> Result<NatsSubscription, BrokerError> {
    let reply = link.client.new_inbox();
    let subscriber = link.client.subscribe(format!("{reply}.*")).await;
    let subscriber = subscriber.map_err(|error| BrokerError::unavailable(chain(&error)))?;
    let inbox = Arc::new(Inbox::new());
    let (leaving, left) = oneshot::channel();
    let (delivered, up_to) = consumer.delivered;
    let pump = Pump {
        trim: Trim::new(&link, &stream),
        gaps: Gaps::after(delivered, up_to, consumer.numbered),
        messages: subscriber.ready_chunks(CHUNK),
        inbox: inbox.clone(),
        reply,
        request: 0,
        asked: 0,
        fruitless: false,
        oversized: false,
        sign: Instant::now(),
        _alive: link.pump(),
        link: link.clone(),
        stream,
        consumer,
    };
    let pump = Some((leaving, tokio::spawn(pump.run(left))));
    Ok(NatsSubscription { link, inbox, pump })
}

impl Pump {
    async fn run(mut self, left: oneshot::Receiver<()>) {
        let over = self.work(left).await;
        let out = match &over {
            Over::Closing => {
                let on_its_way = self.farewell();
                if tokio::time::timeout(FAREWELL_WITHIN, on_its_way).await.is_err() {
                    tracing::debug!(stream = %self.stream.stream, "the server did not take back in time what was out");
                }
                return;
            }
            Over::Broken(why) | Over::Deaf(why) => self.inbox.end(why.to_string()),
        };
        tracing::debug!(stream = %self.stream.stream, out = out.len(), ?over, "a subscription ends");
    }

    /// Until the worker leaves or the connection ends.
    async fn work(&mut self, mut left: oneshot::Receiver<()>) -> Over {
        let fate = self.link.fate.clone();
        let mut ended = pin!(fate.ended());
        // Half of what the server waits for, whenever it falls between two beats.
        let mut beat = tokio::time::interval(self.consumer.ack_wait / 6);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let step = async {
                self.ask().await?;
                tokio::select! {
                    came = self.messages.next() => self.take(came),
                    () = self.inbox.taken.notified() => Ok(()),
                    _ = beat.tick() => self.beat().await,
                }
            };
            tokio::select! {
                over = &mut ended => return over,
                _ = &mut left => return Over::Closing,
                step = step => if let Err(why) = step {
                    return Over::Broken(why.into());
                },
            }
        }
    }

    /// Asks for as much as there is room for, when nothing is asked for and there is room for half.
    async fn ask(&mut self) -> Result<(), String> {
        let (messages, bytes) = self.inbox.waiting();
        let most = AHEAD_BYTES.max(2 * self.link.client.max_payload());
        if self.asked > 0 || messages > AHEAD_MESSAGES / 2 || bytes > most / 2 {
            return Ok(());
        }
        let bounded =
            |value: usize, bound: Option<u64>| bound.map_or(value, |b| value.min(usize::try_from(b).unwrap_or(value)));
        let expires = self.consumer.expires_max.map_or(ASK_FOR, |most| most.min(ASK_FOR));
        let mut request = json!({
            "expires": nanos(expires),
            "idle_heartbeat": nanos(SIGN_EVERY.min(expires / 3)),
        });
        let batch = if self.oversized { 1 } else { bounded(AHEAD_MESSAGES - messages, self.consumer.batch_max) };
        request["batch"] = json!(batch);
        if !self.oversized {
            request["max_bytes"] = json!(bounded(most - bytes, self.consumer.bytes_max));
        }
        self.request += 1;
        let what = format!("CONSUMER.MSG.NEXT.{}.{}", self.stream.stream, self.consumer.name);
        let subject = self.link.api_subject(&what);
        let reply = Subject::from(format!("{}.{}", self.reply, self.request));
        // Nothing waits between the sending and the note of it, so that it is never asked twice.
        let sent = self.link.client.publish_with_reply(subject, reply, Bytes::from(request.to_string()));
        sent.await.map_err(|error| chain(&error))?;
        (self.asked, self.fruitless, self.oversized, self.sign) = (batch, true, false, Instant::now());
        Ok(())
    }

    fn take(&mut self, came: Option<Vec<Message>>) -> Result<(), String> {
        let came = came.ok_or("the connection to NATS ended")?;
        self.sign = Instant::now();
        let mut deliveries = Vec::with_capacity(came.len());
        for message in came {
            if message.status.is_some() {
                self.told(&message)?;
            } else if let Some(told) = message.reply.as_deref().and_then(Told::by) {
                self.asked = self.asked.saturating_sub(1);
                self.fruitless = false;
                deliveries.push((message, told));
            }
        }
        if !deliveries.is_empty() {
            self.inbox.put(deliveries, &self.stream.life, &mut self.gaps);
        }
        Ok(())
    }

    /// A message of the server about a request.
    fn told(&mut self, message: &Message) -> Result<(), String> {
        let status = message.status.map_or(0, |status| status.as_u16());
        let why = message.description.as_deref().unwrap_or_default();
        let current = message.subject.rsplit('.').next().and_then(|n| n.parse().ok()) == Some(self.request);
        match status {
            100 => Ok(()),
            _ if !current => Ok(()),
            404 | 408 => {
                self.asked = 0;
                Ok(())
            }
            // Either the bytes are used up, or the next message alone is more than all of them.
            409 if why.to_ascii_lowercase().contains("maxbytes") => {
                (self.asked, self.oversized) = (0, self.fruitless);
                Ok(())
            }
            503 => Err(format!("consumer {} of stream {} is gone", self.consumer.name, self.stream.stream)),
            _ => Err(format!("consumer {} of stream {}: {why} ({status})", self.consumer.name, self.stream.stream)),
        }
    }

    async fn beat(&mut self) -> Result<(), String> {
        for reply in self.inbox.untouched(self.consumer.ack_wait / 3) {
            self.link.client.publish(reply, IN_PROGRESS).await.map_err(|error| chain(&error))?;
        }
        if self.asked > 0 && self.sign.elapsed() > 3 * SIGN_EVERY {
            return Err(format!("consumer {} of stream {} is silent", self.consumer.name, self.stream.stream));
        }
        self.trim.when_due();
        Ok(())
    }

    /// Gives back, in order, what the worker had, what waited for it, and what was on its way.
    async fn farewell(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < FAREWELL_WITHIN / 2
            && let Ok(Some(came)) = tokio::time::timeout(ON_ITS_WAY, self.messages.next()).await
            && self.take(Some(came)).is_ok()
        {}
        let _ = self.messages.get_mut().unsubscribe().await;
        while let Some(Some(came)) = self.messages.next().now_or_never() {
            let _ = self.take(Some(came));
        }
        // The server drops requests that nobody listens to when it is asked about the consumer. Up to 2.10 one that is left
        // swallows the first message to hand over again, until `ack_wait` is over.
        let what = format!("CONSUMER.INFO.{}.{}", self.stream.stream, self.consumer.name);
        let _ = self.link.client.request(self.link.api_subject(&what), Bytes::new()).await;
        for reply in self.inbox.end("the subscription is closed".to_owned()) {
            if self.link.client.publish(reply, NAK).await.is_err() {
                return;
            }
        }
        let _ = self.link.client.flush().await;
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
