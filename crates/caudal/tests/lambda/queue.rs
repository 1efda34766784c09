//! Events of SQS.

use caudal_testkit::lambda::Invoked;
use serde_json::{Value, json};

use crate::{Deployed, event};

/// Messages of one queue: id, body, hand-over, group.
fn batch(queue: &str, messages: &[(&str, &str, u32, &str)]) -> Value {
    let template = event!("sqs-fifo")["Records"][0].clone();
    let records = messages.iter().map(|(id, body, attempt, group)| {
        let mut record = template.clone();
        record["messageId"] = (*id).into();
        record["body"] = (*body).into();
        record["attributes"]["ApproximateReceiveCount"] = attempt.to_string().into();
        record["attributes"]["MessageGroupId"] = (*group).into();
        record["eventSourceARN"] = format!("arn:aws:sqs:eu-west-1:123456789012:{queue}").into();
        record
    });
    json!({"Records": records.collect::<Vec<_>>()})
}

fn failed(answer: &Value) -> Vec<&str> {
    let items = answer["batchItemFailures"].as_array().unwrap_or_else(|| panic!("{answer}"));
    items.iter().map(|item| item["itemIdentifier"].as_str().unwrap()).collect()
}

fn order(n: u32, customer: &str) -> String {
    json!({"n": n, "customer": customer}).to_string()
}

/// Rows of this customer are refused by the database in a way that is nobody's fault.
const FORBIDDEN: &str = "
    create function forbid() returns trigger language plpgsql as $$ begin
      if new.customer = 'forbidden' then raise exception 'may not' using errcode = '42501'; end if;
      return new;
    end $$;
    create trigger forbidding before insert on orders for each row execute function forbid();
    create trigger forbidding before insert on payments for each row execute function forbid()";

async fn forbid(deployed: &Deployed) {
    // The function makes its tables when it starts.
    deployed.balances().await;
    deployed.database.batch_execute(FORBIDDEN).await.unwrap();
}

#[tokio::test]
async fn raw_messages_envelopes_and_bad_ones_are_settled() {
    let deployed = Deployed::open().await;
    let event = event!("sqs");
    assert_eq!(deployed.answer(&event).await, json!({"batchItemFailures": []}));
    // In the log before the answer was given.
    let log = deployed.function.log();
    assert!(log.contains("messages=3 stored=2 duplicate=0 dead=1 unsettled=0"), "{log}");
    assert_eq!(deployed.customers("orders").await, ["ana", "by sns"]);
    let sources = deployed.column("select _source from orders order by n").await;
    let arns = [
        "sqs:arn:aws:sqs:eu-west-1:123456789012:caudal-orders-store",
        "sns:arn:aws:sns:eu-west-1:123456789012:caudal-orders",
    ];
    assert_eq!(sources, arns);
    let reasons = deployed.column("select reason || ' ' || payload from _dead_letters").await;
    assert_eq!(reasons, ["schema {\"n\": \"not a number\"}"]);
    // The same messages again change nothing, whatever SQS thinks.
    assert_eq!(deployed.answer(&event).await, json!({"batchItemFailures": []}));
    assert!(deployed.function.log().contains("stored=0 duplicate=3 dead=0"), "{}", deployed.function.log());
    assert_eq!(deployed.customers("orders").await.len(), 2);
    assert_eq!(deployed.answer(&json!({"Records": []})).await, json!({"batchItemFailures": []}));
    deployed.balances().await;
}

#[tokio::test]
async fn only_what_is_not_settled_comes_again() {
    let deployed = Deployed::open().await;
    forbid(&deployed).await;
    let (good, bad, late) = (order(1, "good"), order(2, "forbidden"), order(3, "late"));
    // Met for the first time, they share a transaction, and which of them is at fault is not known.
    let together = batch("caudal-orders-store", &[("m1", &good, 1, "-"), ("m2", &bad, 1, "-"), ("m3", &late, 1, "-")]);
    let all = deployed.function.invoke(&together).await.unwrap();
    let Invoked::Error(kind, message) = all else { panic!("{all:?}") };
    assert_eq!(kind, "NothingSettled");
    assert!(message.contains("none of 3 messages"), "{message}");
    assert!(deployed.customers("orders").await.is_empty());
    // What comes again and again is taken alone.
    let alone = batch("caudal-orders-store", &[("m1", &good, 4, "-"), ("m2", &bad, 4, "-"), ("m3", &late, 1, "-")]);
    assert_eq!(failed(&deployed.answer(&alone).await), ["m2"]);
    assert_eq!(deployed.customers("orders").await, ["good", "late"]);
    // In the end it is set aside, and is a failure no more.
    let poison = batch("caudal-orders-store", &[("m2", &bad, 21, "-")]);
    assert_eq!(failed(&deployed.answer(&poison).await), [""; 0]);
    assert_eq!(deployed.column("select reason from _dead_letters").await, ["poison"]);
    deployed.balances().await;
}

#[tokio::test]
async fn in_a_fifo_queue_nothing_overtakes_its_group() {
    let deployed = Deployed::open().await;
    forbid(&deployed).await;
    let messages = [
        ("a1", order(1, "a1"), "a"),
        ("a2", order(2, "forbidden"), "a"),
        ("b1", order(3, "b1"), "b"),
        ("a3", order(4, "a3"), "a"),
        ("b2", "not json".to_owned(), "b"),
        ("b3", order(6, "b3"), "b"),
        ("a4", "not json either".to_owned(), "a"),
    ];
    let messages: Vec<_> = messages.iter().map(|(id, body, group)| (*id, body.as_str(), 4, *group)).collect();
    let answer = deployed.answer(&batch("payments.fifo", &messages)).await;
    assert_eq!(failed(&answer), ["a2", "a3", "a4"]);
    assert_eq!(deployed.customers("payments").await, ["a1", "b1", "b3"]);
    assert_eq!(deployed.column("select payload from _dead_letters").await, ["not json"]);
    // A standard queue keeps no order: its groups are for fairness.
    let answer = deployed.answer(&batch("caudal-orders-store", &messages)).await;
    assert_eq!(failed(&answer), ["a2"]);
    deployed.balances().await;
}

#[tokio::test]
async fn large_batches_and_large_messages() {
    let deployed = Deployed::open().await;
    let customer = "x".repeat(600_000);
    let bodies: Vec<(String, String)> = (0..9).map(|n| (format!("m{n}"), order(n, &customer))).collect();
    let messages: Vec<_> = bodies.iter().map(|(id, body)| (id.as_str(), body.as_str(), 1, "-")).collect();
    assert_eq!(deployed.answer(&batch("caudal-orders-store", &messages)).await, json!({"batchItemFailures": []}));
    let bodies: Vec<(String, String)> = (0..10_000).map(|n| (format!("n{n}"), order(n + 100, "small"))).collect();
    let messages: Vec<_> = bodies.iter().map(|(id, body)| (id.as_str(), body.as_str(), 1, "-")).collect();
    assert_eq!(deployed.answer(&batch("caudal-orders-store", &messages)).await, json!({"batchItemFailures": []}));
    assert_eq!(deployed.column("select count(*)::text from orders").await, ["10009"]);
    deployed.balances().await;
}

#[tokio::test]
async fn unknown_queues_and_unknown_events_are_errors_that_say_what_to_do() {
    let deployed = Deployed::open().await;
    let lost = deployed.function.invoke(&batch("somebody-elses", &[("m1", "{}", 1, "-")])).await.unwrap();
    assert!(matches!(&lost, Invoked::Error(kind, _) if kind == "NothingSettled"), "{lost:?}");
    let log = deployed.function.log();
    assert!(log.contains("123456789012:somebody-elses") && log.contains("consume_from"), "{log}");
    for event in [json!({"hello": "s3cret"}), json!("warm"), json!({"Records": [{"eventSource": "aws:s3", "s3": {}}]})]
    {
        let unknown = deployed.function.invoke(&event).await.unwrap();
        let Invoked::Error(kind, message) = unknown else { panic!("{unknown:?}") };
        assert_eq!(kind, "UnknownEvent");
        for shape in ["REST API", "payload format 1.0 or 2.0", "function URL", "Application Load Balancer", "SQS"] {
            assert!(message.contains(shape), "{message}");
        }
    }
    assert!(!deployed.function.log().contains("s3cret"));
    // It lives on.
    assert_eq!(deployed.answer(&event!("sqs")).await, json!({"batchItemFailures": []}));
}
