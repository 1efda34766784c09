//! What DynamoDB answers, in the store's words.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use caudal_core::error::StoreError;

use super::table;

/// What was tried, in IAM's words, and on which table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) action: &'static str,
    pub(super) table: &'a str,
}

pub(super) fn failed<E>(error: &SdkError<E, HttpResponse>, call: Call<'_>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let Call { action, table } = call;
    let Some(answered) = error.as_service_error() else { return unanswered(error, call) };
    let status = error.raw_response().map_or(0, |response| response.status().as_u16());
    let said = answered.message().unwrap_or("no reason given").trim_end_matches('.');
    match answered.code() {
        Some(code) => judge(code, status, said, call),
        None if status >= 500 => StoreError::unavailable(format!("{action} on {table}: HTTP status {status}")),
        None => StoreError::Setup(format!(
            "what answered {action} on {table} with HTTP status {status} is not DynamoDB: correct the endpoint in the URL or in \
             AWS_ENDPOINT_URL"
        )),
    }
}

fn judge(code: &str, status: u16, said: &str, call: Call<'_>) -> StoreError {
    let Call { action, table } = call;
    match code {
        "ProvisionedThroughputExceededException" => StoreError::unavailable(format!(
            "{action} on {table} is throttled: give the table more capacity, or make it on-demand \
             (aws dynamodb update-table --table-name {table} --billing-mode PAY_PER_REQUEST); AWS says: {said}"
        )),
        "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "InternalServerError"
        | "InternalServerErrorException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "ReplicatedWriteConflictException"
        | "ResourceInUseException" => StoreError::unavailable(format!("{action} on {table}: {code}: {said}")),
        "ResourceNotFoundException" => StoreError::Setup(table::missing(table)),
        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "UnauthorizedOperation" => {
            let who = said.split_once("User: ").and_then(|(_, rest)| rest.split_whitespace().next());
            let who = who.unwrap_or("the IAM identity of this process");
            StoreError::Setup(format!(
                "{who} may not do dynamodb:{action} on table {table} and its index: allow it in its IAM policy; AWS says: {said}"
            ))
        }
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => StoreError::Setup(format!(
            "the AWS credentials have expired, so {action} on {table} is refused: renew them"
        )),
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException" => StoreError::Setup(format!(
            "AWS does not accept the credentials for {action} on {table}: correct the access key, the profile or the role, and \
             the machine's clock; AWS says: {said}"
        )),
        "ItemCollectionSizeLimitExceededException" => StoreError::Setup(format!(
            "{table} has a local secondary index that is full: give Caudal a table of its own; AWS says: {said}"
        )),
        "ValidationException" if said.contains("index") => StoreError::Setup(format!(
            "{action} on {table}: {said}: the table is not as Caudal makes it; {}",
            table::missing(table)
        )),
        _ if status >= 500 => StoreError::unavailable(format!("{action} on {table}: {code}: {said}")),
        _ => StoreError::fatal(format!("AWS refuses {action} on {table}: {code}: {said}")),
    }
}

/// No answer, or none that can be read.
fn unanswered<E>(error: &SdkError<E, HttpResponse>, call: Call<'_>) -> StoreError
where
    E: Error + Send + Sync + 'static,
{
    let Call { action, table } = call;
    // The SDK keeps the provider's error in a box of a crate that is not named here, so its words must do.
    if !matches!(error, SdkError::TimeoutError(_))
        && causes(error).any(|cause| cause.to_string().contains("credential"))
    {
        return StoreError::Setup(format!(
            "there are no AWS credentials for {action} on {table}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a \
             profile with AWS_PROFILE, or give the machine a role"
        ));
    }
    let last = causes(error).last().map(ToString::to_string).unwrap_or_default();
    StoreError::unavailable(format!("{action} on {table}: {error}: {last}"))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// What is in the table and cannot be.
pub(super) fn damaged(what: impl std::fmt::Display) -> StoreError {
    StoreError::fatal(format!("the table holds what Caudal did not write: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(code: &str, status: u16, said: &str) -> StoreError {
        judge(code, status, said, Call { action: "UpdateItem", table: "t" })
    }

    #[test]
    fn what_passes_by_itself_is_transient_and_the_rest_says_what_to_do() {
        for code in ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"] {
            assert!(judged(code, 400, "slow down").is_transient(), "{code}");
        }
        assert!(judged("Anything", 503, "").is_transient());
        let cases = [
            ("ResourceNotFoundException", "aws dynamodb create-table"),
            ("AccessDeniedException", "dynamodb:UpdateItem on table t"),
            ("ExpiredTokenException", "renew them"),
            ("UnrecognizedClientException", "the access key"),
        ];
        for (code, says) in cases {
            let error = judged(code, 400, "User: arn:aws:iam::1:user/x is not authorized");
            assert!(matches!(&error, StoreError::Setup(why) if why.contains(says)), "{code}: {error}");
        }
        assert!(matches!(judged("ValidationException", 400, "a key"), StoreError::Fatal(_)));
    }
}
