//! Which items of a shard are under which lease.
//!
//! A shard's head is one small item: a sequence number, and for each open lease who has it, how it stands and which batch it is
//! for. A batch is an item of its own with the ids, written once. A claim puts its batch down and then enters it into the head, if
//! nobody has entered another since the head was read: so no item is in two leases at once, and a claim costs two writes whatever
//! its size.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use caudal_core::confirm::LaneId;
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use futures_util::future::try_join_all;
use uuid::Uuid;

use super::aws::Aws;
use super::error::{damaged, failed};
use super::keys::{self, HEAD, PK, SK, Shard};
use super::tx::{Update, Written};
use super::values::{Row, instant, n, needed, number, packed, s, text, time, unpacked};

const RVN: &str = "rvn";
const LEASES: &str = "leases";
const WORKER: &str = "wk";
/// How often the lease was prolonged: what whoever waits for its end watches.
const BEATS: &str = "beats";
const TTL_MS: &str = "ttlms";
const PHASE: &str = "ph";
const CALLED_AT: &str = "cldat";
const TOKEN: &str = "tok";
const IDS: &str = "ids";

/// Batches whose ids are remembered. They never change, so this saves reads and nothing else.
const REMEMBERED_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Leased,
    Calling,
    /// It has lapsed, in the one or the other phase, and its items are being put back.
    LapsedLeased,
    LapsedCalling,
}

impl Phase {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Leased, "leased"),
        (Self::Calling, "calling"),
        (Self::LapsedLeased, "lapsed-leased"),
        (Self::LapsedCalling, "lapsed-calling"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(phase, _)| *phase == self).map_or("", |(_, name)| name)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(phase, _)| *phase)
    }

    pub(super) fn is_calling(self) -> bool {
        matches!(self, Self::Calling | Self::LapsedCalling)
    }

    pub(super) fn has_lapsed(self) -> bool {
        matches!(self, Self::LapsedLeased | Self::LapsedCalling)
    }
}

/// One open lease, as its shard's head has it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) number: i64,
    pub(super) worker: String,
    pub(super) beats: u64,
    pub(super) ttl: Duration,
    pub(super) phase: Phase,
    pub(super) called_at: Option<Instant>,
    token: String,
}

/// A shard's head as of one moment.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) shard: Shard,
    pub(super) rvn: i64,
    pub(super) entries: Vec<Entry>,
}

impl Head {
    pub(super) fn of(shard: Shard, row: &Row) -> Result<Self, StoreError> {
        let leases = needed(row.get(LEASES).and_then(|leases| leases.as_m().ok()), LEASES, row)?;
        let entries = leases.iter().map(|(name, value)| {
            let entry = value.as_m().ok().and_then(|entry| Entry::of(name, entry));
            entry.ok_or_else(|| damaged(format!("lease {name} of {shard}")))
        });
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.number);
        Ok(Self { shard, rvn: needed(number(row, RVN), RVN, row)?, entries })
    }

    pub(super) fn entry(&self, number: i64) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.number == number)
    }
}

impl Entry {
    fn of(name: &str, row: &Row) -> Option<Self> {
        Some(Self {
            number: name.parse().ok()?,
            worker: text(row, WORKER)?.to_owned(),
            beats: number(row, BEATS)?,
            ttl: Duration::from_millis(number(row, TTL_MS)?),
            phase: Phase::parse(text(row, PHASE)?)?,
            called_at: instant(row, CALLED_AT),
            token: text(row, TOKEN)?.to_owned(),
        })
    }
}

/// The open leases of a shard by what they name.
#[derive(Debug, Default)]
pub(super) struct Taken {
    by_id: HashMap<Uuid, Vec<(i64, Phase)>>,
}

impl Taken {
    /// The lease that names the item and is newer than the fence: the one that has it.
    pub(super) fn lease_of(&self, id: Uuid, fence: i64) -> Option<(i64, Phase)> {
        self.by_id.get(&id)?.iter().copied().find(|(lease, _)| *lease > fence)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.by_id.keys().copied()
    }
}

#[derive(Debug)]
pub(super) struct Ledger {
    aws: Aws,
    remembered: Mutex<HashMap<String, Arc<Vec<Uuid>>>>,
}

impl Ledger {
    pub(super) fn new(aws: Aws) -> Self {
        Self { aws, remembered: Mutex::default() }
    }

    /// Makes a lane's heads that are not there.
    pub(super) async fn ensure(&self, lane: LaneId, shards: u16) -> Result<(), StoreError> {
        let keys = (0..shards).map(|number| (Shard { lane, number }.to_string(), HEAD.to_owned()));
        let found = self.aws.get_all(keys.collect()).await?;
        let there: HashSet<&str> = found.iter().filter_map(|row| text(row, PK)).collect();
        let shards = (0..shards).map(|number| Shard { lane, number });
        try_join_all(shards.filter(|shard| !there.contains(shard.to_string().as_str())).map(|shard| self.make(shard)))
            .await
            .map(drop)
    }

    async fn make(&self, shard: Shard) -> Result<(), StoreError> {
        let update = Update::of(&self.aws, shard.to_string(), HEAD.to_owned());
        let update = update.set(RVN, n(0)).set(LEASES, AttributeValue::M(HashMap::new()));
        update.write_if(&self.aws, &format!("attribute_not_exists({PK})")).await.map(drop)
    }

    pub(super) async fn head(&self, shard: Shard) -> Result<Head, StoreError> {
        match self.aws.get(shard.to_string(), HEAD).await? {
            Some(row) => Head::of(shard, &row),
            None => Err(damaged(format!("no item {shard}: its lane is not known here"))),
        }
    }

    /// What the open leases name. A lease that ended since the head was read names nothing any more.
    pub(super) async fn taken(&self, head: &Head) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        let mut unknown = Vec::new();
        for entry in &head.entries {
            match self.recall(&entry.token) {
                Some(ids) => taken.add(&ids, entry),
                None => unknown.push((head.shard.to_string(), keys::batch(&entry.token))),
            }
        }
        for row in self.aws.get_all(unknown).await? {
            let token = text(&row, SK).and_then(|sk| sk.strip_prefix("B#")).unwrap_or_default();
            let ids = Arc::new(needed(unpacked(&row, IDS), IDS, &row)?);
            if let Some(entry) = head.entries.iter().find(|entry| entry.token == token) {
                taken.add(&ids, entry);
                self.remember(token, ids);
            }
        }
        Ok(taken)
    }

    /// What a lease names; nothing when it has ended.
    pub(super) async fn ids(&self, shard: Shard, entry: &Entry) -> Result<Arc<Vec<Uuid>>, StoreError> {
        if let Some(ids) = self.recall(&entry.token) {
            return Ok(ids);
        }
        let Some(row) = self.aws.get(shard.to_string(), &keys::batch(&entry.token)).await? else {
            return Ok(Arc::default());
        };
        let ids = Arc::new(needed(unpacked(&row, IDS), IDS, &row)?);
        self.remember(&entry.token, ids.clone());
        Ok(ids)
    }

    /// Enters a lease on `ids`, if the head is as it was read: `None` when it is not.
    pub(super) async fn enter(
        &self,
        head: &Head,
        worker: &str,
        ttl: Duration,
        ids: &[Uuid],
    ) -> Result<Option<i64>, StoreError> {
        let (shard, rvn) = (head.shard, head.rvn + 1);
        let (token, lease) = (Uuid::now_v7().simple().to_string(), head.shard.lease(rvn));
        let batch = self.aws.client.put_item().table_name(&self.aws.table);
        let batch = batch.item(PK, s(shard.to_string())).item(SK, s(keys::batch(&token))).item(IDS, packed(ids));
        batch.send().await.map_err(|error| failed(&error, self.aws.call("PutItem")))?;
        let entry: Row = HashMap::from([
            (WORKER.to_owned(), s(worker)),
            (BEATS.to_owned(), n(0)),
            (TTL_MS.to_owned(), n(ttl.as_millis())),
            (PHASE.to_owned(), s(Phase::Leased.name())),
            (TOKEN.to_owned(), s(token.as_str())),
        ]);
        let update = Update::of(&self.aws, shard.to_string(), HEAD.to_owned())
            .set(RVN, n(rvn))
            .lease(lease)
            .set_as(format!("{LEASES}.#lease = :entry"))
            .value("entry", AttributeValue::M(entry))
            .value("seen", n(head.rvn));
        match update.write_if(&self.aws, &format!("{RVN} = :seen")).await? {
            Written::Done => {}
            // An earlier try of this very write may have been done, and its answer lost.
            Written::Refused(Some(row))
                if Head::of(shard, &row)?.entry(lease).is_some_and(|entry| entry.token == token) => {}
            Written::Refused(_) => {
                self.aws.delete(shard.to_string(), keys::batch(&token)).await?;
                return Ok(None);
            }
        }
        self.remember(&token, Arc::new(ids.to_vec()));
        Ok(Some(lease))
    }

    /// Prolongs a lease, and begins its calls if `calls_at` says when. `false`: it has ended or lapsed.
    pub(super) async fn prolong(
        &self,
        shard: Shard,
        lease: i64,
        worker: &str,
        ttl: Duration,
        calls_at: Option<Instant>,
    ) -> Result<bool, StoreError> {
        let mut update = Update::of(&self.aws, shard.to_string(), HEAD.to_owned())
            .lease(lease)
            .set_as(format!("{LEASES}.#lease.{BEATS} = {LEASES}.#lease.{BEATS} + :one"))
            .set_as(format!("{LEASES}.#lease.{TTL_MS} = :ttl"))
            .value("one", n(1))
            .value("ttl", n(ttl.as_millis()))
            .value("worker", s(worker))
            .value("leased", s(Phase::Leased.name()))
            .value("calling", s(Phase::Calling.name()));
        if let Some(at) = calls_at {
            update = update
                .set_as(format!("{LEASES}.#lease.{PHASE} = :calling"))
                .set_as(format!("{LEASES}.#lease.{CALLED_AT} = if_not_exists({LEASES}.#lease.{CALLED_AT}, :at)"))
                .value("at", time(at));
        }
        let condition = format!(
            "attribute_exists({LEASES}.#lease) AND {LEASES}.#lease.{WORKER} = :worker \
             AND {LEASES}.#lease.{PHASE} IN (:leased, :calling)"
        );
        Ok(matches!(update.write_if(&self.aws, &condition).await?, Written::Done))
    }

    /// Declares a lease lapsed if it was not prolonged since `entry` was read; from here on nobody may begin calls under it.
    pub(super) async fn lapse(&self, shard: Shard, entry: &Entry) -> Result<Option<Phase>, StoreError> {
        let to = match entry.phase {
            Phase::Leased => Phase::LapsedLeased,
            Phase::Calling => Phase::LapsedCalling,
            lapsed => return Ok(Some(lapsed)),
        };
        let update = Update::of(&self.aws, shard.to_string(), HEAD.to_owned())
            .lease(entry.number)
            .set_as(format!("{LEASES}.#lease.{PHASE} = :to"))
            .value("to", s(to.name()))
            .value("from", s(entry.phase.name()))
            .value("beats", n(entry.beats));
        let condition = format!("{LEASES}.#lease.{BEATS} = :beats AND {LEASES}.#lease.{PHASE} = :from");
        match update.write_if(&self.aws, &condition).await? {
            Written::Done => Ok(Some(to)),
            Written::Refused(_) => Ok(None),
        }
    }

    /// Ends a lease of which nothing is left. `false`: somebody else did.
    pub(super) async fn end(&self, shard: Shard, entry: &Entry) -> Result<bool, StoreError> {
        let update = self.aws.client.update_item().table_name(&self.aws.table);
        let update = update
            .key(PK, s(shard.to_string()))
            .key(SK, s(HEAD))
            .update_expression(format!("REMOVE {LEASES}.#lease"))
            .condition_expression(format!("attribute_exists({LEASES}.#lease)"))
            .expression_attribute_names("#lease", entry.number.to_string());
        let ended = match update.send().await {
            Ok(_) => true,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => false,
            Err(error) => return Err(failed(&error, self.aws.call("UpdateItem"))),
        };
        self.aws.delete(shard.to_string(), keys::batch(&entry.token)).await?;
        self.forget(&entry.token);
        Ok(ended)
    }

    fn recall(&self, token: &str) -> Option<Arc<Vec<Uuid>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    fn remember(&self, token: &str, ids: Arc<Vec<Uuid>>) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(token.to_owned(), ids);
    }

    fn forget(&self, token: &str) {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

impl Taken {
    fn add(&mut self, ids: &[Uuid], entry: &Entry) {
        for id in ids {
            self.by_id.entry(*id).or_default().push((entry.number, entry.phase));
        }
    }
}
