//! Which messages a stream dropped before they were read, told from the numbers that come with each delivery.
//!
//! A first hand-over has a stream sequence above all before it. Sequences in between that were never handed over belong to
//! messages that a limit, a purge or an administrator removed. That is certain only from one delivery of the consumer to the
//! next: in between, another worker may have been given some. So it is not reported who cannot be known to be missing.

/// The numbers of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    /// Which hand-over of its message this is, from 1.
    pub(super) attempt: u64,
    /// The message's number in the stream.
    pub(super) stream: u64,
    /// The delivery's number in the consumer.
    pub(super) consumer: u64,
}

#[derive(Debug)]
pub(super) struct Gaps {
    /// The consumer's last delivery that we know of.
    consumer: u64,
    /// The highest stream sequence that was handed over to us.
    highest: u64,
    /// Whether nothing above it can have been handed over to anybody else.
    certain: bool,
    /// Whether a gap in the stream's sequence means anything here.
    numbered: bool,
}

impl Gaps {
    /// Begins after the consumer's last delivery.
    pub(super) fn after(consumer: u64, stream: u64, numbered: bool) -> Self {
        Self { consumer, highest: stream, certain: true, numbered }
    }

    /// Messages missing right before this delivery.
    pub(super) fn before(&mut self, now: Numbers) -> u64 {
        let first = now.attempt == 1;
        let certain = self.certain && now.consumer == self.consumer.wrapping_add(1);
        let missing = match first && certain && self.numbered {
            true => now.stream.saturating_sub(self.highest.saturating_add(1)),
            false => 0,
        };
        self.consumer = now.consumer;
        // A first hand-over tells how far the consumer is, whoever got what was before it.
        self.certain = certain || first;
        if first {
            self.highest = self.highest.max(now.stream);
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(deliveries: &[(u64, u64, u64)]) -> Vec<u64> {
        let mut gaps = Gaps::after(10, 100, true);
        let numbers = |(attempt, stream, consumer)| Numbers { attempt, stream, consumer };
        deliveries.iter().map(|delivery| gaps.before(numbers(*delivery))).collect()
    }

    #[test]
    fn a_jump_in_the_stream_is_a_loss() {
        assert_eq!(run(&[(1, 101, 11), (1, 105, 12), (1, 106, 13)]), [0, 3, 0]);
        assert_eq!(run(&[(1, 104, 11)]), [3], "also right at the beginning");
    }

    #[test]
    fn redeliveries_are_not() {
        assert_eq!(run(&[(1, 101, 11), (2, 90, 12), (2, 101, 13), (1, 102, 14)]), [0, 0, 0, 0]);
        assert_eq!(run(&[(1, 101, 11), (2, 90, 12), (1, 104, 13)]), [0, 0, 2]);
    }

    #[test]
    fn nor_is_what_another_worker_was_given() {
        assert_eq!(run(&[(1, 101, 11), (1, 105, 15), (1, 106, 16)]), [0, 0, 0]);
        assert_eq!(run(&[(1, 101, 11), (2, 95, 14), (1, 108, 15), (1, 110, 16)]), [0, 0, 0, 1]);
    }

    #[test]
    fn a_consumer_that_went_back_after_a_crash_is_no_loss() {
        assert_eq!(run(&[(1, 101, 11), (1, 60, 9), (1, 70, 10), (1, 102, 11), (1, 104, 12)]), [0, 0, 0, 0, 1]);
    }

    #[test]
    fn streams_where_numbers_mean_nothing() {
        let mut gaps = Gaps::after(0, 0, false);
        assert_eq!(gaps.before(Numbers { attempt: 1, stream: 50, consumer: 1 }), 0);
    }
}
