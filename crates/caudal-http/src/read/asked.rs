//! What the headers of a read ask for besides its encoding: `Prefer` and `Range`, as PostgREST has them.

use caudal_core::plan::ReadPlan;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::problem::{Problem, excerpt};

/// How the rows that match are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    Exact,
    /// As the planner guesses.
    Planned,
    /// Exactly where that is cheap, else as the planner guesses.
    Estimated,
}

/// Rows that [`Count::Estimated`] counts exactly.
pub(crate) const ESTIMATE_OVER: u64 = 100_000;

#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) count: Option<Count>,
    /// First and last row, counted from 0.
    range: Option<(u64, Option<u64>)>,
    applied: Vec<String>,
}

impl Asked {
    /// # Errors
    /// `400` for a preference that is not known, with `handling=strict`; `416` for a range that ends before it begins.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Result<Self, Problem> {
        let mut asked = Self::default();
        let (mut strict, mut unknown) = (false, None);
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        for preference in values.flat_map(|value| value.split(',')).map(str::trim).filter(|p| !p.is_empty()) {
            let known = match preference {
                "count=exact" => asked.counts(Count::Exact),
                "count=planned" => asked.counts(Count::Planned),
                "count=estimated" => asked.counts(Count::Estimated),
                "handling=strict" => {
                    strict = true;
                    true
                }
                "handling=lenient" => true,
                // Of a write, or said by clients on every request; a read has nothing to do for them.
                other => ["return=", "resolution=", "missing=", "tx=", "max-affected="]
                    .iter()
                    .any(|word| other.starts_with(word)),
            };
            match known {
                true if preference.starts_with("count=") || preference.starts_with("handling=") => {
                    asked.applied.push(preference.to_owned());
                }
                true => {}
                false => drop(unknown.get_or_insert_with(|| preference.to_owned())),
            }
        }
        if let (true, Some(unknown)) = (strict, unknown) {
            let detail = format!(
                "Prefer: {:?} is not known here; there are count=exact|planned|estimated and handling=strict|lenient",
                excerpt(&unknown)
            );
            return Err(Problem::bad_request("bad_preference", detail));
        }
        if method == Method::GET {
            asked.range = range(headers)?;
        }
        Ok(asked)
    }

    fn counts(&mut self, count: Count) -> bool {
        self.count = Some(count);
        true
    }

    pub(crate) fn has_range(&self) -> bool {
        self.range.is_some()
    }

    /// Cuts the plan to the range as well.
    ///
    /// # Errors
    /// `416` when nothing of the range is within the plan's own limits.
    pub(crate) fn cut(&self, plan: &mut ReadPlan) -> Result<(), Problem> {
        let Some((first, last)) = self.range else { return Ok(()) };
        let end = plan.limit.map(|limit| plan.offset.saturating_add(limit));
        plan.offset = plan.offset.max(first);
        let range_end = last.map(|last| last.saturating_add(1));
        let end = match (end, range_end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        plan.limit = end.map(|end| end.saturating_sub(plan.offset));
        Ok(())
    }

    /// `Preference-Applied`, when there is something to say.
    pub(crate) fn applied(&self) -> Option<HeaderValue> {
        (!self.applied.is_empty()).then(|| HeaderValue::from_str(&self.applied.join(", ")).ok()).flatten()
    }
}

/// `Range: 0-24` in items; one that cannot be read is as none.
fn range(headers: &HeaderMap) -> Result<Option<(u64, Option<u64>)>, Problem> {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let Some((first, last)) = text.trim().trim_start_matches("items=").split_once('-') else { return Ok(None) };
    let Ok(first) = first.parse::<u64>() else { return Ok(None) };
    let last = match last {
        "" => None,
        last => match last.parse::<u64>() {
            Ok(last) => Some(last),
            Err(_) => return Ok(None),
        },
    };
    match last.is_some_and(|last| last < first) {
        true => Err(not_satisfiable("the range ends before it begins".to_owned())),
        false => Ok(Some((first, last))),
    }
}

pub(crate) fn not_satisfiable(detail: String) -> Problem {
    Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable", detail)
}

/// `Content-Range` and whether the answer is only a part of what there is. `rows` are those of the answer, `total` those that
/// match.
pub(crate) fn content_range(offset: u64, rows: u64, total: Option<u64>) -> (String, bool) {
    let all = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    let range = match rows {
        0 => format!("*/{all}"),
        rows => format!("{offset}-{}/{all}", offset.saturating_add(rows - 1)),
    };
    (range, total.is_some_and(|total| rows < total))
}
