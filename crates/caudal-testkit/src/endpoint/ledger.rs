//! What the endpoint did: effects by key, and what it answered. This is the truth that an audit is held against.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

const SHARDS: usize = 64;

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Effects {
    /// Times that it was done. More than one is a double charge.
    pub effects: u32,
    /// It was declined: by the endpoint's rules, for ever.
    pub declined: bool,
    /// Calls under this key, probes not counted.
    pub calls: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    effects: u32,
    calls: u32,
    declined: bool,
    /// The second of two calls at the same time is told so.
    busy: bool,
    /// Says one thing and the opposite in turns.
    lies: bool,
    done_at: Option<Instant>,
}

/// What is to be said about a call, once the ledger was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not done yet, or forgotten.
    New,
    Done,
    Declined,
    Busy,
}

#[derive(Debug)]
pub(super) struct Ledger {
    shards: Vec<Mutex<HashMap<Uuid, Entry>>>,
    by: RandomState,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), by: RandomState::new() }
    }

    fn shard(&self, key: Uuid) -> MutexGuard<'_, HashMap<Uuid, Entry>> {
        let shard = self.by.hash_one(key) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call. Where the answer is `New` the key is busy until [`Self::finish`] or [`Self::leave`].
    pub(super) fn begin(&self, key: Uuid, memory: Memory) -> Standing {
        let mut shard = self.shard(key);
        let entry = shard.entry(key).or_default();
        entry.calls += 1;
        if entry.busy && memory.honours_keys {
            return Standing::Busy;
        }
        match entry.standing(memory) {
            Standing::New => {
                entry.busy = true;
                Standing::New
            }
            other => other,
        }
    }

    /// Does it.
    pub(super) fn finish(&self, key: Uuid, declined: bool, lies: bool) {
        let mut shard = self.shard(key);
        let entry = shard.entry(key).or_default();
        entry.busy = false;
        entry.declined = declined;
        entry.effects += u32::from(!declined);
        entry.lies |= lies;
        entry.done_at = Some(Instant::now());
    }

    /// Does nothing.
    pub(super) fn leave(&self, key: Uuid) {
        self.shard(key).entry(key).or_default().busy = false;
    }

    /// What a probe is told; `None`: the key is not known.
    pub(super) fn probe(&self, key: Uuid, memory: Memory) -> Option<Standing> {
        let shard = self.shard(key);
        let entry = shard.get(&key)?;
        // Who does not honour keys can still be asked about them.
        let memory = Memory { honours_keys: true, ..memory };
        let standing = if entry.busy { Standing::Busy } else { entry.standing(memory) };
        (standing != Standing::New).then_some(standing)
    }

    pub(super) fn effects(&self, key: Uuid) -> Option<Effects> {
        self.shard(key).get(&key).map(Entry::effects)
    }

    pub(super) fn each(&self, mut tell: impl FnMut(Uuid, Effects)) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.iter().for_each(|(key, entry)| tell(*key, entry.effects()));
        }
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// How well keys are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) honours_keys: bool,
    pub(super) retention: Option<Duration>,
}

impl Entry {
    fn standing(&self, memory: Memory) -> Standing {
        let kept = |at: Instant| memory.retention.is_none_or(|retention| at.elapsed() < retention);
        match self.done_at {
            Some(at) if memory.honours_keys && kept(at) => {
                let turned = self.lies && self.calls.is_multiple_of(2);
                if self.declined != turned { Standing::Declined } else { Standing::Done }
            }
            _ => Standing::New,
        }
    }

    fn effects(&self) -> Effects {
        Effects { effects: self.effects, declined: self.declined, calls: self.calls }
    }
}
