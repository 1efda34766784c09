//! Members that share a topic.

use std::collections::HashSet;
use std::time::Duration;

use caudal_core::error::StoreError;
use caudal_core::message::Delivery;
use caudal_testkit::broker::{Ledger, Reader, bare, marks, messages};
use uuid::Uuid;

use super::{PATIENCE, REBALANCE, cluster, keyed, open, step};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_partition_that_was_taken_away_is_fenced() {
    let (kafka, topic) = cluster(4);
    let broker = open(&kafka).await;
    broker.publish(&topic, keyed(0..200, 40)).await.unwrap();
    let ledger = Ledger::default();
    let mut first = Reader::new(&broker, &topic, "store", &ledger).await;
    let late = first.receive(200).await;
    let lanes: HashSet<Uuid> = late.iter().map(|delivery| step(delivery).lane).collect();
    assert_eq!(lanes.len(), 4, "the keys spread over all partitions");
    let other = open(&kafka).await;
    let mut second = Reader::new(&other, &topic, "store", &ledger).await;
    // The first settles nothing, so what is taken from it comes to the second from the start.
    let mut taken = Vec::new();
    while let Ok(some) = tokio::time::timeout(PATIENCE, second.subscription.receive(1000, usize::MAX)).await {
        let some = some.unwrap();
        second.settle(&some).await;
        taken.extend(some);
        let lanes: HashSet<Uuid> = taken.iter().map(|delivery| step(delivery).lane).collect();
        let theirs = late.iter().filter(|delivery| lanes.contains(&step(delivery).lane)).count();
        if lanes.len() == 2 && taken.len() == theirs {
            break;
        }
    }
    let moved: HashSet<Uuid> = taken.iter().map(|delivery| step(delivery).lane).collect();
    assert_eq!(moved.len(), 2, "two members share four partitions");
    assert!(matches!(ledger.commit(&marks(&late)), Err(StoreError::Fenced)), "the late batch is fenced");
    let kept: Vec<Delivery> = late.into_iter().filter(|delivery| !moved.contains(&step(delivery).lane)).collect();
    first.settle(&kept).await;
    let mut ids: Vec<Uuid> = bare(kept).iter().chain(&bare(taken)).map(|message| message.id).collect();
    ids.sort();
    let mut wanted: Vec<Uuid> = messages(0..200).iter().map(|message| message.id).collect();
    wanted.sort();
    assert_eq!(ids, wanted, "each message was settled by one of them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_without_fencing_when_its_reader_settles_in_time() {
    let (kafka, topic) = cluster(4);
    let broker = open(&kafka).await;
    broker.publish(&topic, keyed(0..400, 40)).await.unwrap();
    let ledger = Ledger::default();
    let readers = [open(&kafka).await, broker.clone()].map(|broker| {
        let (topic, ledger) = (topic.clone(), ledger.clone());
        tokio::spawn(async move {
            let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
            let mut seen = Vec::new();
            while let Ok(some) = tokio::time::timeout(2 * REBALANCE, reader.subscription.receive(20, usize::MAX)).await
            {
                let some = some.unwrap();
                tokio::time::sleep(Duration::from_millis(200)).await;
                // Panics if another member was ahead.
                reader.settle(&some).await;
                seen.extend(bare(some));
            }
            seen
        })
    });
    for round in 1..6 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        broker.publish(&topic, keyed(round * 400..round * 400 + 400, 40)).await.unwrap();
    }
    let mut seen = Vec::new();
    for reader in readers {
        seen.extend(reader.await.expect("neither was fenced"));
    }
    assert_eq!(seen.len(), 2400, "each came once");
}
