//! From a name to a connection, with the address checked on the way.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use caudal_core::confirm::answer::Answer;
use futures_util::future::BoxFuture;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::address::{Place, place};
use super::target::Target;

/// How names become addresses: host and port to socket addresses.
pub type Resolve = Arc<dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// By the system's resolver.
pub(super) fn system() -> Resolve {
    Arc::new(|host, port| Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }))
}

pub(super) struct Connector {
    pub(super) target: Target,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(super) resolve: Resolve,
    pub(super) allow_private: bool,
    /// For the name, the connection and TLS together.
    pub(super) timeout: Duration,
}

impl Connector {
    /// A connection through which nothing of a request has gone. The address that is connected to is one of those that were
    /// checked; the name is not looked up again.
    ///
    /// # Errors
    /// The answer that a call gets without one: `NotSent` or `Blocked`.
    pub(super) async fn connect(&self) -> Result<(Stream, Arc<AtomicBool>), Answer> {
        let until = Instant::now() + self.timeout;
        let addresses = self.addresses(until).await?;
        let tcp = self.reach(&addresses, until).await?;
        let _ = tcp.set_nodelay(true);
        let written = Arc::new(AtomicBool::new(false));
        let inner = match &self.tls {
            None => Inner::Plain(tcp),
            Some((connector, name)) => {
                let secured = timeout_at(until, connector.connect(name.clone(), tcp)).await;
                let secured = secured.map_err(|_| self.not_sent("TLS was not agreed upon in time"))?;
                Inner::Tls(Box::new(secured.map_err(|e| self.not_sent(&format!("TLS failed: {e}")))?))
            }
        };
        Ok((Stream { inner, written: written.clone() }, written))
    }

    /// The addresses that may be connected to.
    async fn addresses(&self, until: Instant) -> Result<Vec<SocketAddr>, Answer> {
        let Target { host, port, .. } = &self.target;
        let mut found = match self.target.literal() {
            Some(address) => vec![SocketAddr::new(address, *port)],
            None => timeout_at(until, (self.resolve)(host.clone(), *port))
                .await
                .map_err(|_| self.not_sent("its name was not resolved in time"))?
                .map_err(|e| self.not_sent(&format!("its name was not resolved: {e}")))?,
        };
        let Some(first) = found.first().copied() else { return Err(self.not_sent("its name has no address")) };
        found.retain(|address| match place(address.ip()) {
            Place::Public => true,
            Place::Private => self.allow_private,
            Place::Never => false,
        });
        if found.is_empty() {
            return Err(Answer::Blocked(self.refusal(first)));
        }
        Ok(found)
    }

    fn refusal(&self, address: SocketAddr) -> String {
        let (host, ip) = (&self.target.authority, address.ip());
        match place(ip) {
            Place::Never => {
                format!("{host} leads to {ip}, which is link-local, multicast or reserved: nothing is sent there")
            }
            _ => format!("{host} leads to {ip}, in a private network: if it is meant, set allow_private = true"),
        }
    }

    /// Tries one address after the other, each with an equal part of the time that is left.
    async fn reach(&self, addresses: &[SocketAddr], until: Instant) -> Result<TcpStream, Answer> {
        let mut why = String::new();
        for (at, address) in addresses.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now()) / (addresses.len() - at) as u32;
            match timeout_at(Instant::now() + left, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => why = e.to_string(),
                Err(_) => why = "no connection in time".to_owned(),
            }
        }
        Err(self.not_sent(&why))
    }

    fn not_sent(&self, why: &str) -> Answer {
        Answer::NotSent(format!("{}: {why}", self.target.authority))
    }
}

/// A connection that knows whether any of a request may have left through it.
pub(super) struct Stream {
    inner: Inner,
    /// Set before hyper is told that bytes were taken, so what was not set was not written. TLS's own records do not count: they
    /// hold nothing of a request.
    written: Arc<AtomicBool>,
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Notes what became of a write. A failed one counts with TLS, which may have sent a part before it failed; the kernel took
    /// nothing of a plain write that failed.
    fn note(&self, wrote: &io::Result<usize>) {
        let may_have_left = match (wrote, &self.inner) {
            (Ok(bytes), _) => *bytes > 0,
            (Err(_), inner) => matches!(inner, Inner::Tls(_)),
        };
        if may_have_left {
            self.written.store(true, Relaxed);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = ready!(match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        });
        self.note(&wrote);
        Poll::Ready(wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = ready!(match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        });
        self.note(&wrote);
        Poll::Ready(wrote)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.inner {
            Inner::Plain(stream) => stream.is_write_vectored(),
            Inner::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
