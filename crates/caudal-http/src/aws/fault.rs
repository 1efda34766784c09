//! Refusals as the services of AWS word them. Clients decide by the code, and each protocol has its own for the same thing.

use std::borrow::Cow;

use caudal_core::error::BrokerError;
use caudal_core::rejection::{Code, Rejection};
use caudal_engine::AcceptError;

/// One kind of refusal: its code in SNS, in SQS's query protocol, and in SQS's JSON protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) sns: &'static str,
    pub(crate) sqs: &'static str,
    pub(crate) json: &'static str,
    pub(crate) status: u16,
}

impl Kind {
    const fn same(code: &'static str, status: u16) -> Self {
        Self { sns: code, sqs: code, json: code, status }
    }

    /// Whether it is the sender's fault, so that repeating it gives the same.
    pub(crate) fn is_sender(&self) -> bool {
        self.status < 500
    }
}

pub(crate) static NO_SUCH: Kind =
    Kind { sns: "NotFound", sqs: "AWS.SimpleQueueService.NonExistentQueue", json: "QueueDoesNotExist", status: 404 };
pub(crate) static INVALID: Kind =
    Kind { sns: "InvalidParameter", sqs: "InvalidParameterValue", json: "InvalidParameterValue", status: 400 };
pub(crate) static MISSING: Kind =
    Kind { sns: "InvalidParameter", sqs: "MissingParameter", json: "MissingParameter", status: 400 };
pub(crate) static CONTENTS: Kind =
    Kind { sns: "InvalidParameter", sqs: "InvalidMessageContents", json: "InvalidMessageContents", status: 400 };
pub(crate) static UNSUPPORTED: Kind = Kind {
    sns: "InvalidAction",
    sqs: "AWS.SimpleQueueService.UnsupportedOperation",
    json: "UnsupportedOperation",
    status: 400,
};
pub(crate) static TOO_MANY: Kind = Kind {
    sns: "TooManyEntriesInBatchRequest",
    sqs: "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
    json: "TooManyEntriesInBatchRequest",
    status: 400,
};
pub(crate) static NO_ENTRIES: Kind = Kind {
    sns: "EmptyBatchRequest",
    sqs: "AWS.SimpleQueueService.EmptyBatchRequest",
    json: "EmptyBatchRequest",
    status: 400,
};
pub(crate) static SAME_IDS: Kind = Kind {
    sns: "BatchEntryIdsNotDistinct",
    sqs: "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
    json: "BatchEntryIdsNotDistinct",
    status: 400,
};
pub(crate) static BAD_ID: Kind = Kind {
    sns: "InvalidBatchEntryId",
    sqs: "AWS.SimpleQueueService.InvalidBatchEntryId",
    json: "InvalidBatchEntryId",
    status: 400,
};
pub(crate) static TOO_LONG: Kind = Kind {
    sns: "BatchRequestTooLong",
    sqs: "AWS.SimpleQueueService.BatchRequestTooLong",
    json: "BatchRequestTooLong",
    status: 400,
};
pub(crate) static MALFORMED: Kind =
    Kind { sns: "MalformedQueryString", sqs: "MalformedQueryString", json: "SerializationException", status: 400 };
pub(crate) static BODY_TOO_LARGE: Kind = Kind::same("RequestEntityTooLarge", 413);
pub(crate) static UNSIGNED: Kind = Kind::same("MissingAuthenticationToken", 403);
pub(crate) static INCOMPLETE: Kind = Kind::same("IncompleteSignature", 400);
pub(crate) static UNKNOWN_KEY: Kind = Kind::same("InvalidClientTokenId", 403);
pub(crate) static WRONG_SIGNATURE: Kind = Kind::same("SignatureDoesNotMatch", 403);
pub(crate) static EXPIRED: Kind = Kind::same("RequestExpired", 400);
pub(crate) static UNAVAILABLE: Kind = Kind::same("ServiceUnavailable", 503);
pub(crate) static INTERNAL: Kind =
    Kind { sns: "InternalError", sqs: "InternalFailure", json: "InternalFailure", status: 500 };

#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) kind: &'static Kind,
    pub(crate) message: Cow<'static, str>,
}

impl Fault {
    pub(crate) fn new(kind: &'static Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into() }
    }
}

pub(crate) type Answered<T> = Result<T, Fault>;

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection.code {
            code if code.is_malformed() && code != Code::KeyInvalid => &CONTENTS,
            Code::NulCharacter => &CONTENTS,
            _ => &INVALID,
        };
        Self::new(kind, format!("Invalid parameter: Message Reason: {rejection}"))
    }
}

impl From<AcceptError> for Fault {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Rejected { rejection, .. } => rejection.into(),
            AcceptError::UnknownTopic(_) | AcceptError::TooLarge { .. } => Self::new(&INVALID, error.to_string()),
            AcceptError::KeyInFlight | AcceptError::Overloaded => Self::new(&UNAVAILABLE, error.to_string()),
            AcceptError::Store(ref cause) if !cause.is_transient() => {
                tracing::error!(%error, "an AWS client was answered 500");
                Self::new(&INTERNAL, "Caudal failed; its log has the cause")
            }
            AcceptError::Broker(BrokerError::Refused(why)) => Self::new(&INVALID, why),
            AcceptError::Store(_) | AcceptError::Broker(_) => {
                tracing::warn!(%error, "an AWS client was answered 503");
                Self::new(&UNAVAILABLE, "a dependency is away; repeat the request")
            }
        }
    }
}
