//! Who holds a message, and for how long: run on each emulator.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caudal_broker::RemoteConfig;
use caudal_broker::sqs::SqsBroker;
use caudal_core::error::BrokerError;
use caudal_core::message::{Delivery, Message};
use caudal_core::ports::{Broker, Publish, Subscription};
use caudal_testkit::broker::{Ledger, bare, marks, message, messages, receive, topic};
use caudal_testkit::emulator::Road;

use crate::shapes::{fresh, open, subscribe, take};

/// A visibility timeout that a slow consumer exceeds several times.
const SHORT: &str = "&visibility_seconds=2";
const SLOW: Duration = Duration::from_secs(6);

async fn short(road: &Road) -> SqsBroker {
    SqsBroker::open(RemoteConfig::new(road.url() + SHORT)).await.unwrap()
}

async fn nothing_comes(subscription: &mut dyn Subscription, within: Duration) {
    let more = tokio::time::timeout(within, subscription.receive(10, usize::MAX)).await;
    assert!(more.is_err(), "{more:?}");
}

/// A slow consumer keeps what it has, and another process gets none of it.
pub(crate) async fn keeps_hidden_what_is_out(road: Road) {
    let (slow, other) = (short(&road).await, short(&road).await);
    let topic = fresh("slow");
    slow.publish(&topic, messages(0..12)).await.unwrap();
    let mut subscription = subscribe(&slow, &topic, "store").await;
    let held = receive(&mut *subscription, 12).await;
    let mut rival = subscribe(&other, &topic, "store").await;
    nothing_comes(&mut *rival, SLOW).await;
    subscription.ack(&marks(&held)).await.unwrap();
    nothing_comes(&mut *rival, Duration::from_secs(4)).await;
    assert_eq!(slow.topic_state(&topic, "store").await.unwrap().waiting, Some(0));
}

/// What lies in the buffer of a consumer that does not come for it is kept hidden as well.
pub(crate) async fn keeps_hidden_what_was_fetched_ahead(road: Road) {
    let broker = short(&road).await;
    let topic = fresh("ahead");
    broker.publish(&topic, messages(0..20)).await.unwrap();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    let mut got = receive(&mut *subscription, 1).await;
    tokio::time::sleep(SLOW).await;
    got.extend(receive(&mut *subscription, 19).await);
    assert!(got.iter().all(|delivery| delivery.attempt == 1), "none of them came back in between");
    subscription.ack(&marks(&got)).await.unwrap();
    nothing_comes(&mut *subscription, Duration::from_secs(3)).await;
}

/// A process that is killed gives nothing back; its messages come again when their time is over.
pub(crate) async fn a_killed_consumer_holds_nothing_for_long(road: Road) {
    let broker = short(&road).await;
    let topic = fresh("killed");
    broker.publish(&topic, messages(0..5)).await.unwrap();
    let (url, name) = (road.url() + SHORT, topic.clone());
    let killed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let subscription = runtime.block_on(async {
            let broker = SqsBroker::open(RemoteConfig::new(url)).await.unwrap();
            let mut subscription = subscribe(&broker, &name, "store").await;
            receive(&mut *subscription, 5).await;
            subscription
        });
        // Nothing of it runs any more, and nobody tells the queue.
        std::mem::forget(subscription);
        runtime.shutdown_background();
    });
    killed.join().unwrap();
    let start = Instant::now();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    let again = take(&mut *subscription, 5).await;
    assert!(again.iter().all(|delivery| delivery.attempt == 2));
    // 2 s hidden, and a poll that was under way may take them along once more.
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
}

/// Two processes on one queue share the work.
pub(crate) async fn two_consumers_share_a_queue(road: Road) {
    const TOTAL: usize = 60;
    let topic = fresh("shared");
    open(&road).await.publish(&topic, messages(0..TOTAL as u64)).await.unwrap();
    let (done, mut ids) = tokio::sync::mpsc::channel(TOTAL);
    let consumers = (0..2).map(|_| {
        let (done, topic, url) = (done.clone(), topic.clone(), road.url());
        tokio::spawn(async move {
            let broker = SqsBroker::open(RemoteConfig::new(url)).await.unwrap();
            let mut subscription = subscribe(&broker, &topic, "store").await;
            loop {
                let some = subscription.receive(3, usize::MAX).await.unwrap();
                subscription.ack(&marks(&some)).await.unwrap();
                for delivery in some {
                    done.send(delivery.message.id).await.unwrap();
                }
            }
        })
    });
    let consumers: Vec<_> = consumers.collect();
    let mut seen = HashSet::new();
    while seen.len() < TOTAL {
        let id = tokio::time::timeout(Duration::from_secs(60), ids.recv()).await.unwrap().unwrap();
        assert!(seen.insert(id), "each goes to one of them");
    }
    consumers.iter().for_each(|consumer| consumer.abort());
}

/// While a message of a group is out, nobody gets another of that group, and other groups go on; given back, it comes first.
pub(crate) async fn a_group_waits_for_its_first(road: Road) {
    let (one, other) = (open(&road).await, open(&road).await);
    let topic = fresh("groups.fifo");
    let keyed = |key: &str, number| Message { key: Some(key.to_owned()), ..message(number) };
    one.publish(&topic, vec![keyed("a", 0)]).await.unwrap();
    let mut holder = subscribe(&one, &topic, "store").await;
    let first = receive(&mut *holder, 1).await;
    one.publish(&topic, vec![keyed("a", 1), keyed("b", 2), keyed("a", 3)]).await.unwrap();
    let mut rival = subscribe(&other, &topic, "store").await;
    let got = tokio::select! {
        got = take(&mut *rival, 1) => got,
        got = take(&mut *holder, 1) => got,
    };
    assert_eq!(bare(got), [keyed("b", 2)]);
    nothing_comes(&mut *rival, Duration::from_secs(2)).await;
    drop(rival);
    // A poll of the rival's that is still under way would take what is given back, and so count as one attempt more.
    other.close().await.unwrap();
    let start = Instant::now();
    holder.nack(&marks(&first), Duration::from_secs(2)).await.unwrap();
    let again = take(&mut *holder, 1).await;
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!((again[0].attempt, bare(again)), (2, vec![keyed("a", 0)]));
    assert_eq!(bare(take(&mut *holder, 2).await), [keyed("a", 1), keyed("a", 3)]);
}

/// Given back in the middle, a message is not overtaken by those of its group that were fetched with it.
pub(crate) async fn a_group_does_not_overtake_itself(road: Road) {
    let broker = open(&road).await;
    let topic = fresh("line.fifo");
    let line = |number| Message { key: Some("one".to_owned()), ..message(number) };
    broker.publish(&topic, (0..8).map(line).collect()).await.unwrap();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    let mut order: Vec<Delivery> = Vec::new();
    let mut gave_back = false;
    while order.len() < 8 {
        let some = receive(&mut *subscription, 1).await;
        if order.len() == 3 && !gave_back {
            gave_back = true;
            subscription.nack(&marks(&some), Duration::from_secs(1)).await.unwrap();
            continue;
        }
        subscription.ack(&marks(&some)).await.unwrap();
        order.extend(some);
    }
    assert_eq!(bare(order), (0..8).map(line).collect::<Vec<_>>());
}

/// Many callers at once, each with its own group: order within each, and everything in few requests.
pub(crate) async fn groups_keep_their_order_under_load(road: Road) {
    let broker = Arc::new(open(&road).await);
    let topic = fresh("load.fifo");
    let publishers = (0..4u64).map(|publisher| {
        let (broker, topic) = (broker.clone(), topic.clone());
        tokio::spawn(async move {
            for number in 0..5 {
                let of = |number| Message { key: Some(format!("p{publisher}")), ..message(number) };
                let start = publisher * 100 + number * 4;
                broker.publish(&topic, (start..start + 4).map(of).collect()).await.unwrap();
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap();
    }
    let mut subscription = subscribe(&broker, &topic, "store").await;
    let mut got = Vec::new();
    while got.len() < 80 {
        got.extend(take(&mut *subscription, 1).await);
    }
    for publisher in 0..4 {
        let key = Some(format!("p{publisher}"));
        let times =
            got.iter().filter(|delivery| delivery.message.key == key).map(|delivery| delivery.message.published_at);
        assert!(times.is_sorted(), "{key:?}");
    }
}

/// A server that takes requests and answers none: everybody who waits is told, and soon, not one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_long_for_an_answer_that_does_not_come() {
    let road = caudal_testkit::moto::shared().unwrap().road().unwrap();
    let broker = Arc::new(open(&road).await);
    let topic = fresh("silent");
    broker.publish(&topic, messages(0..1)).await.unwrap();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    take(&mut *subscription, 1).await;
    road.hold();
    let start = Instant::now();
    let publishers: Vec<_> = (1..1000)
        .map(|number| {
            let (broker, topic) = (broker.clone(), topic.clone());
            tokio::spawn(async move { broker.publish(&topic, messages(number..number + 1)).await })
        })
        .collect();
    for publisher in publishers {
        let outcome = publisher.await.unwrap();
        assert!(matches!(outcome, Err(BrokerError::Unavailable(_))), "{outcome:?}");
    }
    let failed = subscription.receive(1, 1).await;
    assert!(matches!(failed, Err(BrokerError::Unavailable(_))), "{failed:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    road.let_go();
    broker.publish(&topic, messages(2000..2003)).await.unwrap();
    drop(subscription);
    let mut subscription = subscribe(&broker, &topic, "store").await;
    // What was under way may have got there.
    while take(&mut *subscription, 1).await[0].message != message(2002) {}
}

/// A server that died and forgot everything, queues and topics too: all of it is made again.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_was_emptied_is_set_up_again() {
    let moto = caudal_testkit::moto::Moto::start().unwrap();
    let road = moto.road().unwrap();
    let broker = open(&road).await;
    let topic = topic("again");
    broker.publish(&topic, messages(0..3)).await.unwrap();
    let mut subscription = subscribe(&broker, &topic, "store").await;
    take(&mut *subscription, 3).await;
    moto.kill();
    let away = broker.publish(&topic, messages(3..4)).await;
    assert!(matches!(away, Err(BrokerError::Unavailable(_))), "{away:?}");
    moto.restart().unwrap();
    // As a producer and the worker do: again after a failure.
    while broker.publish(&topic, messages(4..6)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failed = tokio::time::timeout(Duration::from_secs(30), subscription.receive(1, 1)).await.unwrap();
    assert!(failed.is_err(), "a queue that is gone is not waited for: {failed:?}");
    let mut subscription = broker.subscribe(&topic, "store", Arc::new(Ledger::default())).await.unwrap();
    assert_eq!(take(&mut *subscription, 2).await.len(), 2);
}
