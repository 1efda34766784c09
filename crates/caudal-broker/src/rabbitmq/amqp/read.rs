//! From the socket's bytes to what each channel is told.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

use super::channel::Event;
use super::codec::Malformed;
use super::receive::{Delivered, Method, Properties, body_size};
use super::{BODY, FRAME_AROUND, FRAME_END, HEADER, HEARTBEAT, METHOD};

/// What a read asks for at least. Messages are slices of such blocks and keep them alive until they are settled.
const READ_BYTES: usize = 64 * 1024;
/// A body's announced size is believed up to here; beyond, memory is taken as the bytes come.
const BODY_BYTES_AT_ONCE: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) buffer: BytesMut,
    pub(super) frame_max: usize,
    contents: HashMap<u16, Content>,
}

/// A message that is still coming.
#[derive(Debug)]
struct Content {
    method: Method,
    method_bytes: Bytes,
    header: Option<Bytes>,
    missing: u64,
    body: Body,
}

enum Said {
    Delivered(Delivered),
    Else(Event),
}

#[derive(Debug)]
enum Body {
    /// Nearly every message: one frame, as it was read.
    Whole(Bytes),
    Parts(BytesMut),
}

impl Reader {
    pub(super) fn new(frame_max: usize) -> Self {
        Self { buffer: BytesMut::with_capacity(READ_BYTES), frame_max, contents: HashMap::new() }
    }

    /// Makes room for the next read.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// Takes all whole frames that were read; deliveries that follow each other on a channel become one event.
    pub(super) fn events(&mut self, events: &mut Vec<(u16, Event)>) -> Result<(), Malformed> {
        while let Some((kind, channel, payload)) = self.frame()? {
            let said = match kind {
                METHOD => self.method(channel, payload)?,
                HEADER => self.header(channel, payload)?,
                BODY => self.body(channel, payload)?,
                HEARTBEAT => None,
                _ => return Err(Malformed("a frame of an unknown type")),
            };
            match said {
                None => {}
                Some(Said::Else(event)) => events.push((channel, event)),
                Some(Said::Delivered(one)) => match events.last_mut() {
                    Some((last, Event::Deliveries(all))) if *last == channel => all.push(one),
                    _ => events.push((channel, Event::Deliveries(vec![one]))),
                },
            }
        }
        Ok(())
    }

    fn frame(&mut self) -> Result<Option<(u8, u16, Bytes)>, Malformed> {
        let Some((head, _)) = self.buffer.split_first_chunk::<7>() else { return Ok(None) };
        let [kind, c1, c2, s1, s2, s3, s4] = *head;
        let size = u32::from_be_bytes([s1, s2, s3, s4]) as usize;
        if size + FRAME_AROUND > self.frame_max {
            return Err(Malformed("a frame is larger than was agreed, or this is not AMQP at all"));
        }
        if self.buffer.len() < size + FRAME_AROUND {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(size + FRAME_AROUND);
        if frame[size + 7] != FRAME_END {
            return Err(Malformed("a frame does not end where it says"));
        }
        frame.advance(7);
        frame.truncate(size);
        Ok(Some((kind, u16::from_be_bytes([c1, c2]), frame.freeze())))
    }

    fn method(&mut self, channel: u16, payload: Bytes) -> Result<Option<Said>, Malformed> {
        let method = Method::parse(&payload)?;
        if !matches!(method, Method::Deliver { .. } | Method::Return { .. }) {
            return Ok(Some(Said::Else(Event::Method(method))));
        }
        let body = Body::Whole(Bytes::new());
        let content = Content { method, method_bytes: payload, header: None, missing: 0, body };
        match self.contents.insert(channel, content) {
            None => Ok(None),
            Some(_) => Err(Malformed("a message begins inside another")),
        }
    }

    fn header(&mut self, channel: u16, payload: Bytes) -> Result<Option<Said>, Malformed> {
        let content = self.contents.get_mut(&channel).ok_or(Malformed("a header without a message"))?;
        content.missing = body_size(&payload)?;
        content.header = Some(payload);
        self.complete(channel)
    }

    fn body(&mut self, channel: u16, payload: Bytes) -> Result<Option<Said>, Malformed> {
        let content = self.contents.get_mut(&channel).ok_or(Malformed("a body without a message"))?;
        let before = content.missing;
        content.missing =
            before.checked_sub(payload.len() as u64).ok_or(Malformed("a body is longer than its header says"))?;
        match &mut content.body {
            Body::Parts(parts) => parts.extend_from_slice(&payload),
            Body::Whole(_) if content.missing == 0 => content.body = Body::Whole(payload),
            Body::Whole(_) => {
                let size = usize::try_from(before).unwrap_or(usize::MAX);
                let mut parts = BytesMut::with_capacity(size.min(BODY_BYTES_AT_ONCE));
                parts.extend_from_slice(&payload);
                content.body = Body::Parts(parts);
            }
        }
        self.complete(channel)
    }

    /// The message, once all of it is there.
    fn complete(&mut self, channel: u16) -> Result<Option<Said>, Malformed> {
        if self.contents.get(&channel).is_none_or(|content| content.missing > 0 || content.header.is_none()) {
            return Ok(None);
        }
        let Some(content) = self.contents.remove(&channel) else { return Ok(None) };
        let header = content.header.unwrap_or_default();
        Ok(match content.method {
            Method::Deliver { tag, redelivered } => {
                let body = match content.body {
                    Body::Whole(body) => body,
                    Body::Parts(parts) => parts.freeze(),
                };
                let method = content.method_bytes;
                Some(Said::Delivered(Delivered { tag, redelivered, method, header, body }))
            }
            Method::Return { code, text } => {
                let id = Properties::parse(&header)?.message_id.map(|id| id.into_owned());
                Some(Said::Else(Event::Returned { code, text, id }))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::send;
    use super::*;

    fn deliver(tag: u64, body: &[u8]) -> BytesMut {
        // What we publish has the same header and body frames as what is delivered.
        let mut published = BytesMut::new();
        let publishing = send::Publishing::to(1, "e", "k", 64);
        publishing.message(&mut published, "id", &[], body).unwrap();
        let first = 8 + u32::from_be_bytes(published[3..7].try_into().unwrap()) as usize;
        let mut method = vec![0, 60, 0, 60, 1, b'c'];
        method.extend(tag.to_be_bytes());
        method.extend(b"\x01\x02ex\x03key");
        let mut out = BytesMut::from(&[METHOD, 0, 1, 0, 0, 0, method.len() as u8][..]);
        out.extend_from_slice(&method);
        out.extend_from_slice(&[FRAME_END]);
        out.extend_from_slice(&published[first..]);
        out
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Delivered>, Malformed> {
        let mut reader = Reader::new(64);
        let mut events = Vec::new();
        for piece in pieces {
            reader.room().extend_from_slice(piece);
            reader.events(&mut events)?;
        }
        let deliveries = |(channel, event)| match event {
            Event::Deliveries(all) if channel == 1 => all,
            other => panic!("{other:?}"),
        };
        Ok(events.into_iter().flat_map(deliveries).collect())
    }

    #[test]
    fn a_delivery_is_put_together() {
        let got = read(&[&deliver(9, b"{}")]).unwrap().remove(0);
        assert_eq!((got.tag, got.redelivered, &got.body[..]), (9, true, &b"{}"[..]));
        assert_eq!(got.route(), Ok(("ex".into(), "key".into())));
        assert_eq!(got.properties().unwrap().message_id.as_deref(), Some("id"));
    }

    #[test]
    fn what_breaks_the_rules_ends_the_connection() {
        let whole = deliver(1, b"0123456789");
        assert!(read(&[&whole[whole.len() - 18..]]).is_err(), "a body without a message");
        let mut larger = whole.clone();
        larger[3] = 1;
        assert!(read(&[&larger]).is_err(), "a frame of 16 MiB");
        let mut endless = whole;
        let last = endless.len() - 1;
        endless[last] = 0;
        assert!(read(&[&endless]).is_err());
        assert!(read(&[b"HTTP/1.1 400 Bad Request\r\n"]).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_bytes_arrive(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..5),
            cuts in proptest::collection::vec(1..97_usize, 1..40),
        ) {
            let bytes: Vec<u8> = (1..).zip(&bodies).flat_map(|(tag, body)| deliver(tag, body).to_vec()).collect();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                pieces.push(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let got = read(&pieces).unwrap();
            let tags: Vec<u64> = got.iter().map(|delivered| delivered.tag).collect();
            prop_assert_eq!(tags, (1..=bodies.len() as u64).collect::<Vec<_>>());
            let got: Vec<Vec<u8>> = got.iter().map(|delivered| delivered.body.to_vec()).collect();
            prop_assert_eq!(got, bodies);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut reader = Reader::new(4096);
            reader.room().extend_from_slice(&bytes);
            let _ = reader.events(&mut Vec::new());
        }
    }
}
