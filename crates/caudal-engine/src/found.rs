//! The tables that Caudal did not make: read when the process starts, and again whenever they have changed.
//!
//! Readers take the catalogue as it is when they begin and keep it to their end. The next one is read beside it and put in its
//! place whole; one that cannot be read leaves the last in service.

use std::sync::{Arc, PoisonError, RwLock};

use caudal_core::error::StoreError;
use caudal_core::relations::Relations;
use futures_util::StreamExt;

use crate::engine::Engine;

#[derive(Debug, Default)]
pub(crate) struct Found {
    relations: RwLock<Arc<Relations>>,
    /// What the store's mark was before the relations were read. One reading runs at a time.
    mark: tokio::sync::Mutex<String>,
}

impl Engine {
    /// The tables that Caudal did not make, as they were when last read.
    pub fn relations(&self) -> Arc<Relations> {
        self.found.relations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the tables that Caudal did not make, whether they have changed or not.
    pub async fn read_relations(&self) -> Result<(), StoreError> {
        if self.config.schemas.is_empty() {
            return Ok(());
        }
        let mut mark = self.found.mark.lock().await;
        let now = self.store.relations_mark(&self.config.schemas).await?;
        self.replace_relations(&mut mark, now).await
    }

    async fn read_relations_if_changed(&self) -> Result<(), StoreError> {
        let mut mark = self.found.mark.lock().await;
        let now = self.store.relations_mark(&self.config.schemas).await?;
        if now == *mark {
            return Ok(());
        }
        self.replace_relations(&mut mark, now).await
    }

    /// `now` was asked for before: what changes while the relations are read shows as another mark the next time.
    async fn replace_relations(&self, mark: &mut String, now: String) -> Result<(), StoreError> {
        let relations = self.store.relations(&self.config.schemas).await?;
        tracing::info!(tables = relations.tables().count(), schemas = ?self.config.schemas, "the tables to serve were read");
        *self.found.relations.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(relations);
        *mark = now;
        Ok(())
    }
}

/// Polls, and listens to whoever says that tables have changed, until the engine drains.
pub(crate) async fn run(engine: Arc<Engine>) {
    let mut told = engine.store.relations_changed().fuse();
    loop {
        let read = tokio::select! {
            () = engine.stopping().cancelled() => return,
            () = tokio::time::sleep(engine.config.relations_poll) => engine.read_relations_if_changed().await,
            Some(()) = told.next() => engine.read_relations().await,
        };
        match read {
            Ok(()) => {}
            Err(error) if error.is_transient() => tracing::debug!(%error, "the tables to serve cannot be read now"),
            Err(error) => {
                tracing::error!(%error, "the tables to serve cannot be read; those of before stay in service")
            }
        }
    }
}
