//! What a statement may do: select, and call functions that only compute.

use std::sync::PoisonError;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::Shared;

/// Functions that compute from their arguments, or read the clock. SQLite's others load code, write files, or tell about other
/// statements.
const FUNCTIONS: &[&str] = &[
    // scalar
    "->",
    "->>",
    "abs",
    "char",
    "coalesce",
    "concat",
    "concat_ws",
    "format",
    "glob",
    "hex",
    "if",
    "ifnull",
    "iif",
    "instr",
    "length",
    "like",
    "likelihood",
    "likely",
    "lower",
    "ltrim",
    "max",
    "min",
    "nullif",
    "octet_length",
    "printf",
    "quote",
    "random",
    "randomblob",
    "replace",
    "round",
    "rtrim",
    "sign",
    "soundex",
    "sqlite_version",
    "substr",
    "substring",
    "trim",
    "typeof",
    "unhex",
    "unicode",
    "unistr",
    "unistr_quote",
    "unlikely",
    "upper",
    "zeroblob",
    // time
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "strftime",
    "time",
    "timediff",
    "unixepoch",
    // aggregates and windows
    "avg",
    "count",
    "cume_dist",
    "dense_rank",
    "first_value",
    "group_concat",
    "lag",
    "last_value",
    "lead",
    "median",
    "nth_value",
    "ntile",
    "percent_rank",
    "percentile",
    "percentile_cont",
    "percentile_disc",
    "rank",
    "row_number",
    "string_agg",
    "sum",
    "total",
    // mathematics
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "ceiling",
    "cos",
    "cosh",
    "degrees",
    "exp",
    "floor",
    "ln",
    "log",
    "log10",
    "log2",
    "mod",
    "pi",
    "pow",
    "power",
    "radians",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
    "trunc",
    // JSON
    "json",
    "json_array",
    "json_array_length",
    "json_error_position",
    "json_extract",
    "json_group_array",
    "json_group_object",
    "json_insert",
    "json_object",
    "json_patch",
    "json_pretty",
    "json_quote",
    "json_remove",
    "json_replace",
    "json_set",
    "json_type",
    "json_valid",
    "jsonb",
    "jsonb_array",
    "jsonb_extract",
    "jsonb_group_array",
    "jsonb_group_object",
    "jsonb_insert",
    "jsonb_object",
    "jsonb_patch",
    "jsonb_remove",
    "jsonb_replace",
    "jsonb_set",
];

/// Virtual tables that show the file's pages instead of rows; and what signs cursors.
const NOT_TO_BE_READ: &[&str] = &["sqlite_dbpage", "dbstat", "sqlite_stmt", "bytecode", "tables_used", "_secrets"];

#[derive(Debug, Default)]
pub(super) struct Refused(Shared);

impl Refused {
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn authorizer(&self) -> impl for<'r> FnMut(AuthContext<'r>) -> Authorization + Send + 'static {
        let refused = self.0.clone();
        move |context| match why_not(&context.action) {
            None => Authorization::Allow,
            Some(why) => {
                refused.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
                Authorization::Deny
            }
        }
    }
}

/// The sentence to say, when the action is more than reading.
fn why_not(action: &AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Select | AuthAction::Recursive => None,
        AuthAction::Function { function_name } => {
            let name = function_name.to_ascii_lowercase();
            let known = FUNCTIONS.contains(&name.as_str());
            (!known).then(|| format!("{name} is not among the functions that statements here may call"))
        }
        AuthAction::Read { table_name, .. } => {
            let listed = NOT_TO_BE_READ.iter().any(|listed| table_name.eq_ignore_ascii_case(listed));
            (listed || table_name.to_ascii_lowercase().starts_with("pragma_"))
                .then(|| format!("{table_name} is not a table that statements here may read"))
        }
        _ => Some("statements here only read: write one select, values or with … select".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reading_is_allowed() {
        let read = |table_name| AuthAction::Read { table_name, column_name: "a" };
        let call = |function_name| AuthAction::Function { function_name };
        for action in [AuthAction::Select, AuthAction::Recursive, read("flights"), call("COUNT"), call("->>")] {
            assert_eq!(why_not(&action), None, "{action:?}");
        }
        for action in [
            AuthAction::Attach { filename: "x" },
            AuthAction::Pragma { pragma_name: "writable_schema", pragma_value: Some("1") },
            AuthAction::Update { table_name: "t", column_name: "c" },
            AuthAction::Unknown { code: 99, arg1: None, arg2: None },
            call("load_extension"),
            call("writefile"),
            call("fts3_tokenizer"),
            read("dbstat"),
            read("_Secrets"),
            read("pragma_function_list"),
        ] {
            assert!(why_not(&action).is_some(), "{action:?}");
        }
    }
}
