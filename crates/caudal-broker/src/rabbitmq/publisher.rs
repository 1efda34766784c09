//! Publishing to one topic: one task and one channel in confirm mode, which all callers share.
//!
//! Messages go out as they are called for, without waiting for earlier confirmations; RabbitMQ answers with the number of
//! the last message that it has taken. A message that no queue takes is confirmed too, but *returned* first, so a return
//! turns its call's success into an error.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_core::error::BrokerError;
use caudal_core::message::Message;
use caudal_core::topic::TopicName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::Site;
use super::amqp::{self, Channel, Event, Failure, Method, Publishing};
use super::error::{self, Act, PRECONDITION_FAILED};
use super::topology::{Exchange, bind_command};
use crate::current::{closed, copy};
use crate::wire;

/// Calls that may wait to be sent.
const CALLS_MAX: usize = 1024;
/// Messages that may be unconfirmed before more are sent.
const UNCONFIRMED_MAX: u64 = 20_000;
/// How long RabbitMQ may take to confirm anything at all.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
/// How long what is on its way may take once RabbitMQ says that it stops reading.
const BLOCKED_WITHIN: Duration = Duration::from_secs(2);
/// Encoded messages are handed to the socket in such pieces.
const CHUNK_BYTES: usize = 256 * 1024;

/// Messages of one publish, and who waits for the word.
struct Call {
    messages: Vec<Message>,
    reply: oneshot::Sender<Result<(), BrokerError>>,
}

impl Call {
    fn answer(self, answer: Result<(), BrokerError>) {
        // Who is gone does not want to know.
        let _ = self.reply.send(answer);
    }
}

/// The way into one topic's task. The task ends when this is dropped, after what it was given.
#[derive(Debug, Clone)]
pub(super) struct Publisher(mpsc::Sender<Call>);

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}

impl Publisher {
    pub(super) fn start(site: Arc<Site>, topic: TopicName) -> (Self, tokio::task::JoinHandle<()>) {
        let (to, calls) = mpsc::channel(CALLS_MAX);
        (Self(to), tokio::spawn(run(site, topic, calls)))
    }

    pub(super) async fn publish(&self, messages: Vec<Message>) -> Result<(), BrokerError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(Call { messages, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

async fn run(site: Arc<Site>, topic: TopicName, mut calls: mpsc::Receiver<Call>) {
    while let Some(call) = calls.recv().await {
        let mut session = match Session::open(&site, &topic).await {
            Ok(session) => session,
            Err(why) => {
                // Who waits behind it would wait for the same. What is asked from now on tries again.
                while let Ok(call) = calls.try_recv() {
                    call.answer(Err(copy(&why)));
                }
                call.answer(Err(why));
                continue;
            }
        };
        for suspect in session.serve(call, Some(&mut calls)).await {
            // Somebody's message is too large, and that ended the channel for all. Alone it is only at its own fault.
            match Session::open(&site, &topic).await {
                Ok(mut session) => drop(session.serve(suspect, None).await),
                Err(why) => suspect.answer(Err(why)),
            }
        }
    }
}

/// One life of the topic's channel.
struct Session<'a> {
    site: &'a Site,
    exchange: Exchange,
    channel: Channel,
    publishing: Publishing,
    blocked: watch::Receiver<Option<String>>,
    sent: Sent,
    /// When RabbitMQ last confirmed something, or had nothing to confirm.
    progress: Instant,
    /// What was made for the topic is no longer there: no more calls until it is made again.
    stale: bool,
}

impl<'a> Session<'a> {
    async fn open(site: &'a Site, topic: &TopicName) -> Result<Self, BrokerError> {
        // While RabbitMQ blocks publishers it reads nothing from their connections: topology goes over the other one.
        site.topology.ensure(&site.consuming().await?, topic).await?;
        let connection = site.publishing().await?;
        let exchange = site.topology.exchange(topic);
        let mut channel = Channel::open(&connection).await.map_err(BrokerError::unavailable)?;
        channel.call(amqp::confirm_select).await.map_err(BrokerError::unavailable)?;
        let publishing = Publishing::to(channel.id(), &exchange.name, &exchange.routing_key, connection.frame_max);
        let (blocked, sent, progress) = (connection.blocked(), Sent::new(), Instant::now());
        Ok(Self { site, exchange, channel, publishing, blocked, sent, progress, stale: false })
    }

    /// Publishes `call` and all that come after it until the channel is of no more use or nobody calls any more. Returns
    /// the calls that must be tried one by one.
    async fn serve(&mut self, call: Call, mut calls: Option<&mut mpsc::Receiver<Call>>) -> Vec<Call> {
        self.send(call);
        while !(self.sent.is_empty() && (calls.is_none() || self.stale)) {
            let room = self.sent.unconfirmed() < UNCONFIRMED_MAX && !self.stale;
            let next_call = async {
                match &mut calls {
                    Some(calls) => calls.recv().await,
                    None => std::future::pending().await,
                }
            };
            let deadline = self.deadline();
            tokio::select! {
                biased;
                event = self.channel.next() => match event {
                    Ok(event) => self.take(event),
                    Err(failure) => return self.end(failure),
                },
                call = next_call, if room => match call {
                    Some(call) => self.send(call),
                    None => calls = None,
                },
                Ok(()) = self.blocked.changed() => self.progress = Instant::now(),
                () = tokio::time::sleep_until(deadline), if self.sent.awaited() => {
                    if let Some(why) = self.blocked.borrow().clone() {
                        self.sent.give_up(|| error::blocked(&why));
                        continue;
                    }
                    return self.end(Failure::Late(CONFIRM_WITHIN));
                }
            }
        }
        Vec::new()
    }

    fn deadline(&self) -> Instant {
        self.progress + if self.blocked.borrow().is_some() { BLOCKED_WITHIN } else { CONFIRM_WITHIN }
    }

    fn send(&mut self, call: Call) {
        if let Some(why) = &*self.blocked.borrow() {
            return call.answer(Err(error::blocked(why)));
        }
        let chunks = match self.encode(&call.messages) {
            Ok(chunks) => chunks,
            Err(why) => return call.answer(Err(why)),
        };
        if self.sent.is_empty() {
            self.progress = Instant::now();
        }
        for chunk in chunks {
            self.channel.connection().send(chunk);
        }
        self.sent.push(call);
    }

    /// Nothing of the call is sent when one of its messages cannot be.
    fn encode(&self, messages: &[Message]) -> Result<Vec<Bytes>, BrokerError> {
        let mut chunks = Vec::new();
        let mut out = BytesMut::new();
        for message in messages {
            let mut buffer = uuid::Uuid::encode_buffer();
            let id = message.id.hyphenated().encode_lower(&mut buffer);
            let headers = wire::headers(message);
            self.publishing.message(&mut out, id, &headers, &message.body).map_err(|large| {
                BrokerError::Refused(format!(
                    "its key and attributes take {} bytes of AMQP headers, and at most {} fit",
                    large.bytes, large.bytes_max
                ))
            })?;
            if out.len() >= CHUNK_BYTES {
                chunks.push(out.split().freeze());
            }
        }
        chunks.push(out.freeze());
        Ok(chunks)
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Method(Method::Confirm { tag, multiple, taken }) => {
                self.progress = Instant::now();
                self.sent.confirm(tag, multiple, taken);
                let (exchange, site) = (&self.exchange, self.site);
                self.sent.answer(|fault| fault.explain(exchange, site));
            }
            Event::Returned { code, text, id } => {
                self.stale = true;
                self.sent.returned(id.as_deref(), &format!("{code} {text}"));
            }
            _ => {}
        }
    }

    /// The channel is of no more use: what became of unconfirmed messages is not known.
    fn end(&mut self, failure: Failure) -> Vec<Call> {
        let too_large = matches!(&failure, Failure::Refused(close) if close.code == PRECONDITION_FAILED);
        let calls: Vec<Call> = self.sent.drain().collect();
        if too_large && calls.len() > 1 {
            return calls;
        }
        let act = Act::Publish(&self.exchange.name);
        for call in calls {
            call.answer(Err(error::doing(act, failure.clone(), &self.site.topology.url)));
        }
        Vec::new()
    }
}

/// What was sent on a channel and is not confirmed yet. RabbitMQ numbers the messages of a channel from 1.
struct Sent {
    calls: VecDeque<SentCall>,
    /// The number of the oldest message that is not confirmed.
    first: u64,
    next: u64,
    /// Whether each from `first` on is confirmed: confirmations may overtake each other.
    confirmed: VecDeque<bool>,
}

struct SentCall {
    /// `None` once its caller was told that nobody knows.
    call: Option<Call>,
    /// The number after its last message.
    end: u64,
    fault: Option<Fault>,
}

/// Why a confirmed message is not safe.
enum Fault {
    /// No queue takes it.
    Returned(String),
    /// A queue refused it.
    Nacked,
}

impl Fault {
    fn explain(&self, exchange: &Exchange, site: &Site) -> BrokerError {
        let Exchange { name, .. } = exchange;
        match self {
            Self::Returned(why) if exchange.ours && site.topology.config.create => BrokerError::unavailable(format!(
                "no queue is bound to exchange \"{name}\" any more ({why}); it is bound again before the next publish"
            )),
            Self::Returned(why) => BrokerError::Setup(format!(
                "no queue is bound to exchange \"{name}\" for routing key \"{}\" ({why}), so what is published is lost; bind \
                 one with {}",
                exchange.routing_key,
                bind_command(exchange, "QUEUE", &site.topology.url.vhost)
            )),
            Self::Nacked => BrokerError::unavailable(
                "a queue did not take the message: it is full and rejects what is published, or it has no leader",
            ),
        }
    }
}

impl Sent {
    fn new() -> Self {
        Self { calls: VecDeque::new(), first: 1, next: 1, confirmed: VecDeque::new() }
    }

    fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    fn unconfirmed(&self) -> u64 {
        self.next - self.first
    }

    /// Whether anybody waits.
    fn awaited(&self) -> bool {
        self.calls.iter().any(|sent| sent.call.is_some())
    }

    fn push(&mut self, call: Call) {
        let count = call.messages.len();
        self.next += count as u64;
        self.confirmed.resize(self.confirmed.len() + count, false);
        self.calls.push_back(SentCall { call: Some(call), end: self.next, fault: None });
    }

    fn confirm(&mut self, tag: u64, multiple: bool, taken: bool) {
        if tag < self.first || tag >= self.next {
            return;
        }
        let last = (tag - self.first) as usize;
        let from = if multiple { 0 } else { last };
        self.confirmed.range_mut(from..=last).for_each(|confirmed| *confirmed = true);
        if !taken {
            let begin = self.first + from as u64;
            let of = |start: u64, end: u64| start <= tag && end > begin;
            let mut start = self.first;
            for sent in &mut self.calls {
                if of(start, sent.end) {
                    sent.fault.get_or_insert(Fault::Nacked);
                }
                start = sent.end;
            }
        }
        while self.confirmed.front() == Some(&true) {
            self.confirmed.pop_front();
            self.first += 1;
        }
    }

    /// A return names no number, only the message. One that nobody knows could be anybody's.
    fn returned(&mut self, id: Option<&str>, why: &str) {
        let id = id.and_then(|id| uuid::Uuid::try_parse(id).ok());
        let has = |sent: &SentCall| {
            sent.call.as_ref().is_some_and(|call| call.messages.iter().any(|message| Some(message.id) == id))
        };
        let known = self.calls.iter().any(has);
        for sent in self.calls.iter_mut().filter(|sent| !known || has(sent)) {
            sent.fault.get_or_insert_with(|| Fault::Returned(why.to_owned()));
        }
    }

    /// Tells the callers whose messages are all confirmed.
    fn answer(&mut self, explain: impl Fn(&Fault) -> BrokerError) {
        while let Some(sent) = self.calls.pop_front_if(|sent| sent.end <= self.first) {
            if let Some(call) = sent.call {
                call.answer(sent.fault.map_or(Ok(()), |fault| Err(explain(&fault))));
            }
        }
    }

    /// Tells everybody that nobody knows, and goes on counting.
    fn give_up(&mut self, why: impl Fn() -> BrokerError) {
        for call in self.calls.iter_mut().filter_map(|sent| sent.call.take()) {
            call.answer(Err(why()));
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = Call> + '_ {
        self.calls.drain(..).filter_map(|sent| sent.call)
    }
}
