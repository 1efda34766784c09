//! What Lambda's own errors mean: <https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors>.

use std::time::Duration;

use aws_sdk_lambda::config::http::HttpResponse;
use aws_sdk_lambda::error::ProvideErrorMetadata;
use aws_sdk_lambda::operation::invoke::InvokeError;

/// What is known of a call that Lambda answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many at once. Lambda is well, the function did not run.
    Throttled(Option<Duration>),
    /// The function did not run, and will not before somebody changes something: a name, a permission, a network, a key.
    Setup,
    /// The function did not run, and will when its environment can be made.
    NotReady,
    /// The function did not run: this event cannot be handed to it.
    Event,
    /// It may have run.
    Unknown,
}

/// No refusal may set a transaction aside for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Its meaning, and words for people.
pub(super) fn read(error: &InvokeError, response: &HttpResponse) -> (Refusal, String) {
    let status = response.status().as_u16();
    let code = error.code().unwrap_or_default();
    let detail = match (code, error.message().unwrap_or_default()) {
        ("", "") => format!("Lambda answered {status}"),
        (code, message) => format!("Lambda answered {status} {code}: {message}"),
    };
    let retry_after = response.headers().get("retry-after").and_then(|seconds| seconds.trim().parse().ok());
    (refusal(status, code, retry_after), detail)
}

fn refusal(status: u16, code: &str, retry_after: Option<u64>) -> Refusal {
    match code {
        "TooManyRequestsException" | "ThrottlingException" | "Throttling" => {
            Refusal::Throttled(retry_after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX)))
        }
        "RequestTooLargeException"
        | "SerializedRequestEntityTooLargeException"
        | "InvalidRequestContentException"
        | "UnsupportedMediaTypeException" => Refusal::Event,
        "EC2ThrottledException"
        | "EC2UnexpectedException"
        | "EFSMountConnectivityException"
        | "EFSMountTimeoutException"
        | "ENILimitReachedException"
        | "ResourceConflictException"
        | "ResourceNotReadyException"
        | "SnapStartException"
        | "SnapStartNotReadyException"
        | "SnapStartTimeoutException"
        | "SubnetIPAddressLimitReachedException" => Refusal::NotReady,
        "EC2AccessDeniedException"
        | "EFSMountFailureException"
        | "InvalidParameterValueException"
        | "InvalidRuntimeException"
        | "InvalidSecurityGroupIDException"
        | "InvalidSubnetIDException"
        | "InvalidZipFileException"
        | "KMSAccessDeniedException"
        | "KMSDisabledException"
        | "KMSInvalidStateException"
        | "KMSNotFoundException"
        | "NoPublishedVersionException"
        | "RecursiveInvocationException"
        | "ResourceNotFoundException" => Refusal::Setup,
        // What every service of AWS refuses at its door.
        "AccessDeniedException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException"
        | "ValidationError"
        | "ValidationException" => Refusal::Setup,
        // Refused at a door, whoever keeps it.
        _ if matches!(status, 401 | 403) => Refusal::Setup,
        // ServiceException, EFSIOException (a file system failed, maybe under the function), and what nobody has written down.
        _ => Refusal::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_aws_documents_as_before_the_function_is_known_not_to_have_run() {
        for (status, code) in
            [(500, "ServiceException"), (410, "EFSIOException"), (502, ""), (503, "ServiceUnavailable")]
        {
            assert_eq!(refusal(status, code, None), Refusal::Unknown, "{code}");
        }
        for (status, code) in [(400, ""), (404, ""), (408, "RequestTimeout"), (400, "SomethingNewException")] {
            assert_eq!(refusal(status, code, None), Refusal::Unknown, "{status} {code}: a proxy may have said so");
        }
    }

    #[test]
    fn a_throttled_call_waits_as_long_as_lambda_says_and_no_hour_more() {
        let waits = |seconds| refusal(429, "TooManyRequestsException", Some(seconds));
        assert_eq!(waits(3), Refusal::Throttled(Some(Duration::from_secs(3))));
        assert_eq!(waits(u64::MAX), Refusal::Throttled(Some(Duration::from_secs(3600))));
    }
}
