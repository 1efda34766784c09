//! From an AWS client's message to a durable one, and from a batch to an outcome each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use caudal_engine::ingest::{Answer, Record};
use caudal_engine::topic::Topic;
use futures_util::future::join_all;
use uuid::Uuid;

use super::entry::{Entry, MESSAGE_BYTES_MAX, attributes_md5};
use super::fault::{Answered, BAD_ID, Fault, INVALID, MISSING, NO_ENTRIES, SAME_IDS, TOO_LONG, TOO_MANY};
use crate::state::App;

const ENTRIES_MAX: usize = 10;
const ENTRY_ID_MAX: usize = 80;
const NAME_MAX: usize = 128;
const FIFO: &str = ".fifo";

/// Where a client publishes: an SNS topic or an SQS queue by its name, which is a topic of ours.
#[derive(Debug)]
pub(crate) struct Target {
    /// `sns` or `sqs`.
    pub(crate) service: &'static str,
    pub(crate) name: String,
    pub(crate) topic: Arc<Topic>,
}

/// A message that is durable.
#[derive(Debug)]
pub(crate) struct Sent {
    /// Its name within the batch.
    pub(crate) id: String,
    pub(crate) message_id: Uuid,
    pub(crate) sequence: Option<String>,
    pub(crate) body_md5: String,
    pub(crate) attributes_md5: Option<String>,
    pub(crate) system_md5: Option<String>,
}

/// An entry of a batch that could be read, or the fault for which it could not; with its name.
pub(crate) type Listed = (String, Answered<Entry>);

impl Target {
    /// The topic of that name, with or without `.fifo`, in its case or in lower case.
    pub(crate) fn find(app: &App, service: &'static str, name: &str) -> Option<Self> {
        let plain = name.strip_suffix(FIFO).unwrap_or(name);
        let (lower, lower_plain) = (name.to_ascii_lowercase(), plain.to_ascii_lowercase());
        let topic = [name, plain, &lower, &lower_plain].into_iter().find_map(|name| app.engine.topics.get(name))?;
        Some(Self { service, name: name.to_owned(), topic: topic.clone() })
    }

    pub(crate) fn is_fifo(&self) -> bool {
        self.name.ends_with(FIFO)
    }

    /// Whether the topic takes its dedup key from the message itself.
    pub(crate) fn has_key(&self) -> bool {
        !self.topic.encoder().schema.key.is_empty()
    }

    fn check(&self, entry: &Entry) -> Answered<()> {
        entry.check()?;
        let fault = |kind, message: &'static str| Err(Fault::new(kind, message));
        if [&entry.group, &entry.deduplication].into_iter().flatten().any(|id| !is_id(id)) {
            return fault(
                &INVALID,
                "MessageGroupId and MessageDeduplicationId have 1 to 128 alphanumeric and punctuation characters.",
            );
        }
        match (self.is_fifo(), &entry.group, &entry.deduplication) {
            (true, None, _) => fault(&MISSING, "The request must contain the parameter MessageGroupId."),
            (true, Some(_), None) if !self.has_key() => fault(
                &INVALID,
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly. \
                 In Caudal the former is a topic with a key of its own.",
            ),
            (false, _, Some(_)) => fault(
                &INVALID,
                "MessageDeduplicationId is only for names that end in .fifo; give one, or leave it out.",
            ),
            _ => Ok(()),
        }
    }

    /// Publishes one message. `invocation` is the SDK's own name for the call, the same when it repeats it by itself.
    pub(crate) async fn send(&self, app: &App, entry: Entry, invocation: Option<&str>) -> Answered<Sent> {
        self.check(&entry)?;
        let key = match &entry.deduplication {
            Some(id) => Some(format!("{}:{}:{id}", self.service, self.name)),
            None if self.has_key() => None,
            None => invocation.map(|call| match entry.id.as_str() {
                "" => format!("aws-sdk:{call}"),
                id => format!("aws-sdk:{call}#{id}"),
            }),
        };
        let attributes = entry.kept_attributes();
        let (body_md5, system_md5) = (entry.body_md5(), attributes_md5(&entry.system));
        let attributes_md5 = attributes_md5(&entry.attributes);
        let source = format!("aws:{}", self.service).into();
        let record = Record { key, source, attributes, body: Bytes::from(entry.text), fault: None };
        let verdict = app.engine.accept(self.topic.name.as_str(), record, Answer::WhenQueued).await?;
        let sequence = self.is_fifo().then(next_sequence);
        let message_id = verdict.transaction_id;
        Ok(Sent { id: entry.id, message_id, sequence, body_md5, attributes_md5, system_md5 })
    }

    /// Publishes up to ten, each with its own outcome: in order where the name asks for order, else all at once.
    ///
    /// # Errors
    /// A batch that breaks a limit as a whole, and one of which nothing could be taken because a dependency is away: clients
    /// repeat that by themselves.
    pub(crate) async fn send_all(
        &self,
        app: &App,
        entries: Vec<Listed>,
        invocation: Option<&str>,
    ) -> Answered<Vec<Result<Sent, (String, Fault)>>> {
        check_batch(&entries)?;
        let send = async |(id, entry): Listed| match entry {
            Ok(entry) => self.send(app, entry, invocation).await.map_err(|fault| (id, fault)),
            Err(fault) => Err((id, fault)),
        };
        let outcomes = if self.is_fifo() {
            let mut outcomes = Vec::with_capacity(entries.len());
            for listed in entries {
                outcomes.push(send(listed).await);
            }
            outcomes
        } else {
            join_all(entries.into_iter().map(send)).await
        };
        let away = |outcome: &Result<Sent, (String, Fault)>| matches!(outcome, Err((_, f)) if !f.kind.is_sender());
        match outcomes.iter().all(away) {
            true => outcomes.into_iter().map(|outcome| outcome.map_err(|(_, fault)| fault).map(Ok)).collect(),
            false => Ok(outcomes),
        }
    }
}

fn is_id(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn check_batch(entries: &[Listed]) -> Answered<()> {
    if entries.is_empty() {
        return Err(Fault::new(&NO_ENTRIES, "The batch request doesn't contain any entries."));
    }
    if entries.len() > ENTRIES_MAX {
        let message =
            format!("Maximum number of entries per request are {ENTRIES_MAX}. You have sent {}.", entries.len());
        return Err(Fault::new(&TOO_MANY, message));
    }
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    for (i, (id, _)) in entries.iter().enumerate() {
        if id.is_empty() || id.len() > ENTRY_ID_MAX || !id.bytes().all(letters) {
            let message = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.";
            return Err(Fault::new(&BAD_ID, message));
        }
        if entries[..i].iter().any(|(other, _)| other == id) {
            return Err(Fault::new(&SAME_IDS, format!("Id {id} repeated.")));
        }
    }
    let bytes: usize = entries.iter().filter_map(|(_, entry)| entry.as_ref().ok()).map(Entry::bytes).sum();
    if bytes > MESSAGE_BYTES_MAX {
        let message =
            format!("Batch requests cannot be longer than {MESSAGE_BYTES_MAX} bytes. You have sent {bytes} bytes.");
        return Err(Fault::new(&TOO_LONG, message));
    }
    Ok(())
}

/// Twenty digits that grow from one message to the next, also over a restart as far as the clock does.
fn next_sequence() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let next = |last: u64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
    format!("{:020}", now.max(last + 1))
}
