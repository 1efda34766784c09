//! A fixed number of connections, each used by one caller at a time, opened when first needed and again after they broke.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caudal_core::error::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connect::{Conn, Connector, PostgresConfig};

#[derive(Debug)]
pub(super) struct Pool {
    connector: Connector,
    permits: Arc<Semaphore>,
    /// How long a caller waits for a place.
    patience: Duration,
    idle_max: Option<Duration>,
    /// Places not in use; the last used goes out first, so that few connections do the work when there is little.
    free: Mutex<Vec<Place>>,
}

#[derive(Debug)]
struct Place {
    number: usize,
    conn: Option<Conn>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(connector: Connector, size: usize, from: &PostgresConfig) -> Arc<Self> {
        let size = size.max(1);
        let free = (0..size).rev().map(|number| Place { number, conn: None, since: Instant::now() }).collect();
        let (patience, idle_max) = (from.statement_timeout, from.idle_max);
        Arc::new(Self {
            connector,
            permits: Arc::new(Semaphore::new(size)),
            patience,
            idle_max,
            free: Mutex::new(free),
        })
    }

    /// Waits for a place. Its connection is opened by [`Lease::conn`].
    pub(super) async fn lease(self: &Arc<Self>) -> Result<Lease, StoreError> {
        let permit = tokio::time::timeout(self.patience, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| StoreError::unavailable("every connection is in use"))?;
        let permit = permit.map_err(StoreError::fatal)?;
        let place = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = place.ok_or_else(|| StoreError::fatal("a connection pool lost a place"))?;
        let stale = self.idle_max.is_some_and(|max| place.since.elapsed() > max);
        let conn = place.conn.filter(|_| !stale);
        Ok(Lease { pool: self.clone(), number: place.number, conn, sound: true, permit: Some(permit) })
    }
}

/// A place in a pool, given back on drop. Its connection goes back with it only while it is known to be between
/// transactions: take [`Lease::begin_work`] before and [`Lease::end_work`] after.
#[derive(Debug)]
pub(super) struct Lease {
    pool: Arc<Pool>,
    pub(super) number: usize,
    conn: Option<Conn>,
    sound: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lease {
    /// The connection, opened now if there is none that still lives.
    pub(super) async fn conn(&mut self) -> Result<&mut Conn, StoreError> {
        if self.conn.as_ref().is_none_or(|conn| conn.client.is_closed()) {
            self.conn = None;
            self.conn = Some(self.pool.connector.connect().await?);
        }
        self.conn.as_mut().ok_or_else(|| StoreError::fatal("a connection vanished"))
    }

    /// The connection that is in use, whatever became of it; never another one.
    pub(super) fn conn_in_use(&mut self) -> Result<&mut Conn, StoreError> {
        self.conn.as_mut().ok_or_else(|| StoreError::fatal("a connection vanished"))
    }

    /// From here on an early drop (a caller that went away) throws the connection away: its state is unknown.
    pub(super) fn begin_work(&mut self) {
        self.sound = false;
    }

    /// The connection is between transactions again.
    pub(super) fn end_work(&mut self) {
        self.sound = true;
    }

    pub(super) fn discard(&mut self) {
        self.conn = None;
    }

    /// Takes the connection out, for a caller that must end it in its own way; the place stays taken until the lease drops.
    pub(super) fn take_unsound(&mut self) -> Option<Conn> {
        if self.sound { None } else { self.conn.take() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.sound {
            self.conn = None;
        }
        let place = Place { number: self.number, conn: self.conn.take(), since: Instant::now() };
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        // After the place is back: whoever waits for the permit finds it.
        self.permit = None;
    }
}
