//! PostgreSQL's errors, told apart once: what is transient, what somebody must act on, what a row did.

use caudal_core::error::StoreError;
use caudal_core::rejection::Rejection;
use tokio::sync::Notify;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::compare::refused;

/// What a failed statement means to the caller of a port.
pub(super) fn store_error(error: Error) -> StoreError {
    let Some(db) = error.as_db_error() else {
        return without_code(error);
    };
    let code = db.code().code();
    match code {
        "57014" => StoreError::Timeout,
        "53100" => StoreError::Full(Box::new(error)),
        "28P01" | "28000" => StoreError::Setup(format!(
            "PostgreSQL does not let this user in: check the user and the password in the store's URL ({})",
            db.message()
        )),
        "3D000" => StoreError::Setup(format!("{}: create it, or correct the store's URL", db.message())),
        "42501" => StoreError::Setup(format!("the store's user lacks a permission: {}", db.message())),
        "42P01" | "3F000" => StoreError::Setup(format!("{}: run `caudal migrate`", db.message())),
        "42703" | "42804" | "42883" => StoreError::Setup(format!("a table is not as expected: {}", db.message())),
        // A plan that a schema change made stale: the next call plans anew.
        "0A000" | "26000" if is_stale_plan(db) => StoreError::unavailable(error),
        _ if is_transient(code) => StoreError::unavailable(error),
        _ => StoreError::fatal(error),
    }
}

/// What a failed read of one of Caudal's own tables means.
pub(super) fn own_error(error: Error) -> StoreError {
    match asked(&error) {
        Some(asked) => asked,
        None => store_error(error),
    }
}

/// What a failed read of a table that Caudal did not make means. It may have changed since the catalogue was read, which
/// `changed` is told.
pub(super) fn found_error(error: Error, changed: &Notify) -> StoreError {
    if let Some(asked) = asked(&error) {
        return asked;
    }
    let code = error.as_db_error().map(|db| db.code().code());
    // Undefined table, column or schema; a permission taken back.
    if matches!(code, Some("42P01" | "42703" | "3F000" | "42501")) {
        changed.notify_one();
        return StoreError::unavailable(error);
    }
    store_error(error)
}

/// What the read's own values or operators are to blame for: types and operators of found tables are the database's, and a
/// value in a cast is known only there.
fn asked(error: &Error) -> Option<StoreError> {
    let db = error.as_db_error()?;
    let is = match db.code().code() {
        // Undefined or ambiguous operator or object, no cast, no collation, no order, a column that is not grouped.
        "42883" | "42725" | "42804" | "42846" | "42P18" | "42P22" | "42803" | "42704" => true,
        // One name for two values that are spread out; a statement that is too complex.
        "42702" | "54001" | "54011" | "54023" => true,
        // Syntax within a value: a text search query.
        "42601" => true,
        "0A000" => !is_stale_plan(db),
        code => code.starts_with("22"),
    };
    is.then(|| StoreError::Asked(db.message().to_owned()))
}

fn without_code(error: Error) -> StoreError {
    let text = error.to_string();
    // The driver has no kinds for these; its words are fixed strings.
    if text.contains("password missing") {
        return StoreError::Setup("PostgreSQL asks for a password and the store's URL has none".into());
    }
    let is_fault_of_ours = text.starts_with("error serializing") || text.starts_with("error deserializing");
    if is_fault_of_ours { StoreError::fatal(error) } else { StoreError::unavailable(error) }
}

/// Classes 08 (connection), 53 (resources), 57P (shut down), 58 (I/O of the server), and what a repeat can cure.
fn is_transient(code: &str) -> bool {
    matches!(&code[..2], "08" | "53" | "58")
        || code.starts_with("57P")
        || matches!(code, "25006" | "25P02" | "25P03" | "40001" | "40P01" | "55P03" | "55006" | "55000")
}

fn is_stale_plan(db: &DbError) -> bool {
    db.code() == &SqlState::INVALID_SQL_STATEMENT_NAME || db.message().starts_with("cached plan must not change")
}

/// Whether the connection may be used again after this error. A server that turned read-only (25006) is the old primary
/// after a failover: only a new connection finds the new one.
pub(super) fn keeps_connection(error: &StoreError) -> bool {
    match error {
        StoreError::Fenced | StoreError::Aborted { .. } | StoreError::Asked(_) => true,
        StoreError::Setup(_) | StoreError::Timeout | StoreError::Full(_) | StoreError::Fatal(_) => false,
        StoreError::Unavailable(cause) => {
            let code = cause.downcast_ref::<Error>().and_then(Error::code);
            code.is_some_and(|code| matches!(code.code(), "40001" | "40P01" | "55P03"))
        }
    }
}

/// Why rows could not be written.
#[derive(Debug)]
pub(super) enum PutError {
    /// A key is taken, or two writers waited for each other's: look at what is stored and try again.
    Taken {
        deadlock: bool,
    },
    /// A row is not acceptable to the database; the number of the row among those sent, where the database said so.
    Refused {
        rejection: Rejection,
        row: Option<usize>,
    },
    Store(StoreError),
}

impl PutError {
    pub(super) fn of(error: Error) -> Self {
        let Some(db) = error.as_db_error() else { return Self::Store(store_error(error)) };
        let code = db.code().code();
        match code {
            "23505" if db.constraint().is_some_and(is_primary_key) => Self::Taken { deadlock: false },
            "40P01" | "40001" => Self::Taken { deadlock: true },
            _ if is_about_a_row(code) => Self::Refused { rejection: refused(code, db.message()), row: copy_line(db) },
            _ => Self::Store(store_error(error)),
        }
    }
}

/// PostgreSQL's name for a primary key, and Citus's for a shard's: that with the shard's number.
fn is_primary_key(constraint: &str) -> bool {
    let shard = constraint.rsplit_once('_').filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
    constraint.ends_with("_pkey") || shard.is_some_and(|(name, _)| name.ends_with("_pkey"))
}

/// Data exceptions, constraints, checks of views, limits of a row or index entry, and what a trigger raises.
fn is_about_a_row(code: &str) -> bool {
    matches!(&code[..2], "22" | "23" | "44" | "54") || code == "P0001"
}

/// `COPY name, line 17[, column c]` → 16. PostgreSQL says so for binary input too; errors of deferred triggers have none.
fn copy_line(db: &DbError) -> Option<usize> {
    let place = db.where_()?.lines().find_map(|line| line.strip_prefix("COPY "))?;
    let number = place.rsplit_once(", line ")?.1;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primary_keys_are_known_by_their_names_on_shards_too() {
        assert!(["flights_pkey", "flights_pkey_102008"].into_iter().all(is_primary_key));
        assert!(
            !["flights_n_key", "flights_n_key_102008", "flights_check", "pkey_1x", ""].into_iter().any(is_primary_key)
        );
    }
}
