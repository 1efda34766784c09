//! What stands between the thread that polls and the task that receives: deliveries in bounded memory, a queue a lane, and
//! what the task wants of the thread.
//!
//! A lane is here while its partition is assigned to us. Where its next delivery joins is kept here and nowhere else, so a
//! lane that goes and comes back begins where the store says and not where an old delivery ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Mark, Marks, Step};
use tokio::sync::Notify;
use uuid::Uuid;

/// Deliveries that wait for a receive: two of the worker's batches.
const MESSAGES_MAX: usize = 20_000;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// One partition of the topic, as long as it is ours.
#[derive(Debug)]
pub(super) struct Lane {
    id: Uuid,
    partition: i32,
    /// The next delivery's `from`.
    next: u64,
    /// The least offset that it may have. The same, unless the log was made anew below what the store has.
    wanted: u64,
    /// Messages that Kafka numbered and dropped right before the next delivery.
    missing: u64,
    waiting: VecDeque<Delivery>,
    /// How far it was handed out, and settled.
    out: u64,
    settled: u64,
    /// Nacked: nothing of it is handed out before.
    not_before: Option<Instant>,
    /// The polling thread has not gone back yet; what it still brings is of before.
    rewinding: bool,
}

impl Lane {
    pub(super) fn new(id: Uuid, partition: i32, next: u64, wanted: u64, missing: u64) -> Self {
        let (waiting, not_before) = (VecDeque::new(), None);
        Self { id, partition, next, wanted, missing, waiting, out: next, settled: next, not_before, rewinding: false }
    }

    /// What comes late of before a rewind is not wanted.
    fn wants(&self, offset: u64) -> bool {
        !self.rewinding && offset >= self.wanted
    }

    fn is_held(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|at| at > now)
    }
}

/// What the receiving side wants of the polling thread.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Orders {
    /// Partition and the offset to go back to.
    pub(super) rewinds: Vec<(i32, u64)>,
    /// Partition and the offset that the group's tools may know.
    pub(super) commits: Vec<(i32, u64)>,
    pub(super) stop: bool,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Lane>,
    /// Which lane is served first, so that a full one does not starve the others.
    turn: usize,
    /// Lanes that are being taken from us while some of what we handed out is not settled.
    leaving: Vec<Lane>,
    messages: usize,
    bytes: usize,
    orders: Orders,
    /// Why there will be nothing more; said once in full.
    ended: Option<Option<BrokerError>>,
}

#[derive(Debug, Default)]
pub(super) struct Buffer {
    state: Mutex<State>,
    ordered: AtomicBool,
    /// For the receiver: something came, or it ended.
    arrived: Notify,
    /// For the polling thread: room, an order, or something was settled.
    changed: Condvar,
}

/// What a receiver finds.
enum Found {
    Deliveries(Vec<Delivery>),
    /// Nothing before that moment, if one is known.
    Nothing(Option<Instant>),
}

impl Buffer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the receiving task.
impl Buffer {
    /// Cancel-safe: nothing is taken out before it is returned.
    pub(super) async fn receive(&self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let arrived = self.arrived.notified();
            let found = self.state().take(messages_max.max(1), bytes_max)?;
            match found {
                Found::Deliveries(deliveries) => {
                    self.changed.notify_all();
                    return Ok(deliveries);
                }
                Found::Nothing(None) => arrived.await,
                Found::Nothing(Some(at)) => {
                    let _ = tokio::time::timeout_at(at.into(), arrived).await;
                }
            }
        }
    }

    pub(super) fn settle(&self, settled: &Marks) -> Result<(), BrokerError> {
        let mut state = self.state();
        state.check()?;
        for step in &settled.steps {
            state.settle(step);
        }
        drop(state);
        self.ordered.store(true, Ordering::Release);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn rewind(&self, unsettled: &Marks, after: Duration) -> Result<(), BrokerError> {
        let mut state = self.state();
        state.check()?;
        for step in &unsettled.steps {
            state.rewind(step, after);
        }
        drop(state);
        self.ordered.store(true, Ordering::Release);
        self.changed.notify_all();
        Ok(())
    }

    /// Nobody will receive any more: the polling thread ends.
    pub(super) fn stop(&self) {
        self.state().orders.stop = true;
        self.ordered.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    /// Nothing more will come. The first reason stays.
    pub(super) fn end(&self, reason: BrokerError) {
        let mut state = self.state();
        if state.ended.is_none() {
            state.ended = Some(Some(reason));
        }
        state.clear();
        state.orders.stop = true;
        drop(state);
        self.ordered.store(true, Ordering::Release);
        self.arrived.notify_one();
        self.changed.notify_all();
    }
}

/// For the polling thread.
impl Buffer {
    pub(super) fn assign(&self, lanes: Vec<Lane>) {
        let mut state = self.state();
        for lane in lanes {
            state.remove(lane.partition);
            state.lanes.push(lane);
        }
    }

    /// Drops what waits of these partitions, and waits a little for what was handed out of them: a member that reads a
    /// position while we commit beyond it would be fenced.
    pub(super) fn revoke(&self, partitions: &[i32], patience: Duration) {
        let mut state = self.state();
        for partition in partitions {
            let lane = state.remove(*partition);
            state.leaving.extend(lane);
        }
        state.orders.rewinds.retain(|(partition, _)| !partitions.contains(partition));
        let unsettled =
            |state: &mut State| !state.orders.stop && state.leaving.iter().any(|lane| lane.settled != lane.out);
        let waited = self.changed.wait_timeout_while(state, patience, unsettled);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.leaving.clear();
    }

    /// Takes the delivery of one offset in and joins it to the one before it; says whether there is room for more. The
    /// receiver hears of it by [`announce`](Self::announce).
    pub(super) fn push(&self, partition: i32, offset: u64, mut delivery: Delivery) -> bool {
        let mut state = self.state();
        let bytes = bytes_of(&delivery);
        let mut ours = state.lanes.iter_mut().filter(|lane| lane.partition == partition && lane.wants(offset));
        let Some(lane) = ours.next() else { return true };
        // Offsets in between were compacted away or belong to the broker's own records.
        delivery.mark = Mark::Position { lane: lane.id, from: lane.next, to: offset + 1 };
        delivery.missing = std::mem::take(&mut lane.missing);
        (lane.next, lane.wanted) = (offset + 1, offset + 1);
        lane.waiting.push_back(delivery);
        state.messages += 1;
        state.bytes += bytes;
        state.has_room()
    }

    /// Wakes the receiver.
    pub(super) fn announce(&self) {
        self.arrived.notify_one();
    }

    /// Waits for room, or for something to do first; `false` when there is neither after all that time.
    pub(super) fn wait_for_room(&self, patience: Duration) -> bool {
        let full = |state: &mut State| !state.has_room() && !state.orders.urgent();
        let waited = self.changed.wait_timeout_while(self.state(), patience, full);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Room enough to be worth fetching again.
    pub(super) fn is_half_empty(&self) -> bool {
        let state = self.state();
        state.messages <= MESSAGES_MAX / 2 && state.bytes <= BYTES_MAX / 2
    }

    /// What is to be done, if anything.
    pub(super) fn orders(&self) -> Option<Orders> {
        // Once a message, so it must cost nothing when there are none.
        if !self.ordered.load(Ordering::Acquire) {
            return None;
        }
        self.ordered.store(false, Ordering::Release);
        let mut state = self.state();
        let stop = state.orders.stop;
        let orders = std::mem::take(&mut state.orders);
        state.orders.stop = stop;
        Some(orders)
    }

    pub(super) fn take_commits(&self) -> Option<Vec<(i32, u64)>> {
        let commits = std::mem::take(&mut self.state().orders.commits);
        (!commits.is_empty()).then_some(commits)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state().orders.stop
    }

    /// The polling thread stands where the lane was sent back to.
    pub(super) fn rewound(&self, partition: i32) {
        let mut state = self.state();
        state.lanes.iter_mut().filter(|lane| lane.partition == partition).for_each(|lane| lane.rewinding = false);
    }
}

impl Orders {
    fn urgent(&self) -> bool {
        self.stop || !self.rewinds.is_empty()
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.messages < MESSAGES_MAX && self.bytes < BYTES_MAX
    }

    fn check(&mut self) -> Result<(), BrokerError> {
        match &mut self.ended {
            None => Ok(()),
            Some(reason) => {
                Err(reason.take().unwrap_or_else(|| BrokerError::unavailable("the subscription has ended")))
            }
        }
    }

    fn clear(&mut self) {
        self.lanes.clear();
        (self.messages, self.bytes) = (0, 0);
    }

    fn remove(&mut self, partition: i32) -> Option<Lane> {
        let at = self.lanes.iter().position(|lane| lane.partition == partition)?;
        let mut lane = self.lanes.remove(at);
        self.messages -= lane.waiting.len();
        self.bytes -= lane.waiting.drain(..).map(|delivery| bytes_of(&delivery)).sum::<usize>();
        Some(lane)
    }

    fn take(&mut self, messages_max: usize, bytes_max: usize) -> Result<Found, BrokerError> {
        self.check()?;
        let now = Instant::now();
        let mut taken = Vec::new();
        let mut left = bytes_max;
        self.turn = self.turn.wrapping_add(1);
        for step in 0..self.lanes.len() {
            let at = self.turn.wrapping_add(step) % self.lanes.len();
            let lane = &mut self.lanes[at];
            if lane.is_held(now) {
                continue;
            }
            while taken.len() < messages_max
                && let Some(delivery) = lane.waiting.pop_front_if(|next| bytes_of(next) <= left || taken.is_empty())
            {
                let bytes = bytes_of(&delivery);
                left = left.saturating_sub(bytes);
                self.messages -= 1;
                self.bytes -= bytes;
                lane.out = match delivery.mark {
                    Mark::Position { to, .. } => to,
                    Mark::Tag(_) => lane.out,
                };
                taken.push(delivery);
            }
        }
        if !taken.is_empty() {
            return Ok(Found::Deliveries(taken));
        }
        let held = self.lanes.iter().filter(|lane| !lane.waiting.is_empty());
        Ok(Found::Nothing(held.filter_map(|lane| lane.not_before).min()))
    }

    fn settle(&mut self, step: &Step) {
        let mut lanes = self.lanes.iter_mut().chain(&mut self.leaving);
        let Some(lane) = lanes.find(|lane| lane.id == step.lane) else { return };
        lane.settled = step.to;
        let partition = lane.partition;
        match self.orders.commits.iter_mut().find(|(p, _)| *p == partition) {
            Some((_, offset)) => *offset = step.to,
            None => self.orders.commits.push((partition, step.to)),
        }
    }

    fn rewind(&mut self, step: &Step, after: Duration) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == step.lane) else { return };
        self.messages -= lane.waiting.len();
        self.bytes -= lane.waiting.drain(..).map(|delivery| bytes_of(&delivery)).sum::<usize>();
        (lane.next, lane.wanted, lane.out) = (step.from, step.from, step.from);
        (lane.missing, lane.rewinding) = (0, true);
        lane.not_before = Some(Instant::now() + after);
        let partition = lane.partition;
        self.orders.rewinds.retain(|(p, _)| *p != partition);
        self.orders.rewinds.push((partition, step.from));
    }
}

fn bytes_of(delivery: &Delivery) -> usize {
    let message = &delivery.message;
    message.body.len() + message.attributes.as_ref().map_or(0, |attributes| attributes.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use caudal_core::error::BrokerError;
    use caudal_core::message::{Delivery, Mark, Marks, Message, Origin, Step};
    use caudal_core::time::Instant;
    use uuid::Uuid;

    use super::{BYTES_MAX, Buffer, Lane};

    const LANE: Uuid = Uuid::from_u128(7);

    fn delivery(bytes: usize) -> Delivery {
        let (id, source, published_at) = (Uuid::nil(), String::new(), Instant(0));
        let message = Message { id, key: None, source, published_at, attributes: None, body: vec![0; bytes].into() };
        Delivery::new(message, Origin::Foreign, Mark::Tag(0))
    }

    fn buffer(next: u64, wanted: u64, missing: u64) -> Buffer {
        let buffer = Buffer::default();
        buffer.assign(vec![Lane::new(LANE, 0, next, wanted, missing)]);
        buffer
    }

    fn push(buffer: &Buffer, partition: i32, offsets: std::ops::Range<u64>) {
        for offset in offsets {
            buffer.push(partition, offset, delivery(10));
        }
        buffer.announce();
    }

    async fn steps(buffer: &Buffer, messages_max: usize) -> Vec<(u64, u64, u64)> {
        let receive = tokio::time::timeout(Duration::from_millis(50), buffer.receive(messages_max, usize::MAX));
        let Ok(some) = receive.await else { return Vec::new() };
        let some = some.expect("it has not ended").into_iter();
        let step = |delivery: Delivery| match delivery.mark {
            Mark::Position { from, to, .. } => (from, to, delivery.missing),
            Mark::Tag(_) => panic!("no position"),
        };
        some.map(step).collect()
    }

    fn marks(from: u64, to: u64) -> Marks {
        Marks { steps: vec![Step { lane: LANE, from, to }], tags: vec![] }
    }

    #[tokio::test]
    async fn deliveries_join_over_offsets_that_are_not_there() {
        let buffer = buffer(3, 5, 2);
        push(&buffer, 0, 5..7);
        push(&buffer, 0, 9..10);
        push(&buffer, 1, 0..5);
        assert_eq!(steps(&buffer, 10).await, [(3, 6, 2), (6, 7, 0), (7, 10, 0)], "and no other partition's");
    }

    #[tokio::test]
    async fn what_comes_late_of_before_a_rewind_is_dropped() {
        let buffer = buffer(0, 0, 0);
        push(&buffer, 0, 0..10);
        assert_eq!(steps(&buffer, 4).await.len(), 4);
        buffer.rewind(&marks(2, 4), Duration::ZERO).expect("it has not ended");
        push(&buffer, 0, 10..12);
        assert_eq!(steps(&buffer, 10).await, []);
        assert_eq!(buffer.orders().expect("an order").rewinds, [(0, 2)]);
        buffer.rewound(0);
        push(&buffer, 0, 2..4);
        assert_eq!(steps(&buffer, 10).await, [(2, 3, 0), (3, 4, 0)]);
    }

    #[tokio::test]
    async fn a_lane_that_is_held_holds_back_no_other() {
        let buffer = buffer(0, 0, 0);
        buffer.assign(vec![Lane::new(Uuid::from_u128(8), 1, 50, 50, 0)]);
        buffer.rewind(&marks(0, 1), Duration::from_millis(200)).expect("it has not ended");
        buffer.rewound(0);
        push(&buffer, 0, 0..1);
        push(&buffer, 1, 50..51);
        assert_eq!(steps(&buffer, 10).await, [(50, 51, 0)]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(steps(&buffer, 10).await, [(0, 1, 0)]);
    }

    #[tokio::test]
    async fn a_lane_comes_back_where_the_store_says() {
        let buffer = buffer(0, 0, 0);
        push(&buffer, 0, 0..10);
        buffer.revoke(&[0], Duration::ZERO);
        assert_eq!(steps(&buffer, 10).await, []);
        buffer.assign(vec![Lane::new(LANE, 0, 4, 4, 0)]);
        push(&buffer, 0, 4..5);
        assert_eq!(steps(&buffer, 10).await, [(4, 5, 0)]);
    }

    #[tokio::test]
    async fn revoking_waits_for_what_is_out_and_no_longer_than_told() {
        let buffer = std::sync::Arc::new(buffer(0, 0, 0));
        push(&buffer, 0, 0..2);
        assert_eq!(steps(&buffer, 10).await.len(), 2);
        let revoking = std::thread::spawn({
            let buffer = buffer.clone();
            move || buffer.revoke(&[0], Duration::from_secs(60))
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!revoking.is_finished(), "two are out");
        buffer.settle(&marks(0, 2)).expect("it has not ended");
        revoking.join().expect("it ends");
        assert_eq!(buffer.take_commits(), Some(vec![(0, 2)]));
    }

    #[tokio::test]
    async fn bounds_hold_and_the_end_is_told() {
        let buffer = buffer(0, 0, 0);
        assert!(buffer.push(0, 0, delivery(BYTES_MAX - 1)));
        assert!(!buffer.push(0, 1, delivery(1)), "it is full");
        assert!(!buffer.wait_for_room(Duration::from_millis(1)) && !buffer.is_half_empty());
        assert_eq!(steps(&buffer, 1).await, [(0, 1, 0)]);
        assert!(buffer.wait_for_room(Duration::ZERO) && buffer.is_half_empty());
        buffer.end(BrokerError::Setup("why".to_owned()));
        buffer.end(BrokerError::unavailable("later"));
        let ended = buffer.receive(1, 1).await;
        assert!(matches!(&ended, Err(BrokerError::Setup(why)) if why == "why"), "{ended:?}");
        assert!(matches!(buffer.settle(&marks(0, 1)), Err(BrokerError::Unavailable(_))));
        assert!(buffer.is_stopped());
    }
}
