//! The embedded log against every rule of the brokers' conformance suite, on real files. Its segments are small, so that
//! every rule also crosses from one to the next.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::sync::Arc;

use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::ports::Broker;
use caudal_testkit::broker::Harness;

fn harness(segment_bytes: u64) -> Harness {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    Harness::new(move || {
        let dir = dir.clone();
        Box::pin(async move {
            let config = EmbeddedConfig { segment_bytes, ..EmbeddedConfig::default() };
            let broker = EmbeddedBroker::open(dir.path(), config).await?;
            Ok(Arc::new(broker) as Arc<dyn Broker>)
        })
    })
}

mod large_segments {
    caudal_testkit::broker_conformance!(super::harness(8 * 1024 * 1024));
}

mod small_segments {
    caudal_testkit::broker_conformance!(super::harness(4096));
}
