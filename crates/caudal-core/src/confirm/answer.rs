//! Reading an endpoint's answer.

use std::time::Duration;

use bytes::Bytes;

use super::Fact;

/// What came of one call or probe, before anybody judged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing was sent: the connection was refused, the name is not known.
    NotSent(String),
    /// Caudal itself refused to send: an address that it must not reach, a template that does not fit the record. It will do so
    /// again for this transaction until somebody changes something.
    Blocked(String),
    /// The endpoint answered, with HTTP's status or a command's exit code, and the beginning of what it said.
    Status { code: u16, retry_after: Option<Duration>, body: Bytes },
    /// The endpoint's answer in Caudal's own words: from functions that are written for it.
    Said { verdict: Verdict, detail: String },
    /// Something may have been sent, and no answer that can be read came back.
    Unknown(String),
}

/// What an answer means for the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fact(Fact),
    /// It was not done, and may be asked for again.
    NotDone {
        retry_after: Option<Duration>,
    },
    /// The endpoint is at it, under this very key.
    InProgress {
        retry_after: Option<Duration>,
    },
    /// The endpoint does not know it; only as the answer to a probe.
    NotFound,
    /// Nobody can tell.
    Doubt,
    /// A person must look: the key was used for something else, or the endpoint says what nobody declared.
    Hold,
}

/// No answer in words may set a transaction aside for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

impl Verdict {
    /// Reads the status that a function gives: `confirmed`, `rejected`, `retry`, `in_progress`, `doubt`; and `not_found`, which only
    /// `probe`s can be told. `None`: it says nothing that is known.
    pub fn of_word(status: &str, retry_after_seconds: Option<f64>, probe: bool) -> Option<Self> {
        let seconds = retry_after_seconds.filter(|seconds| *seconds >= 0.0);
        let retry_after = seconds.map(|seconds| Duration::from_secs_f64(seconds.min(RETRY_AFTER_MAX.as_secs_f64())));
        match status {
            "confirmed" => Some(Self::Fact(Fact::Confirmed)),
            "rejected" => Some(Self::Fact(Fact::Rejected)),
            "retry" => Some(Self::NotDone { retry_after }),
            "in_progress" => Some(Self::InProgress { retry_after }),
            "not_found" if probe => Some(Self::NotFound),
            "doubt" => Some(Self::Doubt),
            _ => None,
        }
    }
}

/// Which codes and bodies mean what. Everything that is not declared leads to doubt or to a person, never to an outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub confirmed: Codes,
    pub rejected: Codes,
    /// Not done, worth another attempt.
    pub retry: Codes,
    /// The endpoint is at it under the same key.
    pub in_progress: Codes,
    /// Answers to a probe that say "never heard of it".
    pub not_found: Codes,
    /// With it a code of `confirmed` counts only when the body says so.
    pub confirmed_when: Option<BodyTest>,
    /// With it a code of `confirmed` whose body says so is a rejection; a body that is no JSON leaves a doubt.
    pub rejected_when: Option<BodyTest>,
}

impl Rules {
    /// What HTTP's own words mean: 2xx done, 429 not done, 409 under way; and nothing else is presumed.
    pub fn http() -> Self {
        Self {
            confirmed: Codes::range(200, 299),
            rejected: Codes::default(),
            retry: Codes::range(429, 429),
            in_progress: Codes::range(409, 409),
            not_found: Codes(vec![(404, 404), (410, 410)]),
            confirmed_when: None,
            rejected_when: None,
        }
    }

    /// A command's exit codes: 0 done, 75 (`EX_TEMPFAIL` of sysexits.h) not done.
    pub fn command() -> Self {
        Self {
            confirmed: Codes::range(0, 0),
            rejected: Codes::default(),
            retry: Codes::range(75, 75),
            in_progress: Codes::default(),
            not_found: Codes::default(),
            confirmed_when: None,
            rejected_when: None,
        }
    }

    /// Judges the answer to a call.
    pub fn judge(&self, answer: &Answer) -> Verdict {
        match answer {
            Answer::NotSent(_) => Verdict::NotDone { retry_after: None },
            Answer::Blocked(_) => Verdict::Hold,
            Answer::Unknown(_) => Verdict::Doubt,
            Answer::Said { verdict, .. } => *verdict,
            Answer::Status { code, retry_after, body } => self.judge_status(*code, *retry_after, body),
        }
    }

    /// Judges the answer to a probe. A probe changes nothing, so whatever is no plain word leaves the doubt as it was.
    pub fn judge_probe(&self, answer: &Answer) -> Verdict {
        match answer {
            Answer::Status { code, .. } if self.not_found.contains(*code) => Verdict::NotFound,
            Answer::Blocked(_) => Verdict::Hold,
            Answer::NotSent(_) | Answer::Unknown(_) => Verdict::Doubt,
            _ => match self.judge(answer) {
                Verdict::NotDone { .. } | Verdict::Hold => Verdict::Doubt,
                verdict => verdict,
            },
        }
    }

    fn judge_status(&self, code: u16, retry_after: Option<Duration>, body: &[u8]) -> Verdict {
        // What somebody declared comes before what the codes usually mean.
        if self.rejected.contains(code) {
            return Verdict::Fact(Fact::Rejected);
        }
        if self.confirmed.contains(code) {
            return self.judge_body(body);
        }
        if self.retry.contains(code) {
            return Verdict::NotDone { retry_after };
        }
        if self.in_progress.contains(code) {
            return Verdict::InProgress { retry_after };
        }
        match code {
            // The request reached somebody who may have done it before failing.
            408 | 500..=599 => Verdict::Doubt,
            _ => Verdict::Hold,
        }
    }

    fn judge_body(&self, body: &[u8]) -> Verdict {
        // A body that cannot be read, or of which only the beginning is here, may be a rejection as well.
        let untold = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err();
        match (&self.rejected_when, &self.confirmed_when) {
            (Some(_), _) | (_, Some(_)) if untold => Verdict::Doubt,
            (Some(test), _) if test.holds(body) => Verdict::Fact(Fact::Rejected),
            (_, Some(test)) if !test.holds(body) => Verdict::Doubt,
            _ => Verdict::Fact(Fact::Confirmed),
        }
    }
}

/// A set of codes, as inclusive ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Codes(pub Vec<(u16, u16)>);

impl Codes {
    pub fn range(from: u16, to: u16) -> Self {
        Self(vec![(from, to)])
    }

    pub fn contains(&self, code: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&code))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads `200`, `200-204` and `2xx`.
    pub fn parse(text: &str) -> Option<(u16, u16)> {
        if let Some(hundreds) = text.strip_suffix("xx") {
            let hundreds: u16 = hundreds.parse().ok().filter(|h| (1..=5).contains(h))?;
            return Some((hundreds * 100, hundreds * 100 + 99));
        }
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from <= to && to <= 999).then_some((from, to))
    }
}

/// A condition on a JSON body: the value at a pointer (RFC 6901) is one of these.
#[derive(Debug, Clone, PartialEq)]
pub struct BodyTest {
    pub pointer: String,
    pub one_of: Vec<serde_json::Value>,
}

impl BodyTest {
    /// False for what is no JSON.
    pub fn holds(&self, body: &[u8]) -> bool {
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
        document.pointer(&self.pointer).is_some_and(|found| self.one_of.contains(found))
    }
}

impl Answer {
    /// The code, where there was one.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// One line about it for people, at most 300 bytes.
    pub fn detail(&self) -> String {
        let text = match self {
            Self::NotSent(why) => format!("not sent: {why}"),
            Self::Blocked(why) => why.clone(),
            Self::Unknown(why) => format!("no answer: {why}"),
            Self::Said { detail, .. } => detail.clone(),
            Self::Status { body, .. } => String::from_utf8_lossy(&body[..body.len().min(DETAIL_BYTES)]).into_owned(),
        };
        let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        line.truncate(line.floor_char_boundary(DETAIL_BYTES));
        line
    }
}

const DETAIL_BYTES: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, body: &str) -> Answer {
        Answer::Status { code, retry_after: None, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn nothing_but_a_declared_code_is_an_outcome() {
        let rules = Rules { rejected: Codes(vec![(422, 422), (402, 402)]), ..Rules::http() };
        for code in 0..=999 {
            let verdict = rules.judge(&status(code, ""));
            let expected = match code {
                200..=299 => Verdict::Fact(Fact::Confirmed),
                402 | 422 => Verdict::Fact(Fact::Rejected),
                429 => Verdict::NotDone { retry_after: None },
                409 => Verdict::InProgress { retry_after: None },
                408 | 500..=599 => Verdict::Doubt,
                _ => Verdict::Hold,
            };
            assert_eq!(verdict, expected, "{code}");
        }
        assert_eq!(rules.judge(&Answer::Unknown("timeout".into())), Verdict::Doubt);
        assert_eq!(rules.judge(&Answer::NotSent("refused".into())), Verdict::NotDone { retry_after: None });
        assert_eq!(Rules::http().judge(&status(422, "")), Verdict::Hold, "a key that was used for something else");
    }

    #[test]
    fn a_body_must_say_what_the_rules_ask_for() {
        let test = |value: &str| Some(BodyTest { pointer: "/state".into(), one_of: vec![value.into()] });
        let rules = Rules { confirmed_when: test("done"), rejected_when: test("declined"), ..Rules::http() };
        assert_eq!(rules.judge(&status(200, r#"{"state":"done"}"#)), Verdict::Fact(Fact::Confirmed));
        assert_eq!(rules.judge(&status(200, r#"{"state":"declined"}"#)), Verdict::Fact(Fact::Rejected));
        for strange in ["", "done", r#"{"state":"maybe"}"#, r#"{"state":["done"]}"#, "[", r#"{"State":"done"}"#] {
            assert_eq!(rules.judge(&status(200, strange)), Verdict::Doubt, "{strange}");
        }
        let rules = Rules { rejected_when: test("declined"), ..Rules::http() };
        assert_eq!(rules.judge(&status(200, r#"{"state":"declined"}"#)), Verdict::Fact(Fact::Rejected));
        assert_eq!(rules.judge(&status(200, r#"{"state":"maybe"}"#)), Verdict::Fact(Fact::Confirmed));
        for cut in ["", r#"{"state":"decl"#, r#"{"state":"declined""#] {
            assert_eq!(rules.judge(&status(200, cut)), Verdict::Doubt, "{cut}");
        }
    }

    #[test]
    fn a_probe_is_believed_only_in_plain_words() {
        let rules = Rules { retry: Codes(vec![(429, 429), (503, 503)]), ..Rules::http() };
        assert_eq!(rules.judge_probe(&status(200, "")), Verdict::Fact(Fact::Confirmed));
        assert_eq!(rules.judge_probe(&status(404, "")), Verdict::NotFound);
        for code in [429, 500, 503, 400, 301] {
            assert_eq!(rules.judge_probe(&status(code, "")), Verdict::Doubt, "{code}");
        }
        assert_eq!(rules.judge_probe(&Answer::NotSent("refused".into())), Verdict::Doubt);
    }

    #[test]
    fn words_are_read_exactly() {
        let wait = |seconds| Verdict::of_word("retry", Some(seconds), false);
        let after = |seconds| Some(Verdict::NotDone { retry_after: Some(Duration::from_secs(seconds)) });
        assert_eq!((wait(7.0), wait(f64::INFINITY)), (after(7), after(86_400)));
        for nonsense in [-1.0, f64::NAN] {
            assert_eq!(wait(nonsense), Some(Verdict::NotDone { retry_after: None }));
        }
        for unknown in ["", "Confirmed", "confirmed ", "ok", "not_found"] {
            assert_eq!(Verdict::of_word(unknown, None, false), None, "{unknown}");
        }
        assert_eq!(Verdict::of_word("not_found", None, true), Some(Verdict::NotFound));
    }

    #[test]
    fn codes_are_written_as_numbers_ranges_and_classes() {
        assert_eq!(Codes::parse("422"), Some((422, 422)));
        assert_eq!(Codes::parse("200-204"), Some((200, 204)));
        assert_eq!(Codes::parse("5xx"), Some((500, 599)));
        for bad in ["", "xx", "6xx", "204-200", "1000", "-1", "2x", "0xx", "a"] {
            assert_eq!(Codes::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn details_are_one_short_line() {
        let detail = status(200, &format!("a\r\n\u{1}{}", "é".repeat(400))).detail();
        assert!(detail.len() <= 300 && !detail.contains(char::is_control), "{detail}");
    }
}
