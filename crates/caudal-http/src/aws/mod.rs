//! `POST /`: as much of SNS and SQS as publishers use, so that a program with an AWS SDK publishes here when it is given
//! another endpoint.
//!
//! A name that SNS or SQS knows is a topic of ours: the last part of the TopicArn, of the queue's URL, or the queue's name.

mod answer;
mod entry;
mod fault;
mod form;
mod send;
mod sigv4;
mod sns;
mod sqs;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use uuid::Uuid;

use crate::guard::Caller;
use crate::problem::{Problem, choices, excerpt};
use crate::pushed;
use crate::state::App;
use answer::{Answer, Dialect};
use fault::{Answered, BODY_TOO_LARGE, Fault, INVALID, MALFORMED, UNKNOWN_KEY, UNSIGNED, UNSUPPORTED};
use form::Form;
use sigv4::Claim;
pub use sigv4::Keys;

/// The account in names that we give out, and the first part of a queue URL's path.
pub(crate) const ACCOUNT: &str = "000000000000";
/// 256 KiB, percent-encoded or escaped, and what goes with it.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
const REGION: &str = "us-east-1";
const FORM: &str = "application/x-www-form-urlencoded";
const TARGET: &str = "x-amz-target";
const SQS_VERSION: &str = "2012-11-05";

/// One request under way.
pub(crate) struct Call<'a> {
    app: &'a App,
    region: &'a str,
    /// Where the client thinks we are.
    base_url: String,
    /// What the SDK calls this call, the same when it repeats it by itself.
    invocation: Option<&'a str>,
    path_queue: Option<&'a str>,
}

impl Call<'_> {
    fn unsupported(&self, action: &str) -> Fault {
        let (sns, sqs) = (sns::ACTIONS.join(", "), sqs::ACTIONS.join(", "));
        let message = format!(
            "The action {:?} is not one that Caudal has. It has {sns} of SNS, and {sqs} of SQS.",
            excerpt(action)
        );
        Fault::new(&UNSUPPORTED, message)
    }

    fn not_configured(&self, parameter: &str, name: &str) -> Fault {
        let hint = choices(name, self.app.engine.topics.names());
        let message = format!(
            "Invalid parameter: {parameter} Reason: topics are made in Caudal's configuration, which has none named {:?}; {hint}",
            excerpt(name)
        );
        Fault::new(&INVALID, message)
    }
}

pub(crate) async fn door(
    State(app): State<Arc<App>>,
    caller: Option<Extension<Caller>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let is_form = media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(FORM));
    let claim = Claim::of(&headers);
    let service = claim.as_ref().and_then(|claim| claim.as_ref().ok()).map(|claim| claim.service);
    let mut dialect = match (headers.contains_key(TARGET), is_form, service) {
        (true, ..) => Dialect::SqsJson,
        (_, true, Some("sqs")) => Dialect::SqsForm,
        (_, true, _) => Dialect::SnsForm,
        _ => {
            let detail = "here clients of SNS and SQS publish; everybody else at /v1/topics/{topic}/messages";
            return Problem::unsupported_media_type(detail).into_response();
        }
    };
    let caller = caller.map_or(Caller::Stranger, |Extension(caller)| caller);
    let request = Request { app: &app, caller, method: &method, uri: &uri, headers: &headers, claim };
    let request_id = Uuid::now_v7().to_string();
    match request.handle(body, &mut dialect).await {
        Ok((action, answer)) => dialect.answer(&action, &answer, &request_id),
        Err(fault) => dialect.refuse(&fault, &request_id),
    }
}

struct Request<'a> {
    app: &'a Arc<App>,
    caller: Caller,
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    claim: Option<Answered<Claim<'a>>>,
}

impl Request<'_> {
    /// The action's name and what it came to. `dialect` becomes what the body turns out to speak.
    async fn handle(mut self, body: Body, dialect: &mut Dialect) -> Answered<(String, Answer)> {
        let claim = self.claim.take().transpose()?;
        let body = pushed::raw_body(self.headers, body, BODY_BYTES_MAX).await.map_err(unread)?;
        self.authenticate(claim.as_ref(), &body)?;
        let region = claim.as_ref().map(|claim| claim.region).filter(|region| is_region(region));
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
        let call = Call {
            app: self.app,
            region: region.unwrap_or(REGION),
            base_url: format!("{scheme}://{}", text("host").unwrap_or("localhost")),
            invocation: text("amz-sdk-invocation-id").filter(|id| !id.is_empty() && id.len() <= 100),
            path_queue: Some(self.uri.path()).filter(|path| *path != "/"),
        };
        if *dialect == Dialect::SqsJson {
            let target = text(TARGET).unwrap_or_default();
            let action = target.strip_prefix("AmazonSQS.").ok_or_else(|| call.unsupported(target))?;
            return Ok((action.to_owned(), sqs::act_json(&call, action, &body).await?));
        }
        let mut form = Form::parse(&body)?;
        let action = form.required("Action")?;
        if form.get("Version") == Some(SQS_VERSION) || sqs::ACTIONS.contains(&action.as_str()) {
            *dialect = Dialect::SqsForm;
            let answer = sqs::act_form(&call, &action, form).await?;
            return Ok((action, answer));
        }
        let answer = sns::act(&call, &action, form).await?;
        Ok((action, answer))
    }

    /// With key pairs configured every request is signed by one of them, or has an API key. Without, whoever needs no API key
    /// elsewhere needs no signature here.
    fn authenticate(&self, claim: Option<&Claim<'_>>, body: &Bytes) -> Answered<()> {
        let keys = &self.app.config.aws_keys;
        match (self.caller, claim) {
            (Caller::KeyHolder, _) => Ok(()),
            (Caller::Welcome, _) if keys.is_empty() => Ok(()),
            (_, _) if keys.is_empty() => {
                let message = "The security token included in the request is invalid: http.aws_keys has no access key.";
                Err(Fault::new(&UNKNOWN_KEY, message))
            }
            (_, None) => {
                let message = "Request is missing Authentication Token: sign it with AWS Signature Version 4, in the Authorization header";
                Err(Fault::new(&UNSIGNED, message))
            }
            (_, Some(claim)) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                claim.verify(keys, (self.method, self.uri, self.headers), body, now)
            }
        }
    }
}

/// A body that could not be read, in AWS's words.
fn unread(problem: Problem) -> Fault {
    match problem.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Fault::new(&BODY_TOO_LARGE, format!("A request has at most {BODY_BYTES_MAX} bytes."))
        }
        _ => Fault::new(&MALFORMED, problem.detail().to_owned()),
    }
}

fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
