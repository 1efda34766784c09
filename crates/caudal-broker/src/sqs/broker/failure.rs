//! What AWS answers, in the ports' words.

use std::error::Error;
use std::fmt;

use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use caudal_core::error::BrokerError;

/// A failure that several callers may share, which is why it is not yet a [`BrokerError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody answered.
    Away(String),
    /// Throttled, or ill: the same call may succeed later.
    Unavailable(String),
    /// As many messages are out as the queue allows.
    TooManyOut(String),
    /// A permission is missing.
    Denied(String),
    /// The topic or queue is not there.
    Missing(String),
    /// Somebody must act.
    Setup(String),
    /// The message is refused for what it is.
    Refused(String),
}

/// What was tried, in IAM's words, and on what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) action: &'static str,
    /// An ARN where it is known, else a name or URL.
    pub(crate) resource: &'a str,
}

/// Where the whole policy stands.
const POLICY: &str = "docs/brokers/sns-sqs.md has the whole policy";

impl Failure {
    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>, call: Call<'_>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let Call { action, resource } = call;
        let Some(answered) = error.as_service_error() else { return unanswered(error, call) };
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        let said = answered.message().unwrap_or("no reason given").trim_end_matches('.');
        match answered.code() {
            Some(code) => judge(code, status, said, call),
            None if status >= 500 => Self::Unavailable(format!("{action} on {resource}: HTTP status {status}")),
            None if status == 403 => denied("HTTP status 403", call),
            None => Self::Setup(format!(
                "what answered {action} on {resource} with HTTP status {status} is not SNS or SQS: correct the endpoint in \
                 broker.url or in AWS_ENDPOINT_URL",
            )),
        }
    }

    /// One entry of a batch that was refused while others may not have been.
    pub(crate) fn entry(code: &str, message: Option<&str>, sender_fault: bool, call: Call<'_>) -> Self {
        let said = message.unwrap_or("no reason given").trim_end_matches('.');
        match judge(code, if sender_fault { 400 } else { 500 }, said, call) {
            Self::Setup(why) => Self::Refused(why),
            failure => failure,
        }
    }

    /// Whether the same entry may be sent again at once.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Unavailable(_) | Self::TooManyOut(_))
    }

    fn text(&self) -> &str {
        match self {
            Self::Away(text)
            | Self::Unavailable(text)
            | Self::TooManyOut(text)
            | Self::Denied(text)
            | Self::Missing(text)
            | Self::Setup(text)
            | Self::Refused(text) => text,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl From<Failure> for BrokerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(why) | Failure::Unavailable(why) | Failure::TooManyOut(why) => Self::unavailable(why),
            Failure::Denied(why) | Failure::Missing(why) | Failure::Setup(why) => Self::Setup(why),
            Failure::Refused(why) => Self::Refused(why),
        }
    }
}

/// By AWS's code, which both protocols and both services share for the most part; SQS has an older spelling for some.
fn judge(code: &str, status: u16, said: &str, call: Call<'_>) -> Failure {
    let Call { action, resource } = call;
    let code = code.strip_prefix("AWS.SimpleQueueService.").unwrap_or(code);
    match code {
        "AccessDenied"
        | "AccessDeniedException"
        | "AuthorizationError"
        | "AuthorizationErrorException"
        | "NotAuthorized"
        | "UnauthorizedOperation" => denied(said, call),
        "KMS.AccessDeniedException" | "KMSAccessDenied" | "KmsAccessDenied" | "KMSAccessDeniedException" => {
            Failure::Denied(format!(
                "the key that encrypts {resource} may not be used: allow kms:GenerateDataKey and kms:Decrypt on it; AWS says: {said}"
            ))
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => Failure::Setup(format!(
            "the AWS credentials have expired, so {action} on {resource} is refused: renew them"
        )),
        "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "UnrecognizedClientException"
        | "InvalidSecurity"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "AuthFailure" => Failure::Setup(format!(
            "AWS does not accept the credentials for {action} on {resource}: correct the access key, the profile or the \
                 role, and the machine's clock; AWS says: {said}"
        )),
        "QueueDoesNotExist" | "NonExistentQueue" | "NotFound" | "NotFoundException" | "ResourceNotFoundException" => {
            Failure::Missing(format!("{resource} does not exist; AWS says: {said}"))
        }
        "OverLimit" => Failure::TooManyOut(format!("{resource}: {said}")),
        "Throttling"
        | "ThrottlingException"
        | "Throttled"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown"
        | "ServiceUnavailable"
        | "InternalFailure"
        | "InternalError"
        | "InternalErrorException"
        | "KmsThrottled"
        | "KMSThrottlingException"
        | "KMS.ThrottlingException" => Failure::Unavailable(format!("{action} on {resource}: {code}: {said}")),
        // Somebody deletes and makes it again; AWS wants a minute in between.
        "QueueDeletedRecently" => Failure::Unavailable(format!("{resource}: {said}")),
        _ if status >= 500 => Failure::Unavailable(format!("{action} on {resource}: {code}: {said}")),
        _ => Failure::Setup(format!("AWS refuses {action} on {resource}: {code}: {said}")),
    }
}

/// AWS names the user or role itself: "User: arn:… is not authorized to perform: … on resource: …".
fn denied(said: &str, call: Call<'_>) -> Failure {
    let Call { action, resource } = call;
    let who = said.split_once("User: ").and_then(|(_, rest)| rest.split_whitespace().next());
    let who = who.unwrap_or("the IAM identity of this process");
    Failure::Denied(format!(
        "{who} may not do {action} on {resource}: allow it in its IAM policy ({POLICY}); AWS says: {said}"
    ))
}

/// No answer, or none that can be read.
fn unanswered<E>(error: &SdkError<E, HttpResponse>, call: Call<'_>) -> Failure
where
    E: Error + Send + Sync + 'static,
{
    let Call { action, resource } = call;
    // The SDK keeps the provider's error in a box of a crate that we do not name, so its words must do.
    if !matches!(error, SdkError::TimeoutError(_))
        && causes(error).any(|cause| cause.to_string().contains("credential"))
    {
        return Failure::Setup(format!(
            "there are no AWS credentials for {action} on {resource}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a \
             profile with AWS_PROFILE, or give the machine a role"
        ));
    }
    let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
    Failure::Away(format!("{action} on {resource}: {error}: {last}"))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
