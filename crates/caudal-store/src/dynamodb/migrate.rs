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
use super::tx::{LANE, Tx, Written};
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
        if let Some(row) = rows.iter().find(|row| row.record.len() > RECORD_BYTES_MAX) {
            return Err(StoreError::Asked(format!(
                "the record of transaction {} has {} bytes, and DynamoDB takes {RECORD_BYTES_MAX}: this lane cannot move there",
                row.id,
                row.record.len()
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
        record: tx.record.unwrap_or_else(|| Bytes::from_static(b"{}")),
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
        record: Some(row.record.clone()),
        tried: row.tried.clone(),
        contradictions: row.contradictions.clone(),
    }
}
