//! The topics this process serves, each with its current schema.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::{Confirmations, LaneSpec, Records};
use caudal_core::encode::Encoder;
use caudal_core::error::StoreError;
use caudal_core::json_schema::{self, SchemaError};
use caudal_core::ports::{AppendBatch, Lanes, Store};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::row::{Row, RowBatch, field};
use caudal_core::schema::{Column, ColumnType, Property, RecordSchema, Table, UnknownFields};
use caudal_core::topic::TopicName;
use serde_json::Value;
use tokio::sync::watch;

use crate::evolve;
use crate::group::Group;
use crate::metrics::TopicMetrics;
use crate::pending::Pending;

/// A topic as configured.
#[derive(Debug, Clone)]
pub struct TopicConfig {
    pub name: TopicName,
    /// JSON Schema 2020-12; without one every message is kept whole.
    pub schema: Option<Value>,
    pub unknown_fields: UnknownFields,
    /// Properties whose values together are the dedup key.
    pub key: Vec<String>,
    /// Numbers the rows in order of storing, in `_row`.
    pub row_number: bool,
    /// Without it records stay.
    pub retention: Option<Retention>,
    /// With it each record that is stored becomes a pending confirmation in the same commit.
    pub lanes: Option<LanesConfig>,
}

/// The lanes in which a topic's records wait to be confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanesConfig {
    /// The most urgent first. At least one.
    pub names: Vec<String>,
    /// The property whose value names the lane; records without a value go into the last one.
    pub property: Option<String>,
}

impl LanesConfig {
    /// One lane for everything.
    pub fn one() -> Self {
        Self { names: vec!["default".to_owned()], property: None }
    }
}

/// How long records stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// From storing to removal.
    pub records: Duration,
    /// How long a key goes on deduplicating after its record is gone.
    pub keys: Duration,
}

impl TopicConfig {
    fn with_retention(&self, mut schema: RecordSchema) -> RecordSchema {
        Arc::make_mut(&mut schema.table).expires = self.retention.map(|retention| retention.records);
        schema
    }
}

/// A topic in service.
#[derive(Debug)]
pub struct Topic {
    pub name: TopicName,
    pub config: TopicConfig,
    encoder: RwLock<Arc<Encoder>>,
    /// For schemas with keywords that the encoder does not know.
    validator: Option<jsonschema::Validator>,
    /// Held while the table is being changed, so that one change runs at a time.
    pub(crate) evolving: tokio::sync::Mutex<()>,
    pub metrics: TopicMetrics,
    /// Where single messages wait for a commit that they share.
    pub(crate) group: OnceLock<Group>,
    /// What was published and may wait in a broker that cannot be searched.
    pub(crate) pending: Pending,
    /// Goes up with every commit; live tails wait on it.
    pub(crate) commits: watch::Sender<u64>,
    /// The numbers of the configured lanes, once the store has given them.
    lanes: OnceLock<Vec<LaneId>>,
}

impl Topic {
    pub fn new(config: TopicConfig, metrics: TopicMetrics) -> Result<Self, SchemaError> {
        let (schema, full) = compile(&config)?;
        let validator = match (&config.schema, full) {
            (Some(schema), true) => jsonschema::validator_for(schema).ok(),
            _ => None,
        };
        let encoder = RwLock::new(Arc::new(Encoder::new(&config.name, Arc::new(schema))));
        let commits = watch::Sender::new(0);
        Ok(Self {
            name: config.name.clone(),
            config,
            encoder,
            validator,
            evolving: Default::default(),
            metrics,
            group: OnceLock::new(),
            pending: Pending::default(),
            commits,
            lanes: OnceLock::new(),
        })
    }

    /// The lanes as the store is told of them.
    pub fn lane_specs(&self) -> Vec<LaneSpec> {
        let names = self.config.lanes.iter().flat_map(|lanes| &lanes.names);
        let spec = |name: &String| LaneSpec {
            topic: self.name.clone(),
            name: name.clone(),
            records: Records::Topic(self.table()),
        };
        names.map(spec).collect()
    }

    /// Makes the topic's table, or adds what it lacks, and takes over the columns that another process added.
    pub async fn know_table(&self, store: &dyn Store) -> Result<(), StoreError> {
        let beyond = store.ensure_table(&self.table()).await?;
        evolve::adopt(self, &beyond);
        Ok(())
    }

    /// Makes the topic's lanes known to where its confirmations are kept, and notes their numbers.
    pub async fn know_lanes(&self, store: &dyn Confirmations) -> Result<(), StoreError> {
        let specs = self.lane_specs();
        if !specs.is_empty() {
            // A lane has the same number every time.
            let _ = self.lanes.set(store.ensure_lanes(&specs).await?);
        }
        Ok(())
    }

    /// The numbers of its lanes; none before [`know_lanes`](Self::know_lanes).
    pub fn known_lanes(&self) -> &[LaneId] {
        self.lanes.get().map_or(&[], Vec::as_slice)
    }

    /// Where each row of a batch is to be confirmed. Fails where the store was never asked for the lanes' numbers: a record that is
    /// stored without becoming pending would be forgotten.
    pub(crate) fn assign_lanes(&self, batch: &mut AppendBatch) -> Result<(), StoreError> {
        batch.lanes = self.lanes_of(&batch.table, &batch.rows)?;
        Ok(())
    }

    /// The lane of each of these rows.
    pub(crate) fn lanes_of(&self, table: &Table, rows: &RowBatch) -> Result<Lanes, StoreError> {
        let Some(config) = &self.config.lanes else { return Ok(Lanes::None) };
        let lanes = self.lanes.get().filter(|lanes| !lanes.is_empty());
        let lanes = lanes.ok_or_else(|| StoreError::unavailable("the topic's lanes are not known yet"))?;
        let last = lanes[lanes.len() - 1];
        let property = config.property.as_deref();
        let column = property.and_then(|name| table.written().position(|column| column.name == name));
        Ok(match column {
            Some(column) => Lanes::Each(rows.rows().map(|row| lane_of(row, column, config, lanes)).collect()),
            None => Lanes::All(last),
        })
    }

    /// The encoder of the schema as it is now.
    pub fn encoder(&self) -> Arc<Encoder> {
        self.encoder.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn table(&self) -> Arc<Table> {
        self.encoder().schema.table.clone()
    }

    /// Notes a commit for those who wait for news of this topic.
    pub(crate) fn committed(&self) {
        self.commits.send_modify(|n| *n += 1);
    }

    /// A watch that changes with every commit of this process.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Adds columns to the schema: those that a topic with `unknown_fields = "add"` has met.
    pub(crate) fn extend(&self, columns: &[Column]) {
        let current = self.encoder();
        let mut properties = current.schema.properties.clone().unwrap_or_default();
        for column in columns {
            if !properties.iter().any(|p| p.name == column.name) {
                properties.push(Property {
                    name: column.name.clone(),
                    ty: column.ty,
                    nullable: true,
                    required: false,
                    checks: Default::default(),
                });
            }
        }
        let config = &self.config;
        let schema = RecordSchema::typed(
            config.name.as_str(),
            properties,
            config.unknown_fields,
            config.key.clone(),
            config.row_number,
        );
        let encoder = Arc::new(Encoder::new(&config.name, Arc::new(config.with_retention(schema))));
        *self.encoder.write().unwrap_or_else(PoisonError::into_inner) = encoder;
    }

    /// Checks what only a full validator can; the encoder checks the rest.
    pub(crate) fn validate(&self, body: &[u8]) -> Result<(), Rejection> {
        let Some(validator) = &self.validator else { return Ok(()) };
        // What is not JSON is left to the encoder, which says precisely why.
        let Ok(document) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
        match validator.iter_errors(&document).next() {
            None => Ok(()),
            Some(error) => {
                let mut detail = error.to_string();
                detail.truncate(detail.floor_char_boundary(300));
                Err(Rejection::new(Code::Schema, error.instance_path().to_string(), detail))
            }
        }
    }
}

fn lane_of(mut row: Row<'_>, column: usize, config: &LanesConfig, lanes: &[LaneId]) -> LaneId {
    let name = row.nth(column).flatten().map(field::text);
    let at = name.and_then(|name| config.names.iter().position(|known| known == name));
    lanes[at.unwrap_or(lanes.len() - 1).min(lanes.len() - 1)]
}

/// Lets a record name no lane that does not exist.
fn check_lanes(config: &TopicConfig, properties: &mut [Property]) -> Result<(), SchemaError> {
    let Some(LanesConfig { names, property: Some(property) }) = &config.lanes else { return Ok(()) };
    let found = properties.iter_mut().find(|p| p.name == *property && p.ty == ColumnType::Text);
    let found = found.ok_or_else(|| SchemaError::LaneUnknown(property.clone()))?;
    found.checks.one_of = Some(names.iter().map(|name| Value::String(name.clone()).to_string()).collect());
    Ok(())
}

fn compile(config: &TopicConfig) -> Result<(RecordSchema, bool), SchemaError> {
    let name = config.name.as_str();
    let Some(schema) = &config.schema else {
        check_lanes(config, &mut [])?;
        return match config.key.first() {
            Some(key) => Err(SchemaError::KeyUnknown(key.clone())),
            None => Ok((config.with_retention(RecordSchema::untyped(name, config.row_number)), false)),
        };
    };
    let mut compiled = json_schema::compile(schema)?;
    check_lanes(config, &mut compiled.properties)?;
    if let Some(stray) = config.key.iter().find(|k| !compiled.properties.iter().any(|p| p.name == **k)) {
        return Err(SchemaError::KeyUnknown(stray.clone()));
    }
    let unknown = if compiled.closed { UnknownFields::Reject } else { config.unknown_fields };
    let full = !compiled.beyond.is_empty();
    let record = RecordSchema::typed(name, compiled.properties, unknown, config.key.clone(), config.row_number);
    Ok((config.with_retention(record), full))
}

/// Every topic by name. Fixed for the life of the process.
#[derive(Debug, Default)]
pub struct Topics {
    by_name: BTreeMap<String, Arc<Topic>>,
}

impl Topics {
    pub fn new(topics: impl IntoIterator<Item = Topic>) -> Self {
        Self { by_name: topics.into_iter().map(|t| (t.name.to_string(), Arc::new(t))).collect() }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.by_name.values()
    }

    /// The topic name closest to `name`, for "did you mean".
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
