//! The one connection that writes, on a thread of its own. Work that waits is committed together: one fsync for all of it,
//! and each job's failure stays its own.

use std::thread;

use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::error::{copy_of, store_error};

/// Jobs that may wait; beyond it callers wait to wait.
const WAITING_MAX: usize = 256;
/// Rows after which a commit takes no further job in.
const GROUP_ROWS: usize = 20_000;
const GROUP_JOBS: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;
type Work = Box<dyn FnOnce(&mut Connection) -> Result<(), StoreError> + Send>;

enum Job {
    /// Takes part in a transaction with whatever else waits.
    Shared(Box<dyn Share>),
    /// Brings its own transaction and answers for itself.
    Run(Work),
}

/// The transaction that shared work is part of.
pub(super) struct Commit<'c> {
    pub(super) conn: &'c Connection,
    /// Names this process where processes keep counts of their own.
    pub(super) instance: &'c str,
    /// The transaction's one reading of the clock.
    pub(super) now: Instant,
}

trait Share: Send {
    /// How much work it is, about.
    fn rows(&self) -> usize;
    /// Does the work and keeps what came of it. What failed is undone by the caller.
    fn work(&mut self, commit: &Commit<'_>) -> Result<(), &StoreError>;
    /// Tells what came of it; `failed`, why nothing of it stands.
    fn answer(self: Box<Self>, failed: Option<&StoreError>);
}

struct Sharing<T, F> {
    rows: usize,
    work: Option<F>,
    result: Option<Result<T, StoreError>>,
    answer: Answer<T>,
}

impl<T: Send, F: FnOnce(&Commit<'_>) -> Result<T, StoreError> + Send> Share for Sharing<T, F> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn work(&mut self, commit: &Commit<'_>) -> Result<(), &StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.result.insert(work(commit)).as_ref().map(drop)
    }

    fn answer(self: Box<Self>, failed: Option<&StoreError>) {
        let result = match failed {
            Some(error) => Err(copy_of(error)),
            None => self.result.unwrap_or_else(|| Err(ended())),
        };
        // A caller that went away hears nothing; its work is committed all the same.
        let _ = self.answer.send(result);
    }
}

/// Hands work to the thread, which ends when the last handle is gone and the work is done.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    pub(super) fn start(conn: Connection, instance: String) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::channel(WAITING_MAX);
        let thread = thread::Builder::new().name("sqlite-writer".into());
        let writing = Writing { conn, waiting, instance, failed: None };
        thread.spawn(move || writing.run()).map_err(StoreError::fatal)?;
        Ok(Self { jobs })
    }

    /// Runs `work`, of about so many rows, in a transaction with others' and returns when it is durable. When it fails, what it
    /// wrote is undone.
    pub(super) async fn share<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnOnce(&Commit<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let sharing = Sharing { rows, work: Some(work), result: None, answer };
        self.jobs.send(Job::Shared(Box::new(sharing))).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Runs `work` alone on the connection.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work = move |conn: &mut Connection| {
            let result = work(conn);
            let failed = result.as_ref().err().map(copy_of);
            let _ = answer.send(result);
            failed.map_or(Ok(()), Err)
        };
        self.jobs.send(Job::Run(Box::new(work))).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn ended() -> StoreError {
    StoreError::fatal("the database's writer has ended")
}

struct Writing {
    conn: Connection,
    waiting: mpsc::Receiver<Job>,
    instance: String,
    /// Set by a failed write or fsync: what reached the disk is unknown, so nothing is tried again (`ARCHITECTURE.md`,
    /// promise 8).
    failed: Option<StoreError>,
}

impl Writing {
    fn run(mut self) {
        while let Some(mut next) = self.waiting.blocking_recv() {
            loop {
                let follower = match next {
                    Job::Run(work) => {
                        self.run_alone(work);
                        None
                    }
                    Job::Shared(first) => self.run_group(first),
                };
                match follower {
                    Some(job) => next = job,
                    None => break,
                }
            }
        }
    }

    fn run_alone(&mut self, work: Work) {
        if self.failed.is_some() {
            // Its answer channel closes, which reads as an ended writer.
            return;
        }
        let result = work(&mut self.conn);
        if !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("rollback");
        }
        self.note_failure(result.as_ref().err());
    }

    /// Takes along what waits, within bounds; returns a job that shares with nobody, to run next.
    fn run_group(&mut self, first: Box<dyn Share>) -> Option<Job> {
        let mut rows = first.rows();
        let mut group = vec![first];
        let mut other = None;
        while rows < GROUP_ROWS && group.len() < GROUP_JOBS {
            match self.waiting.try_recv() {
                Ok(Job::Shared(job)) => {
                    rows += job.rows();
                    group.push(job);
                }
                Ok(run) => {
                    other = Some(run);
                    break;
                }
                Err(_) => break,
            }
        }
        let failed = self.commit(&mut group).err();
        group.into_iter().for_each(|job| job.answer(failed.as_ref()));
        other
    }

    /// One transaction for all; nobody hears of success before it is durable.
    fn commit(&mut self, group: &mut [Box<dyn Share>]) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(copy_of(error));
        }
        let result = self.transaction(group);
        if result.is_err() && !self.conn.is_autocommit() {
            let _ = self.conn.execute_batch("rollback");
        }
        self.note_failure(result.as_ref().err());
        result
    }

    fn transaction(&self, group: &mut [Box<dyn Share>]) -> Result<(), StoreError> {
        let conn = &self.conn;
        conn.execute_batch("begin immediate").map_err(store_error)?;
        // Read under the lock, so that transactions of several processes have their times in the order of their commits.
        let commit = Commit { conn, instance: &self.instance, now: now() };
        for job in group {
            conn.execute_batch("savepoint job").map_err(store_error)?;
            if let Err(error) = job.work(&commit) {
                if conn.is_autocommit() || matches!(error, StoreError::Full(_) | StoreError::Fatal(_)) {
                    // SQLite undid the whole transaction, or the disk did: nobody's work stands.
                    return Err(copy_of(error));
                }
                conn.execute_batch("rollback to job").map_err(store_error)?;
            }
            conn.execute_batch("release job").map_err(store_error)?;
        }
        conn.execute_batch("commit").map_err(store_error)
    }

    fn note_failure(&mut self, error: Option<&StoreError>) {
        if let Some(error @ StoreError::Fatal(cause)) = error {
            let code = cause.to_string();
            if code.contains("disk I/O") || code.contains("malformed") {
                self.failed = Some(copy_of(error));
            }
        }
    }
}

/// The clock of `_stored_at`, read once a transaction.
pub(super) fn now() -> Instant {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Instant::from_unix_micros(since.as_micros() as i64)
}
