//! The bytes of the log, with no I/O.
//!
//! A segment is a sequence of frames and then zeroes. One frame is one group commit:
//!
//! ```text
//! header, 32 bytes   magic 4 | crc 4 | base_offset 8 | count 4 | payload_len 4 | written_at 8
//! record, × count    len 4 | crc 4 | offset 8 | id 16 | published_at 8 | flags 1
//!                    | key_len 4 | source_len 4 | attributes_len 4 | key | source | attributes | body
//! ```
//!
//! Integers are little-endian. Every byte is under exactly one CRC-32: the header's covers the rest of the header, a
//! record's covers its `len` and all that follows. So a record can be verified when it is read without reading its frame,
//! and a frame is whole when its records are and fill `payload_len`. Both start from the topic's incarnation and both
//! carry the offset: bytes from another log, or from another place in this one, never verify.

use bytes::Bytes;
use caudal_core::message::Message;
use caudal_core::time::Instant;
use crc32fast::Hasher;
use uuid::Uuid;

/// Not valid UTF-8, so it does not occur in a JSON body.
pub(crate) const MAGIC: [u8; 4] = [0xF5, b'c', b'd', b'l'];
pub(crate) const HEADER_BYTES: usize = 32;
/// `len` and `crc` of a record.
pub(crate) const PREFIX_BYTES: usize = 8;
const FIXED_BYTES: usize = 45;
const HAS_KEY: u8 = 1;
const HAS_ATTRIBUTES: u8 = 2;

/// The checksum of one topic's incarnation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub incarnation: Uuid,
    seed: u32,
}

impl Life {
    pub(crate) fn new(incarnation: Uuid) -> Self {
        Self { incarnation, seed: crc32fast::hash(incarnation.as_bytes()) }
    }

    fn crc(self, parts: [&[u8]; 2]) -> u32 {
        let mut hasher = Hasher::new_with_initial(self.seed);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    }
}

/// Why bytes are not what was written; ends up in the sentence that names file and position.
pub(crate) type Fault = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub base: u64,
    pub count: u32,
    /// Bytes of all records.
    pub payload: u32,
    /// Unix microseconds.
    pub written_at: i64,
}

impl Header {
    pub(crate) fn next(&self) -> u64 {
        self.base + u64::from(self.count)
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.payload)
    }
}

/// Builds one frame in a buffer that is used again for the next.
#[derive(Debug)]
pub(crate) struct FrameBuilder<'a> {
    life: Life,
    out: &'a mut Vec<u8>,
    base: u64,
    count: u32,
}

impl<'a> FrameBuilder<'a> {
    pub(crate) fn new(life: Life, out: &'a mut Vec<u8>, base: u64) -> Self {
        out.clear();
        out.resize(HEADER_BYTES, 0);
        Self { life, out, base, count: 0 }
    }

    /// The caller keeps a frame's records below 4 GiB together.
    pub(crate) fn push(&mut self, message: &Message) {
        let start = self.out.len();
        let key = message.key.as_deref().unwrap_or_default().as_bytes();
        let attributes = message.attributes.as_deref().unwrap_or_default();
        let mut flags = 0;
        flags |= if message.key.is_some() { HAS_KEY } else { 0 };
        flags |= if message.attributes.is_some() { HAS_ATTRIBUTES } else { 0 };

        let out = &mut *self.out;
        out.extend_from_slice(&((record_bytes(message) - PREFIX_BYTES) as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.base + u64::from(self.count)).to_le_bytes());
        out.extend_from_slice(message.id.as_bytes());
        out.extend_from_slice(&message.published_at.0.to_le_bytes());
        out.push(flags);
        out.extend_from_slice(&(key.len() as u32).to_le_bytes());
        out.extend_from_slice(&(message.source.len() as u32).to_le_bytes());
        out.extend_from_slice(&(attributes.len() as u32).to_le_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(message.source.as_bytes());
        out.extend_from_slice(attributes);
        out.extend_from_slice(&message.body);

        let record = &mut out[start..];
        let crc = self.life.crc([&record[..4], &record[PREFIX_BYTES..]]);
        record[4..8].copy_from_slice(&crc.to_le_bytes());
        self.count += 1;
    }

    pub(crate) fn finish(self, written_at: i64) -> Header {
        let payload = (self.out.len() - HEADER_BYTES) as u32;
        let header = Header { base: self.base, count: self.count, payload, written_at };
        let bytes = &mut self.out[..HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&header.base.to_le_bytes());
        bytes[16..20].copy_from_slice(&header.count.to_le_bytes());
        bytes[20..24].copy_from_slice(&header.payload.to_le_bytes());
        bytes[24..32].copy_from_slice(&header.written_at.to_le_bytes());
        let crc = self.life.crc([&bytes[..4], &bytes[8..]]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        header
    }
}

/// Bytes that a message takes in a frame.
pub(crate) fn record_bytes(message: &Message) -> usize {
    PREFIX_BYTES
        + FIXED_BYTES
        + message.key.as_ref().map_or(0, String::len)
        + message.source.len()
        + message.attributes.as_ref().map_or(0, Bytes::len)
        + message.body.len()
}

/// Reads a header; `None` where only zeroes are, which is the end of what was written.
pub(crate) fn header(life: Life, bytes: &[u8]) -> Result<Option<Header>, Fault> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    if bytes.len() < HEADER_BYTES {
        return Err("the file ends within a frame header");
    }
    if bytes[..4] != MAGIC {
        return Err("no frame starts here");
    }
    if life.crc([&bytes[..4], &bytes[8..HEADER_BYTES]]) != u32_at(bytes, 4) {
        return Err("the frame header's checksum is wrong");
    }
    let header = Header {
        base: u64_at(bytes, 8),
        count: u32_at(bytes, 16),
        payload: u32_at(bytes, 20),
        written_at: u64_at(bytes, 24) as i64,
    };
    if header.count == 0 || (header.payload as usize) < header.count as usize * (PREFIX_BYTES + FIXED_BYTES) {
        return Err("the frame header contradicts itself");
    }
    Ok(Some(header))
}

/// Bytes of the record that starts with this prefix, the prefix included. Not verified yet: check it against the frame.
pub(crate) fn record_len(prefix: &[u8]) -> u64 {
    PREFIX_BYTES as u64 + u64::from(u32_at(prefix, 0))
}

/// A record whose checksum and offset are right.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    bytes: &'a [u8],
    key: usize,
    source: usize,
    attributes: usize,
}

/// Verifies the record that `bytes` holds exactly.
pub(crate) fn record(life: Life, bytes: &[u8], offset: u64) -> Result<Record<'_>, Fault> {
    if bytes.len() < PREFIX_BYTES + FIXED_BYTES || record_len(bytes) != bytes.len() as u64 {
        return Err("the record's length is wrong");
    }
    if life.crc([&bytes[..4], &bytes[PREFIX_BYTES..]]) != u32_at(bytes, 4) {
        return Err("the record's checksum is wrong");
    }
    if u64_at(bytes, 8) != offset {
        return Err("the record has another offset than its place");
    }
    let sizes = [u32_at(bytes, 41), u32_at(bytes, 45), u32_at(bytes, 49)].map(|size| size as usize);
    let [key, source, attributes] = sizes;
    if sizes.iter().sum::<usize>() > bytes.len() - PREFIX_BYTES - FIXED_BYTES {
        return Err("the record's fields are longer than the record");
    }
    Ok(Record { bytes, key, source, attributes })
}

impl Record<'_> {
    pub(crate) fn id(&self) -> Uuid {
        let mut id = [0; 16];
        id.copy_from_slice(&self.bytes[16..32]);
        Uuid::from_bytes(id)
    }

    /// The message, its body and attributes being slices of `whole`, which holds this record.
    pub(crate) fn message(&self, whole: &Bytes) -> Result<Message, Fault> {
        let flags = self.bytes[40];
        let key_at = PREFIX_BYTES + FIXED_BYTES;
        let source_at = key_at + self.key;
        let attributes_at = source_at + self.source;
        let body_at = attributes_at + self.attributes;
        let text = |from: usize, to: usize| {
            std::str::from_utf8(&self.bytes[from..to]).map(str::to_owned).map_err(|_| "a text field is not UTF-8")
        };
        Ok(Message {
            id: self.id(),
            key: if flags & HAS_KEY != 0 { Some(text(key_at, source_at)?) } else { None },
            source: text(source_at, attributes_at)?,
            published_at: Instant(u64_at(self.bytes, 32) as i64),
            attributes: (flags & HAS_ATTRIBUTES != 0).then(|| whole.slice_ref(&self.bytes[attributes_at..body_at])),
            body: whole.slice_ref(&self.bytes[body_at..]),
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod test;
