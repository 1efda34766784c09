//! How many messages may be out at once.
//!
//! RabbitMQ counts a consumer's unsettled messages and knows no bound in bytes, and it hangs up on a client that stops
//! reading for 15 seconds. So the count follows the size of the messages. It starts small; when it is used up, a consumer
//! with another count may take the place of the one there is. Only then: what is on its way to a consumer that ends goes back
//! to its queue and comes again later, out of order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough for what commits, what is made ready meanwhile, and what is on its way.
const MESSAGES_MAX: usize = 10_000;
const MESSAGES_MIN: usize = 8;
const BYTES: usize = 8 * 1024 * 1024;
const FIRST: usize = 256;

/// Follows the size of messages.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    messages: usize,
    bytes: usize,
    /// The average size of the queue's messages, kept from one subscription to the next; 0 while it is not known.
    average: Arc<AtomicUsize>,
}

impl Window {
    pub(super) fn new(average: Arc<AtomicUsize>) -> Self {
        let size = match average.load(Ordering::Relaxed) {
            0 => FIRST,
            average => fits(average),
        };
        Self { size, messages: 0, bytes: 0, average }
    }

    pub(super) fn size(&self) -> u16 {
        self.size as u16
    }

    pub(super) fn note(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    /// Notes how large messages were that did not fit.
    pub(super) fn overrun(&self, messages: u64, bytes: u64) {
        self.average.store((bytes / messages.max(1)) as usize, Ordering::Relaxed);
    }

    /// Another size, when the window is used up and the messages since the last change call for one that differs much.
    pub(super) fn used_up(&mut self) -> Option<u16> {
        let average = (self.bytes / self.messages.max(1)).max(1);
        self.average.store(average, Ordering::Relaxed);
        (self.messages, self.bytes) = (0, 0);
        let fits = fits(average);
        if fits < self.size * 2 && fits > self.size / 2 {
            return None;
        }
        self.size = fits;
        Some(self.size())
    }
}

fn fits(average: usize) -> usize {
    (BYTES / average).clamp(MESSAGES_MIN, MESSAGES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(window: &mut Window, messages: usize, bytes: usize) -> Option<u16> {
        (0..messages).for_each(|_| window.note(bytes));
        window.used_up()
    }

    #[test]
    fn small_messages_widen_it_and_large_ones_narrow_it() {
        let average = Arc::new(AtomicUsize::new(0));
        let mut window = Window::new(average.clone());
        assert_eq!(window.size(), FIRST as u16);
        assert_eq!(after(&mut window, 256, 300), Some(MESSAGES_MAX as u16));
        assert_eq!(after(&mut window, 100_000, 300), None, "it stays");
        assert_eq!(after(&mut window, 100_000, 1200), None, "nearly the same");
        assert_eq!(after(&mut window, 100, 4 * 1024 * 1024), Some(MESSAGES_MIN as u16));
        assert_eq!(after(&mut window, 8, 8 * 1024), Some(1024));
        assert_eq!(Window::new(average).size(), 1024, "the next subscription begins where this one was");
    }

    #[test]
    fn what_did_not_fit_fits_next_time() {
        let average = Arc::new(AtomicUsize::new(300));
        let window = Window::new(average.clone());
        window.overrun(65, 65 * 1024 * 1024);
        assert_eq!(Window::new(average).size(), 8);
    }

    #[test]
    fn empty_messages_do_not_confuse_it() {
        let mut window = Window::new(Arc::default());
        assert_eq!(after(&mut window, 256, 0), Some(MESSAGES_MAX as u16));
        assert_eq!(after(&mut window, 0, 0), None);
    }
}
