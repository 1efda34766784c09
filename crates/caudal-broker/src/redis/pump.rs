//! The task of one subscription: it reads while there is room, shows the server that what is out is being worked on, and
//! takes up again what the worker gave back. In the end everything is given back.

use std::collections::{BTreeMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caudal_core::error::BrokerError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::sync::{oneshot, watch};

use super::entry::{Entry, EntryId, array};
use super::gap::{Counts, Standing};
use super::group::{Group, MIN_IDLE, SIGN_EVERY, counts};
use super::link::{Over, PATIENCE, connection};
use super::names::Name;
use super::subscription::{Inbox, RedisSubscription};
use super::trim::Trim;
use crate::current::closed;

/// How long a read waits for entries. So often, at least, abandoned ones are looked for.
const BLOCK: Duration = Duration::from_secs(2);
/// Entries that are read at once while nothing is known of their size, and at most. A read has no bound in bytes.
const READ_FIRST: usize = 16;
const READ_MOST: usize = 1000;
/// Entries that were given back and are taken up at once.
const RETAKEN: usize = 100;
const FAREWELL_WITHIN: Duration = Duration::from_secs(4);

struct Pump {
    group: Group,
    inbox: Arc<Inbox>,
    /// Blocking reads would hold up everybody on the shared connection.
    connection: MultiplexedConnection,
    /// What the server calls that connection.
    client: Option<i64>,
    leaving: AtomicBool,
    ours: bool,
    name: Name,
    _alive: watch::Receiver<()>,
}

/// How many entries to read, from the size of those that came.
struct Appetite {
    most: usize,
    bytes_each: usize,
}

/// Begins to read from a group.
pub(super) async fn open(group: Group, name: Name, ours: bool) -> Result<RedisSubscription, BrokerError> {
    let failed = |error| group.link.explain(error, &group.key);
    // What an earlier subscription of this name left behind.
    name.leave(group.release(&HashSet::new()).await.map_err(failed)?);
    group.tidy().await.map_err(failed)?;
    let mut connection = connection(&group.link.address, BLOCK + PATIENCE).await?;
    let client = redis::cmd("CLIENT").arg("ID").query_async(&mut connection).await.ok();
    let inbox = Arc::new(Inbox::new(&group.key, name.take_missing()));
    let (leaving, left) = oneshot::channel();
    let pump = Pump {
        inbox: inbox.clone(),
        connection,
        client,
        leaving: AtomicBool::new(false),
        ours,
        name,
        _alive: group.link.pumps.subscribe(),
        group: group.clone(),
    };
    let pump = Some((leaving, tokio::spawn(pump.run(left))));
    Ok(RedisSubscription { group, inbox, pump })
}

impl Pump {
    async fn run(self, mut left: oneshot::Receiver<()>) {
        let link = self.group.link.clone();
        let mut reading = pin!(self.read());
        let failed = |error| Some(link.explain(error, &self.group.key));
        let failure = tokio::select! {
            over = link.ended() => match over {
                Over::Broken(why) => Some(BrokerError::unavailable(why.to_string())),
                Over::Closing => None,
            },
            _ = &mut left => None,
            Err(error) = &mut reading => failed(error),
            error = self.look_after() => failed(error),
        };
        let failure = match failure {
            Some(failure) => failure,
            None => {
                self.leaving.store(true, Ordering::Relaxed);
                self.inbox.taken.notify_one();
                let farewell = async {
                    if let Some(client) = self.client {
                        let _ = link.ask(redis::cmd("CLIENT").arg("UNBLOCK").arg(client)).await;
                    }
                    // What it still gets is given back with the rest.
                    reading.await?;
                    self.farewell().await
                };
                match tokio::time::timeout(FAREWELL_WITHIN, farewell).await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => link.explain(error, &self.group.key),
                    Err(_) => BrokerError::unavailable("Redis did not take back in time what was out"),
                }
            }
        };
        tracing::debug!(stream = %self.group.key, %failure, "a subscription ends");
        self.inbox.end(failure);
    }

    /// Reads while there is room, until told to leave. Must not be dropped while an answer is on its way, unless the
    /// connection is given up.
    async fn read(&self) -> RedisResult<()> {
        let mut appetite = Appetite { most: READ_FIRST, bytes_each: 0 };
        let mut looked = None;
        while !self.leaving.load(Ordering::Relaxed) {
            let Some(room) = self.inbox.room() else {
                self.inbox.taken.notified().await;
                continue;
            };
            let count = appetite.within(room);
            let entries = match looked.filter(|looked: &Instant| looked.elapsed() < BLOCK) {
                Some(_) => self.read_new(count).await?,
                None => {
                    let (entries, all) = self.take_abandoned(count).await?;
                    looked = all.then(Instant::now);
                    entries
                }
            };
            appetite.learn(count, &entries);
        }
        Ok(())
    }

    /// Reads what nobody has read. Says how many came, and their bytes.
    async fn read_new(&self, count: usize) -> RedisResult<(usize, usize)> {
        let missing = self.missing().await?;
        let Group { key, group, consumer, .. } = &self.group;
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&**group).arg(&**consumer).arg("COUNT").arg(count);
        read.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg(&**key).arg(">");
        let stream = array(self.blocking(&read).await?).into_iter().next();
        let entries = stream.and_then(|stream| array(stream).into_iter().nth(1)).map(Entry::all).unwrap_or_default();
        self.put(entries, missing, |_| 1).await
    }

    /// Entries that are gone between what the group read and what it reads next.
    async fn missing(&self) -> RedisResult<u64> {
        let Group { link, key, group, .. } = &self.group;
        let mut both = Pipeline::with_capacity(2);
        both.cmd("XINFO").arg("STREAM").arg(&**key).cmd("XINFO").arg("GROUPS").arg(&**key);
        let mut answers = link.ask_all(&both).await?.into_iter();
        let counts = Counts::of(answers.next().unwrap_or_default());
        let standing = Standing::all(answers.next().unwrap_or_default()).into_iter().find(|s| *s.group == **group);
        let Some(standing) = standing else { return Ok(0) };
        let missing = standing.missing(&counts);
        if let (1.., Some(gone)) = (missing, counts.gone()) {
            // Redis would count them as unread for ever. If another worker read on meanwhile, some come twice.
            let at = redis::cmd("XGROUP").arg("SETID").arg(&**key).arg(&**group).arg(standing.delivered).to_owned();
            link.ask(at.to_owned().arg("ENTRIESREAD").arg(gone)).await?;
        }
        Ok(missing)
    }

    /// Takes over what consumers left that gave no sign of life; all of it, or as much as is asked for.
    async fn take_abandoned(&self, count: usize) -> RedisResult<((usize, usize), bool)> {
        let (mut came, mut bytes) = (0, 0);
        let mut cursor = EntryId::default();
        loop {
            let mut claim = self.group.command("XAUTOCLAIM");
            claim.arg(&*self.group.consumer).arg(MIN_IDLE.as_millis() as u64).arg(cursor).arg("COUNT").arg(count);
            let mut answer = array(self.blocking(&claim).await?).into_iter();
            cursor = answer.next().as_ref().and_then(EntryId::of).unwrap_or_default();
            let entries = answer.next().map(Entry::all).unwrap_or_default();
            // Redis 7 names what was deleted, and no longer holds it pending.
            let deleted = array(answer.next().unwrap_or_default()).len() as u64;
            let attempts = self.attempts(&entries).await?;
            let put = self.put(entries, deleted, |id| attempts.get(&id).copied().unwrap_or(2)).await?;
            (came, bytes) = (came + put.0, bytes + put.1);
            if cursor == EntryId::default() || came >= count {
                return Ok(((came, bytes), cursor == EntryId::default()));
            }
        }
    }

    /// Which hand-over it is for each of the entries that were just taken over.
    async fn attempts(&self, entries: &[Entry]) -> RedisResult<BTreeMap<EntryId, u32>> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else { return Ok(BTreeMap::new()) };
        let most = entries.len() + self.inbox.out();
        let mut pending = self.group.command("XPENDING");
        pending.arg(first.id).arg(last.id).arg(most).arg(&*self.group.consumer);
        Ok(counts(self.blocking(&pending).await?))
    }

    async fn put(
        &self,
        entries: Vec<Entry>,
        missing: u64,
        attempt: impl Fn(EntryId) -> u32,
    ) -> RedisResult<(usize, usize)> {
        let came = (entries.len(), entries.iter().map(Entry::bytes).sum());
        let gone = self.inbox.put(entries, missing, attempt);
        if !gone.is_empty() {
            self.group.link.ask(self.group.command("XACK").arg(gone)).await?;
        }
        Ok(came)
    }

    async fn blocking(&self, command: &Cmd) -> RedisResult<Value> {
        let answer = self.connection.clone().send_packed_command(command).await;
        self.group.link.noted(answer.and_then(Value::extract_error))
    }

    /// Returns only when it fails.
    async fn look_after(&self) -> redis::RedisError {
        let mut trim = Trim::new(&self.group, self.ours);
        let mut beat = tokio::time::interval(SIGN_EVERY / 2);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let due = self.inbox.next_due();
            let step = tokio::select! {
                _ = beat.tick() => {
                    trim.when_due();
                    self.group.touch(&self.inbox.untouched(SIGN_EVERY)).await
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => self.retake().await,
                () = self.inbox.delayed.notified() => Ok(()),
            };
            if let Err(error) = step {
                return error;
            }
        }
    }

    /// Hands out again what was given back and is due.
    async fn retake(&self) -> RedisResult<()> {
        let due = self.inbox.due(RETAKEN);
        if due.is_empty() {
            return Ok(());
        }
        let attempts: BTreeMap<_, _> = due.iter().map(|held| (held.id, held.attempt.saturating_add(1))).collect();
        let ids: Vec<_> = attempts.keys().copied().collect();
        let claim = self.group.command("XCLAIM").arg(&*self.group.consumer).arg(0).arg(&ids).to_owned();
        let entries = Entry::all(self.group.link.ask(&claim).await?);
        // What does not come was deleted, and Redis 7 no longer holds it pending.
        let missing = (ids.len() - entries.len().min(ids.len())) as u64;
        self.put(entries, missing, |id| attempts.get(&id).copied().unwrap_or(2)).await.map(drop)
    }

    /// Gives back what the worker had and what waited for it.
    async fn farewell(&self) -> RedisResult<()> {
        let unread = self.inbox.end(closed());
        self.name.leave(self.group.release(&unread).await?);
        self.group.retire().await
    }
}

impl Appetite {
    fn within(&self, (messages, bytes): (usize, usize)) -> usize {
        let fit = bytes.checked_div(self.bytes_each).unwrap_or(usize::MAX);
        self.most.min(messages).min(fit).max(1)
    }

    fn learn(&mut self, asked: usize, (came, bytes): &(usize, usize)) {
        if let Some(mean) = bytes.checked_div(*came) {
            // Large ones are forgotten slowly.
            self.bytes_each = mean.max(self.bytes_each - self.bytes_each / 4);
        }
        if *came >= asked {
            self.most = (self.most * 4).min(READ_MOST);
        }
    }
}
