//! The topics this process serves, each with its current schema.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use caudal_core::encode::Encoder;
use caudal_core::json_schema::{self, SchemaError};
use caudal_core::rejection::{Code, Rejection};
use caudal_core::schema::{Column, Property, RecordSchema, Table, UnknownFields};
use caudal_core::topic::TopicName;
use serde_json::Value;
use tokio::sync::watch;

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

fn compile(config: &TopicConfig) -> Result<(RecordSchema, bool), SchemaError> {
    let name = config.name.as_str();
    let Some(schema) = &config.schema else {
        return match config.key.first() {
            Some(key) => Err(SchemaError::KeyUnknown(key.clone())),
            None => Ok((config.with_retention(RecordSchema::untyped(name, config.row_number)), false)),
        };
    };
    let compiled = json_schema::compile(schema)?;
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
