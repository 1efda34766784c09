//! What the server says about an analyst's statement, as its author can use it.

use caudal_core::error::StoreError;
use caudal_core::limits::SQL_ROW_BYTES_MAX;
use caudal_core::row::field;
use caudal_core::sql::{SqlError, SqlFault};
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, ErrorPosition};
use tokio_postgres::types::Type;

use super::super::error::store_error;
use super::AnalystConfig;
use super::shape::TOO_LARGE;

/// An error of the analyst's own statement; `before` characters of ours stood before it.
pub(super) fn fault(error: Error, before: u32, config: &AnalystConfig) -> SqlError {
    match error.as_db_error() {
        Some(db) if is_about_the_statement(db.code().code()) => of_statement(db, before, config).into(),
        _ => store_error(error).into(),
    }
}

/// An error of the statement inside ours. One that parses alone and not there is no query.
pub(super) fn of_wrapped(error: Error, before: u32, config: &AnalystConfig) -> SqlError {
    if error.code().is_some_and(|code| code.code() == "42601") {
        let message = "statements here only read: write one select, values, table or with … select, and a ; only as its \
                       last character";
        return SqlError::forbidden("0A000", message).into();
    }
    fault(error, before, config)
}

/// The transaction could not be opened: the role is not there, or not the user's.
pub(super) fn of_opening(error: Error, config: &AnalystConfig) -> SqlError {
    let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
    match (&config.role, code.as_str()) {
        (Some(role), "42501" | "22023") => StoreError::Setup(format!(
            "sql.role is {role:?}, and the store's user may not become it: create it and grant it to that user"
        ))
        .into(),
        _ => store_error(error).into(),
    }
}

/// Everything but what the server or the way to it suffers from. Internal errors (XX000) that a statement brings about are its
/// own; damage (XX001, XX002) is not.
fn is_about_the_statement(code: &str) -> bool {
    let transient = matches!(&code[..2], "08" | "58") || (code.starts_with("53") && code != "53400");
    !(transient || code.starts_with("57") || matches!(code, "40001" | "40P01" | "55P03" | "XX001" | "XX002"))
}

fn of_statement(db: &DbError, before: u32, config: &AnalystConfig) -> SqlFault {
    let code = db.code().code();
    if code == "22P02" && db.message().ends_with(&format!("{TOO_LARGE}\"")) {
        let message = format!("a row of the answer is larger than {SQL_ROW_BYTES_MAX} bytes: select less of it");
        return SqlError::mistake("54000", message);
    }
    let mut fault = match code {
        "42501" | "25006" | "25001" => SqlError::forbidden(code, db.message()),
        _ => SqlError::mistake(code, db.message()),
    };
    fault.detail = db.detail().map(str::to_owned);
    fault.hint = db.hint().map(str::to_owned);
    fault.position = match db.position() {
        Some(ErrorPosition::Original(at)) => at.checked_sub(before).filter(|at| *at > 0),
        _ => None,
    };
    if code == "42501" && fault.hint.is_none() {
        let role = config.role.as_deref().unwrap_or("the store's user");
        fault.hint = Some(format!("the statement runs as {role}: grant select on what it shall read"));
    }
    fault
}

/// 0001-01-01 to 9999-12-31, in days since 2000-01-01.
const DAYS: std::ops::RangeInclusive<i32> = -730_119..=2_921_938;

/// Times that a row has no place for: infinite ones, and those outside the years 1 to 9999.
pub(super) fn row_error(ty: &Type, bytes: &[u8]) -> Option<SqlFault> {
    let written = match *ty {
        Type::TIMESTAMPTZ => {
            let at = field::timestamp(bytes);
            at == at.within_calendar()
        }
        Type::DATE => DAYS.contains(&field::date(bytes).0),
        _ => true,
    };
    let message = "a time is infinite or outside the years 1 to 9999: cast it to text";
    (!written).then(|| SqlError::mistake("22008", message))
}
