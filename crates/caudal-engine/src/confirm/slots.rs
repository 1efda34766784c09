//! Calls at the same time: as many as there are slots, whose number changes while they are taken.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Handed out in the order in which they are waited for.
#[derive(Debug)]
pub(crate) struct Slots {
    semaphore: Semaphore,
    count: Mutex<Count>,
}

#[derive(Debug)]
struct Count {
    there: usize,
    wanted: usize,
}

/// One call's, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    slots: &'a Slots,
    permit: Option<SemaphorePermit<'a>>,
}

impl Slots {
    pub(crate) fn new(wanted: usize) -> Self {
        Self { semaphore: Semaphore::new(wanted), count: Mutex::new(Count { there: wanted, wanted }) }
    }

    /// Waits for one.
    pub(crate) async fn take(&self) -> Option<Slot<'_>> {
        // It is never closed.
        let permit = self.semaphore.acquire().await.ok()?;
        Some(Slot { slots: self, permit: Some(permit) })
    }

    /// So many from now on. What is taken beyond that goes when it is given back: it must not be handed to the next who waits, or
    /// there would never be fewer while there is work.
    pub(crate) fn set(&self, wanted: usize) {
        let mut count = self.count();
        count.wanted = wanted;
        if wanted > count.there {
            self.semaphore.add_permits(wanted - count.there);
            count.there = wanted;
        } else {
            count.there -= self.semaphore.forget_permits(count.there - wanted);
        }
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut count = self.slots.count();
        if count.there > count.wanted
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            count.there -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn take(slots: &Slots) -> Option<Slot<'_>> {
        slots.take().now_or_never().flatten()
    }

    #[test]
    fn there_are_fewer_although_all_are_taken_and_waited_for() {
        let slots = Slots::new(4);
        let mut taken: Vec<_> = (0..4).filter_map(|_| take(&slots)).collect();
        let mut waiting: Vec<_> = (0..4).map(|_| Box::pin(slots.take())).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        slots.set(2);
        taken.truncate(2);
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()), "two are out, which is all there may be");
        taken.truncate(1);
        let next: Vec<_> = waiting.iter_mut().filter_map(|one| one.now_or_never().flatten()).collect();
        assert_eq!(next.len(), 1);
    }

    #[test]
    fn there_are_more_at_once() {
        let slots = Slots::new(1);
        let _one = take(&slots);
        assert!(take(&slots).is_none());
        slots.set(3);
        let more: Vec<_> = (0..3).map_while(|_| take(&slots)).collect();
        assert_eq!(more.len(), 2);
        slots.set(0);
        drop(more);
        slots.set(1);
        assert!(take(&slots).is_none(), "the first is still out");
    }
}
