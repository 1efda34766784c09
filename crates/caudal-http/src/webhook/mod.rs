//! `POST /webhooks/{topic}`: deliveries that are signed instead of carrying an API key.
//!
//! The body is verified as it came and then stored as it came.

mod signature;

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use caudal_core::limits::RECORD_BYTES_MAX;
use caudal_core::rejection::Code;
use caudal_engine::ingest::Record;
use http::{HeaderMap, HeaderName, StatusCode, header};

use crate::problem::Problem;
use crate::pushed;
use crate::state::App;
pub use signature::Encoding;
use signature::{Keys, Refusal};

/// How one topic's deliveries are signed, and what of their headers is kept.
#[derive(Debug, Clone)]
pub struct Webhook {
    scheme: Scheme,
    attributes: Vec<HeaderName>,
}

#[derive(Clone)]
enum Scheme {
    Standard(Arc<Keys>),
    Single { keys: Arc<Keys>, header: HeaderName, prefix: String, encoding: Encoding, id: Option<HeaderName> },
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(_) => f.write_str("Standard"),
            Self::Single { header, .. } => write!(f, "Single({header})"),
        }
    }
}

/// A signature in one header of its own.
#[derive(Debug, Clone, Copy)]
pub struct SingleHeader<'a> {
    pub header: &'a str,
    /// What stands before the signature: GitHub's `sha256=`.
    pub prefix: &'a str,
    pub encoding: Encoding,
    /// The header with the sender's own name for the delivery, which becomes the dedup key.
    pub id_header: Option<&'a str>,
}

impl Webhook {
    /// Standard Webhooks, with secrets of the form `whsec_…`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the secrets.
    pub fn standard(secrets: &[&str]) -> Result<Self, String> {
        Ok(Self { scheme: Scheme::Standard(Arc::new(Keys::standard(secrets)?)), attributes: Vec::new() })
    }

    /// HMAC-SHA256 of the body in one header.
    ///
    /// # Errors
    /// A sentence that says what is wrong with a secret or a header's name.
    pub fn single(form: SingleHeader<'_>, secrets: &[&str]) -> Result<Self, String> {
        let scheme = Scheme::Single {
            keys: Arc::new(Keys::plain(secrets)?),
            header: header_name(form.header)?,
            prefix: form.prefix.to_owned(),
            encoding: form.encoding,
            id: form.id_header.map(header_name).transpose()?,
        };
        Ok(Self { scheme, attributes: Vec::new() })
    }

    /// Headers that are kept as attributes of the message. They are not signed.
    ///
    /// # Errors
    /// What is not a header's name.
    pub fn with_attributes(mut self, headers: &[String]) -> Result<Self, String> {
        self.attributes = headers.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?;
        Ok(self)
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} is not a header's name"))
}

pub(crate) async fn receive(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // Said to strangers, so it names no other topic.
    let Some((webhook, topic)) = app.config.webhooks.get(&name).zip(app.engine.topics.get(&name)) else {
        return Err(Problem::not_found("no topic of that name takes webhooks"));
    };
    check_media(&headers)?;
    let body = pushed::raw_body(&headers, body, app.config.body_bytes_max.min(RECORD_BYTES_MAX)).await?;
    let key = verified(webhook, &headers, &body).map_err(refused)??;
    let record = Record {
        key,
        source: "webhook".into(),
        attributes: kept_headers(&webhook.attributes, &headers),
        body,
        fault: None,
    };
    pushed::keep(&app, topic.name.as_str(), record).await
}

/// The dedup key of a request whose signature is right.
fn verified(webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Result<Result<Option<String>, Problem>, Refusal> {
    match &webhook.scheme {
        Scheme::Standard(keys) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let id = signature::standard(keys, headers, body, now)?;
            Ok(checked_key(id).map(Some))
        }
        Scheme::Single { keys, header, prefix, encoding, id } => {
            signature::single(keys, headers, (header, prefix, *encoding), body)?;
            let Some(id) = id else { return Ok(Ok(None)) };
            Ok(match signature::only(headers, id) {
                Some(key) => checked_key(key).map(Some),
                None => {
                    Err(Problem::bad_request(Code::KeyInvalid.name(), format!("the header {id} names the delivery")))
                }
            })
        }
    }
}

fn checked_key(key: &str) -> Result<String, Problem> {
    caudal_core::encode::check_key(key).map_err(|rejection| Problem::rejection(&rejection))
}

/// A sender that is set up to send forms would fill the dead letters; this way it shows at the first try.
fn check_media(headers: &HeaderMap) -> Result<(), Problem> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if media == "application/json" || (media.starts_with("application/") && media.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::unsupported_media_type("have the webhook sent with Content-Type: application/json"))
}

fn kept_headers(names: &[HeaderName], headers: &HeaderMap) -> Option<Bytes> {
    let kept = names.iter().filter_map(|name| {
        let value = signature::only(headers, name)?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    pushed::attributes(kept)
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unsigned => {
            let detail = "the request lacks the headers with its signature, or has one of them twice";
            Problem::new(StatusCode::UNAUTHORIZED, "webhook_unsigned", detail)
        }
        Refusal::Wrong => {
            let detail = "no secret of this topic made this signature over this body";
            Problem::new(StatusCode::UNAUTHORIZED, "webhook_bad_signature", detail)
        }
        Refusal::Stale => {
            let detail = format!("the signed time is more than {} s from now", signature::TOLERANCE_SECONDS);
            Problem::new(StatusCode::UNAUTHORIZED, "webhook_stale", detail)
        }
    }
}
