//! What a topic's configuration says about its confirmations.

use std::time::Duration;

/// How a lane's transactions are confirmed, beyond what the confirmer itself knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Calls and probes after which a transaction is given up.
    pub attempts_max: u32,
    /// Age after which a transaction that was never sent is given up; `None`: never.
    pub deadline: Option<Duration>,
    pub backoff: Backoff,
    /// How the endpoint can be trusted with a transaction that it may have done already.
    pub repeat: Repeat,
    /// Crashes of a worker in the middle of calls after which the transaction counts as their cause.
    pub crashes_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 12,
            deadline: None,
            backoff: Backoff::default(),
            repeat: Repeat::default(),
            crashes_max: 3,
        }
    }
}

/// What may be done about a transaction in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repeat {
    /// The endpoint can be asked whether it did it.
    pub probe: bool,
    /// How long the endpoint remembers a key and answers a repeat without doing it again; `None`: it does not honour keys at all.
    pub key_retention: Option<Duration>,
}

/// Part of the key's retention that is never used up: a repeat must arrive before it ends.
const MARGIN: u32 = 10;

impl Repeat {
    /// Whether the same key may be sent again after `sent_ago`. Nobody remembers a key for ever, so a tenth of its retention is
    /// left as a margin.
    pub fn may_resend(&self, sent_ago: Duration) -> bool {
        self.key_retention.is_some_and(|kept| sent_ago < kept - kept / MARGIN)
    }
}

/// Exponential backoff with full jitter (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), above a
/// floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), max: Duration::from_secs(300) }
    }
}

impl Backoff {
    /// The pause after attempt number `attempt` (1 is the first), with `random` in 0..1. Never shorter than `at_least`, which is
    /// what the endpoint asked for; that, too, is spread, so that a fleet which was told "in a second" does not come all at once.
    pub fn pause(&self, attempt: u32, random: f64, at_least: Option<Duration>) -> Duration {
        let doubled = 2u32.checked_pow(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let ceiling = self.first.saturating_mul(doubled).min(self.max).max(self.first);
        let spread = ceiling.mul_f64(random.clamp(0.0, 1.0));
        let floor = self.first / 10;
        match at_least {
            Some(asked) => asked.saturating_add(spread.min(asked / 5)),
            None => spread.max(floor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_are_spread() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        let at = |attempt, random| backoff.pause(attempt, random, None);
        assert_eq!(at(1, 1.0), Duration::from_secs(1));
        assert_eq!(at(4, 1.0), Duration::from_secs(8));
        assert_eq!(at(4, 0.5), Duration::from_secs(4));
        assert_eq!(at(4, 0.0), Duration::from_millis(100), "never at once");
        for attempt in [7, 33, u32::MAX] {
            assert_eq!(at(attempt, 1.0), Duration::from_secs(60));
        }
    }

    #[test]
    fn what_the_endpoint_asks_for_is_the_least() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(60) };
        let asked = Duration::from_secs(100);
        for random in [0.0, 0.3, 1.0] {
            let pause = backoff.pause(1, random, Some(asked));
            assert!((asked..=asked * 6 / 5).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn keys_are_not_used_to_the_end_of_their_retention() {
        let day = Duration::from_secs(86_400);
        let repeat = Repeat { probe: false, key_retention: Some(day) };
        assert!(repeat.may_resend(day / 2));
        assert!(!repeat.may_resend(day * 95 / 100));
        assert!(!repeat.may_resend(day));
        assert!(!Repeat { probe: true, key_retention: None }.may_resend(Duration::ZERO));
    }
}
