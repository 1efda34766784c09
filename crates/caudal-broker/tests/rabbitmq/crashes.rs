//! Servers that die, and servers that fall silent.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_is_survived() {
    let server = Arc::new(RabbitMq::start().unwrap());
    let harness = harness_on(server.url()).crash(move || {
        let server = server.clone();
        Box::pin(async move { tokio::task::block_in_place(|| server.restart().unwrap()) })
    });
    settling::survives_a_crash_of_the_broker(&harness).await;
}

/// The server's word: whatever it confirmed under load is there after kill -9, twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_outlives_a_kill_under_load() {
    let server = RabbitMq::start().unwrap();
    let broker = broker(config(server.url())).await;
    let topic = fresh("load");
    let mut confirmed = Vec::new();
    for round in 0..2_u64 {
        let publishers: Vec<_> = (0..8_u64)
            .map(|publisher| {
                let (broker, topic) = (broker.clone(), topic.clone());
                tokio::spawn(async move {
                    let mut confirmed = Vec::new();
                    let first = (round * 8 + publisher) * 1_000_000;
                    // Alone and in batches, until the server is gone.
                    let size = [1, 1, 1, 1, 10, 100, 1000, 3000][publisher as usize];
                    for start in (first..).step_by(size) {
                        let numbers = start..start + size as u64;
                        match broker.publish(&topic, messages(numbers.clone())).await {
                            Ok(()) => confirmed.extend(numbers),
                            Err(BrokerError::Unavailable(_)) => break,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    confirmed
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(3)).await;
        tokio::task::block_in_place(|| server.kill());
        for publisher in publishers {
            confirmed.extend(publisher.await.unwrap());
        }
        unavailable(broker.publish(&topic, messages(0..1)).await);
        tokio::task::block_in_place(|| server.restart().unwrap());
    }
    println!("{} messages were confirmed", confirmed.len());
    assert!(confirmed.len() > 1000);
    let mut missing: std::collections::HashSet<_> = confirmed.iter().map(|number| message(*number).id).collect();
    let mut reader = Reader::fresh(&broker, &topic).await;
    while !missing.is_empty() {
        let some = tokio::time::timeout(Duration::from_secs(30), reader.subscription.receive(5000, usize::MAX)).await;
        let some = some.unwrap_or_else(|_| panic!("{} confirmed messages are lost", missing.len())).unwrap();
        reader.settle(&some).await;
        for delivery in some {
            missing.remove(&delivery.message.id);
        }
    }
}

/// RabbitMQ notes a new quorum queue with a delay; killed before, it would lose what it confirmed and never confirm again.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_of_a_new_topic_is_as_safe_as_any() {
    let server = RabbitMq::start().unwrap();
    let broker = broker(config(server.url())).await;
    let topic = fresh("new");
    broker.publish(&topic, messages(0..50)).await.unwrap();
    tokio::task::block_in_place(|| server.restart().unwrap());
    broker.publish(&topic, messages(50..60)).await.unwrap();
    for subscription in ["store", "audit"] {
        let mut reader = Reader::new(&broker, &topic, subscription, &Ledger::default()).await;
        assert_eq!(reader.take(60).await, messages(0..60), "{subscription}");
    }
}

/// A server that is there but says nothing counts as away, within bounds.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_noticed() {
    let server = RabbitMq::start().unwrap();
    let broker = broker(config(format!("{}?heartbeat=2", server.url()))).await;
    let topic = fresh("silent");
    broker.publish(&topic, messages(0..1)).await.unwrap();
    let mut subscription = subscribed(&broker, &topic).await.unwrap();
    subscription.receive(1, usize::MAX).await.unwrap();
    server.hold().unwrap();
    let start = Instant::now();
    let (published, received) =
        tokio::join!(broker.publish(&topic, messages(1..2)), subscription.receive(1, usize::MAX));
    unavailable(published);
    unavailable(received);
    unavailable(refused(&broker, &topic).await);
    assert!(start.elapsed() < Duration::from_secs(30), "it took {:?}", start.elapsed());
    server.let_go().unwrap();
    let mut reader = Reader::fresh(&broker, &topic).await;
    broker.publish(&topic, messages(2..3)).await.unwrap();
    let mut seen = Vec::new();
    while !seen.contains(&message(2)) {
        seen.extend(reader.take(1).await);
    }
    assert!(seen.contains(&message(0)), "what was out when the connection broke comes again");
}
