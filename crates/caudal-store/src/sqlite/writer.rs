//! The one connection that writes, on a thread of its own. Work that waits is committed together: one fsync for all of it,
//! and each job's failure stays its own.

use std::sync::Arc;
use std::thread;

use caudal_core::error::StoreError;
use caudal_core::ports::{AppendBatch, Appended};
use caudal_core::time::Instant;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::append;
use super::error::{copy_of, store_error};

/// Jobs that may wait; beyond it callers wait to wait.
const WAITING_MAX: usize = 256;
/// Rows after which a commit takes no further job in.
const GROUP_ROWS: usize = 20_000;
const GROUP_JOBS: usize = 256;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;
type Work = Box<dyn FnOnce(&mut Connection) -> Result<(), StoreError> + Send>;

enum Job {
    Append(Arc<AppendBatch>, Answer<Appended>),
    /// Brings its own transaction and answers for itself.
    Run(Work),
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

    pub(super) async fn append(&self, batch: Arc<AppendBatch>) -> Result<Appended, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job::Append(batch, answer)).await.map_err(|_| ended())?;
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
                    Job::Append(batch, answer) => self.run_group(batch, answer),
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

    /// Takes along what waits, within bounds; returns a job that is not an append, to run next.
    fn run_group(&mut self, batch: Arc<AppendBatch>, answer: Answer<Appended>) -> Option<Job> {
        let mut rows = batch.rows.len();
        let mut group = vec![(batch, answer)];
        let mut other = None;
        while rows < GROUP_ROWS && group.len() < GROUP_JOBS {
            match self.waiting.try_recv() {
                Ok(Job::Append(batch, answer)) => {
                    rows += batch.rows.len();
                    group.push((batch, answer));
                }
                Ok(run) => {
                    other = Some(run);
                    break;
                }
                Err(_) => break,
            }
        }
        let (batches, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let results = self.commit(&batches);
        for (answer, result) in answers.into_iter().zip(results) {
            // A caller that went away hears nothing; its rows are committed all the same.
            let _ = answer.send(result);
        }
        other
    }

    /// One transaction for all; nobody hears of success before it is durable.
    fn commit(&mut self, batches: &[Arc<AppendBatch>]) -> Vec<Result<Appended, StoreError>> {
        if let Some(error) = &self.failed {
            return batches.iter().map(|_| Err(copy_of(error))).collect();
        }
        match self.transaction(batches) {
            Ok(results) => results,
            Err(error) => {
                if !self.conn.is_autocommit() {
                    let _ = self.conn.execute_batch("rollback");
                }
                self.note_failure(Some(&error));
                batches.iter().map(|_| Err(copy_of(&error))).collect()
            }
        }
    }

    fn transaction(&mut self, batches: &[Arc<AppendBatch>]) -> Result<Vec<Result<Appended, StoreError>>, StoreError> {
        let now = now();
        let conn = &self.conn;
        conn.execute_batch("begin immediate").map_err(store_error)?;
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            conn.execute_batch("savepoint job").map_err(store_error)?;
            let result = append::append(conn, batch, &self.instance, now);
            if let Err(error) = &result {
                if conn.is_autocommit() || matches!(error, StoreError::Full(_) | StoreError::Fatal(_)) {
                    // SQLite undid the whole transaction, or the disk did: nobody's work stands.
                    return Err(copy_of(error));
                }
                conn.execute_batch("rollback to job").map_err(store_error)?;
            }
            conn.execute_batch("release job").map_err(store_error)?;
            results.push(result);
        }
        conn.execute_batch("commit").map_err(store_error)?;
        Ok(results)
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
