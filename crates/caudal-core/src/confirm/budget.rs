//! How much a worker asks of a target: rate, concurrency, batch size, and a breaker. Pure: `now` is time since any fixed
//! moment, on a clock that never goes back.

use std::time::Duration;

/// A token bucket that holds one second's worth, so that a pause is not followed by a burst of more than that.
#[derive(Debug, Clone)]
pub struct Rate {
    per_second: f64,
    tokens: f64,
    at: Duration,
}

impl Rate {
    pub fn new(per_second: f64, now: Duration) -> Self {
        Self { per_second, tokens: per_second.min(1.0), at: now }
    }

    /// A share of the rate from now on: what other workers use is taken off.
    pub fn set(&mut self, per_second: f64, now: Duration) {
        self.refill(now);
        self.per_second = per_second;
        self.tokens = self.tokens.min(self.capacity());
    }

    /// Takes one token, or says how long until there is one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(((1.0 - self.tokens) / self.per_second).min(3600.0)))
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.capacity());
    }

    fn capacity(&self) -> f64 {
        self.per_second.max(1.0)
    }
}

/// Batch size by additive increase and multiplicative decrease: a batch must be done well within its lease, and a full one that
/// is, may be larger next time.
#[derive(Debug, Clone, Copy)]
pub struct BatchSize {
    size: f64,
    min: usize,
    max: usize,
}

/// Part of a lease's time that a batch may take before the next is made smaller.
const SLOW: f64 = 0.5;
const STEP: f64 = 50.0;

impl BatchSize {
    pub fn new(min: usize, max: usize) -> Self {
        let (min, max) = (min.max(1), max.max(min.max(1)));
        Self { size: (max as f64 / 4.0).clamp(min as f64, max as f64), min, max }
    }

    pub fn get(&self) -> usize {
        self.size as usize
    }

    /// Learns from a batch of `taken` items that took `elapsed` of a lease of `ttl`.
    pub fn done(&mut self, taken: usize, elapsed: Duration, ttl: Duration) {
        if elapsed.as_secs_f64() > ttl.as_secs_f64() * SLOW {
            self.shrink();
        } else if taken >= self.get() {
            self.size = (self.size + STEP).min(self.max as f64);
        }
    }

    /// After a lease was lost or the endpoint gave way.
    pub fn shrink(&mut self) {
        self.size = (self.size / 2.0).max(self.min as f64);
    }
}

/// A circuit breaker: after so many failures in a row nothing is asked for a while, then one call decides.
#[derive(Debug, Clone)]
pub struct Breaker {
    failures_max: u32,
    first_pause: Duration,
    pause_max: Duration,
    failures: u32,
    /// How often it has opened without a success in between.
    opened: u32,
    state: BreakerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go out.
    Closed,
    /// No calls before this time.
    Open { until: Duration },
    /// One call is out and decides.
    HalfOpen,
}

impl Breaker {
    /// Opens after `failures_max` failures in a row; 0 never opens. The pause doubles up to `pause_max`.
    pub fn new(failures_max: u32, first_pause: Duration, pause_max: Duration) -> Self {
        Self { failures_max, first_pause, pause_max, failures: 0, opened: 0, state: BreakerState::Closed }
    }

    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// Whether a call may go out now; the first after the pause is the one that decides. `Err`: how long to wait before asking
    /// again.
    pub fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        match self.state {
            BreakerState::Closed => Ok(()),
            BreakerState::Open { until } if now >= until => {
                self.state = BreakerState::HalfOpen;
                Ok(())
            }
            BreakerState::Open { until } => Err(until - now),
            BreakerState::HalfOpen => Err(self.first_pause.min(Duration::from_millis(50))),
        }
    }

    /// The target answered, whatever it said.
    pub fn answered(&mut self) {
        (self.failures, self.opened, self.state) = (0, 0, BreakerState::Closed);
    }

    /// The target did not answer, or said that it cannot. Returns whether this opened the breaker.
    pub fn failed(&mut self, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            BreakerState::HalfOpen => true,
            BreakerState::Closed => self.failures_max > 0 && self.failures >= self.failures_max,
            BreakerState::Open { .. } => false,
        };
        if opens {
            let pause = self.first_pause.saturating_mul(2u32.saturating_pow(self.opened)).min(self.pause_max);
            self.opened = self.opened.saturating_add(1);
            self.state = BreakerState::Open { until: now + pause };
        }
        opens
    }

    /// The call that was to decide never went out.
    pub fn undecided(&mut self, now: Duration) {
        if self.state == BreakerState::HalfOpen {
            self.state = BreakerState::Open { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_rate_is_kept_over_time_and_never_bursts_by_more_than_a_second() {
        let mut rate = Rate::new(10.0, Duration::ZERO);
        let mut taken = 0;
        for milli in 0..10_000 {
            taken += u32::from(rate.take(Duration::from_millis(milli)).is_ok());
        }
        assert!((99..=101).contains(&taken), "{taken}");
        let after_an_hour = Duration::from_secs(3600);
        let burst = (0..100).filter(|_| rate.take(after_an_hour).is_ok()).count();
        assert_eq!(burst, 10);
        let wait = rate.take(after_an_hour).expect_err("nothing is left");
        assert!(wait <= SECOND / 10 && rate.take(after_an_hour + wait + Duration::from_micros(1)).is_ok(), "{wait:?}");
    }

    #[test]
    fn slow_rates_still_give_whole_tokens() {
        let mut rate = Rate::new(0.5, Duration::ZERO);
        let taken = (0..20).filter(|second| rate.take(SECOND * *second).is_ok()).count();
        assert!((9..=10).contains(&taken), "{taken}");
    }

    #[test]
    fn batches_grow_when_full_and_halve_when_slow() {
        let mut size = BatchSize::new(1, 1000);
        let start = size.get();
        size.done(start, SECOND, SECOND * 60);
        assert!(size.get() > start);
        let grown = size.get();
        size.done(grown / 2, SECOND, SECOND * 60);
        assert_eq!(size.get(), grown, "a batch that was not full says nothing");
        size.done(grown, SECOND * 40, SECOND * 60);
        assert_eq!(size.get(), grown / 2);
        (0..20).for_each(|_| size.shrink());
        assert_eq!(size.get(), 1);
    }

    #[test]
    fn a_breaker_opens_waits_and_lets_one_call_decide() {
        let mut breaker = Breaker::new(3, SECOND, SECOND * 4);
        assert!(!breaker.failed(SECOND) && !breaker.failed(SECOND) && breaker.failed(SECOND));
        assert_eq!(breaker.admit(SECOND), Err(SECOND));
        assert_eq!(breaker.admit(SECOND * 2), Ok(()), "the one that decides");
        assert!(breaker.admit(SECOND * 2).is_err(), "and no other beside it");
        assert!(breaker.failed(SECOND * 2));
        assert_eq!(breaker.admit(SECOND * 3), Err(SECOND), "the pause has doubled");
        assert_eq!(breaker.admit(SECOND * 4), Ok(()));
        breaker.answered();
        assert_eq!((breaker.state(), breaker.admit(SECOND * 4)), (BreakerState::Closed, Ok(())));
    }

    #[test]
    fn a_deciding_call_that_never_went_out_decides_nothing() {
        let mut breaker = Breaker::new(1, SECOND, SECOND);
        breaker.failed(Duration::ZERO);
        assert_eq!(breaker.admit(SECOND), Ok(()));
        breaker.undecided(SECOND);
        assert_eq!(breaker.admit(SECOND), Ok(()));
    }
}
