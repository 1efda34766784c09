//! Records by id, rendered. Exact without expiry, because a record never changes once it is stored.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use uuid::Uuid;

/// What a cached answer depends on: the id, and the table's shape (a topic may grow columns).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub(crate) topic: caudal_core::topic::TopicName,
    pub(crate) columns: usize,
    pub(crate) id: Uuid,
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<CacheKey, Bytes> for ByBytes {
    fn weight(&self, _: &CacheKey, value: &Bytes) -> u64 {
        // The key, the map's slot and the allocation around the value.
        value.len() as u64 + 160
    }
}

/// Rendered records up to a number of bytes.
#[derive(Debug)]
pub(crate) struct RecordCache {
    cache: Option<Cache<CacheKey, Bytes, ByBytes>>,
}

impl RecordCache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        const RECORD_BYTES_TYPICAL: u64 = 600;
        let cache = || Cache::with_weighter((bytes_max / RECORD_BYTES_TYPICAL) as usize, bytes_max, ByBytes);
        Self { cache: (bytes_max > 0).then(cache) }
    }

    pub(crate) fn get(&self, key: &CacheKey) -> Option<Bytes> {
        self.cache.as_ref()?.get(key)
    }

    pub(crate) fn put(&self, key: CacheKey, value: Bytes) {
        if let Some(cache) = &self.cache {
            cache.insert(key, value);
        }
    }
}
