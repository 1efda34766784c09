//! Lanes: their numbers, their shards, and whether they are paused.

use std::sync::PoisonError;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue};
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{LaneSpec, Records};
use caudal_core::error::StoreError;
use caudal_core::topic::TopicName;

use super::DynamoStore;
use super::error::failed;
use super::keys::{LANES, PK, SK};
use super::tx::{Update, Written};
use super::values::{Row, n, needed, number, s, text, time};

const NUMBER: &str = "num";
const TOPIC: &str = "topic";
const NAME: &str = "lanename";
const SHARDS: &str = "shards";
const PAUSED: &str = "paused";
const PAUSED_AT: &str = "pausedat";
/// Sorts before all lanes: no topic begins so.
const COUNTER: &str = "#numbers";

/// A lane as its item has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) id: LaneId,
    pub(super) topic: String,
    pub(super) name: String,
    pub(super) shards: u16,
    /// Why it is paused, while it is.
    pub(super) paused: Option<String>,
}

impl Lane {
    pub(super) fn of(row: &Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: LaneId(needed(number(row, NUMBER), NUMBER, row)?),
            topic: needed(text(row, TOPIC), TOPIC, row)?.to_owned(),
            name: needed(text(row, NAME), NAME, row)?.to_owned(),
            shards: needed(number(row, SHARDS), SHARDS, row)?,
            paused: text(row, PAUSED).map(str::to_owned),
        })
    }

    pub(super) fn key(&self) -> String {
        key(&self.topic, &self.name)
    }
}

/// Topics have no `#` in their names.
fn key(topic: &str, name: &str) -> String {
    format!("{topic}#{name}")
}

impl DynamoStore {
    pub(super) async fn ensure_all_lanes(&self, specs: &[LaneSpec]) -> Result<Vec<LaneId>, StoreError> {
        let mut numbers = Vec::with_capacity(specs.len());
        for spec in specs {
            if let Records::Adopted(adopt) = &spec.records {
                return Err(StoreError::Setup(format!(
                    "lane {} of {} adopts table {}, which is not in DynamoDB: keep the lane in the database that has the table",
                    spec.name, spec.topic, adopt.table.name
                )));
            }
            numbers.push(self.ensure_lane(&spec.topic, &spec.name).await?.id);
        }
        Ok(numbers)
    }

    pub(super) async fn ensure_lane(&self, topic: &TopicName, name: &str) -> Result<Lane, StoreError> {
        let key = key(topic.as_str(), name);
        let lane = match self.aws.get(LANES.to_owned(), &key).await? {
            Some(row) => Lane::of(&row)?,
            None => self.make_lane(topic, name, &key).await?,
        };
        // Also when the lane was there: whoever made it may have died before it had made these.
        self.ledger.ensure(lane.id, lane.shards).await?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.id, lane.clone());
        Ok(lane)
    }

    async fn make_lane(&self, topic: &TopicName, name: &str, key: &str) -> Result<Lane, StoreError> {
        let number = self.next_number().await?;
        let update = Update::of(&self.aws, LANES.to_owned(), key.to_owned())
            .set(NUMBER, n(number))
            .set(TOPIC, s(topic.as_str()))
            .set(NAME, s(name))
            .set(SHARDS, n(self.shards));
        match update.write_if(&self.aws, &format!("attribute_not_exists({PK})")).await? {
            // Somebody else was first, or this is the second try of the same write.
            Written::Refused(Some(row)) => Lane::of(&row),
            Written::Refused(None) => Err(super::error::damaged(format!("lane {key} is and is not there"))),
            Written::Done => Ok(Lane {
                id: LaneId(number),
                topic: topic.to_string(),
                name: name.to_owned(),
                shards: self.shards,
                paused: None,
            }),
        }
    }

    /// A number that no lane has. Some are never used: when two make the same lane at once.
    async fn next_number(&self) -> Result<i32, StoreError> {
        let update = self.aws.client.update_item().table_name(&self.aws.table).key(PK, s(LANES)).key(SK, s(COUNTER));
        let update = update.update_expression(format!("ADD {NUMBER} :one"));
        let update = update.expression_attribute_values(":one", n(1)).return_values(ReturnValue::UpdatedNew);
        let updated = update.send().await.map_err(|error| failed(&error, self.aws.call("UpdateItem")))?;
        let row = updated.attributes.unwrap_or_default();
        needed(number(&row, NUMBER), NUMBER, &row)
    }

    pub(super) async fn all_lanes(&self) -> Result<Vec<Lane>, StoreError> {
        let rows = self.aws.partition(LANES).await?;
        rows.iter().filter(|row| text(row, SK) != Some(COUNTER)).map(Lane::of).collect()
    }

    /// A lane by its number; whether it is paused may have changed since.
    pub(super) async fn lane(&self, id: LaneId) -> Result<Lane, StoreError> {
        if let Some(lane) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            return Ok(lane.clone());
        }
        let all = self.all_lanes().await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(all.into_iter().map(|lane| (lane.id, lane)));
        known.get(&id).cloned().ok_or_else(|| {
            StoreError::Asked(format!(
                "there is no lane {id} in table {}: ensure_lanes makes lanes known",
                self.aws.table
            ))
        })
    }

    pub(super) async fn set_paused(
        &self,
        topic: &TopicName,
        lane: Option<&str>,
        reason: Option<&str>,
    ) -> Result<u64, StoreError> {
        let mut changed = 0;
        for found in self.all_lanes().await? {
            if found.topic != topic.as_str() || lane.is_some_and(|lane| lane != found.name) {
                continue;
            }
            let at = reason.map(|_| time(self.clock.now()));
            let update = Update::of(&self.aws, LANES.to_owned(), found.key())
                .set_or_remove(PAUSED, reason.map(s))
                .set_or_remove(PAUSED_AT, at)
                .set(NAME, AttributeValue::S(found.name));
            let was = if reason.is_some() { "attribute_not_exists" } else { "attribute_exists" };
            let condition = format!("attribute_exists({PK}) AND {was}({PAUSED})");
            changed += u64::from(matches!(update.write_if(&self.aws, &condition).await?, Written::Done));
        }
        Ok(changed)
    }
}
