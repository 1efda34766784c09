//! What waits to be published, and which of it may go out next. Pure: it knows neither AWS nor the clock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::failure::Failure;
use crate::sqs::entry::Entry;

/// Entries of one batch, AWS's own limit.
pub(crate) const BATCH_ENTRIES_MAX: usize = 10;

/// One caller's publish, whose messages may travel in many batches.
#[derive(Debug)]
pub(crate) struct Call(Mutex<CallState>);

#[derive(Debug)]
struct CallState {
    left: usize,
    answer: Option<oneshot::Sender<Result<(), Failure>>>,
}

impl Call {
    pub(crate) fn new(messages: usize) -> (Arc<Self>, oneshot::Receiver<Result<(), Failure>>) {
        let (answer, answered) = oneshot::channel();
        (Arc::new(Self(Mutex::new(CallState { left: messages, answer: Some(answer) }))), answered)
    }

    /// One of its messages is in, or not. The first that is not is the whole call's answer.
    pub(crate) fn settle(&self, outcome: Result<(), Failure>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.left = state.left.saturating_sub(1);
        if (outcome.is_err() || state.left == 0)
            && let Some(answer) = state.answer.take()
        {
            // Nobody listens when the caller gave up; its messages go out all the same.
            let _ = answer.send(outcome);
        }
    }

    /// Failed already: what is left of it would only make a gap.
    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).answer.is_none()
    }
}

/// An entry and whom to tell.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) entry: Entry,
    pub(crate) call: Arc<Call>,
}

/// What goes out as one request.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    /// Groups whose next messages wait until this batch is settled.
    groups: Vec<String>,
}

/// Messages in line, one line a group. In a FIFO topic a line has one batch out at most, so that a batch that fails and is
/// repeated is not overtaken. A standard topic has a single line, which any number of batches may take from.
#[derive(Debug)]
pub(crate) struct Waiting {
    fifo: bool,
    batch_bytes_max: usize,
    lines: HashMap<String, Line>,
    /// Lines that may be taken from, in turn.
    ready: VecDeque<String>,
    len: usize,
}

#[derive(Debug, Default)]
struct Line {
    items: VecDeque<Item>,
    out: bool,
}

impl Waiting {
    pub(crate) fn new(fifo: bool, batch_bytes_max: usize) -> Self {
        Self { fifo, batch_bytes_max, lines: HashMap::new(), ready: VecDeque::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, item: Item) {
        self.len += 1;
        if let Some(line) = self.lines.get_mut(&item.entry.group) {
            if line.items.is_empty() && !line.out {
                self.ready.push_back(item.entry.group.clone());
            }
            line.items.push_back(item);
            return;
        }
        let group = item.entry.group.clone();
        self.ready.push_back(group.clone());
        self.lines.insert(group, Line { items: VecDeque::from([item]), out: false });
    }

    /// The next batch, or `None` when nothing may go out now.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(group) = self.ready.pop_front() {
            let Some(line) = self.lines.get_mut(&group) else { continue };
            let before = batch.items.len();
            let mut full = false;
            while let Some(next) = line.items.front() {
                let fits = batch.items.len() < BATCH_ENTRIES_MAX && bytes + next.entry.size <= self.batch_bytes_max;
                full = !fits && !batch.items.is_empty();
                if full {
                    break;
                }
                let Some(item) = line.items.pop_front() else { break };
                self.len -= 1;
                if !item.call.is_over() {
                    bytes += item.entry.size;
                    batch.items.push(item);
                }
            }
            let taken = batch.items.len() > before;
            if self.fifo && taken {
                line.out = true;
                batch.groups.push(group);
            } else if !line.items.is_empty() {
                self.ready.push_front(group);
            } else {
                self.lines.remove(&group);
            }
            if full {
                break;
            }
        }
        (!batch.items.is_empty()).then_some(batch)
    }

    /// Fails whatever waits: to try each of them would take long, and end the same.
    pub(crate) fn give_up(&mut self, failure: &Failure) {
        self.len = 0;
        self.ready.clear();
        self.lines.retain(|_, line| {
            line.items.drain(..).for_each(|item| item.call.settle(Err(failure.clone())));
            line.out
        });
    }

    /// A batch is settled: its groups may go on.
    pub(crate) fn settled(&mut self, batch: Batch) {
        for group in batch.groups {
            let Some(line) = self.lines.get_mut(&group) else { continue };
            line.out = false;
            match line.items.is_empty() {
                true => drop(self.lines.remove(&group)),
                false => self.ready.push_back(group),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn push(waiting: &mut Waiting, call: &Arc<Call>, group: &str, size: usize) {
        let entry =
            Entry { text: String::new(), attributes: Vec::new(), size, group: group.to_owned(), id: Uuid::nil() };
        waiting.push(Item { entry, call: call.clone() });
    }

    fn groups(batch: &Batch) -> Vec<&str> {
        batch.items.iter().map(|item| item.entry.group.as_str()).collect()
    }

    #[test]
    fn batches_keep_both_bounds() {
        let (call, _answered) = Call::new(30);
        let mut waiting = Waiting::new(false, 100);
        for size in [30, 30, 30, 30, 150, 1] {
            push(&mut waiting, &call, "", size);
        }
        let sizes: Vec<Vec<usize>> = std::iter::from_fn(|| waiting.take())
            .map(|batch| batch.items.iter().map(|item| item.entry.size).collect())
            .collect();
        assert_eq!(sizes, [vec![30, 30, 30], vec![30], vec![150], vec![1]]);
        (0..25).for_each(|_| push(&mut waiting, &call, "", 1));
        let lens: Vec<usize> = std::iter::from_fn(|| waiting.take()).map(|batch| batch.items.len()).collect();
        assert_eq!(lens, [10, 10, 5]);
        assert_eq!(waiting.len(), 0);
    }

    #[test]
    fn a_group_has_one_batch_out() {
        let (call, _answered) = Call::new(30);
        let mut waiting = Waiting::new(true, 1000);
        (0..12).for_each(|_| push(&mut waiting, &call, "a", 1));
        push(&mut waiting, &call, "b", 1);
        let first = waiting.take().unwrap();
        assert_eq!(groups(&first), vec!["a"; 10]);
        let second = waiting.take().unwrap();
        assert_eq!(groups(&second), ["b"], "the rest of a waits for the first batch");
        assert!(waiting.take().is_none());
        push(&mut waiting, &call, "b", 1);
        assert!(waiting.take().is_none());
        waiting.settled(first);
        assert_eq!(groups(&waiting.take().unwrap()), ["a", "a"]);
        waiting.settled(second);
        assert_eq!(groups(&waiting.take().unwrap()), ["b"]);
    }

    #[test]
    fn several_groups_share_a_batch() {
        let (call, _answered) = Call::new(30);
        let mut waiting = Waiting::new(true, 1000);
        for group in ["a", "b", "a", "c"] {
            push(&mut waiting, &call, group, 1);
        }
        let batch = waiting.take().unwrap();
        assert_eq!(groups(&batch), ["a", "a", "b", "c"]);
        waiting.settled(batch);
        assert!(waiting.lines.is_empty() && waiting.ready.is_empty());
    }

    #[test]
    fn what_waits_can_be_given_up() {
        let (call, mut answered) = Call::new(3);
        let (other, mut other_answered) = Call::new(1);
        let mut waiting = Waiting::new(true, 1000);
        (0..3).for_each(|_| push(&mut waiting, &call, "a", 600));
        push(&mut waiting, &other, "b", 1);
        let batch = waiting.take().unwrap();
        waiting.give_up(&Failure::Away("gone".to_owned()));
        assert!(answered.try_recv().unwrap().is_err() && other_answered.try_recv().unwrap().is_err());
        assert!(waiting.take().is_none() && waiting.len() == 0);
        waiting.settled(batch);
        assert!(waiting.lines.is_empty());
    }

    #[test]
    fn a_call_fails_as_a_whole_and_once() {
        let (call, mut answered) = Call::new(3);
        let mut waiting = Waiting::new(true, 1000);
        (0..3).for_each(|_| push(&mut waiting, &call, "a", 600));
        let batch = waiting.take().unwrap();
        assert_eq!(batch.items.len(), 1);
        call.settle(Err(Failure::Unavailable("gone".to_owned())));
        waiting.settled(batch);
        assert!(waiting.take().is_none(), "what would follow the gap is not sent");
        call.settle(Ok(()));
        assert_eq!(answered.try_recv(), Ok(Err(Failure::Unavailable("gone".to_owned()))));
        assert!(waiting.lines.is_empty() && waiting.len() == 0);
    }
}
