//! The HTTP confirmer against the hostile endpoint: what is known after each kind of answer, and what is never sent.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod answers;
mod guard;
mod races;
mod requests;
mod tls;

use std::time::Duration;

use caudal_confirm::http::{HttpConfig, HttpConfirmer};
use caudal_core::confirm::Item;
use caudal_core::confirm::answer::Answer;
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use serde_json::{Value, json};
use uuid::Uuid;

/// Longer than anything here takes that is meant to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what is meant not to end.
const SHORT: Duration = Duration::from_millis(300);

fn record() -> Value {
    json!({"_id": "a", "amount": 12.50, "id": "pay/1 ñ", "who": {"name": "Ana"}, "n": null})
}

fn config(endpoint: &Endpoint) -> HttpConfig {
    HttpConfig { timeout: PATIENCE, ..HttpConfig::new(&endpoint.url("/payments")) }
}

/// A confirmer of the endpoint as it is by default.
async fn plain(behaviour: Behaviour) -> (Endpoint, HttpConfirmer) {
    let endpoint = Endpoint::start(behaviour).await.unwrap();
    let confirmer = HttpConfirmer::open(&config(&endpoint)).unwrap();
    (endpoint, confirmer)
}

fn item(record: &Value) -> Item {
    let at = Instant(0);
    Item {
        id: Uuid::from_u128(1),
        attempts: 0,
        crashes: 0,
        doubt: false,
        since: at,
        first_sent: None,
        claimed: at,
        record: record.to_string().into(),
    }
}

async fn called_with(confirmer: &HttpConfirmer, key: Uuid, record: &Value) -> Answer {
    let (topic, item) = (TopicName::parse("payments").unwrap(), item(record));
    confirmer.call(Call { topic: &topic, item: &item, key, attempt: 3 }).await
}

async fn called(confirmer: &HttpConfirmer, key: Uuid) -> Answer {
    called_with(confirmer, key, &record()).await
}

async fn probed(confirmer: &HttpConfirmer, key: Uuid) -> Answer {
    let (topic, item) = (TopicName::parse("payments").unwrap(), item(&record()));
    confirmer.probe(Call { topic: &topic, item: &item, key, attempt: 3 }).await
}

#[track_caller]
fn unknown(answer: &Answer) -> &str {
    match answer {
        Answer::Unknown(why) => why,
        other => panic!("it may have been done, and the answer is {other:?}"),
    }
}

#[track_caller]
fn not_sent(answer: &Answer) -> &str {
    match answer {
        Answer::NotSent(why) => why,
        other => panic!("nothing left, and the answer is {other:?}"),
    }
}

#[track_caller]
fn blocked(answer: &Answer) -> &str {
    match answer {
        Answer::Blocked(why) => why,
        other => panic!("it must not be sent, and the answer is {other:?}"),
    }
}
