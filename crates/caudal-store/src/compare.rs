//! Whether a row under a key that exists is the same record again, or another one.

use caudal_core::json;
use caudal_core::rejection::{Code, Rejection, pointer_to};
use caudal_core::row::{Row, field};
use caudal_core::schema::{Column, ColumnType, LEADING_COLUMNS, Table};

/// The first content column in which a written row differs from what is stored; `theirs` are the values of
/// [`Table::content`], in order. `None`: the same record.
pub(crate) fn first_difference<'t, 'r>(
    table: &'t Table,
    ours: Row<'_>,
    theirs: impl Iterator<Item = Option<&'r [u8]>>,
) -> Option<&'t Column> {
    let ours = ours.skip(LEADING_COLUMNS);
    let pairs = table.content().zip(ours.zip(theirs));
    pairs.into_iter().find(|((_, column), (a, b))| !same(column.ty, *a, *b)).map(|((_, column), _)| column)
}

fn same(ty: ColumnType, a: Option<&[u8]>, b: Option<&[u8]>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => true,
        // Stores may spell one value in two ways: members in another order, 1.0 for 1, 0.0 for -0.0.
        (Some(a), Some(b)) => match ty {
            ColumnType::Jsonb => json::same(field::json(a), field::json(b)),
            ColumnType::Float8 => field::float8(a) == field::float8(b),
            _ => false,
        },
        _ => false,
    }
}

/// The rejection of a row whose key exists with other content.
pub(crate) fn conflict(column: &Column) -> Rejection {
    let detail = format!("the key exists with other content; the first difference is in {}", column.name);
    Rejection::new(Code::Conflict, pointer_to(&column.name), detail)
}

/// The rejection of a row that the database does not take: its code and its words, bounded.
pub(crate) fn refused(code: &str, message: &str) -> Rejection {
    const MESSAGE_CHARS_MAX: usize = 300;
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    Rejection::whole(Code::Refused, format!("the database refused the row ({code}): {message}"))
}
