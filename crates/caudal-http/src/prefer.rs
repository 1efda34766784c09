//! The `Prefer` header (RFC 7240) as far as writing goes.

use std::time::Duration;

use caudal_engine::ingest::Answer;
use http::{HeaderMap, HeaderValue};

use crate::problem::Problem;
use crate::state::HttpConfig;

/// What a producer prefers.
#[derive(Debug, Clone)]
pub(crate) struct Preferences {
    pub(crate) answer: Answer,
    /// All records or none.
    pub(crate) strict: bool,
    /// Leave the verdicts of good records out of the answer.
    pub(crate) minimal: bool,
    applied: Vec<String>,
}

impl Preferences {
    /// # Errors
    /// `400` for a preference that is not known or not well-formed, when the producer also asked for strict handling.
    pub(crate) fn from_headers(headers: &HeaderMap, config: &HttpConfig) -> Result<Self, Problem> {
        let mut preferences = Self {
            answer: Answer::WhenStored(config.wait_default),
            strict: false,
            minimal: false,
            applied: Vec::new(),
        };
        let mut unknown = None;
        for value in headers.get_all("prefer") {
            for preference in value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|p| !p.is_empty()) {
                if preferences.take(preference, config) {
                    preferences.applied.push(preference.to_owned());
                } else {
                    unknown.get_or_insert_with(|| preference.to_owned());
                }
            }
        }
        match unknown {
            Some(unknown) if preferences.strict => Err(Problem::bad_request(
                "bad_preference",
                format!(
                    "Prefer: {:?} is not known here; there are respond-async, wait=N, handling=strict|lenient, return=minimal|representation",
                    crate::problem::excerpt(&unknown)
                ),
            )),
            _ => Ok(preferences),
        }
    }

    fn take(&mut self, preference: &str, config: &HttpConfig) -> bool {
        let (name, value) = preference.split_once('=').map_or((preference, ""), |(n, v)| (n.trim(), v.trim()));
        match (name.to_ascii_lowercase().as_str(), value.trim_matches('"')) {
            ("respond-async", "") => self.answer = Answer::WhenQueued,
            ("wait", seconds) => match seconds.parse::<u64>() {
                // The wait bound counts also when it comes before or after respond-async: RFC 7240 §4.3.
                Ok(seconds) => {
                    let bound = Duration::from_secs(seconds).min(config.wait_max);
                    if self.answer != Answer::WhenQueued || seconds > 0 {
                        self.answer = Answer::WhenStored(bound);
                    }
                }
                Err(_) => return false,
            },
            ("handling", "strict") => self.strict = true,
            ("handling", "lenient") => self.strict = false,
            ("return", "minimal") => self.minimal = true,
            ("return", "representation") => self.minimal = false,
            _ => return false,
        }
        true
    }

    /// The `Preference-Applied` header, when there is something to say.
    pub(crate) fn applied(&self) -> Option<HeaderValue> {
        (!self.applied.is_empty()).then(|| HeaderValue::from_str(&self.applied.join(", ")).ok()).flatten()
    }
}
