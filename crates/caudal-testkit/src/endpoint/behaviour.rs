//! How the endpoint misbehaves, as probabilities from one seed.

use serde::{Deserialize, Serialize};

/// What the endpoint does. Everything is 0 or none unless said: then it does each key once, at once, and answers 200.
///
/// The misbehaviours exclude one another for one request, so their probabilities add up to at most 1; a delay comes on top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    pub seed: u64,
    /// Whether a key that was done is answered with what was answered before, instead of being done again.
    pub honours_keys: bool,
    /// For how long; none: for ever.
    pub retention_ms: Option<u64>,
    /// Whether `GET /payments/{key}` answers, or 404s whatever it is asked.
    pub answers_probes: bool,
    /// Share of keys that are declined: 422, no effect. A key's own property, the same at every call.
    pub declines: f64,
    /// Share of calls that take `delay_ms` before the effect.
    pub delays: f64,
    pub delay_ms: u64,
    /// The connection ends, before or after the effect.
    pub drops_before: f64,
    pub drops_after: f64,
    /// 500, before or after the effect.
    pub errors_before: f64,
    pub errors_after: f64,
    /// 429 with `retry_after_seconds`, no effect.
    pub too_many: f64,
    pub retry_after_seconds: u64,
    /// 503, no effect.
    pub unavailable: f64,
    /// 409 at once; the effect comes `delay_ms` later.
    pub in_progress: f64,
    /// 200, and the opposite at every second call for this key from then on.
    pub lies: f64,
    /// After the effect, 200 with a byte each `drip_ms`.
    pub drips: f64,
    pub drip_ms: u64,
    /// After the effect, 200 with a body of `huge_bytes`.
    pub huge: f64,
    pub huge_bytes: u64,
    /// 307 to `redirect_to`, no effect.
    pub redirects: f64,
    pub redirect_to: String,
    /// After the effect, something that is no HTTP.
    pub malformed: f64,
    /// After the effect, the head of an answer and half of its body.
    pub halves: f64,
    /// A good answer that says nothing of closing, and then the connection closes.
    pub closes: f64,
    /// A good answer, and another one to no request right behind it.
    pub doubles: f64,
    /// How many requests are kept for `requests()`, the first ones.
    pub keeps_requests: usize,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            seed: 1,
            honours_keys: true,
            retention_ms: None,
            answers_probes: true,
            declines: 0.0,
            delays: 0.0,
            delay_ms: 0,
            drops_before: 0.0,
            drops_after: 0.0,
            errors_before: 0.0,
            errors_after: 0.0,
            too_many: 0.0,
            retry_after_seconds: 1,
            unavailable: 0.0,
            in_progress: 0.0,
            lies: 0.0,
            drips: 0.0,
            drip_ms: 20,
            huge: 0.0,
            huge_bytes: 1 << 28,
            redirects: 0.0,
            redirect_to: "http://169.254.169.254/latest/meta-data/".to_owned(),
            malformed: 0.0,
            halves: 0.0,
            closes: 0.0,
            doubles: 0.0,
            keeps_requests: 0,
        }
    }
}

impl Behaviour {
    /// A tenth of all calls go wrong, in every way that leaves a truth to be found out.
    pub fn hostile(seed: u64) -> Self {
        Self {
            seed,
            declines: 0.01,
            delays: 0.02,
            delay_ms: 50,
            drops_before: 0.01,
            drops_after: 0.02,
            errors_before: 0.01,
            errors_after: 0.01,
            too_many: 0.01,
            retry_after_seconds: 1,
            unavailable: 0.01,
            in_progress: 0.01,
            drips: 0.002,
            huge: 0.001,
            redirects: 0.001,
            malformed: 0.005,
            halves: 0.005,
            closes: 0.005,
            ..Self::default()
        }
    }

    pub(super) fn is_faultless(&self) -> bool {
        self.faults().iter().all(|(share, _)| *share <= 0.0)
    }

    /// What becomes of one call, by a number in 0..1.
    pub(super) fn pick(&self, random: f64) -> Fault {
        let mut passed = 0.0;
        for (share, fault) in self.faults() {
            passed += share;
            if random < passed {
                return fault;
            }
        }
        Fault::None
    }

    fn faults(&self) -> [(f64, Fault); 15] {
        [
            (self.drops_before, Fault::DropBefore),
            (self.drops_after, Fault::DropAfter),
            (self.errors_before, Fault::ErrorBefore),
            (self.errors_after, Fault::ErrorAfter),
            (self.too_many, Fault::TooMany),
            (self.unavailable, Fault::Unavailable),
            (self.in_progress, Fault::InProgress),
            (self.lies, Fault::Lie),
            (self.drips, Fault::Drip),
            (self.huge, Fault::Huge),
            (self.redirects, Fault::Redirect),
            (self.malformed, Fault::Malformed),
            (self.halves, Fault::Half),
            (self.closes, Fault::Close),
            (self.doubles, Fault::Double),
        ]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    None,
    DropBefore,
    DropAfter,
    ErrorBefore,
    ErrorAfter,
    TooMany,
    Unavailable,
    InProgress,
    Lie,
    Drip,
    Huge,
    Redirect,
    Malformed,
    Half,
    Close,
    Double,
}

impl Fault {
    /// Whether the call has no effect.
    pub(super) fn spares(self) -> bool {
        matches!(
            self,
            Self::DropBefore
                | Self::ErrorBefore
                | Self::TooMany
                | Self::Unavailable
                | Self::InProgress
                | Self::Redirect
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_they_say() {
        let behaviour = Behaviour { drops_after: 0.25, doubles: 0.5, ..Behaviour::default() };
        let picked = |random| behaviour.pick(random);
        assert_eq!([0.0, 0.2499].map(picked), [Fault::DropAfter; 2]);
        assert_eq!([0.25, 0.7499].map(picked), [Fault::Double; 2]);
        assert_eq!([0.75, 0.9999].map(picked), [Fault::None; 2]);
    }

    #[test]
    fn a_word_that_is_no_setting_is_refused() {
        assert!(serde_json::from_str::<Behaviour>(r#"{"drops_affter": 0.1}"#).is_err());
        let set: Behaviour = serde_json::from_str(r#"{"drops_after": 0.1}"#).unwrap();
        assert_eq!(set, Behaviour { drops_after: 0.1, ..Behaviour::default() });
    }
}
