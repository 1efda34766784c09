//! Making transactions pending. There is no table of records here to which they could be appended: the item is the record.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use bytes::Bytes;
use caudal_core::confirm::{LaneId, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use futures_util::FutureExt;
use uuid::Uuid;

use super::error::failed;
use super::keys::{PK, Shard, shard_of};
use super::tx::{LANE, RECORD, Tx, Written};
use super::values::{number, text};
use super::{DynamoStore, all_of};

/// A record's bytes. An item of DynamoDB has 400 KB, and its attempts need room, too.
pub const RECORD_BYTES_MAX: usize = 350 * 1024;

/// What enqueueing came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enqueued {
    pub new: u64,
    /// That were there already, with the same record.
    pub repeats: u64,
}

impl DynamoStore {
    /// Makes transactions pending: an id, and its record as a JSON object. Each is one write, durable when this returns; those of
    /// one call become due in their order. An id that is there already with the same record is left as it is, so that the call can
    /// be repeated after a failure, which says nothing about how far it came.
    ///
    /// # Errors
    /// [`StoreError::Asked`] when an id is there with another record or in another lane, or a record is too large or no object. Those are
    /// looked at before anything is written, except for what other calls wrote at the same time.
    pub async fn enqueue(&self, lane: LaneId, items: &[(Uuid, Bytes)]) -> Result<Enqueued, StoreError> {
        let (shards, now) = (self.lane(lane).await?.shards, self.clock.now());
        let mut first: HashMap<Uuid, &Bytes> = HashMap::new();
        let mut new = Vec::with_capacity(items.len());
        for (at, (id, record)) in items.iter().enumerate() {
            check(*id, record)?;
            match first.insert(*id, record) {
                None => new.push(pending(lane, *id, record, Instant(now.0 + at as i64))),
                Some(before) if before == record => {}
                Some(_) => return Err(other_content(*id)),
            }
        }
        let repeats = (items.len() - new.len()) as u64;
        let mut puts = Vec::with_capacity(new.len());
        for tx in &new {
            puts.push(self.put(tx, Shard { lane, number: shard_of(tx.id, shards) }).boxed());
        }
        let put = all_of(puts).await?;
        let new = put.iter().filter(|is_new| **is_new).count() as u64;
        Ok(Enqueued { new, repeats: repeats + put.len() as u64 - new })
    }

    /// `false`: it was there, the same.
    async fn put(&self, tx: &Tx, shard: Shard) -> Result<bool, StoreError> {
        match self.put_new(tx, shard).await? {
            Written::Done => Ok(true),
            Written::Refused(Some(there)) => {
                let same = text(&there, RECORD).map(str::as_bytes) == tx.record.as_deref();
                match same && number(&there, LANE) == Some(tx.lane.0) {
                    true => Ok(false),
                    false => Err(other_content(tx.id)),
                }
            }
            Written::Refused(None) => Err(other_content(tx.id)),
        }
    }

    pub(super) async fn put_new(&self, tx: &Tx, shard: Shard) -> Result<Written, StoreError> {
        let put = self.aws.client.put_item().table_name(&self.aws.table).set_item(Some(tx.row(shard)));
        let put = put.condition_expression(format!("attribute_not_exists({PK})"));
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Written::Done),
            Err(error) => match error.as_service_error() {
                Some(service) if service.is_conditional_check_failed_exception() => {
                    use aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException as Failed;
                    let Failed(refused) = error.into_service_error() else { return Ok(Written::Refused(None)) };
                    Ok(Written::Refused(refused.item))
                }
                _ => Err(failed(&error, self.aws.call("PutItem"))),
            },
        }
    }
}

fn check(id: Uuid, record: &Bytes) -> Result<(), StoreError> {
    if record.len() > RECORD_BYTES_MAX {
        return Err(StoreError::Asked(format!(
            "the record of transaction {id} has {} bytes, and DynamoDB takes {RECORD_BYTES_MAX}: keep what is large elsewhere, and \
             its place in the record",
            record.len()
        )));
    }
    let is_object = std::str::from_utf8(record).is_ok_and(|text| text.trim_start().starts_with('{'));
    match is_object {
        true => Ok(()),
        false => Err(StoreError::Asked(format!("the record of transaction {id} is not a JSON object"))),
    }
}

fn other_content(id: Uuid) -> StoreError {
    StoreError::Asked(format!(
        "transaction {id} is there already with another record or in another lane: the same id must mean the same transaction"
    ))
}

fn pending(lane: LaneId, id: Uuid, record: &Bytes, since: Instant) -> Tx {
    Tx {
        id,
        lane,
        state: State::Pending,
        attempts: 0,
        crashes: 0,
        doubt: false,
        maybe_done: false,
        since,
        first_sent: None,
        due: Some(since),
        at: None,
        code: None,
        detail: String::new(),
        fence: 0,
        queue: None,
        place: None,
        record: Some(record.clone()),
        tried: Vec::new(),
        contradictions: Vec::new(),
    }
}
