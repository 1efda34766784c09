//! From a URL to an open connection.

use std::time::Duration;

use bytes::BytesMut;
use caudal_core::error::BrokerError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::channel::Event;
use super::connection::{Connection, Failure, Socket, Tuned};
use super::read::Reader;
use super::receive::Method;
use super::{PROTOCOL, send, tls};
use crate::rabbitmq::error;
use crate::rabbitmq::url::Url;

/// Name lookup, TCP, TLS and AMQP together.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// RabbitMQ's own default, and the most we ask for.
const FRAME_MAX: u32 = 128 * 1024;
const CHANNEL_MAX: u16 = 2047;

impl Connection {
    pub(in crate::rabbitmq) async fn open(url: &Url) -> Result<Self, BrokerError> {
        match tokio::time::timeout(CONNECT_WITHIN, connect(url)).await {
            Ok(connected) => connected,
            Err(_) => Err(error::connecting(Failure::Late(CONNECT_WITHIN), url)),
        }
    }
}

async fn connect(url: &Url) -> Result<Connection, BrokerError> {
    let lost = |error: std::io::Error| error::connecting(Failure::Lost(error.to_string().into()), url);
    let socket = TcpStream::connect((url.host.as_str(), url.port)).await.map_err(lost)?;
    socket.set_nodelay(true).map_err(lost)?;
    let socket: Box<dyn Socket> = match &url.tls {
        None => Box::new(socket),
        Some(settings) => {
            let secured = tls::client(settings)?.connect(tls::name(url)?, socket).await;
            Box::new(secured.map_err(|error| error::securing(error, url))?)
        }
    };
    login(socket, url).await.map_err(|failure| error::connecting(failure, url))
}

async fn login(mut socket: Box<dyn Socket>, url: &Url) -> Result<Connection, Failure> {
    let mut reader = Reader::new(FRAME_MAX as usize);
    write(&mut socket, |out| out.extend_from_slice(PROTOCOL)).await?;
    let Method::Start { product, version, mechanisms } = read(&mut socket, &mut reader).await? else {
        return Err(unexpected());
    };
    if !mechanisms.split(' ').any(|mechanism| mechanism == "PLAIN") {
        return Err(Failure::Lost(format!("it takes no passwords, only {mechanisms}").into()));
    }
    write(&mut socket, |out| send::start_ok(out, &url.user, &url.password)).await?;
    let Method::Tune { channel_max, frame_max, heartbeat_seconds } = read(&mut socket, &mut reader).await? else {
        return Err(unexpected());
    };
    // Zero means without a limit.
    let channel_max = if channel_max == 0 { CHANNEL_MAX } else { channel_max.min(CHANNEL_MAX) };
    let frame_max = if frame_max == 0 { FRAME_MAX } else { frame_max.min(FRAME_MAX) };
    let ours = u16::try_from(url.heartbeat.as_secs()).unwrap_or(u16::MAX).max(1);
    let heartbeat = if heartbeat_seconds == 0 { ours } else { heartbeat_seconds.min(ours) };
    reader.frame_max = frame_max as usize;
    write(&mut socket, |out| {
        send::tune_ok(out, channel_max, frame_max, heartbeat);
        send::open(out, &url.vhost);
    })
    .await?;
    let Method::OpenOk = read(&mut socket, &mut reader).await? else { return Err(unexpected()) };
    let heartbeat = Duration::from_secs(heartbeat.into());
    let tuned = Tuned { channel_max, frame_max: frame_max as usize, heartbeat };
    Ok(Connection::start(socket, reader, tuned, format!("{product} {version}")))
}

fn unexpected() -> Failure {
    Failure::Lost("it said something unexpected while connecting".into())
}

async fn write(socket: &mut Box<dyn Socket>, write: impl FnOnce(&mut BytesMut)) -> Result<(), Failure> {
    let mut out = BytesMut::new();
    write(&mut out);
    let lost = |error: std::io::Error| Failure::Lost(error.to_string().into());
    socket.write_all(&out).await.map_err(lost)?;
    socket.flush().await.map_err(lost)
}

/// The server's next method; its refusal is the failure.
async fn read(socket: &mut Box<dyn Socket>, reader: &mut Reader) -> Result<Method, Failure> {
    let mut events = Vec::new();
    loop {
        reader.events(&mut events).map_err(|malformed| Failure::Lost(malformed.to_string().into()))?;
        match events.drain(..).next() {
            Some((0, Event::Method(Method::Close(close)))) => return Err(Failure::Refused(close)),
            Some((0, Event::Method(method))) => return Ok(method),
            Some(_) => return Err(unexpected()),
            None => {}
        }
        match socket.read_buf(reader.room()).await {
            Ok(0) => return Err(Failure::Lost("it hung up while connecting".into())),
            Ok(_) => {}
            Err(error) => return Err(Failure::Lost(error.to_string().into())),
        }
    }
}
