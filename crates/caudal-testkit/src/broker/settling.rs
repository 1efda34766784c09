//! What is settled stays settled; what is not comes again.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use caudal_core::error::BrokerError;

use super::delivering::in_line;
use super::{Harness, Ledger, PATIENCE, Reader, bare, marks, sorted};

pub async fn settles_for_good(harness: &Harness) {
    let topic = harness.topic("settled");
    let ledger = Ledger::default();
    let broker = harness.open().await;
    broker.publish(&topic, harness.at_once(0..20)).await.expect("publish works");
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let deliveries = reader.receive(20).await;
    reader.settle(&deliveries).await;
    reader.subscription.ack(&marks(&deliveries)).await.expect("settling again changes nothing");
    drop(reader);
    broker.close().await.expect("close works");
    let broker = harness.open().await;
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    broker.publish(&topic, in_line(20..21)).await.expect("publish works");
    assert_eq!(reader.take(1).await, in_line(20..21), "nothing that was settled comes before it");
    tokio::time::sleep(harness.waits.min(Duration::from_secs(2))).await;
    let more = tokio::time::timeout(Duration::from_millis(200), reader.subscription.receive(10, usize::MAX)).await;
    assert!(more.is_err(), "nor after it: {more:?}");
}

pub async fn hands_over_again_what_was_not_settled(harness: &Harness) {
    let topic = harness.topic("again");
    let ledger = Ledger::default();
    let broker = harness.open().await;
    broker.publish(&topic, harness.at_once(0..10)).await.expect("publish works");
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let deliveries = reader.receive(10).await;
    reader.settle(&deliveries[..4]).await;
    let rest = bare(deliveries[4..].to_vec());
    drop(reader);
    let start = Instant::now();
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let again = reader.receive(6).await;
    let bound = harness.waits + Duration::from_secs(10);
    assert!(start.elapsed() < bound, "it took {:?}, more than is promised", start.elapsed());
    if harness.counts {
        assert!(again.iter().all(|delivery| delivery.attempt >= 2), "{:?}", again[0]);
    }
    reader.settle(&again).await;
    match harness.locks {
        true => assert_eq!(sorted(bare(again)), sorted(rest)),
        false => harness.same(bare(again), rest),
    }
}

pub async fn hands_over_again_what_was_given_back(harness: &Harness) {
    let topic = harness.topic("back");
    let broker = harness.open().await;
    broker.publish(&topic, harness.at_once(0..5)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(5).await;
    reader.settle(&deliveries[..3]).await;
    let rest = bare(deliveries[3..].to_vec());
    let pause = Duration::from_secs(1);
    let start = Instant::now();
    reader.subscription.nack(&marks(&deliveries[3..]), pause).await.expect("nack works");
    let again = reader.receive(2).await;
    if harness.delays {
        assert!(start.elapsed() >= pause, "it came after {:?}", start.elapsed());
    }
    if harness.counts {
        assert!(again.iter().all(|delivery| delivery.attempt == 2), "{:?}", again[0]);
    }
    reader.settle(&again).await;
    assert_eq!(sorted(bare(again)), sorted(rest));
}

/// A poisonous message is known by how often it came.
pub async fn counts_hand_overs(harness: &Harness) {
    if !harness.counts {
        return;
    }
    let topic = harness.topic("poison");
    let broker = harness.open().await;
    broker.publish(&topic, in_line(0..1)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    for attempt in 1..=5 {
        let delivery = reader.receive(1).await.remove(0);
        assert_eq!(delivery.attempt, attempt);
        reader.subscription.nack(&marks(&[delivery]), Duration::ZERO).await.expect("nack works");
    }
}

/// A reader that settles nothing is not given the whole topic: what is out is bounded, and all of it comes in the end.
pub async fn bounds_what_is_out(harness: &Harness) {
    let topic = harness.topic("out");
    let broker = harness.open().await;
    let total = harness.volume as usize;
    broker.publish(&topic, in_line(0..harness.volume)).await.expect("publish works");
    let mut reader = Reader::fresh(&broker, &topic).await;
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    // It stops by itself, or everything is out.
    while let Ok(some) =
        tokio::time::timeout(Duration::from_secs(2), reader.subscription.receive(500, usize::MAX)).await
    {
        let some = some.expect("receive works");
        seen.extend(some.iter().map(|delivery| delivery.message.id));
        out.extend(some);
        if out.len() >= total {
            break;
        }
    }
    reader.settle(&out).await;
    if out.len() < total {
        let rest = reader.take(total - out.len()).await;
        seen.extend(rest.into_iter().map(|message| message.id));
    }
    assert_eq!(seen.len(), total);
}

/// Everything that was confirmed outlives the broker's death; publishing and reading go on without a restart of ours.
pub async fn survives_a_crash_of_the_broker(harness: &Harness) {
    let Some(crash) = &harness.crash else { return };
    let topic = harness.topic("crash");
    let broker = harness.open().await;
    let ledger = Ledger::default();
    broker.publish(&topic, harness.at_once(0..50)).await.expect("publish works");
    let mut reader = Reader::new(&broker, &topic, "store", &ledger).await;
    let first = reader.receive(20).await;
    reader.settle(&first).await;
    let mut seen: HashSet<_> = bare(first).into_iter().map(|message| message.id).collect();
    let publisher = tokio::spawn({
        let (broker, topic) = (broker.clone(), topic.clone());
        async move {
            let mut confirmed = Vec::new();
            let mut refused = 0;
            for number in 50..450 {
                match tokio::time::timeout(PATIENCE, broker.publish(&topic, in_line(number..number + 1))).await {
                    Ok(Ok(())) => confirmed.push(number),
                    Ok(Err(BrokerError::Unavailable(_))) => {
                        refused += 1;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Ok(Err(other)) => panic!("publishing while the broker is away: {other:?}"),
                    Err(_) => panic!("a publish hangs"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (confirmed, refused)
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    crash().await;
    let (confirmed, refused) = publisher.await.expect("the publisher ends");
    println!("{} confirmed, {refused} refused while the broker was away", confirmed.len());
    assert!(!confirmed.is_empty() && confirmed.last() > Some(&300), "publishing goes on: {:?}", confirmed.last());
    let mut wanted: HashSet<_> = in_line(0..50).into_iter().map(|message| message.id).collect();
    wanted.extend(confirmed.iter().flat_map(|number| in_line(*number..number + 1)).map(|message| message.id));
    let deadline = Instant::now() + PATIENCE;
    while !wanted.is_subset(&seen) {
        assert!(Instant::now() < deadline, "{} of {} came", seen.len(), wanted.len());
        // As the worker does: any error means a new subscription.
        let some = tokio::time::timeout(Duration::from_secs(5), reader.subscription.receive(1000, usize::MAX)).await;
        if let Ok(Ok(some)) = some {
            let marks = marks(&some);
            if ledger.commit(&marks).is_ok() && reader.subscription.ack(&marks).await.is_ok() {
                seen.extend(some.into_iter().map(|delivery| delivery.message.id));
                continue;
            }
        }
        match broker.subscribe(&topic, "store", std::sync::Arc::new(ledger.clone())).await {
            Ok(subscription) => reader.subscription = subscription,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}
