//! AMQP 0-9-1, as much of it as this adapter speaks.
//!
//! A client of our own, because lapin 4.12, the only one that is kept up, takes about nine times the processor time to publish a
//! message and four times to consume one (a promise and a wake-up each), may hand the broker's *returned, unroutable* to another
//! publish than the one it is about, and logs the bodies of returned messages.
//!
//! [`Connection`] is one task that reads and writes a socket; a [`Channel`] is a conversation over it. Nothing here
//! reconnects, repeats or remembers topology: who uses it does.

mod channel;
mod codec;
mod connection;
mod handshake;
mod read;
mod receive;
mod send;
mod tls;

pub(super) use channel::{Channel, Event};
pub(super) use codec::{Malformed, Value};
pub(super) use connection::{Close, Connection, Failure, Load};
pub(super) use receive::{Delivered, Method, Properties};
pub(super) use send::{
    Argument, Publishing, ack, bind, cancel, confirm_select, consume, exchange_declare, nack, qos, queue_declare,
};

/// What both sides must agree on for the first bytes.
pub(super) const PROTOCOL: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// Ends every frame.
const FRAME_END: u8 = 0xCE;
/// Bytes of a frame around its payload.
const FRAME_AROUND: usize = 8;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
