//! The query string of `/rest/v1/{table}`: PostgREST's grammar as values, before any table is looked at.
//!
//! The grammar is that of PostgREST 14's `QueryParams.hs`; docs/postgrest.md says where Caudal differs. Writing a [`Query`] as text
//! (`Display`) and parsing it again gives the same query: a property test holds both to it.

mod filter;
#[cfg(test)]
mod print;
mod scan;
mod select;

pub(crate) use filter::{Compared, Condition, Logic, Operation, Quantifier, Search, Spatial, Test, Truth};
pub(crate) use select::{Arrow, FieldName, Item, Related, StepKey};

use percent_encoding::percent_decode_str;

use scan::Scan;

use crate::problem::Problem;

/// Trees deeper than this are refused, logic and embedding alike.
pub(crate) const DEPTH_MAX: usize = 8;
/// Columns, aggregates and relations of one request.
pub(crate) const ITEMS_MAX: usize = 1_000;

/// What a query string says. Each part of an embedded relation carries the path to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    /// Empty: every column.
    pub(crate) select: Vec<Item>,
    pub(crate) conditions: Vec<At<Condition>>,
    pub(crate) orders: Vec<At<Vec<Term>>>,
    pub(crate) limits: Vec<At<i64>>,
    pub(crate) offsets: Vec<At<i64>>,
    /// Where a page begins, as an answer's `Link` said.
    pub(crate) cursor: Option<String>,
    /// Of an insert: the columns that the body's records have.
    pub(crate) columns: Option<Vec<String>>,
    /// Of an insert: the columns whose conflict is resolved.
    pub(crate) on_conflict: Option<Vec<String>>,
}

/// Something said about the relation at the end of a path; the empty path is the table itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) path: Vec<String>,
    pub(crate) what: T,
}

/// One term of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Term {
    /// A to-one relation whose column it is.
    pub(crate) relation: Option<String>,
    pub(crate) field: FieldName,
    pub(crate) descending: Option<bool>,
    pub(crate) nulls_first: Option<bool>,
}

/// Why a text is no query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SyntaxError {
    #[error("{part}: expected {expected} at character {} of {text:?}", .at + 1)]
    Expected { part: String, text: String, at: usize, expected: &'static str },
    #[error("operator {word:?} is not known; there are {}", filter::OPERATORS.join(", "))]
    Operator { word: String },
    #[error("{part} is nested more than {DEPTH_MAX} deep")]
    TooDeep { part: &'static str },
    #[error("more than {ITEMS_MAX} items in select")]
    TooMany,
    #[error("{name} is a whole number, which {value:?} is not")]
    Number { name: String, value: String },
    #[error("the query holds {0}")]
    Encoding(&'static str),
}

impl From<SyntaxError> for Problem {
    fn from(error: SyntaxError) -> Self {
        Self::bad_request("bad_filter", error.to_string())
    }
}

impl Query {
    /// Reads a query string as it stands in a URL. Parameters without a value are passed over, as PostgREST does.
    pub(crate) fn parse(text: &str) -> Result<Self, SyntaxError> {
        let mut query = Self::default();
        for (name, value) in pairs(text)? {
            query.parameter(&name, &value)?;
        }
        Ok(query)
    }

    fn parameter(&mut self, name: &str, value: &str) -> Result<(), SyntaxError> {
        match name {
            _ if is_cursor(name, value) => self.cursor = Some(value.to_owned()),
            "select" => self.select = select::items(value)?,
            "columns" => self.columns = Some(names("columns", value)?),
            "on_conflict" => self.on_conflict = Some(names("on_conflict", value)?),
            _ => return self.reserved_or_filter(name, value),
        }
        Ok(())
    }

    fn reserved_or_filter(&mut self, name: &str, value: &str) -> Result<(), SyntaxError> {
        let mut path = Scan::new("parameter", name).path()?;
        let last = path.names.pop().unwrap_or_default();
        let plain = path.json.is_empty();
        match last.as_str() {
            "order" if plain => self.orders.push(At { path: path.names, what: order(value)? }),
            "limit" if plain => self.limits.push(At { path: path.names, what: number(name, value)? }),
            "offset" if plain => self.offsets.push(At { path: path.names, what: number(name, value)? }),
            "and" | "or" if plain => {
                let negated = path.names.last().is_some_and(|word| word == "not");
                if negated {
                    path.names.pop();
                }
                let logic = if last == "and" { Logic::And } else { Logic::Or };
                let conditions = filter::tree(value)?;
                let what = Condition::Tree { negated, logic, conditions };
                self.conditions.push(At { path: path.names, what });
            }
            _ => {
                let field = FieldName { name: last, json: path.json };
                let what = Condition::Field { field, test: filter::test(value)? };
                self.conditions.push(At { path: path.names, what });
            }
        }
        Ok(())
    }
}

/// A filter has a dot after its operator, so a column of this name can be filtered by all the same.
pub(crate) fn is_cursor(name: &str, value: &str) -> bool {
    name == "cursor" && !value.contains('.')
}

pub(crate) fn number(name: &str, value: &str) -> Result<i64, SyntaxError> {
    value.parse().map_err(|_| SyntaxError::Number { name: name.to_owned(), value: excerpt(value) })
}

fn names(part: &'static str, value: &str) -> Result<Vec<String>, SyntaxError> {
    let mut scan = Scan::new(part, value);
    let names = scan.list(Scan::name)?;
    scan.end()?;
    Ok(names)
}

/// `a,b.desc.nullslast,rel(c).asc`.
fn order(value: &str) -> Result<Vec<Term>, SyntaxError> {
    let mut scan = Scan::new("order", value);
    if scan.is_at_end() {
        return Ok(Vec::new());
    }
    let terms = scan.list(term)?;
    scan.end()?;
    Ok(terms)
}

fn term(scan: &mut Scan<'_>) -> Result<Term, SyntaxError> {
    let mut field = scan.dotted_field(&["asc", "desc", "nullsfirst", "nullslast"])?;
    let mut relation = None;
    if field.json.is_empty() && scan.take("(") {
        relation = Some(std::mem::replace(&mut field, scan.dotted_field(&[])?).name);
        scan.expect(")", "a closing parenthesis")?;
    }
    let word = |scan: &mut Scan<'_>, yes: &str, no: &str| match () {
        () if scan.take(yes) => Some(true),
        () if scan.take(no) => Some(false),
        () => None,
    };
    let descending = word(scan, ".desc", ".asc");
    let nulls_first = word(scan, ".nullsfirst", ".nullslast");
    Ok(Term { relation, field, descending, nulls_first })
}

/// Name and value of each parameter, decoded; those without a value are passed over.
pub(crate) fn pairs(text: &str) -> Result<Vec<(String, String)>, SyntaxError> {
    let parts = text.split('&').filter_map(|part| part.split_once('='));
    parts.map(|(name, value)| Ok((decode(name)?, decode(value)?))).collect()
}

/// Undoes `+` and percent-encoding; refuses broken escapes, bytes that are not UTF-8, and NUL.
pub(crate) fn decode(text: &str) -> Result<String, SyntaxError> {
    let bytes = text.as_bytes();
    for (i, _) in text.match_indices('%') {
        let hex = bytes.get(i + 1..i + 3).is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit));
        if !hex {
            return Err(SyntaxError::Encoding("a broken %-escape"));
        }
    }
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(decoded) if !decoded.contains('\0') => Ok(decoded.into_owned()),
        Ok(_) => Err(SyntaxError::Encoding("a NUL")),
        Err(_) => Err(SyntaxError::Encoding("bytes that are not UTF-8")),
    }
}

/// What an error quotes of a text that may be long.
fn excerpt(text: &str) -> String {
    crate::problem::excerpt(text).to_string()
}
