//! Sockets: our own accept loop, because the time limits that protect a server from slow clients belong to it.
//!
//! HTTP/1.1 only (see `docs/adr`): load balancers speak it, and the HTTP/2 flood attacks have nothing to attack.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::guard::{self, Access};

/// Bounds on connections.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub access: Access,
    /// Open connections; more wait in the kernel's queue.
    pub connections_max: usize,
    /// From the first byte awaited to the end of a request's head; also how long an idle connection is kept.
    pub head_timeout: Duration,
    /// How long requests under way may take once draining begins.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    pub fn new(access: Access) -> Self {
        Self {
            access,
            connections_max: 10_000,
            head_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(25),
        }
    }
}

const HEADERS_MAX: usize = 64;
/// One read's worth of body; also bounds a request's head.
const READ_BUFFER_BYTES: usize = 256 * 1024;
/// After a failed accept (out of file descriptors, mostly) the loop pauses instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop`, then answers what is under way and returns. New connections are refused meanwhile.
pub async fn serve(listener: TcpListener, router: Router, config: ServerConfig, stop: CancellationToken) {
    let config = Arc::new(config);
    let places = Arc::new(Semaphore::new(config.connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = graceful.watch(connection(stream, router.clone(), config.clone()));
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(config.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running when the drain timeout ended");
    }
}

fn connection(
    stream: TcpStream,
    router: Router,
    config: Arc<ServerConfig>,
) -> http1::Connection<
    TokioIo<TcpStream>,
    impl hyper::service::HttpService<Incoming, ResBody = axum::body::Body, Error = std::convert::Infallible, Future: Send>,
> {
    // Small answers must not wait for a peer's delayed ack.
    let _ = stream.set_nodelay(true);
    let head_timeout = config.head_timeout;
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (router, config) = (router.clone(), config.clone());
        async move {
            if let Err(problem) = guard::check(&mut request, &config.access) {
                return Ok(problem.into_response());
            }
            router.oneshot(request.map(axum::body::Body::new)).await
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
}
