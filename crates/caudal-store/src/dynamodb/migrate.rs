//! Lanes that come from another store, and go to one.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use caudal_core::confirm::transfer::{Carried, ExportTransactions, ImportTransactions, Page, Standing};
use caudal_core::confirm::{LaneId, State};
use caudal_core::error::StoreError;
use futures_util::FutureExt;
use uuid::Uuid;

use super::error::{damaged, failed};
use super::keys::{self, PK, SK, Shard, TX, shard_of};
use super::tx::{self, FENCE, LANE, STATE, Tx, Written};
use super::values::{Row, n, s, text};
use super::{DynamoStore, RECORD_BYTES_MAX, all_of};

#[async_trait]
impl ExportTransactions for DynamoStore {
    async fn standing(&self, lane: LaneId) -> Result<Standing, StoreError> {
        let lane = self.lane(lane).await?;
        let (heads, paused) = self.heads(&lane).await?;
        let leases = heads.iter().map(|head| head.entries.len() as u64).sum();
        Ok(Standing { topic: lane.topic, paused, leases })
    }

    /// Looks at the whole table, whatever the lane.
    async fn page(&self, lane: LaneId, after: Option<&str>, rows_max: usize) -> Result<Page, StoreError> {
        let scan = self.aws.client.scan().table_name(&self.aws.table).consistent_read(true);
        let scan = scan
            .filter_expression(format!("{SK} = :tx AND {LANE} = :lane"))
            .expression_attribute_values(":tx", s(TX))
            .expression_attribute_values(":lane", n(lane))
            .limit(rows_max.clamp(1, 1000) as i32)
            .set_exclusive_start_key(after.map(start_key));
        let got = scan.send().await.map_err(|error| failed(&error, self.aws.call("Scan")))?;
        let rows = got.items.unwrap_or_default().iter().map(carried).collect::<Result<Vec<_>, _>>()?;
        let next = got.last_evaluated_key.map(|key| end_key(&key)).transpose()?;
        Ok(Page { rows, next })
    }

    async fn find(&self, lane: LaneId, ids: &[Uuid]) -> Result<Vec<Carried>, StoreError> {
        let rows = self.aws.get_all(ids.iter().map(|id| (keys::tx(*id), TX.to_owned())).collect()).await?;
        let of_lane = |row: &&Row| super::values::number(row, LANE) == Some(lane.0);
        rows.iter().filter(of_lane).map(carried).collect()
    }
}

#[async_trait]
impl ImportTransactions for DynamoStore {
    async fn import(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError> {
        let bytes = |row: &Carried| row.record.as_ref().map_or(0, Bytes::len);
        if let Some(row) = rows.iter().find(|row| bytes(row) > RECORD_BYTES_MAX) {
            return Err(StoreError::Asked(format!(
                "the record of transaction {} has {} bytes, and DynamoDB takes {RECORD_BYTES_MAX}: this lane cannot move there",
                row.id,
                bytes(row)
            )));
        }
        let shards = self.lane(lane).await?.shards;
        let mut puts = Vec::with_capacity(rows.len());
        for row in rows {
            let (tx, shard) = (imported(lane, row), Shard { lane, number: shard_of(row.id, shards) });
            puts.push(async move { self.put_new(&tx, shard).await }.boxed());
        }
        let written = all_of(puts).await?;
        Ok(written.iter().filter(|one| matches!(one, Written::Done)).count() as u64)
    }

    async fn renew(&self, lane: LaneId, rows: &[Carried]) -> Result<u64, StoreError> {
        let shards = self.lane(lane).await?.shards;
        let keys = rows.iter().map(|row| (keys::tx(row.id), TX.to_owned())).collect();
        let mut seen: HashMap<Uuid, Tx> = HashMap::new();
        for row in &self.aws.get_all(keys).await? {
            let tx = Tx::of(row)?;
            seen.insert(tx.id, tx);
        }
        let mut renewals = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(seen) = seen.remove(&row.id).filter(|tx| tx.lane == lane) {
                let shard = Shard { lane, number: shard_of(row.id, shards) };
                renewals.push(self.renew_one(shard, seen, row).boxed());
            }
        }
        Ok(all_of(renewals).await?.into_iter().filter(|renewed| *renewed).count() as u64)
    }
}

impl DynamoStore {
    /// `false`: somebody changed it meanwhile.
    async fn renew_one(&self, shard: Shard, seen: Tx, row: &Carried) -> Result<bool, StoreError> {
        if seen.state.is_outcome() {
            for said in &row.contradictions {
                tx::contradict(&self.aws, row.id, said).await?;
            }
            return Ok(seen.state == row.state);
        }
        let (state, fence) = (seen.state.name(), seen.fence);
        // Its fence stays: leases that once named it must not have it again.
        let mut tx = Tx { fence, ..imported(shard.lane, row) };
        tx.record = tx.record.or(seen.record);
        let put = self.aws.client.put_item().table_name(&self.aws.table).set_item(Some(tx.row(shard)));
        let put = put.condition_expression(format!("{STATE} = :seen AND {FENCE} = :fence"));
        let put = put.expression_attribute_values(":seen", s(state)).expression_attribute_values(":fence", n(fence));
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
                Ok(false)
            }
            Err(error) => Err(failed(&error, self.aws.call("PutItem"))),
        }
    }
}

fn start_key(after: &str) -> Row {
    let (pk, sk) = after.split_once('\n').unwrap_or((after, TX));
    HashMap::from([(PK.to_owned(), s(pk)), (SK.to_owned(), s(sk))])
}

/// A scan may end a page at any item. Only transactions are asked for, but it counts what it passes over; then it is gone on from
/// there all the same, which takes both of its keys.
fn end_key(key: &HashMap<String, AttributeValue>) -> Result<String, StoreError> {
    match (text(key, PK), text(key, SK)) {
        (Some(pk), Some(TX)) => Ok(pk.to_owned()),
        (Some(pk), Some(sk)) => Ok(format!("{pk}\n{sk}")),
        _ => Err(damaged("a page that ends nowhere")),
    }
}

fn carried(row: &Row) -> Result<Carried, StoreError> {
    let tx = Tx::of(row)?;
    Ok(Carried {
        id: tx.id,
        state: tx.state,
        attempts: tx.attempts,
        crashes: tx.crashes,
        maybe_done: tx.maybe_done,
        since: tx.since,
        first_sent: tx.first_sent,
        due: tx.due,
        at: tx.at,
        code: tx.code,
        detail: tx.detail,
        tried: tx.tried,
        contradictions: tx.contradictions,
        record: tx.record,
    })
}

/// As if it had been here from the start: no lease of this table has ever named it.
fn imported(lane: LaneId, row: &Carried) -> Tx {
    Tx {
        id: row.id,
        lane,
        state: row.state,
        attempts: row.attempts,
        crashes: row.crashes,
        doubt: row.state == State::Doubt,
        maybe_done: row.maybe_done,
        since: row.since,
        first_sent: row.first_sent,
        due: Some(row.due.unwrap_or(row.since)),
        at: row.at,
        code: row.code,
        detail: row.detail.clone(),
        fence: 0,
        queue: None,
        place: None,
        record: row.record.clone(),
        tried: row.tried.clone(),
        contradictions: row.contradictions.clone(),
    }
}
