//! A table, and the oracle over it: what the store says, against the endpoint's own books.

use std::sync::Arc;

use caudal_core::confirm::Keys;
use caudal_core::confirm::ports::{LaneStatus, OperateConfirmations};
use caudal_core::topic::{Identity, TopicName};
use caudal_store::dynamodb::DynamoStore;
use caudal_testkit::endpoint::Endpoint;
use uuid::Uuid;

use crate::TOPIC;

/// One table of its own.
pub(crate) struct Books {
    pub(crate) url: String,
    store: Arc<DynamoStore>,
}

impl Books {
    /// A new table at an emulator.
    pub(crate) async fn at(emulator: &str) -> Self {
        let table = format!("t{}", Uuid::now_v7().simple());
        // Few shards: an emulator takes its time for each.
        let url = format!("dynamodb:{table}?endpoint={emulator}&create=true&shards=2");
        Self { store: Arc::new(DynamoStore::open(&url).await.unwrap()), url }
    }

    pub(crate) async fn shared() -> Self {
        let emulator = caudal_testkit::moto::shared().unwrap().road().unwrap();
        let endpoint = emulator.endpoint();
        // The road lives as long as the tests do.
        std::mem::forget(emulator);
        Self::at(&endpoint).await
    }

    /// The topic's only lane.
    pub(crate) async fn lane(&self) -> LaneStatus {
        let lanes = self.store.lanes().await.unwrap();
        lanes.into_iter().find(|lane| lane.topic == TOPIC).unwrap_or_default()
    }

    /// The id that the payment gets everywhere: of its topic and its key.
    pub(crate) fn id(payment: &str) -> Uuid {
        Identity::of(&TopicName::parse(TOPIC).unwrap()).transaction_id(payment)
    }

    pub(crate) async fn state(&self, payment: &str) -> String {
        let found = self.store.confirmation(Self::id(payment)).await.unwrap();
        found.map_or_else(|| "unknown".to_owned(), |found| found.state.name().to_owned())
    }

    /// Every payment has one outcome or is open in one place; what the table says is what the endpoint did; and nothing was done
    /// twice.
    pub(crate) async fn judge(&self, endpoint: &Endpoint, payments: std::ops::Range<u32>) {
        for audit in self.store.verify().await.unwrap() {
            assert!(audit.is_sound(), "{audit:#?}");
        }
        let keys = Keys::of(&TopicName::parse(TOPIC).unwrap(), "confirm");
        for n in payments.clone() {
            let payment = format!("p{n}");
            let did = endpoint.effects(keys.key(Self::id(&payment)));
            let (effects, declined) = did.map_or((0, false), |did| (did.effects, did.declined));
            let state = self.state(&payment).await;
            let agrees = match state.as_str() {
                "confirmed" => effects == 1,
                "rejected" => effects == 0 && declined,
                "pending" | "void" => effects == 0,
                "unknown" => false,
                _ => effects <= 1,
            };
            assert!(agrees, "{payment} is {state}, and the endpoint did {did:?}");
        }
        assert_eq!(self.lane().await.enqueued, u64::from(payments.end - payments.start));
        assert_eq!(endpoint.totals().doubles, 0, "{:?}", endpoint.totals());
    }
}
