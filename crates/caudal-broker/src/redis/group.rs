//! A consumer in its group: how what is out stays ours, and how it is given back.
//!
//! What is given back belongs to a consumer that nobody reads as, and counts as idle for long, so that whoever looks for
//! abandoned entries gets it at once. A consumer is removed only when it has nothing pending: removing it would remove that
//! too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use caudal_core::error::BrokerError;
use redis::{Cmd, Pipeline, RedisResult, Value};

use super::entry::{EntryId, array};
use super::gap::{fields, number};
use super::link::Link;
use super::names::OURS;

/// How long an entry stays with a consumer that gives no sign of life.
pub(super) const MIN_IDLE: Duration = Duration::from_secs(8);
/// How often a consumer gives one.
pub(super) const SIGN_EVERY: Duration = Duration::from_secs(2);
/// Who has what was given back.
const RETURNED: &str = "caudal-returned";
const LONG_IDLE_MS: u64 = 3_600_000;
/// A consumer without pending entries that was not seen for so long belongs to a process that is gone.
const FORGOTTEN_MS: u64 = 24 * 3_600_000;
/// Entries that one command names.
const BULK: usize = 1000;

#[derive(Clone)]
pub(super) struct Group {
    pub(super) link: Arc<Link>,
    pub(super) key: Arc<str>,
    pub(super) group: Arc<str>,
    pub(super) consumer: Arc<str>,
}

impl Group {
    pub(super) fn new(link: &Arc<Link>, key: Arc<str>, group: String, consumer: String) -> Self {
        Self { link: link.clone(), key, group: group.into(), consumer: consumer.into() }
    }

    /// A command about the group.
    pub(super) fn command(&self, name: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(&*self.key).arg(&*self.group);
        command
    }

    /// A command about a consumer of the group.
    fn xgroup(&self, what: &str, consumer: &str) -> Cmd {
        redis::cmd("XGROUP").arg(what).arg(&*self.key).arg(&*self.group).arg(consumer).to_owned()
    }

    /// Sends a command for each thousand entries, all at once.
    async fn bulk(&self, ids: &[EntryId], command: impl Fn(&[EntryId]) -> Cmd) -> RedisResult<Vec<Value>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for ids in ids.chunks(BULK) {
            pipeline.add_command(command(ids));
        }
        self.link.ask_all(&pipeline).await
    }

    /// Settles entries for good.
    pub(super) async fn ack(&self, ids: &[EntryId]) -> Result<(), BrokerError> {
        let acked = self.bulk(ids, |ids| self.command("XACK").arg(ids).to_owned()).await;
        acked.map(drop).map_err(|error| self.link.explain(error, &self.key))
    }

    /// Shows that entries are being worked on. Counts no hand-over.
    pub(super) async fn touch(&self, ids: &[EntryId]) -> RedisResult<()> {
        let claim = |ids: &[_]| self.command("XCLAIM").arg(&*self.consumer).arg(0).arg(ids).arg("JUSTID").to_owned();
        self.bulk(ids, claim).await.map(drop)
    }

    /// Gives entries back, counted as so many hand-overs, or as they are. Says how many of them were there.
    async fn give_back(&self, ids: &[EntryId], count: Option<u32>) -> RedisResult<usize> {
        let given = self.bulk(ids, |ids| {
            let mut claim = self.command("XCLAIM");
            claim.arg(RETURNED).arg(0).arg(ids).arg("IDLE").arg(LONG_IDLE_MS);
            if let Some(count) = count {
                claim.arg("RETRYCOUNT").arg(count);
            }
            claim.arg("JUSTID").to_owned()
        });
        Ok(given.await?.into_iter().map(|ids| array(ids).len()).sum())
    }

    /// Gives back all that this consumer has, whether it knows of it or not. What was read and never handed to the worker
    /// was no hand-over. Says how many of them were deleted meanwhile, which Redis 7 forgets with this.
    pub(super) async fn release(&self, unread: &HashSet<EntryId>) -> RedisResult<u64> {
        let mut from = EntryId::default();
        let mut missing = 0;
        loop {
            let pending = self.pending_from(from).await?;
            let Some((last, _)) = pending.last_key_value() else { return Ok(missing) };
            from = last.next();
            let mut by_count: BTreeMap<Option<u32>, Vec<EntryId>> = BTreeMap::new();
            for (id, count) in pending {
                let count = unread.contains(&id).then(|| count.saturating_sub(1));
                by_count.entry(count).or_default().push(id);
            }
            for (count, ids) in by_count {
                missing += ids.len().saturating_sub(self.give_back(&ids, count).await?) as u64;
            }
        }
    }

    /// Some of what this consumer has, and how often each was handed over.
    async fn pending_from(&self, from: EntryId) -> RedisResult<BTreeMap<EntryId, u32>> {
        let mut pending = self.command("XPENDING");
        Ok(counts(self.link.ask(pending.arg(from).arg("+").arg(BULK).arg(&*self.consumer)).await?))
    }

    /// Removes this consumer. To be called only when nothing can be delivered to it any more.
    pub(super) async fn retire(&self) -> RedisResult<()> {
        if self.pending_from(EntryId::default()).await?.is_empty() {
            self.link.ask(&self.xgroup("DELCONSUMER", &self.consumer)).await?;
        }
        Ok(())
    }

    /// Removes consumers of processes that are long gone.
    pub(super) async fn tidy(&self) -> RedisResult<()> {
        let consumers = self.link.ask(redis::cmd("XINFO").arg("CONSUMERS").arg(&*self.key).arg(&*self.group)).await?;
        for consumer in array(consumers) {
            let mut consumer = fields(array(consumer));
            let name = consumer.remove("name").and_then(|name| redis::from_redis_value::<String>(name).ok());
            let value = |name: &str| consumer.get(name).and_then(number);
            if let Some(name) = name.filter(|name| name.starts_with(OURS) && name != RETURNED)
                && value("pending") == Some(0)
                && value("idle") > Some(FORGOTTEN_MS)
            {
                self.link.ask(&self.xgroup("DELCONSUMER", &name)).await?;
            }
        }
        Ok(())
    }
}

/// How often each of the pending entries was handed over.
pub(super) fn counts(pending: Value) -> BTreeMap<EntryId, u32> {
    let count = |entry| {
        let entry = array(entry);
        let count = entry.get(3).and_then(number).and_then(|count| u32::try_from(count).ok());
        Some((entry.first().and_then(EntryId::of)?, count.unwrap_or(u32::MAX)))
    };
    array(pending).into_iter().filter_map(count).collect()
}
