//! What AWS refuses, in sentences that say what to do; and batches of which only a part went in. Against a server that only
//! answers as AWS does, because no emulator checks permissions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use caudal_broker::sqs::SqsBroker;
use caudal_broker::{Place, RemoteConfig};
use caudal_core::error::BrokerError;
use caudal_core::message::Marks;
use caudal_core::ports::{Broker, Publish, Subscription};
use caudal_testkit::broker::{Ledger, messages, topic};
use serde_json::{Value, json};

use crate::fake::{Answer, Fake, nothing, partly, queue, refusal, xml_refusal};

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:news";
const USER: &str = "arn:aws:iam::123456789012:user/ana";

/// A broker that publishes to the fake's topic, or straight to its queue, and reads its queue.
async fn broker(fake: &Fake, publish: Option<&str>) -> SqsBroker {
    let mut config = RemoteConfig { create: false, ..RemoteConfig::new(fake.url()) };
    let place = Place { publish: publish.map(str::to_owned), consume: Some(fake.queue_url()) };
    config.places.insert(topic("t"), place);
    SqsBroker::open(config).await.unwrap()
}

async fn subscribe(broker: &SqsBroker) -> Box<dyn Subscription> {
    broker.subscribe(&topic("t"), "store", Arc::new(Ledger::default())).await.unwrap()
}

fn setup(outcome: Result<(), BrokerError>) -> String {
    match outcome {
        Err(BrokerError::Setup(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_permission_is_named_with_who_lacks_it() {
    let fake = Fake::start(|action, _| match action {
        "GetQueueAttributes" => queue(),
        // Whoever may only publish may do nothing else.
        _ => {
            xml_refusal(403, "AuthorizationError", &format!("User: {USER} is not authorized to perform: SNS:{action}"))
        }
    });
    let fake = fake.await;
    let said = setup(broker(&fake, Some(TOPIC)).await.publish(&topic("t"), messages(0..1)).await);
    assert!(said.starts_with(&format!("{USER} may not do sns:Publish on {TOPIC}")), "{said}");
    assert_eq!(fake.asked("PublishBatch").len(), 1, "asking again would change nothing");

    let fake = Fake::start(|action, _| match action {
        "GetQueueAttributes" => queue(),
        _ => {
            refusal("AccessDeniedException", &format!("User: {USER} is not authorized to perform: sqs:receivemessage"))
        }
    });
    let fake = fake.await;
    let received = subscribe(&broker(&fake, None).await).await.receive(1, 1).await;
    let said = setup(received.map(drop));
    assert!(
        said.contains(&format!("{USER} may not do sqs:ReceiveMessage on arn:aws:sqs:us-east-1:123456789012:q")),
        "{said}"
    );
}

#[tokio::test]
async fn wrong_credentials_and_expired_ones_are_told_apart() {
    let said = async |code: &'static str| {
        let fake = Fake::start(move |_, _| refusal(code, "The security token is not good")).await;
        setup(broker(&fake, None).await.publish(&topic("t"), messages(0..1)).await)
    };
    assert!(said("ExpiredTokenException").await.contains("have expired"));
    for code in ["UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch"] {
        assert!(said(code).await.contains("does not accept the credentials"), "{code}");
    }
    assert!(said("KmsAccessDenied").await.contains("kms:GenerateDataKey"));
}

#[tokio::test]
async fn throttling_and_illness_pass() {
    for (status, code) in [(400, "RequestThrottled"), (503, "ServiceUnavailable"), (500, "InternalFailure")] {
        let fake = Fake::start(move |action, _| match action {
            "GetQueueAttributes" => queue(),
            _ => (status, refusal(code, "later").1),
        });
        let fake = fake.await;
        let done = broker(&fake, None).await.publish(&topic("t"), messages(0..1)).await;
        assert!(matches!(done, Err(BrokerError::Unavailable(_))), "{code}: {done:?}");
        assert_eq!(fake.asked("SendMessageBatch").len(), 3, "{code} is worth repeating, a few times");
    }
}

#[tokio::test]
async fn what_is_not_aws_is_said_to_be_something_else() {
    let fake = Fake::start(|_, _| (404, "<html>nothing here</html>".to_owned())).await;
    let said = setup(broker(&fake, None).await.publish(&topic("t"), messages(0..1)).await);
    assert!(said.contains("is not SNS or SQS") && said.contains("endpoint"), "{said}");
}

#[tokio::test]
async fn nobody_there_is_known_soon() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = RemoteConfig::new(format!("sqs:?endpoint=http://127.0.0.1:{port}&region=us-east-1"));
    let broker = SqsBroker::open(config).await.unwrap();
    let start = Instant::now();
    let (name, ledger) = (topic("t"), Arc::new(Ledger::default()));
    let outcomes = [
        broker.publish(&name, messages(0..1)).await.err(),
        broker.subscribe(&name, "store", ledger).await.map(drop).err(),
        broker.topic_state(&name, "store").await.map(drop).err(),
        broker.probe(&[]).await.map(drop).err(),
    ];
    assert!(outcomes.iter().all(|error| matches!(error, Some(BrokerError::Unavailable(_)))), "{outcomes:?}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    broker.close().await.unwrap();
}

#[tokio::test]
async fn entries_that_were_turned_away_go_out_again_alone() {
    let round = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |action, body| match action {
        "GetQueueAttributes" => queue(),
        "SendMessageBatch" if round.fetch_add(1, Ordering::SeqCst) == 0 => {
            partly(body, &[2, 5], "InternalFailure", false)
        }
        _ => partly(body, &[], "", false),
    });
    let fake = fake.await;
    broker(&fake, None).await.publish(&topic("t"), messages(0..8)).await.unwrap();
    let sent: Vec<Value> =
        fake.asked("SendMessageBatch").iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let bodies = |request: &Value| -> Vec<Value> {
        request["Entries"].as_array().unwrap().iter().map(|entry| entry["MessageBody"].clone()).collect()
    };
    assert_eq!(sent.len(), 2);
    assert_eq!(bodies(&sent[1]), [bodies(&sent[0])[2].clone(), bodies(&sent[0])[5].clone()]);
}

#[tokio::test]
async fn an_entry_that_stays_out_fails_the_publish() {
    let fake = Fake::start(|action, body| match action {
        "GetQueueAttributes" => queue(),
        _ => partly(body, &[0], "InternalFailure", false),
    });
    let fake = fake.await;
    let done = broker(&fake, None).await.publish(&topic("t"), messages(0..2)).await;
    assert!(matches!(done, Err(BrokerError::Unavailable(_))), "{done:?}");

    let fake = Fake::start(|action, body| match action {
        "GetQueueAttributes" => queue(),
        _ => partly(body, &[1], "InvalidMessageContents", true),
    });
    let fake = fake.await;
    let done = broker(&fake, None).await.publish(&topic("t"), messages(0..2)).await;
    assert!(matches!(done, Err(BrokerError::Refused(_))), "{done:?}");
    assert_eq!(fake.asked("SendMessageBatch").len(), 1, "what is wrong with a message stays wrong");
}

/// Three messages, once.
fn three(round: &AtomicUsize) -> Answer {
    if round.fetch_add(1, Ordering::SeqCst) > 0 {
        std::thread::sleep(Duration::from_millis(20));
        return nothing();
    }
    let message =
        |number: usize| json!({"MessageId": format!("m{number}"), "ReceiptHandle": format!("r{number}"), "Body": "{}"});
    (200, json!({"Messages": [message(0), message(1), message(2)]}).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_failed_is_repeated_and_a_stale_one_is_not() {
    let (received, deleted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fake = Fake::start(move |action, body| match action {
        "GetQueueAttributes" => queue(),
        "ReceiveMessage" => three(&received),
        "DeleteMessageBatch" => match deleted.fetch_add(1, Ordering::SeqCst) {
            0 => partly(body, &[1], "InternalFailure", false),
            _ => partly(body, &[0], "ReceiptHandleIsInvalid", true),
        },
        _ => partly(body, &[], "", false),
    });
    let fake = fake.await;
    let broker = broker(&fake, None).await;
    let mut subscription = subscribe(&broker).await;
    let got = subscription.receive(10, usize::MAX).await.unwrap();
    let mut marks = Marks::default();
    got.iter().for_each(|delivery| marks.add(delivery.mark).unwrap());
    subscription.ack(&marks).await.unwrap();
    let asked: Vec<Value> =
        fake.asked("DeleteMessageBatch").iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let receipts = |request: &Value| -> Vec<String> {
        let entries = request["Entries"].as_array().unwrap().iter();
        entries.map(|entry| entry["ReceiptHandle"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(asked.iter().map(receipts).collect::<Vec<_>>(), [vec!["r0", "r1", "r2"], vec!["r1"]]);
    subscription.ack(&marks).await.unwrap();
    assert_eq!(fake.asked("DeleteMessageBatch").len(), 2, "settling again asks nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_that_could_not_be_done_can_be_repeated() {
    let (received, deleted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fake = Fake::start(move |action, body| match action {
        "GetQueueAttributes" => queue(),
        "ReceiveMessage" => three(&received),
        "DeleteMessageBatch" if deleted.fetch_add(1, Ordering::SeqCst) < 4 => {
            partly(body, &[0, 1, 2], "InternalFailure", false)
        }
        _ => partly(body, &[], "", false),
    });
    let fake = fake.await;
    let broker = broker(&fake, None).await;
    let mut subscription = subscribe(&broker).await;
    let got = subscription.receive(10, usize::MAX).await.unwrap();
    let mut marks = Marks::default();
    got.iter().for_each(|delivery| marks.add(delivery.mark).unwrap());
    let done = subscription.ack(&marks).await;
    assert!(matches!(done, Err(BrokerError::Unavailable(_))), "{done:?}");
    subscription.ack(&marks).await.unwrap();
    assert_eq!(fake.asked("DeleteMessageBatch").len(), 5);
}
