//! One socket, read and written by one task, and the channels over it.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::channel::Event;
use super::read::Reader;
use super::receive::{Delivered, Method};
use super::send;

/// How long the server may take to say goodbye.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Frames that are smaller are joined before they are written.
const SMALL_BYTES: usize = 16 * 1024;
const WRITES_AT_ONCE: usize = 64;
/// A channel that was handed more than this is closed: RabbitMQ bounds what it hands over in messages only.
const LOAD_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// As many may be out whatever their size.
const LOAD_MESSAGES_MIN: u64 = 16;

/// The server's reason for closing a channel or the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rabbitmq) struct Close {
    pub(in crate::rabbitmq) code: u16,
    pub(in crate::rabbitmq) text: String,
    /// Which method of ours is at fault; zeros if none.
    pub(in crate::rabbitmq) class: u16,
    pub(in crate::rabbitmq) method: u16,
}

impl std::fmt::Display for Close {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.text)
    }
}

/// Why a channel is of no more use.
#[derive(Debug, Clone, thiserror::Error)]
pub(in crate::rabbitmq) enum Failure {
    #[error("RabbitMQ says {0}")]
    Refused(Close),
    #[error("the connection to RabbitMQ is lost: {0}")]
    Lost(Arc<str>),
    #[error("RabbitMQ does not answer within {0:?}")]
    Late(Duration),
    #[error(
        "{messages} messages of {bytes} bytes are out, more than fit; the next subscription asks for fewer at once"
    )]
    Overrun { messages: u64, bytes: u64 },
}

/// What a channel was handed and has not settled.
#[derive(Debug, Default)]
pub(in crate::rabbitmq) struct Load {
    pub(in crate::rabbitmq) messages: AtomicU64,
    pub(in crate::rabbitmq) bytes: AtomicU64,
}

impl Load {
    fn add(&self, deliveries: &[Delivered]) {
        self.messages.fetch_add(deliveries.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(deliveries.iter().map(|delivered| delivered.bytes() as u64).sum(), Ordering::Relaxed);
    }

    pub(in crate::rabbitmq) fn remove(&self, messages: u64, bytes: u64) {
        self.messages.fetch_sub(messages, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Too much, if it is not just a few large ones.
    fn overrun(&self) -> Option<Failure> {
        let (messages, bytes) = (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        (bytes > LOAD_BYTES_MAX && messages > LOAD_MESSAGES_MIN).then_some(Failure::Overrun { messages, bytes })
    }
}

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuned {
    pub(super) channel_max: u16,
    pub(super) frame_max: usize,
    pub(super) heartbeat: Duration,
}

/// The socket is closed when this and all channels are dropped.
#[derive(Debug)]
pub(in crate::rabbitmq) struct Connection {
    /// Holds little: methods, and messages that their publishers wait for.
    outgoing: mpsc::UnboundedSender<Bytes>,
    channels: Arc<Channels>,
    blocked: watch::Receiver<Option<String>>,
    over: watch::Receiver<bool>,
    task: AbortHandle,
    pub(in crate::rabbitmq) product: String,
    pub(in crate::rabbitmq) frame_max: usize,
}

impl Connection {
    pub(super) fn start(socket: Box<dyn Socket>, reader: Reader, tuned: Tuned, product: String) -> Self {
        let (outgoing, writes) = mpsc::unbounded_channel();
        let channels = Arc::new(Channels::new(tuned.channel_max));
        let (block, blocked) = watch::channel(None);
        let (end, over) = watch::channel(false);
        let (read, write) = tokio::io::split(socket);
        // Not the sender itself: writing ends when nobody can send any more.
        let answers = outgoing.downgrade();
        let task = tokio::spawn({
            let channels = channels.clone();
            async move {
                let reading = Reading { reader, channels: channels.clone(), answers, block };
                let failure = tokio::select! {
                    failure = reading.run(read, tuned.heartbeat) => failure,
                    failure = write_all(write, writes, tuned.heartbeat) => failure,
                };
                channels.end(failure);
                let _ = end.send(true);
            }
        });
        let task = task.abort_handle();
        Self { outgoing, channels, blocked, over, task, product, frame_max: tuned.frame_max }
    }

    pub(in crate::rabbitmq) fn is_open(&self) -> bool {
        self.channels.lock().over.is_none()
    }

    /// Why the server does not read what we publish, while it does not.
    pub(in crate::rabbitmq) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.clone()
    }

    /// Says goodbye, so that the server has read everything, and waits for the answer.
    pub(in crate::rabbitmq) async fn close(&self) {
        let mut out = BytesMut::new();
        send::connection_close(&mut out);
        self.send(out.freeze());
        let mut over = self.over.clone();
        let _ = tokio::time::timeout(CLOSE_WITHIN, over.wait_for(|over| *over)).await;
        self.task.abort();
        self.channels.end(Failure::Lost("this process closed it".into()));
    }

    pub(in crate::rabbitmq) fn send(&self, bytes: Bytes) -> bool {
        self.outgoing.send(bytes).is_ok()
    }

    pub(super) fn register(&self) -> Result<Registered, Failure> {
        self.channels.register()
    }

    pub(super) fn has(&self, channel: u16, life: u64) -> bool {
        self.channels.lock().open.get(&channel).is_some_and(|slot| slot.life == life && slot.to.is_some())
    }

    /// Its number is free again once the server has agreed.
    pub(super) fn release(&self, channel: u16, life: u64) {
        let mut slots = self.channels.lock();
        let slot = slots.open.get_mut(&channel).filter(|slot| slot.life == life);
        if slot.and_then(|slot| slot.to.take()).is_some() {
            let mut out = BytesMut::new();
            send::channel_close(&mut out, channel);
            self.send(out.freeze());
        }
    }
}

#[derive(Debug)]
struct Channels(Mutex<Slots>);

/// A number for a channel, and what is said to it.
pub(super) struct Registered {
    pub(super) id: u16,
    /// Tells it from earlier and later channels of that number.
    pub(super) life: u64,
    pub(super) load: Arc<Load>,
    pub(super) events: mpsc::UnboundedReceiver<Event>,
}

#[derive(Debug)]
struct Slot {
    life: u64,
    load: Arc<Load>,
    /// `None` while the server has not agreed to close it.
    to: Option<mpsc::UnboundedSender<Event>>,
}

#[derive(Debug)]
struct Slots {
    open: HashMap<u16, Slot>,
    last: u16,
    lives: u64,
    max: u16,
    over: Option<Failure>,
}

impl Channels {
    fn new(max: u16) -> Self {
        Self(Mutex::new(Slots { open: HashMap::new(), last: 0, lives: 0, max, over: None }))
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self) -> Result<Registered, Failure> {
        let mut slots = self.lock();
        if let Some(failure) = &slots.over {
            return Err(failure.clone());
        }
        if slots.open.len() >= usize::from(slots.max) {
            return Err(Failure::Lost(format!("all {} channels of it are in use", slots.max).into()));
        }
        loop {
            slots.last = if slots.last == slots.max { 1 } else { slots.last + 1 };
            let id = slots.last;
            if !slots.open.contains_key(&id) {
                let (to, events) = mpsc::unbounded_channel();
                slots.lives += 1;
                let (life, load) = (slots.lives, Arc::new(Load::default()));
                slots.open.insert(id, Slot { life, load: load.clone(), to: Some(to) });
                return Ok(Registered { id, life, load, events });
            }
        }
    }

    /// Who no longer listens is not told. Returns the channels that hold too much.
    fn tell(&self, events: impl Iterator<Item = (u16, Event)>) -> Vec<(u16, Failure)> {
        let slots = self.lock();
        let mut overrun = Vec::new();
        for (channel, event) in events {
            let Some(Slot { to: Some(to), load, .. }) = slots.open.get(&channel) else { continue };
            if let Event::Deliveries(deliveries) = &event {
                load.add(deliveries);
                overrun.extend(load.overrun().map(|failure| (channel, failure)));
            }
            let _ = to.send(event);
        }
        overrun
    }

    /// Tells a channel that this end closes it. The server has not agreed yet.
    fn give_up(&self, channel: u16, failure: Failure) -> bool {
        let to = self.lock().open.get_mut(&channel).and_then(|slot| slot.to.take());
        to.is_some_and(|to| to.send(Event::Closed(failure)).is_ok())
    }

    fn close(&self, channel: u16, failure: Option<Failure>) {
        let slot = self.lock().open.remove(&channel);
        if let (Some(to), Some(failure)) = (slot.and_then(|slot| slot.to), failure) {
            let _ = to.send(Event::Closed(failure));
        }
    }

    fn end(&self, failure: Failure) {
        let mut slots = self.lock();
        for (_, slot) in slots.open.drain() {
            if let Some(to) = slot.to {
                let _ = to.send(Event::Closed(failure.clone()));
            }
        }
        slots.over.get_or_insert(failure);
    }
}

/// The reading half.
struct Reading {
    reader: Reader,
    channels: Arc<Channels>,
    answers: mpsc::WeakUnboundedSender<Bytes>,
    block: watch::Sender<Option<String>>,
}

impl Reading {
    /// Reads until the connection ends. The server sends at least a heartbeat in each interval; after two without anything
    /// it counts as gone.
    async fn run(mut self, mut socket: impl AsyncRead + Unpin, heartbeat: Duration) -> Failure {
        let mut events = Vec::new();
        loop {
            let read = tokio::time::timeout(heartbeat * 2, socket.read_buf(self.reader.room())).await;
            match read {
                Err(_) => return Failure::Lost("no sign of life from it".into()),
                Ok(Err(error)) => return Failure::Lost(error.to_string().into()),
                Ok(Ok(0)) => return Failure::Lost("it hung up".into()),
                Ok(Ok(_)) => {}
            }
            let malformed = self.reader.events(&mut events).err();
            if let Err(failure) = self.dispatch(&mut events) {
                return failure;
            }
            if let Some(malformed) = malformed {
                return Failure::Lost(malformed.to_string().into());
            }
        }
    }

    fn dispatch(&mut self, events: &mut Vec<(u16, Event)>) -> Result<(), Failure> {
        let mut rest = Vec::new();
        for (channel, event) in events.drain(..) {
            match event {
                Event::Method(Method::ChannelClose(close)) => {
                    // What came before it is told before it.
                    self.tell(&mut rest);
                    self.answer(|out| send::channel_close_ok(out, channel));
                    self.channels.close(channel, Some(Failure::Refused(close)));
                }
                Event::Method(Method::ChannelCloseOk) => self.channels.close(channel, None),
                Event::Method(Method::Flow(active)) => self.answer(|out| send::channel_flow_ok(out, channel, active)),
                Event::Method(method) if channel == 0 => {
                    self.tell(&mut rest);
                    self.own(method)?;
                }
                event => rest.push((channel, event)),
            }
        }
        self.tell(&mut rest);
        Ok(())
    }

    fn tell(&self, events: &mut Vec<(u16, Event)>) {
        for (channel, failure) in self.channels.tell(events.drain(..)) {
            if self.channels.give_up(channel, failure) {
                self.answer(|out| send::channel_close(out, channel));
            }
        }
    }

    /// What is about the connection itself.
    fn own(&mut self, method: Method) -> Result<(), Failure> {
        match method {
            Method::Close(close) => {
                self.answer(send::connection_close_ok);
                return Err(Failure::Refused(close));
            }
            Method::CloseOk => return Err(Failure::Lost("this process closed it".into())),
            Method::Blocked(why) => drop(self.block.send(Some(why))),
            Method::Unblocked => drop(self.block.send(None)),
            _ => {}
        }
        Ok(())
    }

    fn answer(&self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        if let Some(outgoing) = self.answers.upgrade() {
            let _ = outgoing.send(out.freeze());
        }
    }
}

/// Writes until the connection ends, and a heartbeat when there is nothing else to write.
async fn write_all(
    mut socket: impl AsyncWrite + Unpin,
    mut writes: mpsc::UnboundedReceiver<Bytes>,
    heartbeat: Duration,
) -> Failure {
    let mut chunks = Vec::with_capacity(WRITES_AT_ONCE);
    loop {
        match tokio::time::timeout(heartbeat / 2, writes.recv_many(&mut chunks, WRITES_AT_ONCE)).await {
            Err(_) => chunks.push(send::heartbeat()),
            Ok(0) => break,
            Ok(_) => {}
        }
        if let Err(error) = write_chunks(&mut socket, &mut chunks).await {
            return Failure::Lost(error.to_string().into());
        }
    }
    // Nobody needs it any more: say goodbye and let the reading half see the answer.
    let mut out = BytesMut::new();
    send::connection_close(&mut out);
    let _ = tokio::time::timeout(CLOSE_WITHIN, write_chunks(&mut socket, &mut vec![out.freeze()])).await;
    tokio::time::sleep(CLOSE_WITHIN).await;
    Failure::Lost("this process closed it".into())
}

async fn write_chunks(socket: &mut (impl AsyncWrite + Unpin), chunks: &mut Vec<Bytes>) -> io::Result<()> {
    let mut small = BytesMut::new();
    for mut chunk in chunks.drain(..) {
        if chunk.len() < SMALL_BYTES {
            small.extend_from_slice(&chunk);
            continue;
        }
        socket.write_all_buf(&mut small).await?;
        socket.write_all_buf(&mut chunk).await?;
    }
    socket.write_all_buf(&mut small).await?;
    socket.flush().await
}
