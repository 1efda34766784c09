//! Drills: is an endpoint what its configuration says it is? Each sends real requests, so only an endpoint whose effects do not
//! matter is drilled.
//!
//! What a drill can see is what the endpoint says. That two calls had one effect is believed when both answers agree and the
//! probe, where there is one, agrees with them; the endpoint's own books are the proof, so the keys are part of the report.

use std::time::Duration;

use bytes::Bytes;
use caudal_core::confirm::answer::{Answer, Verdict};
use caudal_core::confirm::ports::Call;
use caudal_core::confirm::{Fact, Item};
use caudal_core::topic::TopicName;
use serde::Serialize;
use uuid::Uuid;

use super::TargetConfig;
use crate::clock::{fresh_id, now};

/// What a drill found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// As the configuration says.
    Passed,
    /// Not as the configuration says: money can be lost or paid twice.
    Failed,
    /// The answers do not tell.
    Unclear,
    /// The configuration does not rely on it.
    Skipped,
}

/// One drill and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Drill {
    pub name: &'static str,
    /// What is tried.
    pub tries: &'static str,
    pub finding: Finding,
    pub detail: String,
    /// The keys that were used, to be looked up in the endpoint's books: at most one effect each.
    pub keys: Vec<Uuid>,
}

/// Runs every drill, one after another. `record`: a record of the topic that the endpoint accepts.
pub async fn run(target: &TargetConfig, record: Bytes) -> Vec<Drill> {
    let drills = Drills { target, record };
    vec![
        drills.plain().await,
        drills.repeated().await,
        drills.at_once().await,
        drills.answer_lost().await,
        drills.other_content().await,
        drills.unknown_probe().await,
        drills.known_probe().await,
    ]
}

struct Drills<'a> {
    target: &'a TargetConfig,
    record: Bytes,
}

/// Moments after which a call is given up, so that some requests are cut off before the endpoint has them and some after.
const CUTS: [Duration; 6] = [
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
];
/// How often an endpoint that is "at it" is asked again.
const ASKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(250);

impl Drills<'_> {
    async fn plain(&self) -> Drill {
        let key = self.fresh();
        let verdict = self.until_clear(key, &self.record).await;
        let finding = match verdict {
            Verdict::Fact(_) => Finding::Passed,
            _ => Finding::Failed,
        };
        drill("plain", "one call is answered with an outcome", finding, say(verdict), vec![key])
    }

    async fn repeated(&self) -> Drill {
        let key = self.fresh();
        let first = self.until_clear(key, &self.record).await;
        let second = self.until_clear(key, &self.record).await;
        let third = self.until_clear(key, &self.record).await;
        let finding = match (first, second == first && third == first) {
            _ if !self.honours_keys() => Finding::Skipped,
            (Verdict::Fact(_), true) => Finding::Passed,
            (Verdict::Fact(_), false) => Finding::Failed,
            _ => Finding::Unclear,
        };
        let detail = format!("{}, then {}, then {}", say(first), say(second), say(third));
        drill("repeated", "the same key three times gets the first outcome", finding, detail, vec![key])
    }

    async fn at_once(&self) -> Drill {
        let key = self.fresh();
        let (one, other) = tokio::join!(self.call(key, &self.record), self.call(key, &self.record));
        let after = self.until_clear(key, &self.record).await;
        let (one, other) = (self.target.rules.judge(&one), self.target.rules.judge(&other));
        let agrees = |verdict: Verdict| {
            verdict == after || matches!(verdict, Verdict::InProgress { .. } | Verdict::NotDone { .. })
        };
        let finding = match after {
            _ if !self.honours_keys() => Finding::Skipped,
            Verdict::Fact(_) if agrees(one) && agrees(other) => Finding::Passed,
            Verdict::Fact(_) => Finding::Failed,
            _ => Finding::Unclear,
        };
        let detail = format!("{} and {}, afterwards {}", say(one), say(other), say(after));
        drill("at once", "two calls with one key at the same time agree", finding, detail, vec![key])
    }

    /// The worker dies, or the answer is lost, at several moments; then the transaction is cleared up as the engine would.
    async fn answer_lost(&self) -> Drill {
        let mut keys = Vec::new();
        let (mut finding, mut details) = (Finding::Passed, Vec::new());
        for cut in CUTS {
            let key = self.fresh();
            keys.push(key);
            let _ = tokio::time::timeout(cut, self.call(key, &self.record)).await;
            let cleared = match (self.target.policy.repeat.probe, self.honours_keys()) {
                (true, _) => self.probe_until_clear(key).await,
                (false, true) => self.until_clear(key, &self.record).await,
                (false, false) => {
                    return drill("answer lost", LOST, Finding::Skipped, "doubt is held for a person".into(), keys);
                }
            };
            details.push(format!("cut after {cut:?}: {}", say(cleared)));
            match cleared {
                Verdict::Fact(_) | Verdict::NotFound => {}
                _ => finding = Finding::Failed,
            }
        }
        drill("answer lost", LOST, finding, details.join("; "), keys)
    }

    async fn other_content(&self) -> Drill {
        let key = self.fresh();
        let first = self.until_clear(key, &self.record).await;
        let other = changed(&self.record);
        let verdict = self.target.rules.judge(&self.call(key, &other).await);
        let tries = "a key that comes back with other content is refused";
        let finding = match verdict {
            _ if !self.honours_keys() => Finding::Skipped,
            Verdict::Hold => Finding::Passed,
            // The first outcome again is no second effect.
            verdict if verdict == first => Finding::Unclear,
            _ => Finding::Failed,
        };
        drill("other content", tries, finding, say(verdict), vec![key])
    }

    async fn unknown_probe(&self) -> Drill {
        let key = self.fresh();
        let tries = "asked for a key that it never saw, it says so";
        if !self.target.policy.repeat.probe {
            return drill("unknown", tries, Finding::Skipped, "no probe_url".into(), vec![key]);
        }
        let verdict = self.probe(key).await;
        let finding = if verdict == Verdict::NotFound { Finding::Passed } else { Finding::Failed };
        drill("unknown", tries, finding, say(verdict), vec![key])
    }

    async fn known_probe(&self) -> Drill {
        let key = self.fresh();
        let tries = "asked for a key that it did, it says the same as when it did it";
        if !self.target.policy.repeat.probe {
            return drill("known", tries, Finding::Skipped, "no probe_url".into(), vec![key]);
        }
        let did = self.until_clear(key, &self.record).await;
        let verdict = self.probe_until_clear(key).await;
        let finding = match did {
            Verdict::Fact(_) if verdict == did => Finding::Passed,
            Verdict::Fact(_) => Finding::Failed,
            _ => Finding::Unclear,
        };
        drill("known", tries, finding, format!("{}, and the probe {}", say(did), say(verdict)), vec![key])
    }

    fn honours_keys(&self) -> bool {
        self.target.policy.repeat.key_retention.is_some()
    }

    fn fresh(&self) -> Uuid {
        fresh_id(now())
    }

    async fn call(&self, key: Uuid, record: &Bytes) -> Answer {
        let item = item(key, record);
        self.target.confirmer.call(call(&self.target.topic, &item, key)).await
    }

    async fn probe(&self, key: Uuid) -> Verdict {
        let item = item(key, &self.record);
        let answer = self.target.confirmer.probe(call(&self.target.topic, &item, key)).await;
        self.target.rules.judge_probe(&answer)
    }

    /// Calls again under the same key while the endpoint is at it or asks for patience.
    async fn until_clear(&self, key: Uuid, record: &Bytes) -> Verdict {
        for _ in 0..ASKS {
            let verdict = self.target.rules.judge(&self.call(key, record).await);
            if !matches!(verdict, Verdict::InProgress { .. } | Verdict::NotDone { .. }) {
                return verdict;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Verdict::Doubt
    }

    async fn probe_until_clear(&self, key: Uuid) -> Verdict {
        for _ in 0..ASKS {
            let verdict = self.probe(key).await;
            if matches!(verdict, Verdict::Fact(_) | Verdict::NotFound) {
                return verdict;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Verdict::Doubt
    }
}

const LOST: &str = "a call that was cut off can be cleared up afterwards";

fn drill(name: &'static str, tries: &'static str, finding: Finding, detail: String, keys: Vec<Uuid>) -> Drill {
    Drill { name, tries, finding, detail, keys }
}

fn item(id: Uuid, record: &Bytes) -> Item {
    let now = now();
    Item {
        id,
        attempts: 0,
        crashes: 0,
        doubt: false,
        since: now,
        first_sent: None,
        claimed: now,
        record: record.clone(),
    }
}

fn call<'a>(topic: &'a TopicName, item: &'a Item, key: Uuid) -> Call<'a> {
    Call { topic, item, key, attempt: 1 }
}

/// The record with its first number or text changed.
fn changed(record: &Bytes) -> Bytes {
    let Ok(serde_json::Value::Object(mut members)) = serde_json::from_slice(record) else { return record.clone() };
    for value in members.values_mut() {
        match value {
            serde_json::Value::Number(number) => *value = (number.as_f64().unwrap_or_default() + 1.0).into(),
            serde_json::Value::String(text) => text.push('x'),
            _ => continue,
        }
        break;
    }
    serde_json::to_vec(&members).map_or_else(|_| record.clone(), Bytes::from)
}

fn say(verdict: Verdict) -> String {
    match verdict {
        Verdict::Fact(Fact::Confirmed) => "confirmed",
        Verdict::Fact(Fact::Rejected) => "rejected",
        Verdict::NotDone { .. } => "not done",
        Verdict::InProgress { .. } => "in progress",
        Verdict::NotFound => "not known",
        Verdict::Doubt => "no clear answer",
        Verdict::Hold => "refused",
    }
    .to_owned()
}
