//! Threads that read, each with a connection of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use caudal_core::error::StoreError;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use super::error::store_error;
use super::functions;

/// Reads that may wait for a thread; further ones are refused.
const WAITING_MAX: usize = 4096;

type Job = Box<dyn FnOnce(&Reader) + Send>;

/// A connection with a bound on how long one step of work may take.
pub(super) struct Reader {
    pub(super) conn: Connection,
    started: Instant,
    /// Milliseconds after `started` at which work is interrupted.
    deadline: Arc<AtomicU64>,
    bound: Duration,
}

impl Reader {
    fn open(path: &Path, bound: Duration) -> rusqlite::Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(super::BUSY_TIMEOUT)?;
        conn.execute_batch("pragma query_only = on; pragma case_sensitive_like = on;")?;
        // Otherwise a quoted name that no column has is a text: a read of a column that is gone would answer with its name.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        conn.set_prepared_statement_cache_capacity(64);
        functions::register(&conn)?;
        let (started, deadline) = (Instant::now(), Arc::new(AtomicU64::new(u64::MAX)));
        let watched = deadline.clone();
        let late = move || started.elapsed().as_millis() as u64 > watched.load(Ordering::Relaxed);
        conn.progress_handler(10_000, Some(late))?;
        Ok(Self { conn, started, deadline, bound })
    }

    /// Gives the work that follows its full time.
    pub(super) fn restart_clock(&self) {
        let until = self.started.elapsed() + self.bound;
        self.deadline.store(until.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Some reading threads behind one queue. They end when the pool is dropped and their work is done.
#[derive(Debug)]
pub(super) struct Readers {
    jobs: mpsc::SyncSender<Job>,
}

impl Readers {
    pub(super) fn start(path: &Path, threads: usize, bound: Duration) -> Result<Self, StoreError> {
        let (jobs, waiting) = mpsc::sync_channel(WAITING_MAX);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..threads.max(1) {
            let (path, waiting) = (path.to_owned(), waiting.clone());
            let thread = thread::Builder::new().name("sqlite-reader".into());
            thread.spawn(move || serve(path, bound, &waiting)).map_err(StoreError::fatal)?;
        }
        Ok(Self { jobs })
    }

    /// Runs `work` on one of the threads and waits for what it returns.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.send(move |reader| drop(answer.send(work(reader))))?;
        answered.await.map_err(|_| StoreError::fatal("a reading thread ended"))?
    }

    /// Runs `work` on one of the threads, and does not wait.
    pub(super) fn send(&self, work: impl FnOnce(&Reader) + Send + 'static) -> Result<(), StoreError> {
        self.jobs.try_send(Box::new(work)).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => StoreError::unavailable("too many reads are waiting"),
            mpsc::TrySendError::Disconnected(_) => StoreError::fatal("the reading threads have ended"),
        })
    }
}

/// Opens its connection on the first job, so that an idle store holds none.
fn serve(path: PathBuf, bound: Duration, waiting: &Mutex<mpsc::Receiver<Job>>) {
    let mut reader: Option<Reader> = None;
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if reader.is_none() {
            match Reader::open(&path, bound) {
                Ok(opened) => reader = Some(opened),
                Err(error) => {
                    // The job is dropped; its caller hears that the thread gave up.
                    tracing::error!(error = %store_error(error), "cannot open the database for reading");
                    continue;
                }
            }
        }
        if let Some(reader) = &reader {
            reader.restart_clock();
            job(reader);
        }
    }
}
