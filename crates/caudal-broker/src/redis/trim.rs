//! Removes from a stream what every group has acked, so that it holds the backlog and not the past.

use std::time::{Duration, Instant};

use redis::RedisResult;

use super::entry::{EntryId, array};
use super::gap::{Standing, number};
use super::group::Group;

const TRIM_EVERY: Duration = Duration::from_secs(5);
/// Entries that are removed by one command, during which the server does nothing else.
const AT_ONCE: u64 = 10_000;
const ROUNDS_MAX: u32 = 100;

pub(super) struct Trim {
    group: Group,
    ours: bool,
    last: Instant,
}

impl Trim {
    pub(super) fn new(group: &Group, ours: bool) -> Self {
        Self { group: group.clone(), ours, last: Instant::now() }
    }

    /// Beside the subscription's work, which must not wait for it.
    pub(super) fn when_due(&mut self) {
        if !self.ours || self.last.elapsed() < TRIM_EVERY {
            return;
        }
        self.last = Instant::now();
        let group = self.group.clone();
        tokio::spawn(async move {
            if let Err(error) = group.trim().await {
                tracing::debug!(stream = %group.key, %error, "acked entries were not removed");
            }
        });
    }
}

impl Group {
    pub(super) async fn trim(&self) -> RedisResult<()> {
        let Some(least) = self.least_needed().await? else { return Ok(()) };
        let key = &*self.key;
        let trim = redis::cmd("XTRIM").arg(key).arg("MINID").arg("~").arg(least).arg("LIMIT").arg(AT_ONCE).to_owned();
        for _ in 0..ROUNDS_MAX {
            if number(&self.link.ask(&trim).await?).unwrap_or_default() == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The least entry that some group has not acked; `None` without groups.
    async fn least_needed(&self) -> RedisResult<Option<EntryId>> {
        let key = &*self.key;
        let groups = Standing::all(self.link.ask(redis::cmd("XINFO").arg("GROUPS").arg(key)).await?);
        let mut least: Option<EntryId> = None;
        for standing in groups {
            let pending = self.link.ask(redis::cmd("XPENDING").arg(key).arg(&standing.group)).await?;
            let oldest = array(pending).get(1).and_then(EntryId::of);
            // What is read from now on lies beyond what was delivered when the groups were asked about.
            let needed = oldest.map_or(standing.delivered.next(), |oldest| oldest.min(standing.delivered.next()));
            least = Some(least.map_or(needed, |least| least.min(needed)));
        }
        Ok(least)
    }
}
