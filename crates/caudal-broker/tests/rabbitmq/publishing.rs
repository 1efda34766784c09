//! What a publish promises, beyond the conformance suite.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_no_queue_takes_is_an_error() {
    let broker = shared_broker().await;
    let topic = fresh("unbound");
    broker.publish(&topic, messages(0..3)).await.unwrap();
    for queue in ["store", "audit"] {
        shared().unwrap().control(&["delete_queue", &format!("caudal.{topic}.{queue}")]).unwrap();
    }
    let text = unavailable(broker.publish(&topic, messages(3..1000)).await);
    assert!(text.contains("no queue is bound"), "{text}");
    broker.publish(&topic, messages(0..3)).await.expect("what is missing is made again");
    assert_eq!(Reader::fresh(&broker, &topic).await.take(3).await, messages(0..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_others_that_routes_nowhere_is_an_error() {
    let topic = fresh("nowhere");
    let queue = format!("{topic}-in");
    declare(&queue, &[]).await;
    let broker = broker(placed(&topic, Some("amq.direct/nowhere"), Some(&queue))).await;
    let text = setup(broker.publish(&topic, messages(0..1)).await);
    assert!(text.contains("declare binding source=amq.direct destination=QUEUE routing_key=\"nowhere\""), "{text}");
    bind(&queue, "amq.direct", "nowhere").await;
    broker.publish(&topic, messages(0..1)).await.unwrap();
    assert_eq!(Reader::fresh(&broker, &topic).await.take(1).await, messages(0..1));
}

/// A return says nothing about the publish next to it.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_call_whose_message_came_back_fails() {
    let (lost, kept) = (fresh("lost"), fresh("kept"));
    let queue = format!("{lost}-in");
    declare(&queue, &[]).await;
    let broker = broker(placed(&lost, Some("amq.direct/void"), Some(&queue))).await;
    let calls = (0..200_u64).map(|number| {
        let topic = if number % 2 == 0 { kept.clone() } else { lost.clone() };
        let broker = broker.clone();
        async move { (number, broker.publish(&topic, messages(number * 10..number * 10 + 10)).await) }
    });
    for (number, answer) in futures_util::future::join_all(calls).await {
        assert_eq!(answer.is_ok(), number % 2 == 0, "{number}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_fit_no_frame_are_refused() {
    let broker = shared_broker().await;
    let topic = fresh("headers");
    let large = Message { attributes: Some(Bytes::from("a".repeat(200_000))), ..message(1) };
    let refused = broker.publish(&topic, vec![message(0), large]).await;
    assert!(matches!(refused, Err(BrokerError::Refused(_))), "{refused:?}");
    broker.publish(&topic, messages(2..3)).await.unwrap();
    assert_eq!(Reader::fresh(&broker, &topic).await.take(1).await, messages(2..3), "nothing of the batch was sent");
}

/// One too large message ends the channel for everybody; only its own call fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_hurts_no_neighbour() {
    let broker = shared_broker().await;
    let topic = fresh("neighbours");
    let calls = (0..50_u64).map(|number| {
        let (broker, topic) = (broker.clone(), topic.clone());
        async move {
            let body = if number == 25 { "x".repeat(MESSAGE_BYTES_MAX + 1) } else { "{}".to_owned() };
            let one = Message { body: body.into(), ..message(number) };
            (number, broker.publish(&topic, vec![one]).await)
        }
    });
    for (number, answer) in futures_util::future::join_all(calls).await {
        match number {
            25 => assert!(matches!(answer, Err(BrokerError::Refused(_))), "{answer:?}"),
            _ => answer.unwrap(),
        }
    }
}

/// Out of memory, RabbitMQ stops reading from who publishes; it does not from who consumes.
#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_connection_is_answered_in_time() {
    let server = RabbitMq::start().unwrap();
    let broker = broker(config(server.url())).await;
    let topic = fresh("blocked");
    broker.publish(&topic, messages(0..10)).await.unwrap();
    let mut reader = Reader::fresh(&broker, &topic).await;
    let deliveries = reader.receive(10).await;
    server.control(&["set_vm_memory_high_watermark", "0"]).unwrap();
    for round in 0..3 {
        let start = Instant::now();
        let batch = messages(10 + round * 5000..10 + (round + 1) * 5000);
        match broker.publish(&topic, batch).await {
            // The first may still get in: RabbitMQ stops reading once it sees a publish.
            Ok(()) => assert_eq!(round, 0),
            Err(BrokerError::Unavailable(cause)) => assert!(cause.to_string().contains("low on memory"), "{cause}"),
            Err(other) => panic!("{other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    }
    reader.settle(&deliveries).await;
    let state = broker.topic_state(&topic, "store").await.unwrap();
    assert!(state.waiting.is_some(), "questions are answered");
    server.control(&["set_vm_memory_high_watermark", "0.4"]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while broker.publish(&topic, messages(100_000..100_001)).await.is_err() {
        assert!(Instant::now() < deadline, "publishing goes on once the alarm is over");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = message(100_000);
    while !reader.take(1).await.contains(&last) {}
}
