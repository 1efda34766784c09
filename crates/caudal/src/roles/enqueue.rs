//! `caudal confirm enqueue`: records from a file or standard input become pending transactions in a store of their own.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use caudal_core::limits::RECORD_BYTES_MAX;
use caudal_engine::confirm::enqueue::{NotPending, Pending, pending};
use caudal_engine::ingest::Record;
use caudal_engine::topic::Topic;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::fs::File;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};

use super::client::progress;
use crate::cli::EnqueueArgs;
use crate::compose::{Apart, ConfirmStore};
use crate::config;

/// Records that are put down together.
const TOGETHER: usize = 500;
/// Lines that are refused and shown.
const SHOWN_MAX: u64 = 20;
const READ_BYTES: usize = 256 * 1024;

pub(crate) async fn run(args: &EnqueueArgs) -> Result<ExitCode> {
    let loaded = config::load(args.config.config.as_deref())?;
    let Some(apart) = Apart::open(&loaded).await? else {
        bail!(
            "confirm.store is empty: confirmations are in the SQL store, where a record becomes pending when it is stored. Use \
             `caudal publish {}`, or set confirm.store to dynamodb://<region>/<table>",
            args.topic
        );
    };
    let topic = apart.topic(&args.topic)?;
    if topic.config.key.is_empty() {
        bail!(
            "topic {} has no key, and without one a repeat of this command would make each record pending once more: set \
             topics.{}.key",
            args.topic,
            args.topic
        );
    }
    apart.prepare().await?;
    let mut input = open(&args.file).await?;
    let bar = progress(None, &args.topic);
    let mut queue = Queue::new(&apart.store, topic, bar.clone());
    let filled = queue.fill(&mut *input).await;
    bar.finish_and_clear();
    let Queue { new, repeats, refused, .. } = queue;
    match args.json {
        true => println!("{}", json!({ "new": new, "repeats": repeats, "refused": refused })),
        false => println!("{new} new, {repeats} repeats, {refused} refused"),
    }
    filled.context("the rest is not enqueued; what is counted above is, and repeating the command goes on")?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(4) })
}

type Input = Box<dyn AsyncBufRead + Send + Unpin>;

async fn open(file: &Path) -> Result<Input> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::with_capacity(READ_BYTES, tokio::io::stdin())));
    }
    let opened = File::open(file).await.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, opened)))
}

/// Records on their way into the store.
struct Queue<'a> {
    store: &'a ConfirmStore,
    topic: &'a Topic,
    source: Arc<str>,
    /// What is not put down yet, and its lines.
    held: Vec<Pending>,
    lines: Vec<u64>,
    bar: ProgressBar,
    new: u64,
    repeats: u64,
    refused: u64,
}

impl<'a> Queue<'a> {
    fn new(store: &'a ConfirmStore, topic: &'a Topic, bar: ProgressBar) -> Self {
        Self {
            store,
            topic,
            source: "enqueue".into(),
            held: Vec::new(),
            lines: Vec::new(),
            bar,
            new: 0,
            repeats: 0,
            refused: 0,
        }
    }

    async fn fill(&mut self, input: &mut (dyn AsyncBufRead + Send + Unpin)) -> Result<()> {
        let mut number = 0;
        while let Some(line) = line(input).await.with_context(|| format!("reading line {}", number + 1))? {
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.push(number, line.into())?;
            if self.held.len() >= TOGETHER {
                self.flush().await?;
            }
        }
        self.flush().await
    }

    fn push(&mut self, number: u64, body: Bytes) -> Result<()> {
        let record = Record { key: None, source: self.source.clone(), attributes: None, body, fault: None };
        match pending(self.topic, &record) {
            Ok(made) => {
                self.held.push(made);
                self.lines.push(number);
            }
            Err(NotPending::Rejected(why)) => self.refuse(number, &why.to_string()),
            Err(NotPending::Store(error)) => return Err(error.into()),
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let (held, lines) = (std::mem::take(&mut self.held), std::mem::take(&mut self.lines));
        let done = self.store.enqueue(&held).await?;
        self.new += done.new;
        self.repeats += done.repeats;
        for (at, why) in done.refused {
            self.refuse(lines[at], &why);
        }
        self.bar.inc(held.len() as u64);
        Ok(())
    }

    fn refuse(&mut self, line: u64, why: &str) {
        self.refused += 1;
        match self.refused {
            ..=SHOWN_MAX => self.bar.suspend(|| eprintln!("line {line}: {why}")),
            refused if refused == SHOWN_MAX + 1 => self.bar.suspend(|| eprintln!("and more, which are only counted")),
            _ => {}
        }
    }
}

/// The next line, without its end.
async fn line(input: &mut (dyn AsyncBufRead + Send + Unpin)) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let bounded = input.take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
    if bounded == 0 {
        return Ok(None);
    }
    if line.len() > RECORD_BYTES_MAX {
        bail!("it has more than {RECORD_BYTES_MAX} bytes");
    }
    Ok(Some(line))
}
