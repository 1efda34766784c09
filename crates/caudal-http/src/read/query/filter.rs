//! Conditions: `eq.5`, `not.in.(a,b)`, `like(any).{A*,B*}`, `fts(english).cat`, `or=(a.eq.1,not.and(b.gt.2,c.is.null))`.

use super::scan::Scan;
use super::select::FieldName;
use super::{DEPTH_MAX, SyntaxError, excerpt};

/// Every operator, as an error lists them.
pub(super) const OPERATORS: &[&str] = &[
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "like",
    "ilike",
    "match",
    "imatch",
    "in",
    "is",
    "isdistinct",
    "fts",
    "plfts",
    "phfts",
    "wfts",
    "cs",
    "cd",
    "ov",
    "sl",
    "sr",
    "nxr",
    "nxl",
    "adj",
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    Field { field: FieldName, test: Test },
    Tree { negated: bool, logic: Logic, conditions: Vec<Condition> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logic {
    And,
    Or,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    pub(crate) negated: bool,
    pub(crate) operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Compare {
        how: Compared,
        quantifier: Option<Quantifier>,
        value: String,
    },
    /// `isdistinct`
    Distinct(String),
    In(Vec<String>),
    Is(Truth),
    Search {
        how: Search,
        config: Option<String>,
        query: String,
    },
    /// Containment, overlap and the range operators.
    Spatial {
        how: Spatial,
        value: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    ILike,
    Match,
    IMatch,
}

/// The value is an array literal, `{a,b}`; the condition holds for one, or for every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    Any,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// Full text search, by the function that reads the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// `to_tsquery`
    Fts,
    /// `plainto_tsquery`
    Plain,
    /// `phraseto_tsquery`
    Phrase,
    /// `websearch_to_tsquery`
    Web,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spatial {
    Contains,
    ContainedBy,
    Overlaps,
    StrictlyLeft,
    StrictlyRight,
    NotRight,
    NotLeft,
    Adjacent,
}

/// `[not.]operator.value`; the value is the whole rest.
pub(super) fn test(text: &str) -> Result<Test, SyntaxError> {
    let mut scan = Scan::new("filter", text);
    let test = one(&mut scan, false)?;
    scan.end()?;
    Ok(test)
}

/// `(…,…)`, the whole text.
pub(super) fn tree(text: &str) -> Result<Vec<Condition>, SyntaxError> {
    let mut scan = Scan::new("logic", text.trim());
    let conditions = list(&mut scan, 0)?;
    scan.end()?;
    Ok(conditions)
}

fn list(scan: &mut Scan<'_>, depth: usize) -> Result<Vec<Condition>, SyntaxError> {
    if depth > DEPTH_MAX {
        return Err(SyntaxError::TooDeep { part: "logic" });
    }
    scan.expect("(", "a list in parentheses")?;
    let mut conditions = Vec::new();
    loop {
        scan.take(" ");
        conditions.push(condition(scan, depth)?);
        scan.take(" ");
        if !scan.take(",") {
            break;
        }
    }
    scan.expect(")", "a comma or a closing parenthesis")?;
    Ok(conditions)
}

fn condition(scan: &mut Scan<'_>, depth: usize) -> Result<Condition, SyntaxError> {
    for (word, negated, logic) in [
        ("and", false, Logic::And),
        ("or", false, Logic::Or),
        ("not.and", true, Logic::And),
        ("not.or", true, Logic::Or),
    ] {
        if scan.rest().strip_prefix(word).is_some_and(|rest| rest.starts_with('(')) {
            scan.take(word);
            return Ok(Condition::Tree { negated, logic, conditions: list(scan, depth + 1)? });
        }
    }
    let field = scan.dotted_field(&[&["not"], OPERATORS].concat())?;
    scan.expect(".", "a dot and an operator")?;
    Ok(Condition::Field { field, test: one(scan, true)? })
}

/// In a tree a value ends at a comma or a parenthesis unless it is quoted; elsewhere it is the rest, quotes and all.
fn one(scan: &mut Scan<'_>, in_tree: bool) -> Result<Test, SyntaxError> {
    let negated = scan.take("not.");
    let word = scan.until(&['.', '(', ',', ')']);
    let operation = match word {
        "in" => {
            scan.expect(".(", "a list in parentheses: in.(a,b)")?;
            Operation::In(elements(scan)?)
        }
        "is" => {
            scan.expect(".", "a dot and one of null, not_null, true, false, unknown")?;
            Operation::Is(truth(scan)?)
        }
        "isdistinct" => Operation::Distinct(value(scan, in_tree)?),
        _ => match (compared(word), search(word), spatial(word)) {
            (Some(how), ..) => {
                let quantifier = if how == Compared::Neq { None } else { quantifier(scan) };
                Operation::Compare { how, quantifier, value: value(scan, in_tree)? }
            }
            (_, Some(how), _) => {
                let config = if scan.take("(") { Some(config(scan)?) } else { None };
                Operation::Search { how, config, query: value(scan, in_tree)? }
            }
            (_, _, Some(how)) => Operation::Spatial { how, value: value(scan, in_tree)? },
            _ => return Err(SyntaxError::Operator { word: excerpt(word) }),
        },
    };
    Ok(Test { negated, operation })
}

fn value(scan: &mut Scan<'_>, in_tree: bool) -> Result<String, SyntaxError> {
    scan.expect(".", "a dot and a value")?;
    if !in_tree {
        return Ok(scan.until(&[]).to_owned());
    }
    let whole = |scan: &Scan<'_>| scan.is_at_end() || scan.looks_at(",") || scan.looks_at(")");
    let quoted = scan.attempt(|scan| scan.quoted().filter(|_| whole(scan)));
    let array = |scan: &mut Scan<'_>| {
        let inner = scan.take("{").then(|| scan.until(&['{', '}']).to_owned())?;
        (scan.take("}") && whole(scan)).then(|| format!("{{{inner}}}"))
    };
    let value = quoted.or_else(|| scan.attempt(array));
    Ok(value.unwrap_or_else(|| scan.until(&[',', ')']).to_owned()))
}

/// The elements of an `in`, up to and with its closing parenthesis.
fn elements(scan: &mut Scan<'_>) -> Result<Vec<String>, SyntaxError> {
    let mut elements = Vec::new();
    if scan.take(")") {
        return Ok(elements);
    }
    loop {
        let ends = |scan: &Scan<'_>| scan.looks_at(",") || scan.looks_at(")");
        let quoted = scan.attempt(|scan| scan.quoted().filter(|_| ends(scan)));
        elements.push(quoted.unwrap_or_else(|| scan.until(&[',', ')']).to_owned()));
        if !scan.take(",") {
            scan.expect(")", "a comma or a closing parenthesis")?;
            return Ok(elements);
        }
    }
}

fn truth(scan: &mut Scan<'_>) -> Result<Truth, SyntaxError> {
    let start = scan.expected("one of null, not_null, true, false, unknown");
    match scan.until(&[',', ')']).to_ascii_lowercase().as_str() {
        "null" => Ok(Truth::Null),
        "not_null" => Ok(Truth::NotNull),
        "true" => Ok(Truth::True),
        "false" => Ok(Truth::False),
        "unknown" => Ok(Truth::Unknown),
        _ => Err(start),
    }
}

fn quantifier(scan: &mut Scan<'_>) -> Option<Quantifier> {
    match () {
        () if scan.take("(any)") => Some(Quantifier::Any),
        () if scan.take("(all)") => Some(Quantifier::All),
        () => None,
    }
}

fn config(scan: &mut Scan<'_>) -> Result<String, SyntaxError> {
    let config = scan.until(&[')', '.', ',', '(']).to_owned();
    scan.expect(")", "the name of a text search configuration in parentheses")?;
    Ok(config)
}

fn compared(word: &str) -> Option<Compared> {
    Some(match word {
        "eq" => Compared::Eq,
        "neq" => Compared::Neq,
        "gt" => Compared::Gt,
        "gte" => Compared::Gte,
        "lt" => Compared::Lt,
        "lte" => Compared::Lte,
        "like" => Compared::Like,
        "ilike" => Compared::ILike,
        "match" => Compared::Match,
        "imatch" => Compared::IMatch,
        _ => return None,
    })
}

fn search(word: &str) -> Option<Search> {
    Some(match word {
        "fts" => Search::Fts,
        "plfts" => Search::Plain,
        "phfts" => Search::Phrase,
        "wfts" => Search::Web,
        _ => return None,
    })
}

fn spatial(word: &str) -> Option<Spatial> {
    Some(match word {
        "cs" => Spatial::Contains,
        "cd" => Spatial::ContainedBy,
        "ov" => Spatial::Overlaps,
        "sl" => Spatial::StrictlyLeft,
        "sr" => Spatial::StrictlyRight,
        "nxr" => Spatial::NotRight,
        "nxl" => Spatial::NotLeft,
        "adj" => Spatial::Adjacent,
        _ => return None,
    })
}
