//! Confirmations without an SQL store: what a process needs that only confirms, or only makes transactions pending, where they are
//! kept in a place of their own (`confirm.store`).

use anyhow::{Context, Result, bail};
use caudal_core::error::StoreError;
use caudal_engine::confirm::{ConfirmMetrics, Confirming, TargetConfig};
use caudal_engine::metrics::Metrics;
use caudal_engine::topic::{Topic, Topics};
use prometheus_client::registry::Registry;

use super::confirm::worker;
use super::{ConfirmStore, Confirmings, confirm_store};
use crate::config::Loaded;

/// The place, and the topics whose transactions are in it.
pub(crate) struct Apart {
    pub(crate) store: ConfirmStore,
    pub(crate) topics: Topics,
}

impl Apart {
    /// `None` where confirmations are in the SQL store.
    pub(crate) async fn open(loaded: &Loaded) -> Result<Option<Self>> {
        let Some(url) = confirm_store::apart(loaded)? else { return Ok(None) };
        if let Some(name) = loaded.settings.adopt.keys().next() {
            bail!(
                "adopt.{name}: rows of a table are adopted by the database that has them, and confirm.store is {url}; leave \
                 confirm.store empty, or enqueue the rows with `caudal confirm enqueue`"
            );
        }
        let topics = super::topics(loaded, &Metrics::register(&mut Registry::default()))?;
        Ok(Some(Self { store: ConfirmStore::open(loaded, url).await?, topics }))
    }

    /// Makes the lanes known. Idempotent.
    pub(crate) async fn prepare(&self) -> Result<(), StoreError> {
        let store = self.store.port();
        for topic in self.topics.iter() {
            topic.know_lanes(&*store).await?;
        }
        Ok(())
    }

    /// A topic whose transactions are confirmed.
    pub(crate) fn topic(&self, name: &str) -> Result<&Topic> {
        let confirmed = |topic: &&std::sync::Arc<Topic>| topic.config.lanes.is_some();
        let Some(topic) = self.topics.get(name).filter(confirmed) else {
            let names: Vec<_> = self.topics.iter().filter(confirmed).map(|topic| topic.name.as_str()).collect();
            bail!("topic {name:?} has no confirm section; these have: [{}]", names.join(", "));
        };
        Ok(topic)
    }

    /// Starts confirming: one topic, or all.
    pub(crate) async fn start(&self, loaded: &Loaded, only: Option<&str>) -> Result<Confirming> {
        // Metrics of its own: what a later run adds up is what it did itself.
        let metrics = ConfirmMetrics::register(&mut Registry::default());
        let targets = Confirmings::of(loaded, true, &self.topics, &metrics).await?.targets();
        let chosen = |target: &TargetConfig| only.is_none_or(|only| target.topic.as_str() == only);
        let targets: Vec<_> = targets.into_iter().filter(chosen).map(|target| (target, None)).collect();
        if targets.is_empty() {
            bail!("nothing is to be confirmed: there is no [topics.<name>.confirm] section");
        }
        let started = Confirming::start(self.store.port(), targets, worker(loaded), &metrics).await;
        started.context("confirm.store")
    }
}

/// What is published to a topic must not be left unconfirmed without a word.
///
/// # Errors
/// Names a topic whose records would be stored in SQL, and what to do.
pub(crate) fn refuse_to_store(loaded: &Loaded) -> Result<()> {
    let Some(url) = confirm_store::apart(loaded)? else { return Ok(()) };
    match loaded.settings.topics.iter().find(|(_, topic)| topic.confirm.is_some()) {
        None => Ok(()),
        Some((name, _)) => bail!(
            "topics.{name}.confirm: confirm.store is {url}, which takes transactions from `caudal confirm enqueue {name}` and from \
             functions; what is published to {name} here would be stored in SQL and never confirmed. Run this configuration with \
             --role confirm only; or take the section out (the routes under /v1/confirmations work without it); or leave \
             confirm.store empty, and what is stored is confirmed"
        ),
    }
}
