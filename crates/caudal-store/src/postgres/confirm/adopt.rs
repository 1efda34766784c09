//! Tables that somebody else writes: their pending rows become transactions of ours, and what became of them is written back.

use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Adopt, Records};
use caudal_core::error::StoreError;
use caudal_core::schema::{Column, ColumnType};
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::PostgresStore;
use super::super::error::store_error;
use super::super::operate::Typed;
use super::super::sql::{quoted, table_name};
use super::super::wire::type_name;
use crate::adopting::transaction_of;

/// Pending in the same statement as known: a row cannot be known and wait nowhere.
const KNOWN_AND_PENDING: &str = "
with new as (
  insert into _confirm_adopted (tx, lane, key)
  select u.tx, $1, u.key from unnest($2::uuid[], $3::text[]) as u(tx, key) order by u.tx
  on conflict do nothing returning tx, key),
put as (
  insert into _confirm_ready (lane, rank, tx, attempts, crashes, doubt, fresh, since)
  select $1, 0, new.tx, 0, 0, false, true, clock_timestamp()
  from new join unnest($3::text[]) with ordinality as u(key, n) on u.key = new.key order by u.n),
counted as (
  insert into _confirm_counts as c (lane, writer, enqueued)
  select $1, $4, count(*) from new having count(*) > 0
  on conflict (lane, writer) do update set enqueued = c.enqueued + excluded.enqueued)
select count(*) from new";

impl PostgresStore {
    pub(super) async fn adopt_rows(&self, lane: LaneId, rows_max: usize) -> Result<u64, StoreError> {
        let known = self.lanes.get(lane)?;
        let Records::Adopted(adopt) = &known.records else { return Ok(0) };
        let limit = rows_max as i64;
        let params: [Typed<'_>; 3] = [(&lane.0, Type::INT4), (&adopt.pending, Type::TEXT), (&limit, Type::INT8)];
        let rows = self.ask_over(&self.confirmers, &find_sql(adopt), &params, true).await?;
        let keys = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>().map_err(store_error)?;
        if keys.is_empty() {
            return Ok(0);
        }
        let txs: Vec<Uuid> = keys.iter().map(|key| transaction_of(&known.topic, key)).collect();
        let params: [Typed<'_>; 4] =
            [(&lane.0, Type::INT4), (&txs, Type::UUID_ARRAY), (&keys, Type::TEXT_ARRAY), (&self.instance, Type::TEXT)];
        let rows = self.confirm(KNOWN_AND_PENDING, &params).await?;
        let new: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        Ok(new.unwrap_or_default() as u64)
    }
}

/// Pending rows that are not known, in the order of their keys.
fn find_sql(adopt: &Adopt) -> String {
    let (key, state) = (quoted(&adopt.key), quoted(&adopt.state));
    format!(
        "select t.{key}::text from {} t where t.{state}::text = $2
           and not exists (select from _confirm_adopted a where a.lane = $1 and a.key = t.{key}::text)
         order by t.{key} limit $3",
        table_name(&adopt.table)
    )
}

/// The rows of transactions, as they travel.
pub(super) fn records_sql(adopt: &Adopt) -> String {
    let columns: Vec<String> = adopt.table.columns.iter().map(travelling).collect();
    format!(
        "select a.tx, {} from _confirm_adopted a join {} t on t.{} = {} where a.tx = any($1)",
        columns.join(", "),
        table_name(&adopt.table),
        quoted(&adopt.key),
        key_cast(adopt)
    )
}

/// Writes outcomes back into rows that are still pending: what its owner changed meanwhile is left alone. `None` where nothing
/// is to be written. The values are for `$2` (pending), `$3` (confirmed) and `$4` (rejected); an empty one is not written.
pub(super) fn write_back_sql(adopt: &Adopt) -> Option<(String, Vec<String>)> {
    if adopt.confirmed.is_none() && adopt.rejected.is_none() {
        return None;
    }
    let state = quoted(&adopt.state);
    let mut words: Vec<String> = Vec::new();
    for (outcome, word, at) in [("confirmed", &adopt.confirmed, "$3"), ("rejected", &adopt.rejected, "$4")] {
        if word.is_some() {
            words.push(format!("when '{outcome}' then {at}::text"));
        }
    }
    let becomes = format!("(case o.state {} end)", words.join(" "));
    let sql = format!(
        "update {} t set {state} = {becomes}::{} from _confirm_outcomes o join _confirm_adopted a on a.tx = o.tx
         where o.tx = any($1) and t.{} = {} and t.{state}::text = $2 and {becomes} is not null
           and ($3::text is not null or $4::text is not null)",
        table_name(&adopt.table),
        column_type(adopt, &adopt.state),
        quoted(&adopt.key),
        key_cast(adopt),
    );
    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    Some((sql, vec![adopt.pending.clone(), word(&adopt.confirmed), word(&adopt.rejected)]))
}

/// The kept key as the column's own type, so that its index finds the row.
fn key_cast(adopt: &Adopt) -> String {
    format!("a.key::{}", column_type(adopt, &adopt.key))
}

/// As the database spells it.
fn column_type<'a>(adopt: &'a Adopt, name: &str) -> &'a str {
    let column = adopt.table.column(name).map(|at| &adopt.table.columns[at]);
    column.map_or("text", |column| column.declared.as_deref().unwrap_or(type_name(column.ty)))
}

fn travelling(column: &Column) -> String {
    let name = format!("t.{}", quoted(&column.name));
    match (&column.declared, column.ty) {
        (None, _) => name,
        (Some(_), ColumnType::Jsonb) => format!("to_json({name})"),
        (Some(_), ty) => format!("{name}::{}", type_name(ty)),
    }
}
