//! From `[topics.<name>.confirm]` and `[adopt.<name>]` to what the confirmation engine runs with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use caudal_confirm::command::{CommandConfig, CommandConfirmer};
use caudal_confirm::http::{HttpConfig, HttpConfirmer, ProbeConfig, TlsFiles};
use caudal_core::confirm::ports::{Adopt, Confirmer, LaneSpec, Records};
use caudal_core::error::StoreError;
use caudal_core::schema::ColumnType;
use caudal_core::topic::TopicName;
use caudal_engine::Engine;
use caudal_engine::confirm::{ConfirmConfig, ConfirmMetrics, TargetConfig};
use caudal_engine::topic::Topics;

use super::instance;
use crate::config::Loaded;
use crate::confirming::{self, Callee, Confirm, time};

/// Everything of the confirm role that can be checked before the store answers; and its start, once it does.
pub(crate) struct Confirmings {
    targets: Vec<TargetConfig>,
    adopted: Vec<(TargetConfig, confirming::Adopt)>,
    worker: ConfirmConfig,
    metrics: ConfirmMetrics,
    /// Whether this process confirms, or only tells those who do.
    confirms: bool,
}

impl Confirmings {
    /// # Errors
    /// What is wrong with which section.
    pub(crate) async fn of(loaded: &Loaded, confirms: bool, topics: &Topics, metrics: &ConfirmMetrics) -> Result<Self> {
        let mut targets = Vec::new();
        for (name, topic) in &loaded.settings.topics {
            let Some(confirm) = &topic.confirm else { continue };
            let at = || format!("topics.{name}.confirm");
            let topic = topics.get(name).with_context(at)?;
            let (name, lanes) = (topic.name.clone(), topic.lane_specs());
            targets.push(target(confirm, name, lanes, loaded).await.with_context(at)?);
        }
        let mut adopted = Vec::new();
        for (name, adopt) in &loaded.settings.adopt {
            let at = || format!("adopt.{name}");
            if topics.get(name).is_some() {
                bail!("adopt.{name}: there is a topic of that name; give the adopted table another");
            }
            let topic = TopicName::parse(name).with_context(at)?;
            if !adopt.confirm.lanes.is_empty() {
                bail!("adopt.{name}: an adopted table has one lane; take out lanes");
            }
            let target = target(&adopt.confirm, topic, Vec::new(), loaded).await.with_context(at)?;
            adopted.push((target, adopt.clone()));
        }
        let worker = worker(loaded);
        Ok(Self { targets, adopted, worker, metrics: metrics.clone(), confirms })
    }

    /// The configuration of one topic, for drills.
    pub(crate) fn target(self, topic: &str) -> Option<TargetConfig> {
        let adopted = self.adopted.into_iter().map(|(target, _)| target);
        self.targets.into_iter().chain(adopted).find(|target| target.topic.as_str() == topic)
    }

    /// What is confirmed, without adopted tables.
    pub(super) fn targets(self) -> Vec<TargetConfig> {
        self.targets
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.adopted.is_empty()
    }

    /// Starts what this process does of it. The store must be prepared.
    pub(crate) async fn start(mut self, engine: &Arc<Engine>) -> Result<(), StoreError> {
        if self.worker.wake {
            engine.start_telling();
        }
        if !self.confirms || self.is_empty() {
            return Ok(());
        }
        for (mut target, adopt) in std::mem::take(&mut self.adopted) {
            let adopt = adopted(engine, &target.topic, &adopt).await?;
            let records = Records::Adopted(Arc::new(adopt));
            target.lanes = vec![LaneSpec { topic: target.topic.clone(), name: "default".to_owned(), records }];
            self.targets.push(target);
        }
        engine.start_confirming(self.targets, self.worker, &self.metrics).await
    }
}

pub(super) fn worker(loaded: &Loaded) -> ConfirmConfig {
    let settings = &loaded.settings.confirm;
    // A container that was started again has its old name and process id.
    let birth = caudal_engine::clock::fresh_id(caudal_engine::clock::now()).simple().to_string();
    ConfirmConfig {
        worker: format!("{}:{birth}", instance()).into(),
        idle_beat: Duration::from_millis(settings.idle_beat_ms.max(50)),
        wake: settings.wake,
        patience: Duration::from_millis(loaded.settings.store.patience_ms),
    }
}

async fn target(confirm: &Confirm, topic: TopicName, lanes: Vec<LaneSpec>, loaded: &Loaded) -> Result<TargetConfig> {
    if confirm.operation.is_empty() {
        bail!("operation is empty");
    }
    Ok(TargetConfig {
        topic,
        operation: confirm.operation.clone(),
        lanes,
        policy: confirm.policy()?,
        rules: confirm.rules()?,
        limits: confirm.limits()?,
        confirmer: confirmer(confirm, loaded).await?,
    })
}

/// The one thing that is called.
async fn confirmer(confirm: &Confirm, loaded: &Loaded) -> Result<Arc<dyn Confirmer>> {
    match confirm.callee()? {
        Callee::Url => http(confirm, loaded.base()),
        Callee::Command => command(confirm),
        Callee::Function => function(confirm).await,
        Callee::Sql => sql(confirm, loaded),
    }
}

#[cfg(feature = "invoke")]
async fn function(confirm: &Confirm) -> Result<Arc<dyn Confirmer>> {
    use caudal_confirm::lambda::{LambdaConfig, LambdaConfirmer};
    let config = LambdaConfig {
        region: confirm.function_region.clone(),
        endpoint: confirm.function_endpoint.clone(),
        probes: confirm.function_probes,
        timeout: time("timeout", &confirm.timeout)?,
        connect_timeout: time("connect_timeout", &confirm.connect_timeout)?,
        ..LambdaConfig::new(confirm.function.as_deref().unwrap_or_default())
    };
    Ok(Arc::new(LambdaConfirmer::open(&config).await.map_err(anyhow::Error::msg)?))
}

#[cfg(not(feature = "invoke"))]
async fn function(_: &Confirm) -> Result<Arc<dyn Confirmer>> {
    bail!("this build of Caudal cannot invoke functions: build it with --features invoke")
}

fn http(confirm: &Confirm, base: &Path) -> Result<Arc<dyn Confirmer>> {
    let url = confirm.url.as_ref().map(|url| url.expose()).unwrap_or_default();
    let file = |name: &Option<String>| name.as_ref().map(|name| base.join(name));
    let config = HttpConfig {
        method: confirm.method.clone(),
        headers: confirm.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect(),
        body: confirm.body.clone(),
        key_header: confirm.key_header.clone(),
        timeout: time("timeout", &confirm.timeout)?,
        connect_timeout: time("connect_timeout", &confirm.connect_timeout)?,
        probe: confirm.probe_url.as_ref().map(|url| ProbeConfig::new(url.expose())),
        sign: confirm.signing_secret.iter().map(|secret| secret.expose().to_owned()).collect(),
        tls: TlsFiles {
            authority: file(&confirm.authority),
            certificate: file(&confirm.client_certificate),
            key: file(&confirm.client_key),
        },
        allow_private: confirm.allow_private,
        ..HttpConfig::new(url)
    };
    Ok(Arc::new(HttpConfirmer::open(&config).map_err(anyhow::Error::msg)?))
}

fn command(confirm: &Confirm) -> Result<Arc<dyn Confirmer>> {
    let [program, arguments @ ..] = confirm.command.as_slice() else { bail!("command is empty") };
    let config = CommandConfig {
        arguments: arguments.to_vec(),
        // What else it needs, it is told: Caudal's own environment holds passwords.
        environment: crate::config::search_path().into_iter().map(|path| ("PATH".to_owned(), path)).collect(),
        timeout: time("timeout", &confirm.timeout)?,
        probe: (!confirm.probe_command.is_empty()).then(|| confirm.probe_command.clone()),
        ..CommandConfig::new(program)
    };
    Ok(Arc::new(CommandConfirmer::open(&config).map_err(anyhow::Error::msg)?))
}

#[cfg(feature = "postgres")]
fn sql(confirm: &Confirm, loaded: &Loaded) -> Result<Arc<dyn Confirmer>> {
    use caudal_store::postgres::{FunctionConfig, FunctionConfirmer};
    let url = confirm.sql_url.as_ref().unwrap_or(&loaded.settings.store.url);
    if !["postgres:", "postgresql:"].iter().any(|scheme| url.expose().starts_with(scheme)) {
        match confirm.sql_url {
            Some(_) => bail!("sql_url is {url}; it starts with postgres://"),
            None => bail!(
                "sql_function is a function in PostgreSQL, and the store is {url}: set sql_url to the database that has it"
            ),
        }
    }
    let config = FunctionConfig {
        probe: confirm.sql_probe.clone(),
        connections: confirm.sql_connections,
        timeout: time("timeout", &confirm.timeout)?,
        connect_timeout: time("connect_timeout", &confirm.connect_timeout)?,
        instance: instance(),
        ..FunctionConfig::new(url.expose(), confirm.sql_function.as_deref().unwrap_or_default())
    };
    Ok(Arc::new(FunctionConfirmer::open(&config)?))
}

#[cfg(not(feature = "postgres"))]
fn sql(_: &Confirm, _: &Loaded) -> Result<Arc<dyn Confirmer>> {
    bail!("this build of Caudal has no PostgreSQL: build it with --features postgres")
}

/// Finds the table that a section adopts, and checks that it can be.
async fn adopted(engine: &Engine, name: &TopicName, adopt: &confirming::Adopt) -> Result<Adopt, StoreError> {
    let wrong = |what: String| StoreError::Setup(format!("adopt.{name}: {what}"));
    let (schema, table) = match adopt.table.split_once('.') {
        Some((schema, table)) => (Some(schema), table),
        None => (None, adopt.table.as_str()),
    };
    let schemas: Vec<String> = schema.map(str::to_owned).into_iter().collect();
    let schemas = match schemas.is_empty() {
        true => vec![engine.store.relations(&[]).await?.home().to_owned()],
        false => schemas,
    };
    let relations = engine.store.relations(&schemas).await?;
    let found = relations.table(Some(&schemas[0]), table);
    let table =
        found.ok_or_else(|| wrong(format!("there is no table {} that the store's user may read", adopt.table)))?;
    let column = |column: &str| {
        let at = table.column(column);
        at.map(|at| &table.columns[at]).ok_or_else(|| wrong(format!("{} has no column {column:?}", adopt.table)))
    };
    let key = column(&adopt.key)?;
    if key.nullable {
        return Err(wrong(format!("column {:?} may be null, so it names no row; use the primary key", adopt.key)));
    }
    let state = column(&adopt.state)?;
    if state.ty != ColumnType::Text {
        return Err(wrong(format!("column {:?} is {}, and must be text", adopt.state, state.type_name())));
    }
    let becomes = |text: &String| (!text.is_empty()).then(|| text.clone());
    Ok(Adopt {
        table: table.clone(),
        key: adopt.key.clone(),
        state: adopt.state.clone(),
        pending: adopt.pending.clone(),
        confirmed: becomes(&adopt.confirmed),
        rejected: becomes(&adopt.rejected),
    })
}
