//! An endpoint over HTTP/1.1.
//!
//! What matters is what is known when there is no answer. `NotSent` is said only where that is proved: the connection was never
//! made, or not one byte of the request was taken from it. Anything else is `Unknown`. A request goes out once: a second time
//! only when a kept connection turned out to be closed and had taken nothing. Redirects are not followed and proxies not asked.

mod address;
mod connect;
mod exchange;
mod pool;
mod route;
mod sign;
mod target;
mod tls;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use caudal_core::confirm::answer::Answer;
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::confirm::template::Json;
use http::{HeaderValue, Method};
use rustls::pki_types::ServerName;

pub use connect::Resolve;
pub use tls::TlsFiles;

use connect::Connector;
use exchange::Exchanged;
use pool::{Connection, Pool};
use route::{Content, Headers, Prepared, Route};
use sign::Signer;
use target::Target;

use crate::{BODY_BYTES_MAX, fill};

/// An endpoint as configured. URLs, headers' values and strings in bodies may hold placeholders
/// ([`caudal_core::confirm::template`]).
#[derive(Clone)]
pub struct HttpConfig {
    pub method: String,
    /// The host must be written out; values are escaped.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// `None`: the record, and nothing with GET and HEAD.
    pub body: Option<serde_json::Value>,
    /// The header with the idempotency key.
    pub key_header: String,
    /// For one call: connecting, sending and reading the answer.
    pub timeout: Duration,
    /// For connecting, within `timeout`.
    pub connect_timeout: Duration,
    /// Of a longer answer only so many bytes are read, and its connection is closed.
    pub body_bytes_max: usize,
    pub probe: Option<ProbeConfig>,
    /// Secrets (`whsec_…`) to sign with as Standard Webhooks does; two while they are changed, none for no signature.
    pub sign: Vec<String>,
    pub tls: TlsFiles,
    /// Whether addresses in private networks may be connected to. `None`: when the URL itself names one, or localhost.
    pub allow_private: Option<bool>,
}

/// How the endpoint is asked what became of a transaction. The headers are those of the call.
#[derive(Clone)]
pub struct ProbeConfig {
    pub method: String,
    pub url: String,
}

impl HttpConfig {
    pub fn new(url: &str) -> Self {
        Self {
            method: "POST".to_owned(),
            url: url.to_owned(),
            headers: Vec::new(),
            body: None,
            key_header: "Idempotency-Key".to_owned(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            body_bytes_max: BODY_BYTES_MAX,
            probe: None,
            sign: Vec::new(),
            tls: TlsFiles::default(),
            allow_private: None,
        }
    }
}

impl ProbeConfig {
    pub fn new(url: &str) -> Self {
        Self { method: "GET".to_owned(), url: url.to_owned() }
    }
}

/// Without URLs, headers and bodies, in which tokens are written.
impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = target::parse(&self.url).map(|(target, _)| target.authority).unwrap_or_default();
        f.debug_struct("HttpConfig").field("method", &self.method).field("target", &target).finish_non_exhaustive()
    }
}

impl fmt::Debug for ProbeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeConfig").field("method", &self.method).finish_non_exhaustive()
    }
}

/// An HTTP endpoint behind the port of confirmers. Cheap to share; its connections are closed when it is dropped.
pub struct HttpConfirmer {
    call: Route,
    probe: Option<Route>,
    timeout: Duration,
    body_bytes_max: usize,
}

impl fmt::Debug for HttpConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpConfirmer({})", self.target())
    }
}

impl HttpConfirmer {
    /// # Errors
    /// A sentence that says what is wrong with the configuration. It repeats no secret.
    pub fn open(config: &HttpConfig) -> Result<Self, String> {
        Self::open_with(config, connect::system())
    }

    /// With a resolver of one's own.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(config: &HttpConfig, resolve: Resolve) -> Result<Self, String> {
        if config.timeout.is_zero() || config.connect_timeout.is_zero() {
            return Err("a call needs time: timeout and connect_timeout are above 0".to_owned());
        }
        let headers = Headers::new(&config.headers, &config.key_header, Signer::new(&config.sign)?)?;
        let headers = Arc::new(headers);
        let method = method(&config.method)?;
        let body = content(&method, config.body.as_ref())?;
        let (target, path) = target::parse(&config.url)?;
        let pool = Arc::new(Pool::new(connector(config, target, &resolve)?));
        let probe = match &config.probe {
            None => None,
            Some(probe) => {
                let within = |why: String| format!("the probe: {why}");
                let (target, path) = target::parse(&probe.url).map_err(within)?;
                let pool = match target == *pool.target() {
                    true => pool.clone(),
                    false => Arc::new(Pool::new(connector(config, target, &resolve).map_err(within)?)),
                };
                let method = self::method(&probe.method).map_err(within)?;
                Some(Route { pool, method, path, body: Content::Nothing, headers: headers.clone() })
            }
        };
        let call = Route { pool, method, path, body, headers };
        Ok(Self { call, probe, timeout: config.timeout, body_bytes_max: config.body_bytes_max })
    }

    /// The record's properties that URLs and headers take from: without them no request can be made.
    pub fn properties(&self) -> BTreeSet<&str> {
        let paths = std::iter::once(&self.call).chain(&self.probe).flat_map(|route| route.path.properties());
        paths.chain(self.call.headers.properties()).collect()
    }

    async fn ask(&self, route: &Route, call: &Call<'_>) -> Answer {
        let Ok(host) = HeaderValue::from_str(&route.pool.target().authority) else {
            return Answer::Blocked("the URL's host is no header's value".to_owned());
        };
        let prepared = match route.prepare(call, &host) {
            Ok(prepared) => prepared,
            Err(why) => return Answer::Blocked(why),
        };
        let mut written = None;
        match tokio::time::timeout(self.timeout, self.send(route, &prepared, &mut written)).await {
            Ok(answer) => answer,
            // The connection is gone by now, so what it says is final.
            Err(_) => self.without_answer(route, written.as_ref(), "no answer in time"),
        }
    }

    /// `written` is told the connection that is being used, for when this is dropped.
    async fn send(&self, route: &Route, prepared: &Prepared, written: &mut Option<Arc<AtomicBool>>) -> Answer {
        if let Some(mut kept) = route.pool.kept().await {
            *written = Some(kept.written.clone());
            match kept.exchange(prepared.request(), self.body_bytes_max).await {
                // It was closed before it took a byte: what follows is no second request.
                Err(_) if !kept.written.load(Relaxed) => {}
                exchanged => return self.end(route, kept, exchanged).await,
            }
        }
        *written = None;
        let mut fresh = match route.pool.fresh().await {
            Ok(fresh) => fresh,
            Err(answer) => return answer,
        };
        *written = Some(fresh.written.clone());
        let exchanged = fresh.exchange(prepared.request(), self.body_bytes_max).await;
        self.end(route, fresh, exchanged).await
    }

    async fn end(&self, route: &Route, connection: Connection, exchanged: Result<Exchanged, String>) -> Answer {
        match exchanged {
            Ok(Exchanged { answer, reusable }) => {
                if reusable {
                    route.pool.keep(connection).await;
                }
                answer
            }
            Err(why) => self.without_answer(route, Some(&connection.written), &why),
        }
    }

    fn without_answer(&self, route: &Route, written: Option<&Arc<AtomicBool>>, why: &str) -> Answer {
        let why = format!("{}: {why}", route.pool.target().authority);
        if written.is_some_and(|written| written.load(Relaxed)) { Answer::Unknown(why) } else { Answer::NotSent(why) }
    }
}

#[async_trait]
impl Confirmer for HttpConfirmer {
    async fn call(&self, call: Call<'_>) -> Answer {
        self.ask(&self.call, &call).await
    }

    async fn probe(&self, call: Call<'_>) -> Answer {
        match &self.probe {
            Some(route) => self.ask(route, &call).await,
            None => Answer::Blocked("no probe is configured for this endpoint".to_owned()),
        }
    }

    fn target(&self) -> &str {
        &self.call.pool.target().authority
    }
}

fn method(name: &str) -> Result<Method, String> {
    match name.to_ascii_uppercase().parse() {
        Ok(Method::CONNECT | Method::TRACE) | Err(_) => Err(format!("{name:?} is no method that can be asked for")),
        Ok(method) => Ok(method),
    }
}

fn content(method: &Method, body: Option<&serde_json::Value>) -> Result<Content, String> {
    Ok(match body {
        None if matches!(*method, Method::GET | Method::HEAD) => Content::Nothing,
        None => Content::Record,
        Some(template) => {
            let unusable = |e| format!("the body cannot be used: {}", fill::unreadable(&e));
            Content::Made(Json::parse(template).map_err(unusable)?)
        }
    })
}

fn connector(config: &HttpConfig, target: Target, resolve: &Resolve) -> Result<Connector, String> {
    let tls = match target.tls {
        false => None,
        true => {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|_| format!("{} is no name that a certificate could be made out to", target.host))?;
            Some((tls::connector(&config.tls)?, name))
        }
    };
    let allow_private = config.allow_private.unwrap_or_else(|| target.is_private());
    if !allow_private && target.is_private() {
        let host = &target.authority;
        return Err(format!("{host} is in a private network, and allow_private is false: nothing could be sent"));
    }
    Ok(Connector { target, tls, resolve: resolve.clone(), allow_private, timeout: config.connect_timeout })
}
