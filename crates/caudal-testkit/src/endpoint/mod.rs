//! An endpoint that confirms payments and misbehaves as it is told: seeded, at run time, with a ledger of what it did.
//!
//! ```text
//! POST anything                  a payment under its Idempotency-Key
//! GET  /payments/{key}           what became of it
//! GET  /control/totals           sums; /control/effects: a line a key; /control/effects/{key}
//! PUT  /control/behaviour        a Behaviour as JSON
//! POST /control/outage           {"ms": 5000, "status": 503}; status 0 drops connections
//! POST /control/reset            forgets everything
//! ```

mod behaviour;
mod control;
mod ledger;
mod wire;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub use behaviour::Behaviour;
use behaviour::Fault;
pub use ledger::Effects;
use ledger::{Ledger, Memory, Standing};
pub use wire::Request;
use wire::Wire;

use crate::chance::Chance;

/// The endpoint, listening. Gone when dropped; connections that it has end with the runtime.
#[derive(Debug)]
pub struct Endpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

/// Everything that is not a socket.
#[derive(Debug)]
struct Shared {
    behaviour: RwLock<Arc<Behaviour>>,
    ledger: Ledger,
    chance: Mutex<Chance>,
    outage: RwLock<Option<Outage>>,
    kept: Mutex<Vec<Request>>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    until: Instant,
    status: u16,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    calls: AtomicU64,
    under_way: AtomicU64,
    at_once_max: AtomicU64,
    probes: AtomicU64,
    faults: Mutex<BTreeMap<String, u64>>,
}

/// Sums over all keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    pub connections: u64,
    pub calls: u64,
    /// Calls under way at the same time, at most.
    pub at_once_max: u64,
    pub probes: u64,
    pub keys: u64,
    pub effects: u64,
    pub declined: u64,
    /// Keys that were done more than once.
    pub doubles: u64,
    /// Calls that went wrong on purpose, by what was done.
    pub faults: BTreeMap<String, u64>,
}

impl Endpoint {
    /// At a port of its own on loopback.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub async fn start(behaviour: Behaviour) -> io::Result<Self> {
        Self::bind("127.0.0.1:0", behaviour).await
    }

    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(address: &str, behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(behaviour));
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { shared, address, accepting })
    }

    /// Serves one connection that somebody else accepted, for TLS; ends with it.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        self.shared.connection(stream).await;
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn set(&self, behaviour: Behaviour) {
        self.shared.set(behaviour);
    }

    /// Fails every call and probe for so long; a status of 0 ends the connection instead.
    pub fn fail_for(&self, time: Duration, status: u16) {
        self.shared.fail_for(time, status);
    }

    pub fn effects(&self, key: Uuid) -> Option<Effects> {
        self.shared.ledger.effects(key)
    }

    /// Every key that was ever called with.
    pub fn each(&self, tell: impl FnMut(Uuid, Effects)) {
        self.shared.ledger.each(tell);
    }

    pub fn totals(&self) -> Totals {
        self.shared.totals()
    }

    /// The first requests since it was told to keep them, and empties the list.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = shared.clone();
        tokio::spawn(async move { shared.connection(stream).await });
    }
}

/// A key is a UUID, or any text that stands for one.
fn key_of(text: &str) -> Uuid {
    Uuid::try_parse(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()))
}

/// Whether the connection goes on.
type Goes = io::Result<bool>;

impl Shared {
    fn new(behaviour: Behaviour) -> Self {
        Self {
            chance: Mutex::new(Chance::new(behaviour.seed)),
            behaviour: RwLock::new(Arc::new(behaviour)),
            ledger: Ledger::new(),
            outage: RwLock::default(),
            kept: Mutex::default(),
            counts: Counts::default(),
        }
    }

    fn behaviour(&self) -> Arc<Behaviour> {
        self.behaviour.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, behaviour: Behaviour) {
        *self.chance.lock().unwrap_or_else(PoisonError::into_inner) = Chance::new(behaviour.seed);
        *self.behaviour.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(behaviour);
    }

    fn fail_for(&self, time: Duration, status: u16) {
        let outage = Outage { until: Instant::now() + time, status };
        *self.outage.write().unwrap_or_else(PoisonError::into_inner) = Some(outage);
    }

    fn outage(&self) -> Option<Outage> {
        let outage = *self.outage.read().unwrap_or_else(PoisonError::into_inner);
        outage.filter(|outage| Instant::now() < outage.until)
    }

    /// A number in 0..1.
    fn random(&self) -> f64 {
        let number = self.chance.lock().unwrap_or_else(PoisonError::into_inner).next_u64();
        (number >> 11) as f64 / (1u64 << 53) as f64
    }

    async fn connection<S: AsyncRead + AsyncWrite + Unpin>(self: &Arc<Self>, stream: S) {
        self.counts.connections.fetch_add(1, Relaxed);
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = wire.request().await {
            if !self.request(&mut wire, request).await.unwrap_or(false) {
                break;
            }
        }
        wire.close().await;
    }

    async fn request<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        wire: &mut Wire<S>,
        request: Request,
    ) -> Goes {
        if let Some(rest) = request.target.strip_prefix("/control/") {
            let (status, body) = self.control(&request.method, rest, &request.body);
            wire.answer(status, "", body.as_bytes()).await?;
            return Ok(true);
        }
        let behaviour = self.behaviour();
        if behaviour.keeps_requests > 0 {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < behaviour.keeps_requests {
                kept.push(request.clone());
            }
        }
        if let Some(outage) = self.outage() {
            if outage.status == 0 {
                return Ok(false);
            }
            wire.answer(outage.status, "", br#"{"error":"out of order"}"#).await?;
            return Ok(true);
        }
        if request.method == "GET" {
            return self.probe(wire, &behaviour, &request.target).await;
        }
        match request.header("idempotency-key").map(key_of) {
            Some(key) => {
                let _under_way = UnderWay::begin(&self.counts);
                self.call(wire, &behaviour, key).await
            }
            None => {
                wire.answer(400, "", br#"{"error":"there is no Idempotency-Key"}"#).await?;
                Ok(true)
            }
        }
    }

    async fn probe<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        wire: &mut Wire<S>,
        behaviour: &Behaviour,
        target: &str,
    ) -> Goes {
        self.counts.probes.fetch_add(1, Relaxed);
        let named = target.strip_prefix("/payments/").filter(|_| behaviour.answers_probes);
        let standing = named.and_then(|key| self.ledger.probe(key_of(key), behaviour.memory()));
        match standing {
            Some(standing) => say(wire, standing).await?,
            None => wire.answer(404, "", br#"{"error":"not found"}"#).await?,
        }
        Ok(true)
    }

    async fn call<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        wire: &mut Wire<S>,
        behaviour: &Arc<Behaviour>,
        key: Uuid,
    ) -> Goes {
        self.counts.calls.fetch_add(1, Relaxed);
        let fault = self.fault(behaviour);
        let standing = self.ledger.begin(key, behaviour.memory());
        if standing != Standing::New {
            say(wire, standing).await?;
            return Ok(fault != Fault::Close);
        }
        if behaviour.delays > 0.0 && self.random() < behaviour.delays {
            tokio::time::sleep(Duration::from_millis(behaviour.delay_ms)).await;
        }
        let declined = behaviour.declines(key);
        if fault == Fault::InProgress {
            self.finish_later(key, declined, behaviour.delay_ms);
        } else if fault.spares() {
            self.ledger.leave(key);
        } else {
            self.ledger.finish(key, declined, fault == Fault::Lie);
        }
        let truth = if declined { Standing::Declined } else { Standing::Done };
        answer(wire, behaviour, fault, truth).await
    }

    fn fault(&self, behaviour: &Behaviour) -> Fault {
        if behaviour.is_faultless() {
            return Fault::None;
        }
        let fault = behaviour.pick(self.random());
        if fault != Fault::None {
            let mut faults = self.counts.faults.lock().unwrap_or_else(PoisonError::into_inner);
            *faults.entry(format!("{fault:?}")).or_default() += 1;
        }
        fault
    }

    fn finish_later(self: &Arc<Self>, key: Uuid, declined: bool, ms: u64) {
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            shared.ledger.finish(key, declined, false);
        });
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            connections: self.counts.connections.load(Relaxed),
            calls: self.counts.calls.load(Relaxed),
            at_once_max: self.counts.at_once_max.load(Relaxed),
            probes: self.counts.probes.load(Relaxed),
            faults: self.counts.faults.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Totals::default()
        };
        self.ledger.each(|_, effects| {
            totals.keys += 1;
            totals.effects += u64::from(effects.effects);
            totals.declined += u64::from(effects.declined);
            totals.doubles += u64::from(effects.effects > 1);
        });
        totals
    }
}

/// A call, until it is answered or its connection is gone.
struct UnderWay<'a>(&'a Counts);

impl<'a> UnderWay<'a> {
    fn begin(counts: &'a Counts) -> Self {
        let now = counts.under_way.fetch_add(1, Relaxed) + 1;
        counts.at_once_max.fetch_max(now, Relaxed);
        Self(counts)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

impl Behaviour {
    fn memory(&self) -> Memory {
        Memory { honours_keys: self.honours_keys, retention: self.retention_ms.map(Duration::from_millis) }
    }

    fn declines(&self, key: Uuid) -> bool {
        self.declines > 0.0 && (key.as_u128() % 1_000_003) as f64 / 1_000_003.0 < self.declines
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, standing: Standing) -> io::Result<()> {
    match standing {
        Standing::New | Standing::Done => wire.answer(200, "", br#"{"state":"confirmed"}"#).await,
        Standing::Declined => wire.answer(422, "", br#"{"state":"declined"}"#).await,
        Standing::Busy => wire.answer(409, "", br#"{"state":"in_progress"}"#).await,
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    behaviour: &Behaviour,
    fault: Fault,
    truth: Standing,
) -> Goes {
    let done = br#"{"state":"confirmed"}"#;
    match fault {
        Fault::DropBefore | Fault::DropAfter => return Ok(false),
        Fault::None | Fault::Lie => say(wire, truth).await?,
        // The others say that it was done.
        Fault::Drip | Fault::Huge | Fault::Double if truth == Standing::Declined => say(wire, truth).await?,
        Fault::Close => {
            say(wire, truth).await?;
            return Ok(false);
        }
        Fault::ErrorBefore | Fault::ErrorAfter => wire.answer(500, "", br#"{"error":"internal"}"#).await?,
        Fault::TooMany => {
            let wait = format!("retry-after: {}\r\n", behaviour.retry_after_seconds);
            wire.answer(429, &wait, br#"{"error":"slow down"}"#).await?;
        }
        Fault::Unavailable => wire.answer(503, "", br#"{"error":"unavailable"}"#).await?,
        Fault::InProgress => say(wire, Standing::Busy).await?,
        Fault::Redirect => {
            let location = format!("location: {}\r\n", behaviour.redirect_to);
            wire.answer(307, &location, b"").await?;
        }
        Fault::Drip => wire.drip(200, done, Duration::from_millis(behaviour.drip_ms)).await?,
        Fault::Huge => wire.huge(behaviour.huge_bytes).await?,
        Fault::Double => wire.repeat(2, 200, done).await?,
        Fault::Malformed => {
            wire.raw(b"HTTP/1.1 2OO OK\r\ncontent-length: two\r\n\r\n{}").await?;
            return Ok(false);
        }
        Fault::Half => {
            wire.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"state\":\"co").await?;
            return Ok(false);
        }
    }
    Ok(true)
}
