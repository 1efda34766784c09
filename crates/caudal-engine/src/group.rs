//! Group commit for messages that come one a request: whatever waits when a lane is free goes into one transaction.
//!
//! There is no timer: an idle system commits a single message at once, a busy one grows its batches by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::limits::BATCH_ROWS_MAX;
use caudal_core::outcome::RowOutcome;
use caudal_core::ports::{AppendBatch, DriftNote, OnBadRow, Store};
use caudal_core::row::RowBatch;
use caudal_core::schema::Table;
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

use crate::error::AcceptError;
use crate::settle;
use crate::topic::Topic;

/// Messages that may wait for a lane before new ones are shed.
const WAITING_MAX: usize = 16_384;
/// Transactions under way at once: one commits while the next fills.
const LANES: usize = 2;
/// While another commit is under way, fewer than this wait for it to end and then share one. Measured: a second lane that
/// takes every few rows at once costs more in transactions than it gains in overlap.
const OVERLAP_ROWS_MIN: usize = 16;
/// How often a lane lets other tasks run before it takes what waits. Requests that the last commit answered come back within
/// that time, and a commit that they share is cheaper than one each.
const GATHER_YIELDS: usize = 4;
/// Messages of one transaction: enough to spread a commit thin, few enough to keep it short.
const GROUP_ROWS_MAX: usize = 1024;
const _: () = assert!(GROUP_ROWS_MAX <= BATCH_ROWS_MAX);

#[derive(Debug)]
struct Waiting {
    row: RowBatch,
    table: Arc<Table>,
    drift: Vec<DriftNote>,
    tell: oneshot::Sender<Result<RowOutcome, Arc<StoreError>>>,
}

/// One topic's door to the store for single messages.
#[derive(Debug)]
pub(crate) struct Group {
    queue: mpsc::Sender<Waiting>,
}

impl Group {
    /// Starts the lanes; they live as long as the topic.
    pub(crate) fn start(topic: Arc<Topic>, store: Arc<dyn Store>, patience: Duration) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        let committing = Arc::new(Committing::default());
        for _ in 0..LANES {
            tokio::spawn(lane(topic.clone(), store.clone(), waiting.clone(), committing.clone(), patience));
        }
        Self { queue }
    }

    /// Stores one encoded row; returns after the commit.
    pub(crate) async fn store(
        &self,
        row: RowBatch,
        table: Arc<Table>,
        drift: Vec<DriftNote>,
    ) -> Result<RowOutcome, AcceptError> {
        let (tell, told) = oneshot::channel();
        self.queue.try_send(Waiting { row, table, drift, tell }).map_err(|_| AcceptError::Overloaded)?;
        match told.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(AcceptError::Store(shared(&error))),
            Err(_) => Err(AcceptError::Store(StoreError::unavailable("shutting down"))),
        }
    }
}

/// The lanes' commits under way.
#[derive(Debug, Default)]
struct Committing {
    now: AtomicUsize,
    ended: Notify,
}

async fn lane(
    topic: Arc<Topic>,
    store: Arc<dyn Store>,
    waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>,
    committing: Arc<Committing>,
    patience: Duration,
) {
    let mut group = Vec::with_capacity(GROUP_ROWS_MAX);
    loop {
        let mut waiting = waiting.lock().await;
        if waiting.recv_many(&mut group, GROUP_ROWS_MAX).await == 0 {
            return;
        }
        gather(&mut waiting, &mut group).await;
        fill(&mut waiting, &mut group, &committing).await;
        committing.now.fetch_add(1, Ordering::SeqCst);
        drop(waiting);
        while !group.is_empty() {
            // A schema change in the middle splits the group: one transaction has rows of one shape.
            let table = group[0].table.clone();
            let same = group.iter().take_while(|w| Arc::ptr_eq(&w.table, &table)).count();
            let part: Vec<Waiting> = group.drain(..same).collect();
            commit(&topic, &*store, table, part, patience).await;
        }
        committing.now.fetch_sub(1, Ordering::SeqCst);
        committing.ended.notify_one();
    }
}

/// Waits for company while another lane commits. The waiting lane holds the queue, so at most one waits.
async fn fill(waiting: &mut mpsc::Receiver<Waiting>, group: &mut Vec<Waiting>, committing: &Committing) {
    while group.len() < OVERLAP_ROWS_MIN && committing.now.load(Ordering::SeqCst) > 0 {
        tokio::select! {
            () = committing.ended.notified() => {}
            more = waiting.recv() => match more {
                Some(more) => group.push(more),
                None => return,
            },
        }
    }
}

/// Adds those who arrive while other tasks run, until nobody does.
async fn gather(waiting: &mut mpsc::Receiver<Waiting>, group: &mut Vec<Waiting>) {
    for _ in 0..GATHER_YIELDS {
        let before = group.len();
        tokio::task::yield_now().await;
        while group.len() < GROUP_ROWS_MAX
            && let Ok(waiting) = waiting.try_recv()
        {
            group.push(waiting);
        }
        if group.len() == before {
            return;
        }
    }
}

async fn commit(topic: &Topic, store: &dyn Store, table: Arc<Table>, mut group: Vec<Waiting>, patience: Duration) {
    let mut batch = AppendBatch::new(table, topic.name.clone(), OnBadRow::Report);
    batch.rows = RowBatch::with_capacity(group.len(), group.iter().map(|w| w.row.byte_len()).sum());
    for waiting in &mut group {
        batch.rows.extend(&waiting.row);
        batch.drift.append(&mut waiting.drift);
    }
    let in_flight = topic.metrics.accept(group.len() as u64);
    let appended = match topic.assign_lanes(&mut batch) {
        Ok(()) => settle::append(store, topic, Arc::new(batch), in_flight, Some(patience)).await,
        Err(error) => {
            in_flight.withdraw();
            Err(error)
        }
    };
    match appended {
        Ok(appended) => {
            for (i, waiting) in group.into_iter().enumerate() {
                // The request may have gone away; the row is in, and its receipt says so.
                let _ = waiting.tell.send(Ok(settle::outcome(&appended, i)));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            for waiting in group {
                let _ = waiting.tell.send(Err(error.clone()));
            }
        }
    }
}

/// One failure told to many requests: the kind is kept, the cause becomes its text.
fn shared(error: &Arc<StoreError>) -> StoreError {
    let text = error.to_string();
    match &**error {
        StoreError::Full(_) => StoreError::Full(text.into()),
        StoreError::Timeout => StoreError::Timeout,
        StoreError::Unavailable(cause) => StoreError::Unavailable(cause.to_string().into()),
        _ => StoreError::Fatal(text.into()),
    }
}
