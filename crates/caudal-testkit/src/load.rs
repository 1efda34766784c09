//! Producers that note what they send and what they are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::{Api, Reply};
use crate::chance::Chance;
use crate::oracle::{Oracle, Stored};

/// A topic without a schema, and one with [`SCHEMA`].
pub const PLAIN_TOPIC: &str = "crash-plain";
pub const TYPED_TOPIC: &str = "crash-typed";
pub const SCHEMA: &str = r#"{"type": "object", "required": ["name"], "properties": {
  "name": {"type": "string"}, "amount": {"type": "integer"}, "note": {"type": "string"}, "ratio": {"type": "number"}}}"#;

/// A message is given up when it had no answer for this long: something is wrong with the server or the test.
const ANSWER_WITHIN: Duration = Duration::from_secs(90);
const REPEAT_AFTER: Duration = Duration::from_millis(20);

/// What came back, by status; connections that failed count as 0.
pub type Answers = BTreeMap<u16, u64>;

/// Producers at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    producers: JoinSet<Result<()>>,
}

#[derive(Debug)]
struct Shared {
    api: Api,
    oracle: Arc<Oracle>,
    answers: Mutex<Answers>,
    stop: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Style {
    /// One message a request.
    Single,
    /// A few lines of NDJSON.
    Batch,
}

struct Producer {
    shared: Arc<Shared>,
    number: usize,
    style: Style,
    /// Repeats under a key until it is answered; without one it asks once.
    keyed: bool,
    topic: &'static str,
    sent: u64,
    chance: Chance,
}

impl Load {
    /// Starts eight producers: single messages and batches, with keys and without, to both topics.
    pub fn start(api: Api, oracle: Arc<Oracle>, seed: u64) -> Self {
        let shared = Arc::new(Shared { api, oracle, answers: Mutex::default(), stop: AtomicBool::new(false) });
        let mut producers = JoinSet::new();
        for number in 0..8 {
            let producer = Producer {
                shared: shared.clone(),
                number,
                style: if number & 1 == 0 { Style::Single } else { Style::Batch },
                keyed: number & 2 == 0,
                topic: if number & 4 == 0 { PLAIN_TOPIC } else { TYPED_TOPIC },
                sent: 0,
                chance: Chance::new(seed ^ (number as u64) << 32),
            };
            producers.spawn(producer.run());
        }
        Self { shared, producers }
    }

    pub fn answers(&self) -> Answers {
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `n` more answers of this status came.
    pub async fn wait_for(&self, status: u16, n: u64) -> Result<()> {
        let count = || self.answers().get(&status).copied().unwrap_or_default();
        let wanted = count() + n;
        let begun = Instant::now();
        while count() < wanted {
            ensure!(begun.elapsed() < ANSWER_WITHIN, "no {n} answers {status} came; there were {:?}", self.answers());
            tokio::time::sleep(REPEAT_AFTER).await;
        }
        Ok(())
    }

    /// Ends when every producer has what it waits for; the server must be up.
    pub async fn stop(mut self) -> Result<Answers> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.producers.join_next().await {
            ended??;
        }
        Ok(self.answers())
    }
}

/// One request's worth of messages.
struct Request {
    names: Vec<String>,
    key: Option<String>,
    body: String,
    media: &'static str,
    prefer: Option<&'static str>,
}

impl Producer {
    async fn run(mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let request = self.request();
            self.deliver(&request).await?;
            // A repeat after success must change nothing.
            if request.key.is_some() && self.chance.one_in(4) {
                self.deliver(&request).await?;
            }
        }
        Ok(())
    }

    fn request(&mut self) -> Request {
        self.sent += 1;
        let stem = format!("{}-{}", self.number, self.sent);
        let count = match self.style {
            Style::Single => 1,
            Style::Batch => self.chance.between(2, 20),
        };
        let messages: Vec<Value> = (0..count).map(|i| self.message(&format!("{stem}-{i}"))).collect();
        for message in &messages {
            self.shared.oracle.sending(message["name"].as_str().unwrap_or_default(), &content(message));
        }
        let prefer = *self.chance.pick(&[None, None, Some("respond-async"), Some("wait=1")]);
        Request {
            names: messages.iter().map(|m| m["name"].as_str().unwrap_or_default().to_owned()).collect(),
            key: self.keyed.then(|| format!("key-{stem}")),
            body: messages.iter().map(Value::to_string).collect::<Vec<_>>().join("\n"),
            media: if matches!(self.style, Style::Single) { "application/json" } else { "application/x-ndjson" },
            prefer,
        }
    }

    fn message(&mut self, name: &str) -> Value {
        let note = "ñ€ \"quoted\" ".repeat(self.chance.between(0, 30) as usize);
        json!({ "name": name, "amount": self.chance.between(0, 1 << 53), "note": note, "ratio": 0.5 })
    }

    /// Sends until there is an answer; a request without a key only once.
    async fn deliver(&mut self, request: &Request) -> Result<()> {
        let path = format!("/v1/topics/{}/messages", self.topic);
        let mut headers = vec![("content-type", request.media)];
        headers.extend(request.key.as_deref().map(|key| ("idempotency-key", key)));
        headers.extend(request.prefer.map(|prefer| ("prefer", prefer)));
        let begun = Instant::now();
        loop {
            let reply = self.shared.api.post(&path, &headers, request.body.clone()).await;
            let status = reply.as_ref().map_or(0, |reply| reply.status);
            *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
            match reply {
                Ok(reply) if (200..300).contains(&status) => return self.note(request, &reply),
                Ok(reply) if status != 409 && status < 500 => {
                    self.shared.oracle.complain(format!("{:?} was answered {status}: {}", request.names, reply.text()));
                    return Ok(());
                }
                _ if request.key.is_none() => {
                    tokio::time::sleep(REPEAT_AFTER).await;
                    return Ok(());
                }
                _ if begun.elapsed() > ANSWER_WITHIN => {
                    bail!("no answer for {:?}; the last was {status}", request.names)
                }
                _ => tokio::time::sleep(REPEAT_AFTER).await,
            }
        }
    }

    fn note(&self, request: &Request, reply: &Reply) -> Result<()> {
        let body = reply.json();
        let oracle = &self.shared.oracle;
        let Some(records) = body["records"].as_array() else {
            let id = body["transaction_id"].as_str().context("a transaction_id")?;
            oracle.acknowledged(&request.names[0], id);
            return Ok(());
        };
        if records.len() != request.names.len() {
            oracle.complain(format!("{} verdicts for {} records: {body}", records.len(), request.names.len()));
        }
        for (name, record) in request.names.iter().zip(records) {
            match (record["state"].as_str(), record["transaction_id"].as_str()) {
                (Some("stored" | "queued" | "duplicate"), Some(id)) => oracle.acknowledged(name, id),
                _ => oracle.complain(format!("{name} got the verdict {record}")),
            }
        }
        Ok(())
    }
}

/// A message's content, however the store orders and types its fields.
fn content(message: &Value) -> String {
    let number = |name: &str| message[name].as_f64().unwrap_or_default();
    format!("{} {} {} {}", message["name"], message["amount"], message["note"], number("ratio"))
}

/// Waits until everything that was accepted is stored.
pub async fn drained(api: &Api) -> Result<()> {
    let begun = Instant::now();
    loop {
        let reply = api.get("/v1/reconcile").await;
        if let Ok(reply) = &reply
            && reply.status == 200
            && let Some(topics) = reply.json()["topics"].as_array()
            && topics.iter().all(|t| t["backlog"].as_u64().unwrap_or_default() == 0)
        {
            return Ok(());
        }
        if begun.elapsed() > ANSWER_WITHIN {
            bail!("still not drained: {:?}", reply.map(|r| r.text()));
        }
        tokio::time::sleep(REPEAT_AFTER).await;
    }
}

/// Every row of the load's topics.
pub async fn rows(api: &Api) -> Result<Vec<Stored>> {
    let mut rows = Vec::new();
    for topic in [PLAIN_TOPIC, TYPED_TOPIC] {
        let reply = api.send("GET", &format!("/rest/v1/{topic}"), &[("accept", "application/x-ndjson")], "").await?;
        ensure!(reply.status == 200, "reading {topic}: {} {}", reply.status, reply.text());
        for line in reply.text().lines() {
            let row: Value = serde_json::from_str(line)?;
            let message = if topic == PLAIN_TOPIC { &row["payload"] } else { &row };
            rows.push(Stored {
                name: message["name"].as_str().context("a name")?.to_owned(),
                id: row["_id"].as_str().context("an id")?.to_owned(),
                key: row["_key"].as_str().map(|key| format!("{topic} {key}")),
                content: content(message),
            });
        }
    }
    Ok(rows)
}
