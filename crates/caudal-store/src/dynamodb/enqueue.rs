//! Making transactions pending. There is no table of records here to which they could be appended: the item is the record.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;
use bytes::Bytes;
use caudal_core::confirm::{LaneId, State};
use caudal_core::error::StoreError;
use caudal_core::json;
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
    /// [`StoreError::Asked`] when an id is there with another record or in another lane, or a record is too large or no object; the
    /// others may be pending then.
    pub async fn enqueue(&self, lane: LaneId, items: &[(Uuid, Bytes)]) -> Result<Enqueued, StoreError> {
        let mut enqueued = Enqueued::default();
        for done in self.enqueue_each(lane, items).await? {
            match done {
                Ok(true) => enqueued.new += 1,
                Ok(false) => enqueued.repeats += 1,
                Err(why) => return Err(StoreError::Asked(why)),
            }
        }
        Ok(enqueued)
    }

    /// The same, and says of each, in order, what became of it: `true`, it is new; `false`, it was there, the same; or why it is
    /// refused, which does not keep the others.
    pub async fn enqueue_each(
        &self,
        lane: LaneId,
        items: &[(Uuid, Bytes)],
    ) -> Result<Vec<Result<bool, String>>, StoreError> {
        let (shards, now) = (self.lane(lane).await?.shards, self.clock.now());
        let mut first: HashMap<Uuid, (usize, &Bytes)> = HashMap::new();
        let mut done = Vec::with_capacity(items.len());
        let mut puts = Vec::with_capacity(items.len());
        for (at, (id, record)) in items.iter().enumerate() {
            done.push(check(*id, record).map(|()| false));
            if done[at].is_err() {
                continue;
            }
            match first.entry(*id) {
                Entry::Vacant(place) => {
                    place.insert((at, record));
                    let tx = pending(lane, *id, record, Instant(now.0 + at as i64));
                    let shard = Shard { lane, number: shard_of(*id, shards) };
                    puts.push(async move { Ok((at, self.put(&tx, shard).await?)) }.boxed());
                }
                Entry::Occupied(before) if same(before.get().1, record) => {}
                Entry::Occupied(_) => done[at] = Err(other_content(*id)),
            }
        }
        for (at, put) in all_of(puts).await? {
            done[at] = put;
        }
        // What repeats one that was refused is refused with it.
        for (at, (id, _)) in items.iter().enumerate() {
            if let (Ok(_), Some(Err(why))) = (&done[at], first.get(id).map(|(first, _)| done[*first].clone())) {
                done[at] = Err(why);
            }
        }
        Ok(done)
    }

    async fn put(&self, tx: &Tx, shard: Shard) -> Result<Result<bool, String>, StoreError> {
        Ok(match self.put_new(tx, shard).await? {
            Written::Done => Ok(true),
            Written::Refused(Some(there)) => {
                let same = text(&there, RECORD)
                    .is_some_and(|there| tx.record.as_deref().is_some_and(|ours| same(ours, there.as_bytes())));
                match same && number(&there, LANE) == Some(tx.lane.0) {
                    true => Ok(false),
                    false => Err(other_content(tx.id)),
                }
            }
            Written::Refused(None) => Err(other_content(tx.id)),
        })
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

fn check(id: Uuid, record: &Bytes) -> Result<(), String> {
    if record.len() > RECORD_BYTES_MAX {
        return Err(format!(
            "the record of transaction {id} has {} bytes, and DynamoDB takes {RECORD_BYTES_MAX}: keep what is large elsewhere, and \
             its place in the record",
            record.len()
        ));
    }
    let is_object = std::str::from_utf8(record).is_ok_and(|text| text.trim_start().starts_with('{'));
    is_object.then_some(()).ok_or_else(|| format!("the record of transaction {id} is not a JSON object"))
}

/// Whether they say the same, in whatever order of members.
fn same(one: &[u8], other: &[u8]) -> bool {
    let texts = std::str::from_utf8(one).ok().zip(std::str::from_utf8(other).ok());
    one == other || texts.is_some_and(|(one, other)| json::same(one, other))
}

fn other_content(id: Uuid) -> String {
    format!(
        "transaction {id} is there already with another record or in another lane: the same id must mean the same transaction"
    )
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
