//! SQLite's errors, told apart once.

use caudal_core::error::StoreError;
use caudal_core::rejection::Rejection;
use rusqlite::{Error, ErrorCode};

use super::functions::REFUSED;
use crate::compare::refused;

pub(super) fn store_error(error: Error) -> StoreError {
    let Some(code) = error.sqlite_error_code() else { return StoreError::fatal(error) };
    match code {
        ErrorCode::DiskFull => StoreError::Full(Box::new(error)),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OutOfMemory => StoreError::unavailable(error),
        ErrorCode::OperationInterrupted => StoreError::Timeout,
        ErrorCode::CannotOpen => {
            StoreError::Setup(format!("the database file cannot be opened; does its folder exist? ({error})"))
        }
        ErrorCode::PermissionDenied | ErrorCode::ReadOnly => {
            StoreError::Setup(format!("this user may not write the database file or its folder ({error})"))
        }
        ErrorCode::NotADatabase => StoreError::Setup(format!("the file is not an SQLite database ({error})")),
        ErrorCode::Unknown if error.to_string().contains("no such table") => {
            StoreError::Setup(format!("{error}: run `caudal migrate`"))
        }
        ErrorCode::Unknown if error.to_string().contains("no such column") => {
            StoreError::Setup(format!("a table is not as expected: {error}"))
        }
        _ => StoreError::fatal(error),
    }
}

/// What a failed read of a table that Caudal did not make means: it may have changed since it was looked at.
pub(super) fn found_error(error: Error) -> StoreError {
    let text = error.to_string();
    match text.contains("no such table") || text.contains("no such column") {
        true => StoreError::unavailable(error),
        false => store_error(error),
    }
}

/// What a read's own values or operators are to blame for.
pub(super) fn asked(error: &Error) -> Option<StoreError> {
    let text = error.to_string();
    if let Some((_, why)) = text.split_once(REFUSED) {
        return Some(StoreError::Asked(why.to_owned()));
    }
    text.contains("integer overflow")
        .then(|| StoreError::Asked("the sum is beyond 64 bits, which SQLite cannot add up; PostgreSQL can".to_owned()))
}

/// The rejection, when the error is about the values of one row: a constraint, a trigger's `RAISE(ABORT)`, a size, a type.
pub(super) fn refusal(error: &Error) -> Option<Rejection> {
    let Error::SqliteFailure(failure, message) = error else { return None };
    let code = match failure.code {
        ErrorCode::ConstraintViolation => format!("SQLITE_CONSTRAINT {}", failure.extended_code),
        ErrorCode::TooBig => "SQLITE_TOOBIG".into(),
        ErrorCode::TypeMismatch => "SQLITE_MISMATCH".into(),
        _ => return None,
    };
    Some(refused(&code, message.as_deref().unwrap_or("")))
}

/// One failure told to everybody whose work was in the same commit.
pub(super) fn copy_of(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full(cause) => StoreError::Full(cause.to_string().into()),
        StoreError::Setup(text) => StoreError::Setup(text.clone()),
        StoreError::Asked(text) => StoreError::Asked(text.clone()),
        StoreError::Timeout => StoreError::Timeout,
        StoreError::Fatal(cause) => StoreError::fatal(cause.to_string()),
        other => StoreError::unavailable(other.to_string()),
    }
}
