//! What the server says: methods, and messages with their properties.

use std::borrow::Cow;

use bytes::Bytes;

use super::codec::{Cursor, Malformed, Table};
use super::connection::Close;

/// A method, with what this adapter needs of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rabbitmq) enum Method {
    Start {
        product: String,
        version: String,
        mechanisms: String,
    },
    Secure,
    Tune {
        channel_max: u16,
        frame_max: u32,
        heartbeat_seconds: u16,
    },
    OpenOk,
    Close(Close),
    CloseOk,
    Blocked(String),
    Unblocked,
    Flow(bool),
    ChannelClose(Close),
    ChannelCloseOk,
    /// The server ended a consumer.
    Cancel,
    Deliver {
        tag: u64,
        redelivered: bool,
    },
    Return {
        code: u16,
        text: String,
    },
    Confirm {
        tag: u64,
        multiple: bool,
        taken: bool,
    },
    QueueDeclareOk {
        ready: u32,
    },
    /// Every other answer to a question of ours, by class and method.
    Done(u16, u16),
}

impl Method {
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(payload);
        let (class, method) = (at.u16()?, at.u16()?);
        Ok(match (class, method) {
            (10, 10) => start(at)?,
            (10, 20) => Self::Secure,
            (10, 30) => Self::Tune { channel_max: at.u16()?, frame_max: at.u32()?, heartbeat_seconds: at.u16()? },
            (10, 41) => Self::OpenOk,
            (10, 50) => Self::Close(close(at)?),
            (10, 51) => Self::CloseOk,
            (10, 60) => Self::Blocked(at.short()?.into_owned()),
            (10, 61) => Self::Unblocked,
            (20, 20) => Self::Flow(at.u8()? != 0),
            (20, 40) => Self::ChannelClose(close(at)?),
            (20, 41) => Self::ChannelCloseOk,
            (50, 11) => {
                at.short()?;
                Self::QueueDeclareOk { ready: at.u32()? }
            }
            (60, 30) => Self::Cancel,
            (60, 50) => Self::Return { code: at.u16()?, text: at.short()?.into_owned() },
            (60, 60) => {
                at.short()?;
                Self::Deliver { tag: at.u64()?, redelivered: at.u8()? != 0 }
            }
            (60, 80) => Self::Confirm { tag: at.u64()?, multiple: at.u8()? & 1 == 1, taken: true },
            (60, 120) => Self::Confirm { tag: at.u64()?, multiple: at.u8()? & 1 == 1, taken: false },
            (class, method) => Self::Done(class, method),
        })
    }
}

fn start(mut at: Cursor<'_>) -> Result<Method, Malformed> {
    at.take(2)?; // the protocol's version, which the first bytes settled
    let properties = at.table()?;
    let property = |name| properties.text(name).map(Cow::into_owned).unwrap_or_default();
    let (product, version) = (property("product"), property("version"));
    let mechanisms = String::from_utf8_lossy(at.long()?).into_owned();
    Ok(Method::Start { product, version, mechanisms })
}

fn close(mut at: Cursor<'_>) -> Result<Close, Malformed> {
    let (code, text) = (at.u16()?, at.short()?.into_owned());
    Ok(Close { code, text, class: at.u16()?, method: at.u16()? })
}

/// A message that was handed over, as slices of what was read from the socket.
#[derive(Debug, Clone)]
pub(in crate::rabbitmq) struct Delivered {
    pub(in crate::rabbitmq) tag: u64,
    pub(in crate::rabbitmq) redelivered: bool,
    pub(super) method: Bytes,
    pub(super) header: Bytes,
    pub(in crate::rabbitmq) body: Bytes,
}

impl Delivered {
    /// What it takes of memory.
    pub(in crate::rabbitmq) fn bytes(&self) -> usize {
        self.header.len() + self.body.len()
    }

    /// The exchange and the routing key that it was published with.
    pub(in crate::rabbitmq) fn route(&self) -> Result<(Cow<'_, str>, Cow<'_, str>), Malformed> {
        let mut at = Cursor::new(&self.method);
        at.take(4)?; // class and method
        at.short()?; // the consumer
        at.take(9)?; // tag and flag
        Ok((at.short()?, at.short()?))
    }

    pub(in crate::rabbitmq) fn properties(&self) -> Result<Properties<'_>, Malformed> {
        Properties::parse(&self.header)
    }
}

/// A message's properties.
#[derive(Debug, Clone, Default)]
pub(in crate::rabbitmq) struct Properties<'a> {
    pub(in crate::rabbitmq) content_type: Option<Cow<'a, str>>,
    pub(in crate::rabbitmq) headers: Option<Table<'a>>,
    pub(in crate::rabbitmq) correlation_id: Option<Cow<'a, str>>,
    pub(in crate::rabbitmq) message_id: Option<Cow<'a, str>>,
    /// Seconds since 1970.
    pub(in crate::rabbitmq) timestamp: Option<u64>,
    pub(in crate::rabbitmq) kind: Option<Cow<'a, str>>,
    pub(in crate::rabbitmq) app_id: Option<Cow<'a, str>>,
}

/// The payload of a header frame up to the flags.
const BEFORE_FLAGS: usize = 12;

impl<'a> Properties<'a> {
    pub(super) fn parse(header: &'a [u8]) -> Result<Self, Malformed> {
        let mut at = Cursor::new(header);
        at.take(BEFORE_FLAGS)?;
        let flags = at.u16()?;
        if flags & 1 != 0 {
            return Err(Malformed("a message has properties that AMQP 0-9-1 does not know"));
        }
        let has = |bit: u16| flags & 1 << bit != 0;
        let mut properties = Self::default();
        let short = |at: &mut Cursor<'a>, bit: u16| has(bit).then(|| at.short()).transpose();
        properties.content_type = short(&mut at, 15)?;
        short(&mut at, 14)?; // content-encoding
        properties.headers = has(13).then(|| at.table()).transpose()?;
        has(12).then(|| at.u8()).transpose()?; // delivery-mode
        has(11).then(|| at.u8()).transpose()?; // priority
        properties.correlation_id = short(&mut at, 10)?;
        short(&mut at, 9)?; // reply-to
        short(&mut at, 8)?; // expiration
        properties.message_id = short(&mut at, 7)?;
        properties.timestamp = has(6).then(|| at.u64()).transpose()?;
        properties.kind = short(&mut at, 5)?;
        short(&mut at, 4)?; // user-id
        properties.app_id = short(&mut at, 3)?;
        Ok(properties)
    }
}

/// How many bytes of body a header announces.
pub(super) fn body_size(header: &[u8]) -> Result<u64, Malformed> {
    let mut at = Cursor::new(header);
    at.take(4)?;
    at.u64()
}
