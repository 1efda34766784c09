//! A transaction's item, and the three ways in which it changes: made, moved under a lease, ended by a fact. Each is one
//! conditional write of this one item.

use std::collections::HashMap;

use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use bytes::Bytes;
use caudal_core::confirm::ports::Tried;
use caudal_core::confirm::transfer::Contradiction;
use caudal_core::confirm::{Fact, LaneId, Rank, State};
use caudal_core::error::StoreError;
use caudal_core::time::Instant;
use uuid::Uuid;

use super::aws::Aws;
use super::error::{damaged, failed};
use super::keys::{self, GPK, GSK, PK, Place, SK, Shard, TX};
use super::values::{Row, cut, flag, instant, n, needed, number, s, text, time};

pub(super) const STATE: &str = "st";
pub(super) const LANE: &str = "ln";
pub(super) const ATTEMPTS: &str = "att";
pub(super) const CRASHES: &str = "cr";
pub(super) const DOUBT: &str = "dbt";
pub(super) const MAYBE_DONE: &str = "mb";
pub(super) const SINCE: &str = "sn";
pub(super) const FIRST_SENT: &str = "fs";
pub(super) const DUE: &str = "du";
pub(super) const AT: &str = "ats";
pub(super) const CODE: &str = "cd";
pub(super) const DETAIL: &str = "det";
/// The number of the last lease under which the item was moved. Each lease moves an item once at most, and none that is older
/// than the last moves it at all.
pub(super) const FENCE: &str = "fnc";
pub(super) const RECORD: &str = "rec";
pub(super) const TRIED: &str = "tried";
/// What contradicted the outcome, by what it said.
const CONTRADICTIONS: [(&str, Fact); 2] = [("contra_confirmed", Fact::Confirmed), ("contra_rejected", Fact::Rejected)];

/// Open, and waiting in a queue or taken from it.
const WAITING: [State; 3] = [State::Pending, State::Retry, State::Doubt];
/// Without an outcome.
pub(super) const OPEN: [State; 5] = [State::Pending, State::Retry, State::Doubt, State::Held, State::Dead];

/// Bytes of a detail that are kept with the transaction, and with each of its attempts.
const DETAIL_MAX: usize = 2048;
const TRIED_DETAIL_MAX: usize = 512;
pub(super) const TRIED_MAX: usize = 50;
/// Attempts beyond the limit that may lie there until they are trimmed.
const TRIED_SLACK: usize = 10;

/// A transaction as its item says, without its leases.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tx {
    pub(super) id: Uuid,
    pub(super) lane: LaneId,
    pub(super) state: State,
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    pub(super) doubt: bool,
    pub(super) maybe_done: bool,
    pub(super) since: Instant,
    pub(super) first_sent: Option<Instant>,
    pub(super) due: Option<Instant>,
    pub(super) at: Option<Instant>,
    pub(super) code: Option<u16>,
    pub(super) detail: String,
    pub(super) fence: i64,
    /// Where it waits: queue and place.
    pub(super) queue: Option<String>,
    pub(super) place: Option<String>,
    pub(super) record: Option<Bytes>,
    pub(super) tried: Vec<Tried>,
    pub(super) contradictions: Vec<Contradiction>,
}

impl Tx {
    pub(super) fn of(row: &Row) -> Result<Self, StoreError> {
        let id = needed(text(row, PK).and_then(keys::tx_id), PK, row)?;
        let tried = row.get(TRIED).and_then(|value| value.as_l().ok()).map_or(&[][..], Vec::as_slice);
        Ok(Self {
            id,
            lane: LaneId(needed(number(row, LANE), LANE, row)?),
            state: needed(text(row, STATE).and_then(State::parse), STATE, row)?,
            attempts: number(row, ATTEMPTS).unwrap_or_default(),
            crashes: number(row, CRASHES).unwrap_or_default(),
            doubt: flag(row, DOUBT),
            maybe_done: flag(row, MAYBE_DONE),
            since: needed(instant(row, SINCE), SINCE, row)?,
            first_sent: instant(row, FIRST_SENT),
            due: instant(row, DUE),
            at: instant(row, AT),
            code: number(row, CODE),
            detail: text(row, DETAIL).unwrap_or_default().to_owned(),
            fence: number(row, FENCE).unwrap_or_default(),
            queue: text(row, GPK).map(str::to_owned),
            place: text(row, GSK).map(str::to_owned),
            record: text(row, RECORD).map(|record| Bytes::from(record.to_owned())),
            tried: tried.iter().filter_map(read_tried).take(TRIED_MAX).collect(),
            contradictions: CONTRADICTIONS
                .iter()
                .filter_map(|(name, got)| read_contradiction(row, name, *got))
                .collect(),
        })
    }

    /// Whether a lease that names it has it still.
    pub(super) fn is_under(&self, lease: i64) -> bool {
        WAITING.contains(&self.state) && self.fence < lease
    }

    pub(super) fn rank(&self) -> Rank {
        Rank::of(self.crashes)
    }

    /// The whole item, for a transaction that is not there yet.
    pub(super) fn row(&self, shard: Shard) -> Row {
        let mut row: Row = HashMap::from([
            (PK.to_owned(), s(keys::tx(self.id))),
            (SK.to_owned(), s(TX)),
            (LANE.to_owned(), n(self.lane)),
            (STATE.to_owned(), s(self.state.name())),
            (ATTEMPTS.to_owned(), n(self.attempts)),
            (CRASHES.to_owned(), n(self.crashes)),
            (DOUBT.to_owned(), AttributeValue::Bool(self.doubt)),
            (MAYBE_DONE.to_owned(), AttributeValue::Bool(self.maybe_done)),
            (SINCE.to_owned(), time(self.since)),
            (DETAIL.to_owned(), s(cut(&self.detail, DETAIL_MAX))),
            (FENCE.to_owned(), n(self.fence)),
        ]);
        let mut put = |name: &str, value: Option<AttributeValue>| {
            if let Some(value) = value {
                row.insert(name.to_owned(), value);
            }
        };
        put(FIRST_SENT, self.first_sent.map(time));
        put(AT, self.at.map(time));
        put(CODE, self.code.map(n));
        put(RECORD, self.record.as_ref().map(|record| s(String::from_utf8_lossy(record))));
        put(TRIED, (!self.tried.is_empty()).then(|| AttributeValue::L(self.tried.iter().map(write_tried).collect())));
        for said in &self.contradictions {
            if let Some((name, _)) = CONTRADICTIONS.iter().find(|(_, got)| *got == said.got) {
                row.insert((*name).to_owned(), write_contradiction(said));
            }
        }
        if let Some(due) = self.due.filter(|_| WAITING.contains(&self.state)) {
            let place = Place { due, id: self.id, fence: self.fence };
            row.insert(DUE.to_owned(), time(due));
            row.insert(GPK.to_owned(), s(keys::queue(shard, self.rank())));
            row.insert(GSK.to_owned(), s(place.to_string()));
        }
        row
    }
}

fn read_tried(value: &AttributeValue) -> Option<Tried> {
    let row = value.as_m().ok()?;
    Some(Tried {
        attempt: number(row, ATTEMPTS)?,
        at: instant(row, AT)?,
        state: State::parse(text(row, STATE)?)?,
        code: number(row, CODE),
        detail: text(row, DETAIL)?.to_owned(),
    })
}

fn write_tried(tried: &Tried) -> AttributeValue {
    let mut row: Row = HashMap::from([
        (ATTEMPTS.to_owned(), n(tried.attempt)),
        (AT.to_owned(), time(tried.at)),
        (STATE.to_owned(), s(tried.state.name())),
        (DETAIL.to_owned(), s(cut(&tried.detail, TRIED_DETAIL_MAX))),
    ]);
    if let Some(code) = tried.code {
        row.insert(CODE.to_owned(), n(code));
    }
    AttributeValue::M(row)
}

fn read_contradiction(row: &Row, name: &str, got: Fact) -> Option<Contradiction> {
    let said = row.get(name)?.as_m().ok()?;
    let detail = text(said, DETAIL).unwrap_or_default().to_owned();
    Some(Contradiction { got, at: instant(said, AT)?, code: number(said, CODE), detail })
}

fn write_contradiction(said: &Contradiction) -> AttributeValue {
    let mut row: Row =
        HashMap::from([(AT.to_owned(), time(said.at)), (DETAIL.to_owned(), s(cut(&said.detail, TRIED_DETAIL_MAX)))]);
    if let Some(code) = said.code {
        row.insert(CODE.to_owned(), n(code));
    }
    AttributeValue::M(row)
}

/// What a conditional write came to.
#[derive(Debug)]
pub(super) enum Written {
    Done,
    /// Its condition did not hold: the item as it is, if it is there.
    Refused(Option<Row>),
}

/// A move of an open transaction.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) id: Uuid,
    pub(super) to: State,
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    pub(super) doubt: bool,
    pub(super) maybe_done: bool,
    /// When it was sent, where nothing earlier is known.
    pub(super) sent: Option<Instant>,
    /// When it is due, in a state that waits.
    pub(super) due: Option<Instant>,
    pub(super) at: Instant,
    pub(super) code: Option<u16>,
    pub(super) detail: String,
    /// To be listed among what did not lead to a fact.
    pub(super) tried: Option<Tried>,
}

/// An update that is being put together.
pub(super) struct Update {
    builder: UpdateItemFluentBuilder,
    set: Vec<String>,
    remove: Vec<&'static str>,
}

impl Update {
    pub(super) fn of(aws: &Aws, pk: String, sk: String) -> Self {
        let builder = aws.client.update_item().table_name(&aws.table).key(PK, s(pk)).key(SK, s(sk));
        Self { builder, set: Vec::new(), remove: Vec::new() }
    }

    pub(super) fn tx(aws: &Aws, id: Uuid) -> Self {
        Self::of(aws, keys::tx(id), TX.to_owned())
    }

    pub(super) fn set(mut self, name: &'static str, value: AttributeValue) -> Self {
        self.set.push(format!("{name} = :{name}"));
        self.value(name, value)
    }

    /// Removes the attribute where there is no value for it.
    pub(super) fn set_or_remove(mut self, name: &'static str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => {
                self.remove.push(name);
                self
            }
        }
    }

    pub(super) fn set_as(mut self, assignment: String) -> Self {
        self.set.push(assignment);
        self
    }

    pub(super) fn value(mut self, name: &str, value: AttributeValue) -> Self {
        self.builder = self.builder.expression_attribute_values(format!(":{name}"), value);
        self
    }

    /// `#lease` stands for this lease in what follows.
    pub(super) fn lease(mut self, lease: i64) -> Self {
        self.builder = self.builder.expression_attribute_names("#lease", lease.to_string());
        self
    }

    fn states(self, states: &[State]) -> (Self, String) {
        let names = states.iter().map(|state| format!(":{}", state.name())).collect::<Vec<_>>().join(", ");
        let with = |update: Self, state: &State| update.value(state.name(), s(state.name()));
        (states.iter().fold(self, with), format!("{STATE} IN ({names})"))
    }

    /// Writes it if `condition` holds.
    pub(super) async fn write_if(self, aws: &Aws, condition: &str) -> Result<Written, StoreError> {
        let mut expression = format!("SET {}", self.set.join(", "));
        if !self.remove.is_empty() {
            expression += &format!(" REMOVE {}", self.remove.join(", "));
        }
        let update = self.builder.update_expression(expression).condition_expression(condition);
        let update = update.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match update.send().await {
            Ok(_) => Ok(Written::Done),
            Err(error) => match error.as_service_error() {
                Some(service) if service.is_conditional_check_failed_exception() => {
                    use aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException as Failed;
                    let Failed(refused) = error.into_service_error() else { return Ok(Written::Refused(None)) };
                    Ok(Written::Refused(refused.item))
                }
                _ => Err(failed(&error, aws.call("UpdateItem"))),
            },
        }
    }
}

/// Moves it under a lease: once, and only while no later lease has moved it and it has no outcome.
pub(super) async fn move_under(aws: &Aws, shard: Shard, lease: i64, to: &Move) -> Result<Written, StoreError> {
    let place = to.due.map(|due| Place { due, id: to.id, fence: lease });
    let mut update = moved(Update::tx(aws, to.id), shard, place, to).set(FENCE, n(lease));
    if let Some(sent) = to.sent {
        update = update.set_as(format!("{FIRST_SENT} = if_not_exists({FIRST_SENT}, :sent)")).value("sent", time(sent));
    }
    let (update, waiting) = update.states(&WAITING);
    let written = update.write_if(aws, &format!("{FENCE} < :{FENCE} AND {waiting}")).await?;
    if matches!(written, Written::Done) && to.attempts as usize > TRIED_MAX {
        trim(aws, to.id).await?;
    }
    Ok(written)
}

/// Moves it by an operator's word, if it is still as it was seen.
pub(super) async fn move_from(aws: &Aws, shard: Shard, seen: &Tx, to: &Move) -> Result<Written, StoreError> {
    let place = to.due.map(|due| Place { due, id: to.id, fence: seen.fence });
    let update = moved(Update::tx(aws, to.id), shard, place, to);
    let update = update.value("seen", s(seen.state.name())).value(FENCE, n(seen.fence));
    update.write_if(aws, &format!("{STATE} = :seen AND {FENCE} = :{FENCE}")).await
}

fn moved(update: Update, shard: Shard, place: Option<Place>, to: &Move) -> Update {
    let queue = place.map(|_| keys::queue(shard, Rank::of(to.crashes)));
    let update = update
        .set(STATE, s(to.to.name()))
        .set(ATTEMPTS, n(to.attempts))
        .set(CRASHES, n(to.crashes))
        .set(DOUBT, AttributeValue::Bool(to.doubt))
        .set(MAYBE_DONE, AttributeValue::Bool(to.maybe_done))
        .set(AT, time(to.at))
        .set(DETAIL, s(cut(&to.detail, DETAIL_MAX)))
        .set_or_remove(CODE, to.code.map(n))
        .set_or_remove(DUE, to.due.map(time))
        .set_or_remove(GPK, queue.map(s))
        .set_or_remove(GSK, place.map(|place| s(place.to_string())));
    let Some(tried) = &to.tried else { return update };
    update
        .set_as(format!("{TRIED} = list_append(:{TRIED}, if_not_exists({TRIED}, :none))"))
        .value(TRIED, AttributeValue::L(vec![write_tried(tried)]))
        .value("none", AttributeValue::L(Vec::new()))
}

/// Ends it by a fact: whoever says so, and whatever it was in before, unless it has an outcome.
pub(super) async fn end(
    aws: &Aws,
    id: Uuid,
    outcome: State,
    attempts: Option<u32>,
    at: Instant,
    (code, detail): (Option<u16>, &str),
) -> Result<Written, StoreError> {
    let mut update = Update::tx(aws, id)
        .set(STATE, s(outcome.name()))
        .set(DOUBT, AttributeValue::Bool(false))
        .set(MAYBE_DONE, AttributeValue::Bool(false))
        .set(AT, time(at))
        .set(DETAIL, s(cut(detail, DETAIL_MAX)))
        .set_or_remove(CODE, code.map(n))
        .set_or_remove(DUE, None)
        .set_or_remove(GPK, None)
        .set_or_remove(GSK, None);
    if let Some(attempts) = attempts {
        update = update.set(ATTEMPTS, n(attempts));
    }
    let (update, open) = update.states(&OPEN);
    update.write_if(aws, &open).await
}

/// Keeps what contradicts an outcome; the first of its kind.
pub(super) async fn contradict(aws: &Aws, id: Uuid, said: &Contradiction) -> Result<(), StoreError> {
    let found = CONTRADICTIONS.iter().find(|(_, got)| *got == said.got);
    let name = found.map(|(name, _)| *name).ok_or_else(|| damaged("a fact of a third kind"))?;
    let update = Update::tx(aws, id).set(name, write_contradiction(said));
    update.write_if(aws, &format!("attribute_exists({PK}) AND attribute_not_exists({name})")).await.map(drop)
}

/// Forgets the oldest attempts when there are too many. Not in the write that adds one, because an expression cannot name a list
/// twice.
pub(super) async fn trim(aws: &Aws, id: Uuid) -> Result<(), StoreError> {
    let most = TRIED_MAX + TRIED_SLACK;
    let places = (TRIED_MAX..=most).map(|at| format!("{TRIED}[{at}]")).collect::<Vec<_>>().join(", ");
    let update = aws.client.update_item().table_name(&aws.table).key(PK, s(keys::tx(id))).key(SK, s(TX));
    let update = update.update_expression(format!("REMOVE {places}"));
    let update = update.condition_expression(format!("size({TRIED}) > :most"));
    match update.expression_attribute_values(":most", n(most)).send().await {
        Ok(_) => Ok(()),
        Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => Ok(()),
        Err(error) => Err(failed(&error, aws.call("UpdateItem"))),
    }
}
