//! What we say: one function a method. Each appends whole frames to `out`.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{put_long, put_short, put_sized, put_text};
use super::{BODY, FRAME_AROUND, FRAME_END, HEADER, HEARTBEAT, METHOD};

fn frame(out: &mut BytesMut, kind: u8, channel: u16, payload: impl FnOnce(&mut BytesMut)) {
    out.put_u8(kind);
    out.put_u16(channel);
    put_sized(out, payload);
    out.put_u8(FRAME_END);
}

fn method(out: &mut BytesMut, channel: u16, (class, method): (u16, u16), arguments: impl FnOnce(&mut BytesMut)) {
    frame(out, METHOD, channel, |out| {
        out.put_u16(class);
        out.put_u16(method);
        arguments(out);
    });
}

pub(super) fn heartbeat() -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_AROUND);
    frame(&mut out, HEARTBEAT, 0, |_| {});
    out.freeze()
}

pub(super) fn start_ok(out: &mut BytesMut, user: &str, password: &str) {
    method(out, 0, (10, 11), |out| {
        put_sized(out, |out| {
            put_text(out, "product", "Caudal");
            put_text(out, "version", env!("CARGO_PKG_VERSION"));
            put_text(out, "connection_name", "caudal");
            put_short(out, "capabilities");
            out.put_u8(b'F');
            put_sized(out, |out| {
                // The last one makes the server say why it refuses a login, instead of hanging up.
                for capability in [
                    "publisher_confirms",
                    "basic.nack",
                    "consumer_cancel_notify",
                    "connection.blocked",
                    "authentication_failure_close",
                ] {
                    put_short(out, capability);
                    out.put_slice(b"t\x01");
                }
            });
        });
        put_short(out, "PLAIN");
        put_long(out, format!("\0{user}\0{password}").as_bytes());
        put_short(out, "en_US");
    });
}

pub(super) fn tune_ok(out: &mut BytesMut, channel_max: u16, frame_max: u32, heartbeat_seconds: u16) {
    method(out, 0, (10, 31), |out| {
        out.put_u16(channel_max);
        out.put_u32(frame_max);
        out.put_u16(heartbeat_seconds);
    });
}

pub(super) fn open(out: &mut BytesMut, vhost: &str) {
    method(out, 0, (10, 40), |out| {
        put_short(out, vhost);
        put_short(out, "");
        out.put_u8(0);
    });
}

fn close(out: &mut BytesMut, channel: u16, what: (u16, u16)) {
    method(out, channel, what, |out| {
        out.put_u16(200);
        put_short(out, "done");
        out.put_u32(0);
    });
}

pub(super) fn connection_close(out: &mut BytesMut) {
    close(out, 0, (10, 50));
}

pub(super) fn connection_close_ok(out: &mut BytesMut) {
    method(out, 0, (10, 51), |_| {});
}

pub(super) fn channel_open(out: &mut BytesMut, channel: u16) {
    method(out, channel, (20, 10), |out| put_short(out, ""));
}

pub(super) fn channel_flow_ok(out: &mut BytesMut, channel: u16, active: bool) {
    method(out, channel, (20, 21), |out| out.put_u8(u8::from(active)));
}

pub(super) fn channel_close(out: &mut BytesMut, channel: u16) {
    close(out, channel, (20, 40));
}

pub(super) fn channel_close_ok(out: &mut BytesMut, channel: u16) {
    method(out, channel, (20, 41), |_| {});
}

/// Looks (`passive`) or makes a durable exchange.
pub(in crate::rabbitmq) fn exchange_declare(out: &mut BytesMut, channel: u16, name: &str, kind: &str, passive: bool) {
    method(out, channel, (40, 10), |out| {
        out.put_u16(0);
        put_short(out, name);
        put_short(out, kind);
        out.put_u8(u8::from(passive) | 1 << 1);
        out.put_u32(0);
    });
}

/// What a queue is told when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::rabbitmq) enum Argument {
    Text(Cow<'static, str>),
    Number(i64),
    Flag(bool),
}

/// Looks (without arguments) or makes a durable queue.
pub(in crate::rabbitmq) fn queue_declare(
    out: &mut BytesMut,
    channel: u16,
    name: &str,
    arguments: Option<&[(Cow<'_, str>, Argument)]>,
) {
    method(out, channel, (50, 10), |out| {
        out.put_u16(0);
        put_short(out, name);
        out.put_u8(u8::from(arguments.is_none()) | 1 << 1);
        put_sized(out, |out| {
            for (name, argument) in arguments.unwrap_or_default() {
                match argument {
                    Argument::Text(text) => put_text(out, name, text),
                    Argument::Number(number) => {
                        put_short(out, name);
                        out.put_u8(b'l');
                        out.put_i64(*number);
                    }
                    Argument::Flag(flag) => {
                        put_short(out, name);
                        out.put_u8(b't');
                        out.put_u8(u8::from(*flag));
                    }
                }
            }
        });
    });
}

pub(in crate::rabbitmq) fn bind(out: &mut BytesMut, channel: u16, queue: &str, exchange: &str, routing_key: &str) {
    method(out, channel, (50, 20), |out| {
        out.put_u16(0);
        put_short(out, queue);
        put_short(out, exchange);
        put_short(out, routing_key);
        out.put_u8(0);
        out.put_u32(0);
    });
}

/// How many unsettled messages the next consumer of the channel may have.
pub(in crate::rabbitmq) fn qos(out: &mut BytesMut, channel: u16, messages: u16) {
    method(out, channel, (60, 10), |out| {
        out.put_u32(0);
        out.put_u16(messages);
        out.put_u8(0);
    });
}

pub(in crate::rabbitmq) fn consume(out: &mut BytesMut, channel: u16, queue: &str, consumer: &str) {
    method(out, channel, (60, 20), |out| {
        out.put_u16(0);
        put_short(out, queue);
        put_short(out, consumer);
        out.put_u8(0);
        out.put_u32(0);
    });
}

pub(in crate::rabbitmq) fn cancel(out: &mut BytesMut, channel: u16, consumer: &str) {
    method(out, channel, (60, 30), |out| {
        put_short(out, consumer);
        out.put_u8(0);
    });
}

/// `multiple`: this one and all before it.
pub(in crate::rabbitmq) fn ack(out: &mut BytesMut, channel: u16, tag: u64, multiple: bool) {
    method(out, channel, (60, 80), |out| {
        out.put_u64(tag);
        out.put_u8(u8::from(multiple));
    });
}

/// Gives one back to its queue.
pub(in crate::rabbitmq) fn nack(out: &mut BytesMut, channel: u16, tag: u64) {
    method(out, channel, (60, 120), |out| {
        out.put_u64(tag);
        out.put_u8(1 << 1);
    });
}

pub(in crate::rabbitmq) fn confirm_select(out: &mut BytesMut, channel: u16) {
    method(out, channel, (85, 10), |out| out.put_u8(0));
}

/// Publishing to one place: the part that is the same for every message is made once.
#[derive(Debug)]
pub(in crate::rabbitmq) struct Publishing {
    channel: u16,
    publish: Bytes,
    payload_max: usize,
}

/// The properties and the header table of one message do not fit into a frame, which AMQP cannot divide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rabbitmq) struct HeaderTooLarge {
    pub(in crate::rabbitmq) bytes: usize,
    pub(in crate::rabbitmq) bytes_max: usize,
}

impl Publishing {
    pub(in crate::rabbitmq) fn to(channel: u16, exchange: &str, routing_key: &str, frame_max: usize) -> Self {
        let mut out = BytesMut::new();
        method(&mut out, channel, (60, 40), |out| {
            out.put_u16(0);
            put_short(out, exchange);
            put_short(out, routing_key);
            out.put_u8(1); // mandatory: what no queue takes comes back
        });
        Self { channel, publish: out.freeze(), payload_max: frame_max - FRAME_AROUND }
    }

    /// A persistent message. `out` keeps only whole messages.
    pub(in crate::rabbitmq) fn message(
        &self,
        out: &mut BytesMut,
        id: &str,
        headers: &[(&str, String)],
        body: &[u8],
    ) -> Result<(), HeaderTooLarge> {
        let start = out.len();
        out.put_slice(&self.publish);
        let at = out.len();
        frame(out, HEADER, self.channel, |out| {
            out.put_u16(60);
            out.put_u16(0);
            out.put_u64(body.len() as u64);
            out.put_u16(1 << 15 | 1 << 13 | 1 << 12 | 1 << 7);
            put_short(out, "application/json");
            put_sized(out, |out| headers.iter().for_each(|(name, value)| put_text(out, name, value)));
            out.put_u8(2); // persistent
            put_short(out, id);
        });
        let bytes = out.len() - at - FRAME_AROUND;
        if bytes > self.payload_max {
            out.truncate(start);
            return Err(HeaderTooLarge { bytes, bytes_max: self.payload_max });
        }
        for part in body.chunks(self.payload_max) {
            frame(out, BODY, self.channel, |out| out.put_slice(part));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Close;
    use super::super::receive::{Method, Properties, body_size};
    use super::*;

    /// The frames in `bytes`: kind, channel, payload.
    fn frames(mut bytes: &[u8]) -> Vec<(u8, u16, Vec<u8>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let size = u32::from_be_bytes(bytes[3..7].try_into().unwrap()) as usize;
            assert_eq!(bytes[7 + size], FRAME_END);
            all.push((bytes[0], u16::from_be_bytes([bytes[1], bytes[2]]), bytes[7..7 + size].to_vec()));
            bytes = &bytes[8 + size..];
        }
        all
    }

    #[test]
    fn a_body_is_divided_into_frames_and_an_empty_one_has_none() {
        let publishing = Publishing::to(7, "e", "k", 4096);
        for (size, parts) in [(0, 0), (1, 1), (4088, 1), (4089, 2), (10_000, 3)] {
            let mut out = BytesMut::new();
            let body = vec![b'x'; size];
            publishing.message(&mut out, "id", &[("a", "b".to_owned())], &body).unwrap();
            let frames = frames(&out);
            assert_eq!(frames.len(), 2 + parts);
            assert!(frames.iter().all(|(_, channel, payload)| *channel == 7 && payload.len() <= 4088));
            assert_eq!(body_size(&frames[1].2), Ok(size as u64));
            assert_eq!(frames[2..].iter().flat_map(|(_, _, payload)| payload.clone()).collect::<Vec<_>>(), body);
            let properties = Properties::parse(&frames[1].2).unwrap();
            assert_eq!(properties.message_id.as_deref(), Some("id"));
            assert_eq!(properties.content_type.as_deref(), Some("application/json"));
            assert_eq!(properties.headers.unwrap().text("a").as_deref(), Some("b"));
        }
    }

    #[test]
    fn headers_that_fit_no_frame_leave_nothing_behind() {
        let publishing = Publishing::to(1, "e", "", 4096);
        let mut out = BytesMut::from(&b"before"[..]);
        let refused = publishing.message(&mut out, "id", &[("a", "b".repeat(5000))], b"{}").unwrap_err();
        assert!(refused.bytes > 5000 && refused.bytes_max == 4088);
        assert_eq!(&out[..], b"before");
    }

    #[test]
    fn a_close_is_read_as_it_is_written() {
        let mut out = BytesMut::new();
        channel_close(&mut out, 3);
        let (kind, channel, payload) = frames(&out).remove(0);
        assert_eq!((kind, channel), (METHOD, 3));
        let close = Close { code: 200, text: "done".into(), class: 0, method: 0 };
        assert_eq!(Method::parse(&payload), Ok(Method::ChannelClose(close)));
    }
}
