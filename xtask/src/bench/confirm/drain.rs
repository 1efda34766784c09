//! How fast a number in the database goes up.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::super::process::Service;

/// The interpreters start, connect and prepare.
const FIRST_WITHIN: Duration = Duration::from_secs(60);
/// Looks are dear where they count many rows, and must be close together at the end.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(300);

/// How many a second are done: from the first that are seen until all are, or the window is over.
pub(super) fn rate(
    services: &mut [Service],
    total: u64,
    window: Duration,
    done: impl Fn() -> Result<u64>,
) -> Result<f64> {
    let mut first = 0;
    let asked = |seen: &mut u64| match done() {
        Ok(n) => *seen = n,
        // Its tables are not there yet.
        Err(_) => *seen = 0,
    };
    let service = services.first_mut().context("somebody must do it")?;
    service.wait(FIRST_WITHIN, || {
        asked(&mut first);
        first > 0
    })?;
    let start = Instant::now();
    loop {
        services.iter_mut().try_for_each(Service::check)?;
        let seen = done()?;
        let elapsed = start.elapsed();
        if seen >= total || elapsed >= window {
            return Ok(seen.saturating_sub(first) as f64 / elapsed.as_secs_f64());
        }
        std::thread::sleep(pause(total - seen, seen.saturating_sub(first), elapsed));
    }
}

/// A third of what is left, if it goes on as it did.
fn pause(left: u64, done: u64, elapsed: Duration) -> Duration {
    match done {
        0 => LOOK_MIN,
        done => elapsed.mul_f64(left as f64 / done as f64 / 3.0).clamp(LOOK_MIN, LOOK_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_become_frequent_towards_the_end() {
        let second = Duration::from_secs(1);
        assert_eq!(pause(100_000, 1_000, second), LOOK_MAX);
        assert_eq!(pause(300, 1_000, second), Duration::from_millis(100));
        assert_eq!(pause(1, 1_000, second), LOOK_MIN);
        assert_eq!(pause(1_000, 0, second), LOOK_MIN);
    }
}
