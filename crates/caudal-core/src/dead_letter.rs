//! Messages set aside with a reason: readable, repairable, sent back.

use bytes::Bytes;
use uuid::Uuid;

use crate::message::Message;
use crate::rejection::Rejection;
use crate::time::Instant;
use crate::topic::Identity;

/// A message that could not become a record, ready to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The dead letter's own id; the message's is in `message`.
    pub id: Uuid,
    pub message: Message,
    pub rejection: Rejection,
}

impl DeadLetter {
    pub fn new(identity: &Identity, message: Message, rejection: Rejection) -> Self {
        let id = identity.dead_letter_id(message.id, &message.body);
        Self { id, message, rejection }
    }
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterState {
    /// Waiting for somebody.
    Dead,
    /// Sent back; `outcome` says `stored` or `duplicate`.
    Redriven,
}

impl DeadLetterState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Redriven => "redriven",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        [Self::Dead, Self::Redriven].into_iter().find(|s| s.name() == name)
    }
}

/// A dead letter as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptDeadLetter {
    pub id: Uuid,
    pub topic: String,
    pub message: Message,
    pub reason: String,
    pub detail: String,
    pub pointer: String,
    pub dead_at: Instant,
    pub state: DeadLetterState,
    /// How many redrives were tried.
    pub attempts: i64,
    pub settled_at: Option<Instant>,
    pub outcome: Option<String>,
}

/// How a dead letter's bytes are kept in a `text` column: as they are, or in base64 when they are not text that both stores
/// can hold.
pub fn payload_as_text(payload: &[u8]) -> (std::borrow::Cow<'_, str>, &'static str) {
    match std::str::from_utf8(payload) {
        Ok(text) if !payload.contains(&0) => (text.into(), "utf-8"),
        _ => (base64(payload).into(), "base64"),
    }
}

/// The inverse of [`payload_as_text`].
pub fn payload_from_text(text: &str, encoding: &str) -> Bytes {
    if encoding == "base64" { Bytes::from(unbase64(text)) } else { Bytes::copy_from_slice(text.as_bytes()) }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Standard base64 with padding (RFC 4648 §4).
pub fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(ALPHABET[(n >> (18 - 6 * i)) as usize & 63] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

/// Reads what [`base64`] wrote; stops at the first byte that is not base64.
pub fn unbase64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut bits = 0u32;
    let mut have = 0;
    for b in text.bytes() {
        let Some(v) = ALPHABET.iter().position(|a| *a == b) else { break };
        bits = bits << 6 | v as u32;
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    out
}
