//! Where confirmations are kept: with the messages in the SQL store, or in a table of DynamoDB.

#[cfg(feature = "dynamodb")]
use std::collections::BTreeMap;
use std::sync::Arc;
#[cfg(feature = "lambda")]
use std::time::Duration;

use anyhow::{Result, bail};
#[cfg(any(feature = "dynamodb", feature = "lambda"))]
use caudal_core::confirm::LaneId;
use caudal_core::confirm::ports::Confirmations;
use caudal_core::error::StoreError;
use caudal_core::ports::Store;
use caudal_engine::confirm::enqueue::Pending;
#[cfg(feature = "dynamodb")]
use caudal_store::dynamodb::DynamoStore;

use crate::config::Loaded;
use crate::secret::SecretUrl;

/// A place where confirmations are kept.
pub(crate) enum ConfirmStore {
    Sql(Arc<dyn Store>),
    #[cfg(feature = "dynamodb")]
    DynamoDb(Arc<DynamoStore>),
}

/// What enqueueing came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Enqueued {
    pub(crate) new: u64,
    /// That were there already, with the same record.
    pub(crate) repeats: u64,
    /// Places in the list of what cannot become pending, and why. All others have.
    pub(crate) refused: Vec<(usize, String)>,
}

impl ConfirmStore {
    /// Opens what a URL names: `dynamodb:…`, or whatever `store.url` may be. DynamoDB must answer; the others need not yet.
    pub(crate) async fn open(loaded: &Loaded, url: &SecretUrl) -> Result<Self> {
        match is_dynamodb(url) {
            true => dynamodb(url).await,
            false => Ok(Self::Sql(super::store_at(loaded, url)?)),
        }
    }

    pub(crate) fn port(&self) -> Arc<dyn Confirmations> {
        match self {
            Self::Sql(store) => store.clone(),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(store) => store.clone(),
        }
    }

    /// Makes transactions pending, those of a lane in their order. One that is refused does not keep the others.
    #[cfg_attr(not(feature = "dynamodb"), allow(unused_variables))]
    pub(crate) async fn enqueue(&self, items: &[Pending]) -> Result<Enqueued, StoreError> {
        match self {
            Self::Sql(_) => Err(StoreError::Setup(
                "in an SQL store a record becomes pending when it is stored: publish it, or set confirm.store"
                    .to_owned(),
            )),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(store) => enqueue(store, items).await,
        }
    }
}

/// What there is to do in a lane.
#[cfg(feature = "lambda")]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Due by now, under no lease; counted as far as was asked for.
    pub(crate) due: u64,
    /// Open leases: somebody is at it, or was when it died.
    pub(crate) leases: u64,
    /// Until the first is due of those that are not yet.
    pub(crate) next_due: Option<Duration>,
    pub(crate) paused: bool,
}

#[cfg(feature = "lambda")]
impl ConfirmStore {
    /// What there is to do in a lane; what is due is counted to `due_max`, and a little beyond.
    pub(crate) async fn work(&self, lane: LaneId, due_max: u64) -> Result<Work, StoreError> {
        match self {
            Self::Sql(_) => Err(StoreError::Setup(format!("lane {lane} is not in DynamoDB ({due_max} asked for)"))),
            #[cfg(feature = "dynamodb")]
            Self::DynamoDb(store) => {
                let caudal_store::dynamodb::Work { due, leases, next_due, paused } = store.work(lane, due_max).await?;
                Ok(Work { due, leases, next_due, paused })
            }
        }
    }
}

/// Whether a URL names a table of DynamoDB.
pub(crate) fn is_dynamodb(url: &SecretUrl) -> bool {
    url.expose().starts_with("dynamodb:")
}

/// The URL of the place of its own that confirmations have; `None` where they are in the SQL store.
pub(crate) fn apart(loaded: &Loaded) -> Result<Option<&SecretUrl>> {
    let url = &loaded.settings.confirm.store;
    match url.expose().is_empty() {
        true => Ok(None),
        false if is_dynamodb(url) => Ok(Some(url)),
        false => bail!(
            "confirm.store is {url}; leave it empty, and confirmations are in the store that keeps the messages, or name a table of \
             DynamoDB: dynamodb://<region>/<table>"
        ),
    }
}

#[cfg(feature = "dynamodb")]
async fn dynamodb(url: &SecretUrl) -> Result<ConfirmStore> {
    use anyhow::Context;
    let store = DynamoStore::open(url.expose()).await.with_context(|| url.to_string())?;
    Ok(ConfirmStore::DynamoDb(Arc::new(store)))
}

#[cfg(not(feature = "dynamodb"))]
async fn dynamodb(url: &SecretUrl) -> Result<ConfirmStore> {
    bail!("{url}: this build of Caudal does not speak DynamoDB; build it with --features dynamodb")
}

#[cfg(feature = "dynamodb")]
async fn enqueue(store: &DynamoStore, items: &[Pending]) -> Result<Enqueued, StoreError> {
    let mut by_lane: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, item) in items.iter().enumerate() {
        by_lane.entry(item.lane.0).or_default().push(at);
    }
    let mut enqueued = Enqueued::default();
    for (lane, places) in by_lane {
        let pairs: Vec<_> = places.iter().map(|at| (items[*at].id, items[*at].record.clone())).collect();
        for (at, done) in places.into_iter().zip(store.enqueue_each(LaneId(lane), &pairs).await?) {
            match done {
                Ok(true) => enqueued.new += 1,
                Ok(false) => enqueued.repeats += 1,
                Err(why) => enqueued.refused.push((at, why)),
            }
        }
    }
    enqueued.refused.sort_unstable();
    Ok(enqueued)
}
