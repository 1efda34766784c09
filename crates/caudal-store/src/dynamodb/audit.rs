//! Counting and auditing, by looking at every item: DynamoDB keeps no counts, and keeping them beside the items would double
//! the cost of a mark. A scan costs half a unit for every 4 KB of the table, records included.

use std::collections::{BTreeMap, HashMap};

use caudal_core::confirm::ports::{LaneAudit, LaneStatus};
use caudal_core::confirm::{LaneId, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use uuid::Uuid;

use super::DynamoStore;
use super::error::failed;
use super::keys::{SK, TX};
use super::ledger::Taken;
use super::operate::state;
use super::tx::Tx;
use super::values::{Row, s};

/// Findings of one kind that are listed.
const LISTED_MAX: usize = 100;

impl DynamoStore {
    pub(super) async fn count(&self) -> Result<Vec<LaneStatus>, StoreError> {
        let mut lanes = BTreeMap::new();
        let mut taken = HashMap::new();
        for lane in self.all_lanes().await? {
            taken.insert(lane.id, self.taken_in(lane.id).await?);
            let status =
                LaneStatus { topic: lane.topic, lane: lane.name, paused: lane.paused, ..LaneStatus::default() };
            lanes.insert(lane.id, (status, None));
        }
        let now = self.clock.now();
        self.scan(|row| {
            let tx = Tx::of(&row)?;
            if let Some((status, oldest)) = lanes.get_mut(&tx.lane) {
                count_in(status, oldest, &tx, taken.get(&tx.lane), now);
            }
            Ok(())
        })
        .await?;
        let seconds = |oldest: Option<Instant>| oldest.map(|at: Instant| (now.0 - at.0).max(0) as u64 / 1_000_000);
        let statuses = lanes
            .into_values()
            .map(|(status, oldest)| LaneStatus { oldest_pending_seconds: seconds(oldest), ..status });
        Ok(statuses.collect())
    }

    pub(super) async fn audit(&self) -> Result<Vec<LaneAudit>, StoreError> {
        let mut audits = BTreeMap::new();
        let mut named: HashMap<Uuid, LaneId> = HashMap::new();
        for lane in self.all_lanes().await? {
            let taken = self.taken_in(lane.id).await?;
            named.extend(taken.iter().flat_map(Taken::ids).map(|id| (id, lane.id)));
            audits.insert(lane.id, LaneAudit { topic: lane.topic, lane: lane.name, ..LaneAudit::default() });
        }
        self.scan(|row| {
            let tx = Tx::of(&row)?;
            named.remove(&tx.id);
            if let Some(audit) = audits.get_mut(&tx.lane) {
                look_at(audit, &tx);
            }
            Ok(())
        })
        .await?;
        // Under a lease, and no transaction at all.
        for (id, lane) in named {
            if let Some(audit) = audits.get_mut(&lane) {
                list(&mut audit.stray, id);
            }
        }
        Ok(audits.into_values().collect())
    }

    async fn taken_in(&self, id: LaneId) -> Result<Vec<Taken>, StoreError> {
        let lane = self.lane(id).await?;
        let mut all = Vec::new();
        for head in self.heads(&lane).await?.0 {
            all.push(self.ledger.taken(&head).await?);
        }
        Ok(all)
    }

    /// Every transaction's item, in no order.
    pub(super) async fn scan(
        &self,
        mut each: impl FnMut(Row) -> Result<(), StoreError> + Send,
    ) -> Result<(), StoreError> {
        let scan = self.aws.client.scan().table_name(&self.aws.table).consistent_read(true);
        let scan = scan.filter_expression(format!("{SK} = :tx")).expression_attribute_values(":tx", s(TX));
        let mut rows = scan.into_paginator().items().send();
        while let Some(row) = rows.next().await {
            each(row.map_err(|error| failed(&error, self.aws.call("Scan")))?)?;
        }
        Ok(())
    }
}

fn count_in(status: &mut LaneStatus, oldest: &mut Option<Instant>, tx: &Tx, taken: Option<&Vec<Taken>>, now: Instant) {
    let lease = taken.and_then(|taken| taken.iter().find_map(|taken| taken.lease_of(tx.id, tx.fence)));
    let state = state(tx, lease.map(|(_, phase)| phase), now);
    let count = match state {
        State::Pending => &mut status.pending,
        State::Leased => &mut status.leased,
        State::Calling => &mut status.calling,
        State::Retry => &mut status.retry,
        State::Doubt => &mut status.doubt,
        State::Held => &mut status.held,
        State::Dead => &mut status.dead,
        State::Confirmed => &mut status.confirmed,
        State::Rejected => &mut status.rejected,
        State::Void => &mut status.void,
    };
    *count += 1;
    status.enqueued += 1;
    status.contradictions += u64::from(!tx.contradictions.is_empty());
    if state == State::Pending {
        *oldest = Some(oldest.map_or(tx.since, |at| at.min(tx.since)));
    }
}

fn look_at(audit: &mut LaneAudit, tx: &Tx) {
    audit.enqueued += u64::from(tx.record.is_some());
    let waits = matches!(tx.state, State::Pending | State::Retry | State::Doubt);
    let is_queued = tx.queue.is_some() && tx.place.is_some();
    match tx.state.is_outcome() {
        true => audit.outcomes += 1,
        false if waits && !is_queued => list(&mut audit.lost, tx.id),
        false => audit.open += 1,
    }
    if !waits && is_queued {
        list(&mut audit.twice, tx.id);
    }
    if tx.state.is_outcome() && tx.record.is_none() {
        list(&mut audit.stray, tx.id);
    }
    if !tx.contradictions.is_empty() {
        list(&mut audit.contradicted, tx.id);
    }
}

fn list(found: &mut Vec<Uuid>, id: Uuid) {
    if found.len() < LISTED_MAX {
        found.push(id);
    }
}
