//! The state machine of `deploy/step-functions`, run by moto's interpreter, over the real program as its function.

use std::time::{Duration, Instant};

use caudal_testkit::emulator::Road;
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use caudal_testkit::lambda::Invoked;
use caudal_testkit::step_functions::{self, Deployed, Execution, Spec};
use serde_json::{Value, json};

use crate::books::Books;
use crate::{PAYMENTS, TOPIC, section};

const DEFINITION: &str = include_str!("../../../../deploy/step-functions/confirm.asl.json");
const PATIENCE: Duration = Duration::from_secs(180);

struct Case {
    books: Books,
    endpoint: Endpoint,
    deployed: Deployed,
    /// The function's own way to its table.
    road: Road,
}

impl Case {
    async fn new(behaviour: Behaviour, more: &str, timeout: Duration) -> Self {
        let services = step_functions::shared().unwrap();
        let (books, endpoint) = (Books::at(&services.endpoint()).await, Endpoint::start(behaviour).await.unwrap());
        let road = services.road().unwrap();
        let config = format!(
            "[topics.{TOPIC}]\nschema = \"payments.schema.json\"\nconsume_from = \"payments-in\"\n{}",
            section(&endpoint.url("/pay"), more)
        );
        let spec = Spec {
            binary: env!("CARGO_BIN_EXE_caudal").to_owned(),
            files: vec![("caudal.toml".into(), config), ("payments.schema.json".into(), PAYMENTS.into())],
            environment: vec![(
                "CAUDAL_CONFIRM__STORE".into(),
                books.url.replace(&services.endpoint(), &road.endpoint()),
            )],
            timeout,
            // More than two executions want: moto's interpreter loses a map whose step it has to repeat.
            concurrency: 12,
        };
        let name = format!("f{}", uuid::Uuid::now_v7().simple());
        let deployed = services.deploy(&name, spec, DEFINITION).await.unwrap();
        Self { books, endpoint, deployed, road }
    }

    /// What the function says of a step.
    async fn step(&self, event: Value) -> Value {
        self.deployed.invoke(event).await.unwrap().answer()
    }

    async fn enqueue(&self, payments: std::ops::Range<u32>) -> Value {
        let records: Vec<Value> = payments.map(|n| json!({ "payment_id": format!("p{n}"), "amount": n })).collect();
        self.step(json!({ "op": "enqueue", "topic": TOPIC, "records": records })).await
    }

    async fn execute(&self, name: &str) -> Execution {
        let ended = self.deployed.execute(name, PATIENCE).await.unwrap();
        assert_eq!(ended.status, "SUCCEEDED", "{}\n{:#?}\n{}", ended.cause, self.deployed.calls(), self.deployed.log());
        ended
    }

    /// The invocations of one step.
    fn calls(&self, op: &str) -> Vec<(Value, Invoked)> {
        self.deployed.calls().into_iter().filter(|(event, _)| event["op"] == op).collect()
    }

    /// Those that ended with an error of this kind.
    fn failures(&self, op: &str, kind: &str) -> usize {
        let failed = |invoked: &Invoked| matches!(invoked, Invoked::Error(of, _) if of == kind);
        self.calls(op).iter().filter(|(_, invoked)| failed(invoked)).count()
    }
}

/// Waits until the endpoint has been called so often.
async fn called(case: &Case, calls: u64) {
    let begun = Instant::now();
    while case.endpoint.totals().calls < calls {
        assert!(begun.elapsed() < PATIENCE, "{:?}\n{}", case.endpoint.totals(), case.deployed.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const LONG: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pending_is_confirmed() {
    let case = Case::new(Behaviour::default(), "batch_max = 10", LONG).await;
    assert_eq!(case.enqueue(0..25).await, json!({ "new": 25, "repeats": 0, "refused": [] }));
    let plan = case.step(json!({ "op": "plan", "parallel_max": 2 })).await;
    let one = json!({ "op": "confirm", "topic": TOPIC });
    assert_eq!(plan, json!({ "due": 25, "count": 2, "inputs": [one, one] }));
    case.execute("first").await;
    case.books.judge(&case.endpoint, 0..25).await;
    assert_eq!((case.books.lane().await.confirmed, case.endpoint.totals().calls), (25, 25));
    let confirmed: u64 =
        case.calls("confirm").iter().map(|(_, said)| said.clone().answer()["ok"].as_u64().unwrap()).sum();
    assert_eq!(confirmed, 25);
    // With nothing to do it takes two steps.
    let before = case.deployed.calls().len();
    case.execute("second").await;
    let ops: Vec<Value> = case.deployed.calls()[before..].iter().map(|(event, _)| event["op"].clone()).collect();
    assert_eq!(ops, ["plan", "reconcile"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn enqueued_twice_and_executed_twice_at_once_it_is_done_once() {
    let slow = Behaviour { delays: 1.0, delay_ms: 100, ..Behaviour::default() };
    let case = Case::new(slow, "batch_max = 5\nlease = \"10s\"", LONG).await;
    assert_eq!(case.enqueue(0..20).await["new"], 20);
    assert_eq!(case.enqueue(0..20).await, json!({ "new": 0, "repeats": 20, "refused": [] }));
    let changed = json!([{ "payment_id": "p1", "amount": 999 }, { "amount": 1 }]);
    let refused = case.step(json!({ "op": "enqueue", "topic": TOPIC, "records": changed })).await;
    assert_eq!((&refused["new"], refused["refused"].as_array().map(Vec::len)), (&0.into(), Some(2)), "{refused}");
    let (one, other) = (case.deployed.start("one").await.unwrap(), case.deployed.start("other").await.unwrap());
    for execution in [one, other] {
        let ended = case.deployed.end_of(&execution, PATIENCE).await.unwrap();
        assert_eq!(ended.status, "SUCCEEDED", "{}\n{}", ended.cause, step_functions::shared().unwrap().log());
    }
    case.books.judge(&case.endpoint, 0..20).await;
    assert_eq!(case.books.lane().await.confirmed, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_no_is_an_outcome() {
    let case = Case::new(Behaviour { declines: 0.4, ..Behaviour::default() }, "", LONG).await;
    case.enqueue(0..30).await;
    case.execute("run").await;
    case.books.judge(&case.endpoint, 0..30).await;
    let lane = case.books.lane().await;
    assert!(lane.rejected > 3 && lane.confirmed > 3 && lane.rejected + lane.confirmed == 30, "{lane:?}");
}

/// The endpoint is away at first: the machine waits and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_done_is_tried_again() {
    let away = Behaviour { too_many: 1.0, retry_after_seconds: 15, ..Behaviour::default() };
    let case = Case::new(away, "backoff = \"1500ms\"\nbackoff_max = \"3s\"", LONG).await;
    case.enqueue(0..12).await;
    let execution = case.deployed.start("run").await.unwrap();
    called(&case, 12).await;
    case.endpoint.set(Behaviour::default());
    let ended = case.deployed.end_of(&execution, PATIENCE).await.unwrap();
    assert_eq!(ended.status, "SUCCEEDED", "{}", ended.cause);
    case.books.judge(&case.endpoint, 0..12).await;
    assert_eq!(case.books.lane().await.confirmed, 12);
    let deferred = |said: &Invoked| said.clone().answer()["deferred"].as_u64() > Some(0);
    assert!(case.calls("confirm").iter().any(|(_, said)| deferred(said)), "{:#?}", case.deployed.calls());
    assert!(case.calls("reconcile").len() > 1, "{:#?}", case.deployed.calls());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_is_killed_in_the_middle_loses_and_doubles_nothing() {
    let slow = Behaviour { delays: 1.0, delay_ms: 400, ..Behaviour::default() };
    let case = Case::new(slow, "concurrency = 6", LONG).await;
    case.enqueue(0..24).await;
    let execution = case.deployed.start("run").await.unwrap();
    called(&case, 4).await;
    assert!(case.deployed.kill_busy() > 0);
    let ended = case.deployed.end_of(&execution, PATIENCE).await.unwrap();
    assert_eq!(ended.status, "SUCCEEDED", "{}", ended.cause);
    assert!(case.failures("confirm", "Runtime.ExitError") > 0, "{:#?}", case.deployed.calls());
    case.books.judge(&case.endpoint, 0..24).await;
    assert_eq!(case.books.lane().await.confirmed, 24);
    assert!(case.endpoint.totals().calls > 24, "what was under way was asked for again");
}

/// Lambda ends it in the middle of a batch, without a word before. Once: a transaction that ends three functions is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_whose_time_is_over_in_the_middle_loses_and_doubles_nothing() {
    let stuck = Behaviour { delays: 1.0, delay_ms: 14_000, ..Behaviour::default() };
    let case = Case::new(
        stuck,
        "concurrency = 2\ntimeout = \"30s\"\nbackoff = \"1s\"\nbackoff_max = \"3s\"",
        Duration::from_secs(10),
    )
    .await;
    case.enqueue(0..8).await;
    let execution = case.deployed.start("run").await.unwrap();
    let begun = Instant::now();
    while case.failures("confirm", "Sandbox.Timedout") == 0 {
        assert!(begun.elapsed() < PATIENCE, "{:#?}\n{}", case.deployed.calls(), case.deployed.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    case.endpoint.set(Behaviour::default());
    let ended = case.deployed.end_of(&execution, PATIENCE).await.unwrap();
    assert_eq!(ended.status, "SUCCEEDED", "{}", ended.cause);
    case.books.judge(&case.endpoint, 0..8).await;
    let lane = case.books.lane().await;
    assert_eq!(lane.confirmed, 8, "{lane:?}\n{:#?}", case.deployed.calls());
}

/// A dead function's lease is watched for its term, however long a look at the table takes; and nobody else would take it up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_answers_slowly_does_not_hide_a_dead_functions_lease() {
    let slow = Behaviour { delays: 1.0, delay_ms: 10_000, ..Behaviour::default() };
    let case = Case::new(slow, "timeout = \"30s\"", LONG).await;
    case.enqueue(0..2).await;
    let killed = async {
        called(&case, 1).await;
        // Another function opens the table, and sees a lease that is prolonged once more before its owner dies.
        case.step(json!({ "op": "plan" })).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(case.deployed.kill_busy() > 0);
    };
    let (ended, ()) = tokio::join!(case.deployed.invoke(json!({ "op": "confirm", "topic": TOPIC })), killed);
    assert!(matches!(ended.unwrap(), Invoked::Error(of, _) if of == "Runtime.ExitError"));
    let held = async {
        case.road.hold();
        tokio::time::sleep(Duration::from_secs(4)).await;
        case.road.let_go();
    };
    let (left, ()) = tokio::join!(case.step(json!({ "op": "reconcile", "round": 0 })), held);
    assert_eq!(left["again"], true, "{left}\n{}", case.deployed.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_queue_become_pending() {
    let case = Case::new(Behaviour::default(), "", LONG).await;
    let record = |id: &str, body: &str| json!({ "messageId": id, "body": body, "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:payments-in" });
    let good = json!({ "payment_id": "p0", "amount": 0 }).to_string();
    let event = json!({ "Records": [record("m1", &good), record("m2", "{\"amount\": 1}"), record("m3", &good)] });
    let answer = case.step(event).await;
    assert_eq!(answer, json!({ "batchItemFailures": [{ "itemIdentifier": "m2" }] }));
    assert_eq!(case.enqueue(0..1).await["repeats"], 1, "by whatever way it came");
    case.execute("run").await;
    case.books.judge(&case.endpoint, 0..1).await;
    assert_eq!(case.endpoint.totals().calls, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_step_of_this_function_is_refused_with_what_to_do() {
    let case = Case::new(Behaviour::default(), "", LONG).await;
    let two = json!({ "version": "2.0", "rawPath": "/ping", "requestContext": { "http": { "method": "GET" } } });
    for (event, kind, part) in [
        (two, "NotAsItMustBe", "a function without confirm.store"),
        (json!({ "op": "confirm", "topic": "flights" }), "NotAsItMustBe", "these have: [payments]"),
        (json!({ "op": "enqueue", "records": [] }), "NotAsItMustBe", "needs a topic"),
        (json!({ "op": "explode" }), "UnknownEvent", "a step is not as it must be"),
    ] {
        let Invoked::Error(of, message) = case.deployed.invoke(event.clone()).await.unwrap() else { panic!("{event}") };
        assert!(of == kind && message.contains(part), "{event}: {of}: {message}");
    }
}
