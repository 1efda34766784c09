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
use tokio::sync::{mpsc, watch};

use super::error::chain;
use super::fate::Over;
use super::gap::Gaps;
use super::incoming::Told;
use super::link::Link;
use super::place::{Consumer, TopicStream};
use super::sift::Unreadable;
use super::subscription::{Inbox, NAK, NatsSubscription, Settlement};
use super::trim::Trim;
use super::wreck::Wrecks;

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
/// Batches of acks that wait to be sent.
const SETTLEMENTS_AHEAD: usize = 4;
/// Begins the last part of a subject that the answer to a settlement comes to.
const CONFIRMS: char = 'a';
const IN_PROGRESS: Bytes = Bytes::from_static(b"+WPI");

struct Pump {
    link: Arc<Link>,
    stream: Arc<TopicStream>,
    consumer: Consumer,
    inbox: Arc<Inbox>,
    messages: ReadyChunks<Subscriber>,
    /// Where messages come, the fate of requests (`<reply>.<request>`) and answers to acks (`<reply>.a<settlement>`).
    reply: String,
    request: u64,
    settlements: mpsc::Receiver<Settlement>,
    settled: u64,
    /// Messages asked for that did not come yet.
    asked: usize,
    /// The last request got nothing so far.
    fruitless: bool,
    /// Unreadable messages are still out. Until the server has taken their acks, it is not asked for more.
    sifting: bool,
    /// The next message is larger than what a request with a bound in bytes can get.
    oversized: bool,
    sign: Instant,
    gaps: Gaps,
    trim: Trim,
    wrecks: Arc<Wrecks>,
    _alive: watch::Receiver<()>,
}

/// Begins to read from a consumer.
pub(super) async fn open(
    link: Arc<Link>,
    stream: Arc<TopicStream>,
    consumer: Consumer,
    unreadable: Vec<Unreadable>,
    wrecks: Arc<Wrecks>,
) -> Result<NatsSubscription, BrokerError> {
    let reply = link.client.new_inbox();
    let subscriber = link.client.subscribe(format!("{reply}.*")).await;
    let subscriber = subscriber.map_err(|error| BrokerError::unavailable(chain(&error)))?;
    let inbox = Arc::new(Inbox::new());
    let (settlements, to_settle) = mpsc::channel(SETTLEMENTS_AHEAD);
    let (delivered, up_to) = consumer.delivered;
    let sifting = !unreadable.is_empty();
    inbox.put_unreadable(unreadable);
    let pump = Pump {
        trim: Trim::new(&link, &stream),
        gaps: Gaps::after(delivered, up_to, consumer.numbered),
        messages: subscriber.ready_chunks(CHUNK),
        inbox: inbox.clone(),
        reply,
        request: 0,
        settlements: to_settle,
        settled: 0,
        asked: 0,
        fruitless: false,
        wrecks,
        sifting,
        oversized: false,
        sign: Instant::now(),
        _alive: link.pump(),
        link: link.clone(),
        stream,
        consumer,
    };
    let pump = Some((settlements, tokio::spawn(pump.run())));
    Ok(NatsSubscription { link, inbox, sent: 0, pump })
}

impl Pump {
    async fn run(mut self) {
        let over = self.work().await;
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
        self.wrecks.leave(&self.stream, &self.consumer, self.link.server.clone(), out);
    }

    /// Until the worker leaves or the connection ends. Each step says whether there is another.
    async fn work(&mut self) -> Over {
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
                    () = self.inbox.taken.notified() => Ok(true),
                    _ = beat.tick() => self.beat().await,
                    settlement = self.settlements.recv() => self.settle(settlement).await,
                }
            };
            tokio::select! {
                over = &mut ended => return over,
                step = step => match step {
                    Ok(true) => {}
                    Ok(false) => return Over::Closing,
                    Err(why) => return Over::Broken(why.into()),
                },
            }
        }
    }

    /// Asks for as much as there is room for, when nothing is asked for and there is room for half.
    async fn ask(&mut self) -> Result<(), String> {
        if self.sifting && (self.inbox.has_unreadable() || *self.inbox.confirmed.borrow() < self.settled) {
            return Ok(());
        }
        self.sifting = false;
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

    fn take(&mut self, came: Option<Vec<Message>>) -> Result<bool, String> {
        let came = came.ok_or("the connection to NATS ended")?;
        self.sign = Instant::now();
        let mut deliveries = Vec::with_capacity(came.len());
        for message in came {
            // Whatever a producer's headers look like, a delivery is known by the subject that settles it.
            let Some(told) = message.reply.as_deref().and_then(Told::by) else {
                self.told(&message)?;
                continue;
            };
            self.asked = self.asked.saturating_sub(1);
            self.fruitless = false;
            deliveries.push((message, told));
        }
        if !deliveries.is_empty() {
            self.inbox.put(deliveries, &self.stream.life, &mut self.gaps);
        }
        Ok(true)
    }

    /// A message of the server about a request or a settlement.
    fn told(&mut self, message: &Message) -> Result<(), String> {
        let status = message.status.map_or(0, |status| status.as_u16());
        let why = message.description.as_deref().unwrap_or_default();
        let about = message.subject.rsplit('.').next().unwrap_or_default();
        let current = about.parse() == Ok(self.request);
        let settlement = about.strip_prefix(CONFIRMS).and_then(|number| number.parse().ok());
        match status {
            100 => Ok(()),
            0 => {
                if let Some(number) = settlement {
                    self.inbox.confirmed.send_replace(number);
                }
                Ok(())
            }
            503 if settlement.is_some() => Err(self.gone()),
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
            503 => Err(self.gone()),
            _ => Err(format!("consumer {} of stream {}: {why} ({status})", self.consumer.name, self.stream.stream)),
        }
    }

    fn gone(&self) -> String {
        format!("consumer {} of stream {} is gone", self.consumer.name, self.stream.stream)
    }

    /// Says one word of each delivery. The server answers the last, and takes them in the order in which they are sent, so its
    /// answer stands for all.
    async fn settle(&mut self, settlement: Option<Settlement>) -> Result<bool, String> {
        let Some(Settlement { mut replies, word }) = settlement else { return Ok(false) };
        let Some(last) = replies.pop() else { return Ok(true) };
        for reply in replies {
            self.link.client.publish(reply, word.clone()).await.map_err(|error| chain(&error))?;
        }
        self.settled += 1;
        let answer = format!("{}.{CONFIRMS}{}", self.reply, self.settled);
        let sent = self.link.client.publish_with_reply(last, answer, word).await;
        sent.map_err(|error| chain(&error)).map(|()| true)
    }

    async fn beat(&mut self) -> Result<bool, String> {
        for reply in self.inbox.untouched(self.consumer.ack_wait / 3) {
            self.link.client.publish(reply, IN_PROGRESS).await.map_err(|error| chain(&error))?;
        }
        if self.asked > 0 && self.sign.elapsed() > 3 * SIGN_EVERY {
            return Err(format!("consumer {} of stream {} is silent", self.consumer.name, self.stream.stream));
        }
        self.trim.when_due();
        Ok(true)
    }

    /// Gives back, in order, what the worker had, what waited for it, and what was on its way.
    async fn farewell(&mut self) {
        let begun = Instant::now();
        self.settlements.close();
        while let Some(settlement) = self.settlements.recv().await {
            let _ = self.settle(Some(settlement)).await;
        }
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
