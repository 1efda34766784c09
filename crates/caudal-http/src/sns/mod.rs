//! `POST /sns/{topic}`: an HTTP subscription of Amazon SNS.
//!
//! SNS cannot present an API key. What it sends is signed instead, and acted on only when the TopicArn is one that the topic
//! allows. Everything is decided before anything is fetched from anywhere.

mod address;
mod certificate;
mod message;

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use caudal_core::time::Instant;
use caudal_engine::ingest::Record;
use http::{HeaderMap, StatusCode, header};

pub(crate) use certificate::Certificates;
use message::{Kind, Message};
use reqwest::Url;

use crate::fetch::FetchError;
use crate::guard::Caller;
use crate::problem::{Problem, excerpt, json_response, status_body};
use crate::pushed;
use crate::state::App;

/// SNS carries 256 KiB; as a JSON string, with everything escaped, that is six times as much.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// SNS repeats a delivery for at most an hour.
const AGE_SECONDS_MAX: i64 = 3600;
/// How far SNS's clock may be ahead of ours.
const AHEAD_SECONDS_MAX: i64 = 300;

/// The TopicArns that one topic takes deliveries of.
#[derive(Debug, Clone)]
pub struct AllowedTopics(Vec<TopicArn>);

/// `arn:aws:sns:<region>:<account>:<name>`.
#[derive(Debug, Clone)]
pub(crate) struct TopicArn {
    text: String,
    /// Of whose SNS the addresses in a message must be.
    region: String,
}

impl AllowedTopics {
    /// # Errors
    /// A sentence that names what is not a topic's ARN.
    pub fn new(arns: &[String]) -> Result<Self, String> {
        arns.iter().map(|arn| TopicArn::parse(arn)).collect::<Result<_, _>>().map(Self)
    }

    fn find(&self, arn: &str) -> Result<&TopicArn, Problem> {
        self.0.iter().find(|allowed| allowed.text == arn).ok_or_else(|| {
            let detail =
                format!("deliveries of {:?} are not taken here; sns_topic_arns lists those that are", excerpt(arn));
            Problem::new(StatusCode::FORBIDDEN, "sns_topic_not_allowed", detail)
        })
    }
}

impl TopicArn {
    fn parse(arn: &str) -> Result<Self, String> {
        let parts: Vec<&str> = arn.split(':').collect();
        match parts[..] {
            ["arn", partition, "sns", region, account, name]
                if partition.starts_with("aws")
                    && !region.is_empty()
                    && account.len() == 12
                    && account.bytes().all(|b| b.is_ascii_digit())
                    && !name.is_empty() =>
            {
                Ok(Self { text: arn.to_owned(), region: region.to_owned() })
            }
            _ => Err(format!("{arn:?} is not a topic's ARN, arn:aws:sns:<region>:<account>:<name>")),
        }
    }
}

pub(crate) async fn receive(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    caller: Option<Extension<Caller>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // Said to strangers, so it names no other topic.
    let Some((allowed, topic)) = app.config.sns.get(&name).zip(app.engine.topics.get(&name)) else {
        return Err(Problem::not_found("no topic of that name takes deliveries of SNS"));
    };
    let body = pushed::raw_body(&headers, body, BODY_BYTES_MAX).await?;
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = of("x-amz-sns-message-type");
    if of("x-amz-sns-rawdelivery") == "true" {
        let caller = caller.map_or(Caller::Stranger, |Extension(caller)| caller);
        let record = raw(allowed, caller, kind, of("x-amz-sns-topic-arn"), of("x-amz-sns-message-id"), body)?;
        return pushed::keep(&app, topic.name.as_str(), record).await;
    }
    let message = Message::parse(kind, &body)?;
    let arn = allowed.find(&message.topic_arn)?;
    check_age(&message)?;
    let confirmation = match message.kind {
        Kind::SubscriptionConfirmation => Some(address::confirmation(&message, &arn.region)?),
        _ => None,
    };
    app.certificates.verify(&app.config.fetch, &message, &arn.region).await?;
    match (message.kind, confirmation) {
        (_, Some(url)) => confirm(&app, &message.topic_arn, url).await,
        (Kind::Notification, _) => pushed::keep(&app, topic.name.as_str(), message.into_record()).await,
        _ => {
            tracing::warn!(topic = name, arn = message.topic_arn, "SNS ended its subscription to this endpoint");
            Ok(json_response(StatusCode::OK, &status_body("unsubscribed")))
        }
    }
}

fn check_age(message: &Message) -> Result<(), Problem> {
    let at = Instant::parse(&message.timestamp).ok_or_else(|| message::malformed("Timestamp is not a date-time"))?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let age_ms = now - at.unix_millis();
    if (-AHEAD_SECONDS_MAX * 1000..=AGE_SECONDS_MAX * 1000).contains(&age_ms) {
        return Ok(());
    }
    let detail = format!("Timestamp is {} s old; {AGE_SECONDS_MAX} s are the most", age_ms / 1000);
    Err(Problem::new(StatusCode::FORBIDDEN, "sns_stale", detail))
}

/// Answers SNS's question whether this endpoint wants the topic.
async fn confirm(app: &App, arn: &str, url: Url) -> Result<Response, Problem> {
    match app.config.fetch.get(url).await {
        Ok(_) => {
            tracing::info!(arn, "SNS's subscription is confirmed");
            Ok(json_response(StatusCode::OK, &status_body("confirmed")))
        }
        Err(error) => Err(unreachable("SubscribeURL", &error)),
    }
}

/// Raw delivery has no signature: only an API key lets it in, and nothing but the headers says what it is of.
fn raw(
    allowed: &AllowedTopics,
    caller: Caller,
    kind: &str,
    arn: &str,
    id: &str,
    body: Bytes,
) -> Result<Record, Problem> {
    if caller == Caller::Stranger {
        let detail =
            "raw delivery is not signed: turn it off, or put an API key into the endpoint's URL as the password";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "sns_unsigned", detail)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"caudal\""));
    }
    allowed.find(arn)?;
    if kind != Kind::Notification.name() || id.is_empty() {
        return Err(message::malformed("a raw delivery is a Notification with x-amz-sns-message-id"));
    }
    Ok(Record {
        key: Some(message::dedup_key(arn, id)),
        source: message::source(arn),
        attributes: None,
        body,
        fault: None,
    })
}

/// SNS itself was needed and not to be had: it repeats the delivery when it is told so.
fn unreachable(what: &str, error: &FetchError) -> Problem {
    tracing::warn!(%error, what, "SNS did not answer what its delivery needs");
    let detail = format!("{what} could not be fetched; nothing was taken");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sns_unreachable", detail).header(header::RETRY_AFTER, "5")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_topic_arns_can_be_allowed() {
        let good = ["arn:aws:sns:us-east-1:123456789012:flights", "arn:aws-cn:sns:cn-north-1:123456789012:a_b.fifo"];
        let allowed = AllowedTopics::new(&good.map(str::to_owned)).unwrap();
        assert!(good.iter().all(|arn| allowed.find(arn).is_ok()));
        for foreign in
            ["arn:aws:sns:us-east-1:123456789012:flight", "arn:aws:sns:us-east-1:123456789013:flights", "*", ""]
        {
            assert!(allowed.find(foreign).is_err(), "{foreign}");
        }
        for wrong in [
            "flights",
            "*",
            "arn:aws:sns:us-east-1:123456789012:*:x",
            "arn:aws:sqs:us-east-1:123456789012:q",
            "arn:aws:sns::123456789012:x",
            "arn:aws:sns:us-east-1:123:x",
            "arn:aws:sns:us-east-1:123456789012:",
        ] {
            assert!(AllowedTopics::new(&[wrong.to_owned()]).unwrap_err().contains("is not a topic's ARN"), "{wrong}");
        }
    }
}
