//! The Lambda confirmer against a server that answers as the reference of Lambda's `Invoke` says it does, and against a function on
//! cargo-lambda's emulator. AWS itself was not tried.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod emulator;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use caudal_confirm::lambda::{LambdaConfig, LambdaConfirmer};
use caudal_core::confirm::answer::{Answer, Rules, Verdict};
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::confirm::{Fact, Item};
use caudal_core::time::Instant;
use caudal_core::topic::TopicName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);

/// What was asked: its first line, its body, and that as text.
type Asked = Arc<Mutex<Vec<(String, Value, String)>>>;

/// Answers every invocation with these bytes, and keeps what was asked.
async fn lambda(answer: String) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let kept = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (head, body) = request(&mut stream).await;
            let text = String::from_utf8(body).unwrap();
            kept.lock().unwrap().push((head, serde_json::from_str(&text).unwrap_or_default(), text));
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, asked)
}

/// The first line of a request, and its body.
async fn request(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "a whole request");
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap_or("0").parse().unwrap();
        if bytes.len() >= end + 4 + length {
            return (head.lines().next().unwrap().to_owned(), bytes[end + 4..].to_vec());
        }
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Status\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

async fn confirmer(url: &str) -> LambdaConfirmer {
    let config = LambdaConfig {
        endpoint: Some(url.to_owned()),
        probes: true,
        timeout: PATIENCE,
        ..LambdaConfig::new("confirm:live")
    };
    LambdaConfirmer::open(&config).await.unwrap()
}

async fn asked(confirmer: &LambdaConfirmer, probe: bool) -> Answer {
    asked_for(confirmer, probe, r#"{"amount": 12.5}"#).await
}

async fn asked_for(confirmer: &LambdaConfirmer, probe: bool, record: &str) -> Answer {
    let (topic, at) = (TopicName::parse("payments").unwrap(), Instant(0));
    let item = Item {
        id: Uuid::from_u128(1),
        attempts: 0,
        crashes: 0,
        doubt: false,
        since: at,
        first_sent: None,
        claimed: at,
        record: record.to_owned().into(),
    };
    let call = Call { topic: &topic, item: &item, key: Uuid::from_u128(9), attempt: 3 };
    if probe { confirmer.probe(call).await } else { confirmer.call(call).await }
}

fn verdict(answer: &Answer) -> Verdict {
    Rules::http().judge(answer)
}

#[tokio::test]
async fn the_function_gets_record_key_and_attempt() {
    let (url, kept) = lambda(answer(200, "", r#"{"status":"confirmed","detail":"receipt 7"}"#)).await;
    let confirmer = confirmer(&url).await;
    let said = asked(&confirmer, false).await;
    assert_eq!(said, Answer::Said { verdict: Verdict::Fact(Fact::Confirmed), detail: "receipt 7".into() });
    asked(&confirmer, true).await;
    let kept = kept.lock().unwrap();
    let event = json!({"key": Uuid::from_u128(9), "attempt": 3, "topic": "payments", "record": {"amount": 12.5}});
    assert!(kept[0].0.contains("/2015-03-31/functions/confirm%3alive/invocations"), "{}", kept[0].0);
    assert_eq!(kept[0].1, event);
    let mut probe = event;
    probe["probe"] = true.into();
    assert_eq!(kept[1].1, probe);
}

#[tokio::test]
async fn each_status_has_its_meaning_and_others_have_none() {
    let wait = Some(Duration::from_secs(9));
    for (body, expected) in [
        (r#"{"status":"confirmed"}"#, Verdict::Fact(Fact::Confirmed)),
        (r#"{"status":"rejected"}"#, Verdict::Fact(Fact::Rejected)),
        (r#"{"status":"retry","retry_after_seconds":9}"#, Verdict::NotDone { retry_after: wait }),
        (r#"{"status":"in_progress","retry_after_seconds":9}"#, Verdict::InProgress { retry_after: wait }),
        (r#"{"status":"doubt"}"#, Verdict::Doubt),
        // Only a probe can be told so.
        (r#"{"status":"not_found"}"#, Verdict::Doubt),
        (r#"{"status":"CONFIRMED"}"#, Verdict::Doubt),
        (r#"{"status":true}"#, Verdict::Doubt),
        (r#""confirmed""#, Verdict::Doubt),
        ("null", Verdict::Doubt),
        ("", Verdict::Doubt),
        (r#"{"status":"confirmed""#, Verdict::Doubt),
    ] {
        let (url, _) = lambda(answer(200, "", body)).await;
        let said = asked(&confirmer(&url).await, false).await;
        assert_eq!(verdict(&said), expected, "{body}: {said:?}");
    }
    let (url, _) = lambda(answer(200, "", r#"{"status":"not_found"}"#)).await;
    assert_eq!(verdict(&asked(&confirmer(&url).await, true).await), Verdict::NotFound);
}

#[tokio::test]
async fn a_function_that_fails_leaves_a_doubt() {
    let body = r#"{"errorMessage":"division by zero","errorType":"ZeroDivisionError"}"#;
    let (url, _) = lambda(answer(200, "X-Amz-Function-Error: Unhandled\r\n", body)).await;
    let said = asked(&confirmer(&url).await, false).await;
    assert!(matches!(&said, Answer::Unknown(why) if why.contains("division by zero")), "{said:?}");
}

/// The reference of `Invoke`, and the errors common to all of AWS's services.
#[tokio::test]
async fn what_lambda_refuses_before_the_function_ran_was_not_done() {
    let not_done = Verdict::NotDone { retry_after: None };
    for (status, kind, expected) in [
        (429, "TooManyRequestsException", not_done),
        (400, "ThrottlingException", not_done),
        (404, "ResourceNotFoundException", not_done),
        (403, "AccessDeniedException", not_done),
        (403, "UnrecognizedClientException", not_done),
        (403, "", not_done),
        (400, "ExpiredTokenException", not_done),
        (400, "InvalidParameterValueException", not_done),
        (408, "SnapStartTimeoutException", not_done),
        (409, "ResourceConflictException", not_done),
        (502, "EC2ThrottledException", not_done),
        (502, "KMSAccessDeniedException", not_done),
        (502, "InvalidRuntimeException", not_done),
        (413, "RequestTooLargeException", Verdict::Hold),
        (400, "InvalidRequestContentException", Verdict::Hold),
        (410, "EFSIOException", Verdict::Doubt),
        (500, "ServiceException", Verdict::Doubt),
        (502, "", Verdict::Doubt),
        (503, "Whatever", Verdict::Doubt),
        (400, "Whatever", Verdict::Doubt),
    ] {
        let kind_header = if kind.is_empty() { String::new() } else { format!("x-amzn-errortype: {kind}\r\n") };
        let (url, kept) = lambda(answer(status, &kind_header, r#"{"Message":"why"}"#)).await;
        let said = asked(&confirmer(&url).await, false).await;
        assert_eq!(verdict(&said), expected, "{kind}: {said:?}");
        assert!(said.detail().contains(&format!("{status} {kind}").trim_end().to_owned()), "{said:?}");
        assert_eq!(kept.lock().unwrap().len(), 1, "{kind} was not repeated");
    }
}

/// What is not there, not allowed or not ready says that the target is ill, which the engine's breaker counts; a limit does not.
#[tokio::test]
async fn a_throttled_call_waits_as_it_was_told() {
    let headers = "x-amzn-errortype: TooManyRequestsException\r\nretry-after: 4\r\n";
    let (url, _) = lambda(answer(429, headers, "{}")).await;
    let said = asked(&confirmer(&url).await, false).await;
    let Answer::Said { verdict, .. } = said else { panic!("{said:?}") };
    assert_eq!(verdict, Verdict::NotDone { retry_after: Some(Duration::from_secs(4)) });
    let (url, _) = lambda(answer(404, "x-amzn-errortype: ResourceNotFoundException\r\n", "{}")).await;
    let said = asked(&confirmer(&url).await, false).await;
    assert!(matches!(said, Answer::NotSent(_)), "{said:?}");
}

#[tokio::test]
async fn a_record_is_passed_on_as_it_is_and_never_above_the_limit() {
    let (url, kept) = lambda(answer(200, "", r#"{"status":"confirmed"}"#)).await;
    let confirmer = confirmer(&url).await;
    let exact = r#"{"amount": 12345678901234567890.10, "a": "\u00e9"}"#;
    let said = asked_for(&confirmer, false, exact).await;
    assert_eq!(verdict(&said), Verdict::Fact(Fact::Confirmed));
    assert!(kept.lock().unwrap()[0].2.contains(exact), "{}", kept.lock().unwrap()[0].2);
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(6 << 20));
    let said = asked_for(&confirmer, false, &large).await;
    assert!(matches!(&said, Answer::Blocked(why) if why.contains("6291456")), "{said:?}");
    assert_eq!(kept.lock().unwrap().len(), 1, "it was not sent");
}

#[tokio::test]
async fn a_probe_goes_only_to_who_answers_probes() {
    let (url, kept) = lambda(answer(200, "", r#"{"status":"confirmed"}"#)).await;
    let config = LambdaConfig { endpoint: Some(url), ..LambdaConfig::new("f") };
    let said = asked(&LambdaConfirmer::open(&config).await.unwrap(), true).await;
    assert!(matches!(said, Answer::Blocked(_)), "{said:?}");
    assert_eq!(kept.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    for (config, expected) in [
        (LambdaConfig::new(" "), "no function"),
        (LambdaConfig { timeout: Duration::ZERO, ..LambdaConfig::new("f") }, "needs time"),
    ] {
        let said = LambdaConfirmer::open(&config).await.expect_err(expected);
        assert!(said.contains(expected), "{said}");
    }
}

/// The test runs itself without any credentials: they are found missing before anything is sent.
#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    const ALONE: &str = "CAUDAL_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "without_credentials_nothing_is_sent"]).env_clear();
        let output = again.env(ALONE, "1").env("AWS_EC2_METADATA_DISABLED", "true").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let region = Some("eu-west-1".to_owned());
    let config = LambdaConfig { region, endpoint: Some("https://127.0.0.1:1".to_owned()), ..LambdaConfig::new("f") };
    let said = asked(&LambdaConfirmer::open(&config).await.unwrap(), false).await;
    assert!(matches!(&said, Answer::NotSent(why) if why.contains("credentials")), "{said:?}");
    let said = LambdaConfirmer::open(&LambdaConfig::new("f")).await.expect_err("no region");
    assert!(said.contains("region"), "{said}");
}

#[tokio::test]
async fn no_answer_is_a_doubt_and_no_connection_is_none() {
    for broken in ["", "HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n{\"status\":\"conf"] {
        let (url, kept) = lambda(broken.to_owned()).await;
        let said = asked(&confirmer(&url).await, false).await;
        assert!(matches!(said, Answer::Unknown(_)), "{said:?}");
        assert_eq!(kept.lock().unwrap().len(), 1);
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let config = LambdaConfig { endpoint: Some(url), timeout: Duration::from_millis(500), ..LambdaConfig::new("f") };
    let said = asked(&LambdaConfirmer::open(&config).await.unwrap(), false).await;
    assert!(matches!(said, Answer::Unknown(_)), "{said:?}");

    let nowhere = "http://no-such-host.invalid:9001";
    let said = asked(&confirmer(nowhere).await, false).await;
    assert!(matches!(said, Answer::NotSent(_)), "{said:?}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = asked(&confirmer(&format!("http://{closed}")).await, false).await;
    assert!(matches!(said, Answer::NotSent(_)), "{said:?}");
}
