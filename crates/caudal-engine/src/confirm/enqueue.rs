//! From a record to a pending transaction, where there is no table of records: what is confirmed is then put down beside where it
//! stands, and is all that is known of it.

use std::sync::Arc;

use bytes::Bytes;
use caudal_core::confirm::LaneId;
use caudal_core::encode::{Drift, Encoder, Incoming};
use caudal_core::error::StoreError;
use caudal_core::json::write_row;
use caudal_core::message::Delivery;
use caudal_core::rejection::{Code, Rejection};
use caudal_core::row::RowBatch;
use caudal_core::schema::{Column, EXTRA, PUBLISHED_AT, SOURCE};
use uuid::Uuid;

use crate::building::Record;
use crate::clock;
use crate::deliver;
use crate::topic::Topic;

/// A transaction that is to be made pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The one that the record would get if it were stored.
    pub id: Uuid,
    pub lane: LaneId,
    /// The record as its topic's columns, without when it came and from where: the same for every repeat.
    pub record: Bytes,
}

/// Why a record does not become pending.
#[derive(Debug, thiserror::Error)]
pub enum NotPending {
    #[error("{0}")]
    Rejected(Rejection),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What the record of a producer becomes. The topic's lanes must be known ([`Topic::know_lanes`]).
pub fn pending(topic: &Topic, record: &Record) -> Result<Pending, NotPending> {
    made_pending(topic, record, None)
}

/// The same for what a broker handed over.
pub fn delivered(topic: &Topic, delivery: Delivery) -> Result<Pending, NotPending> {
    let (record, arrived) = deliver::open(delivery);
    made_pending(topic, &record, arrived.id)
}

fn made_pending(topic: &Topic, record: &Record, id: Option<Uuid>) -> Result<Pending, NotPending> {
    if let Some(fault) = &record.fault {
        return Err(NotPending::Rejected(fault.clone()));
    }
    topic.validate(&record.body).map_err(NotPending::Rejected)?;
    let encoder = topic.encoder();
    let incoming = Incoming {
        id,
        key: record.key.as_deref(),
        source: &record.source,
        published_at: clock::now(),
        // They are about the way that it came, and another repeat has others.
        attributes: None,
        body: &record.body,
    };
    let mut row = RowBatch::with_capacity(1, record.body.len() + 128);
    let encoded = encoder.encode(&incoming, Uuid::nil, &mut row, &mut Drift::default());
    let encoded = encoded.map_err(NotPending::Rejected)?;
    if encoded.id.is_nil() {
        let detail = "without a key a repeat would be another transaction, confirmed once more: name the topic's key";
        return Err(NotPending::Rejected(Rejection::whole(Code::KeyMissing, detail)));
    }
    let lane = topic.lanes_of(&encoder.schema.table, &row)?.of(0);
    let lane = lane.ok_or_else(|| StoreError::Setup(format!("topic {} has no confirm section", topic.name)))?;
    Ok(Pending { id: encoded.id, lane, record: lasting(&encoder, &row) })
}

/// The row as an object, without what differs between two ways or two times in which the same record came.
fn lasting(encoder: &Arc<Encoder>, row: &RowBatch) -> Bytes {
    let kept = |(column, value): &(&Column, Option<&[u8]>)| match column.name.as_str() {
        SOURCE | PUBLISHED_AT => false,
        EXTRA => value.is_some(),
        _ => true,
    };
    let (columns, values): (Vec<_>, Vec<_>) = encoder.schema.table.written().zip(row.row(0)).filter(kept).unzip();
    let mut one = RowBatch::default();
    let mut writer = one.begin(values.len());
    for value in values {
        match value {
            Some(value) => writer.raw(value),
            None => writer.null(),
        }
    }
    writer.finish();
    let mut out = Vec::with_capacity(one.byte_len() * 2);
    write_row(&mut out, columns, one.row(0));
    out.into()
}
