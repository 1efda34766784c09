//! `POST /sns/{topic}` against a key and certificates of openssl's. Only the fetching of pages is the test's own: it notes
//! every address that it is asked for, so that a test can say that a forgery was refused before anything was fetched.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod signer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use caudal_broker::embedded::{EmbeddedBroker, EmbeddedConfig};
use caudal_core::ports::Broker;
use caudal_core::schema::UnknownFields;
use caudal_core::topic::TopicName;
use caudal_engine::metrics::Metrics;
use caudal_engine::topic::{Topic, TopicConfig, Topics};
use caudal_engine::{Engine, EngineConfig};
use caudal_http::fetch::{Fetch, FetchError};
use caudal_http::keys::KeyHash;
use caudal_http::sns::AllowedTopics;
use caudal_http::{Access, App, HttpConfig, ServerConfig, router, serve};
use caudal_store::sqlite::{SqliteConfig, SqliteStore};
use caudal_testkit::api::{Api, Reply};
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use signer::Signer;

const ARN: &str = "arn:aws:sns:us-east-1:123456789012:MyTopic";
const PEM: &str = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem";
const CONFIRM: &str = "https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:us-east-1:123456789012:MyTopic&Token=2336412f37";
const SCHEMA: &str = r#"{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}"#;

/// What the internet holds, and who was asked for what.
#[derive(Clone, Default)]
struct Internet {
    pages: Arc<Mutex<HashMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

enum Page {
    There(Vec<u8>),
    /// Down.
    Away,
}

impl Internet {
    fn put(&self, url: &str, page: Page) {
        self.pages.lock().unwrap().insert(url.to_owned(), page);
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn fetch(&self) -> Fetch {
        let own = self.clone();
        Fetch::new(move |url| {
            own.asked.lock().unwrap().push(url.to_string());
            let page = match own.pages.lock().unwrap().get(url.as_str()) {
                Some(Page::There(page)) => Ok(Bytes::from(page.clone())),
                Some(Page::Away) => Err(FetchError::Unavailable("connection refused".to_owned())),
                None => Err(FetchError::Refused("answered 403 Forbidden".to_owned())),
            };
            async { page }
        })
    }
}

struct World {
    api: Api,
    internet: Internet,
    signer: Signer,
    _home: TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    async fn new(broker: &str, keys: &[&str]) -> Self {
        let home = TempDir::new().unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let topics = [("plain", None), ("typed", Some(SCHEMA)), ("closed", None)].map(|(name, schema)| {
            let config = TopicConfig {
                name: TopicName::parse(name).unwrap(),
                schema: schema.map(|text| serde_json::from_str(text).unwrap()),
                unknown_fields: UnknownFields::Keep,
                key: Vec::new(),
                row_number: false,
                retention: None,
                lanes: None,
            };
            Topic::new(config, metrics.topic(name)).unwrap()
        });
        let store = SqliteStore::open(SqliteConfig::new(home.path().join("x.db"), "test")).unwrap();
        let embedded: Option<Arc<dyn Broker>> = match broker {
            "none" => None,
            _ => {
                let opened = EmbeddedBroker::open(home.path().join("topics"), EmbeddedConfig::default()).await;
                Some(Arc::new(opened.unwrap()))
            }
        };
        let engine = Engine::new(Topics::new(topics), Arc::new(store), embedded, EngineConfig::default());
        engine.prepare().await.unwrap();
        engine.start_workers();

        let internet = Internet::default();
        let signer = Signer::new();
        internet.put(PEM, Page::There(signer.certificate()));
        internet.put(CONFIRM, Page::There(b"<ConfirmSubscriptionResponse/>".to_vec()));
        let allowed = AllowedTopics::new(&[ARN.to_owned()]).unwrap();
        let sns = [("plain".to_owned(), allowed.clone()), ("typed".to_owned(), allowed)].into();
        let app = App::new(engine, HttpConfig { sns, fetch: internet.fetch(), ..HttpConfig::default() }, registry);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let access = match keys {
            [] => Access::Local { listen },
            keys => Access::Keys(keys.iter().map(|key| KeyHash::of(key)).collect()),
        };
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, router(app), ServerConfig::new(access), stop.clone()));
        let api = Api::new(format!("http://{listen}")).unwrap();
        Self { api, internet, signer, _home: home, _stop: stop.drop_guard() }
    }

    async fn post(&self, topic: &str, kind: &str, fields: &Map<String, Value>) -> Reply {
        let headers = [
            ("content-type", "text/plain; charset=UTF-8"),
            ("user-agent", "Amazon Simple Notification Service Agent"),
            ("x-amz-sns-message-type", kind),
            ("x-amz-sns-topic-arn", ARN),
        ];
        let body = Value::Object(fields.clone()).to_string();
        self.api.post(&format!("/sns/{topic}"), &headers, body).await.unwrap()
    }

    async fn notify(&self, topic: &str, fields: &Map<String, Value>) -> Reply {
        self.post(topic, "Notification", fields).await
    }

    async fn json(&self, path: &str) -> Value {
        let reply = self.api.get(path).await.unwrap();
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.json()
    }

    /// The rows of a table once there are that many.
    async fn rows(&self, path: &str, n: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let rows = self.json(path).await.as_array().unwrap().clone();
            if rows.len() == n {
                return rows;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{path}: {rows:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Some seconds before now (or after, if negative), as SNS writes a time.
fn timestamp(seconds_ago: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as i64;
    let mut text = Vec::new();
    caudal_core::time::Instant::from_unix_micros(now - seconds_ago * 1_000_000).write_to(&mut text);
    String::from_utf8(text).unwrap().trim_matches('"').to_owned()
}

fn notification(id: &str, message: &str) -> Map<String, Value> {
    let fields = json!({
        "Type": "Notification", "MessageId": id, "TopicArn": ARN, "Message": message, "Timestamp": timestamp(3),
        "SigningCertURL": PEM,
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=x",
    });
    fields.as_object().unwrap().clone()
}

fn with(mut fields: Map<String, Value>, name: &str, value: impl Into<Value>) -> Map<String, Value> {
    fields.insert(name.to_owned(), value.into());
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_is_stored_once() {
    for broker in ["embedded", "none"] {
        let world = World::new(broker, &[]).await;
        let mut ids = Vec::new();
        for (version, id) in
            [("1", "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"), ("2", "dc1e94d9-56c5-5e96-808d-cc7f68faa162")]
        {
            let message = r#"{"n": 1, "city": "Bogotá", "text": "line\nbreak"}"#;
            let fields = with(notification(id, message), "Subject", "My First Message ñ");
            let attributes = json!({ "traceparent": { "Type": "String", "Value": "00-1-2-01" }, "n": { "Type": "Number", "Value": "7" } });
            let fields = with(world.signer.signed(fields, version), "MessageAttributes", attributes);
            let reply = world.notify("plain", &fields).await;
            assert_eq!(reply.status, if broker == "none" { 201 } else { 202 }, "{}", reply.text());
            // SNS repeats what it did not see answered.
            let again = world.notify("plain", &fields).await;
            assert!(again.status == 200 || again.status == 202, "{}", again.text());
            assert_eq!(again.json()["transaction_id"], reply.json()["transaction_id"]);
            ids.push(reply.json()["transaction_id"].clone());
            let rows = world.rows(&format!("/rest/v1/plain?_key=eq.sns:{ARN}:{id}"), 1).await;
            assert_eq!((&rows[0]["_id"], &rows[0]["_source"]), (ids.last().unwrap(), &json!(format!("sns:{ARN}"))));
            assert_eq!(rows[0]["payload"], serde_json::from_str::<Value>(message).unwrap());
            let kept = json!({ "Subject": "My First Message ñ", "traceparent": "00-1-2-01", "n": "7" });
            assert_eq!(rows[0]["_extra"]["$attributes"], kept);
        }
        let fields = world.signer.signed(notification("typed-1", r#"{"n": 1}"#), "2");
        assert!(world.notify("typed", &fields).await.status < 300);
        assert_eq!(world.rows("/rest/v1/typed", 1).await[0]["n"], 1);
        assert_eq!(world.internet.asked(), [PEM], "the certificate is fetched once");
        assert_eq!(world.json("/v1/reconcile").await["unaccounted"], 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_message_is_a_dead_letter_and_answered_200() {
    for broker in ["embedded", "none"] {
        let world = World::new(broker, &[]).await;
        let bad = [
            ("hello", "malformed_json"),
            (r#"{"n": "one"}"#, "schema"),
            ("", "empty_body"),
            (r#"{"n":1,"n":2}"#, "duplicate_key"),
        ];
        for (i, (message, reason)) in bad.into_iter().enumerate() {
            let fields = world.signer.signed(notification(&format!("bad-{i}"), message), "2");
            let reply = world.notify("typed", &fields).await;
            assert_eq!((reply.status, &reply.json()["code"]), (200, &json!(reason)), "{}", reply.text());
            let letter = reply.json()["dead_letter"].as_str().unwrap().to_owned();
            let kept = world.rows(&format!("/v1/dead-letters?_id=eq.{letter}"), 1).await[0].clone();
            assert_eq!((&kept["reason"], &kept["payload"]), (&json!(reason), &json!(message)));
            assert_eq!(world.notify("typed", &fields).await.json()["dead_letter"], letter);
        }
        assert_eq!(world.rows("/v1/dead-letters", bad.len()).await.len(), bad.len());
        let books = world.json("/v1/reconcile").await;
        assert_eq!(books["unaccounted"], 0, "{books:#}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_is_confirmed_only_where_it_may_be() {
    let world = World::new("embedded", &[]).await;
    let confirmation = |url: &str| {
        let fields = json!({
            "Type": "SubscriptionConfirmation", "MessageId": "165545c9-2a5c-472c-8df2-7ff2be2b3b1b", "Token": "2336412f37",
            "TopicArn": ARN, "Message": "You have chosen to subscribe to the topic.", "SubscribeURL": url,
            "Timestamp": timestamp(1), "SigningCertURL": PEM,
        });
        fields.as_object().unwrap().clone()
    };
    let kind = "SubscriptionConfirmation";
    for version in ["1", "2"] {
        let fields = world.signer.signed(confirmation(CONFIRM), version);
        let reply = world.post("plain", kind, &fields).await;
        assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("confirmed")), "{}", reply.text());
    }
    assert_eq!(world.internet.asked(), [PEM, CONFIRM, CONFIRM]);
    // What SNS did not sign, or an address that is not SNS's, is never asked for: not even a signed one.
    for url in [
        "https://evil.example/?Action=ConfirmSubscription",
        "http://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com.evil.example/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com@evil.example/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com:444/?Action=ConfirmSubscription",
        "https://169.254.169.254/latest/meta-data/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com/?Action=DeleteTopic",
    ] {
        let reply = world.post("plain", kind, &world.signer.signed(confirmation(url), "2")).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "sns_foreign_address"), "{url}");
    }
    let tampered =
        with(world.signer.signed(confirmation(CONFIRM), "2"), "SubscribeURL", CONFIRM.replace("MyTopic", "Other"));
    assert_eq!(world.post("plain", kind, &tampered).await.code(), "sns_bad_signature");
    let foreign = confirmation(CONFIRM);
    let foreign = world.signer.signed(with(foreign, "TopicArn", ARN.replace("MyTopic", "Other")), "2");
    assert_eq!(world.post("plain", kind, &foreign).await.code(), "sns_topic_not_allowed");
    assert_eq!(world.internet.asked().len(), 3);
    // SNS is away: it asks again when it is told so.
    world.internet.put(CONFIRM, Page::Away);
    let reply = world.post("plain", kind, &world.signer.signed(confirmation(CONFIRM), "2")).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "sns_unreachable"));
    assert!(!reply.header("retry-after").is_empty());
    let mut farewell = confirmation(CONFIRM);
    farewell.insert("Type".into(), json!("UnsubscribeConfirmation"));
    let asked = world.internet.asked().len();
    let reply = world.post("plain", "UnsubscribeConfirmation", &world.signer.signed(farewell, "2")).await;
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("unsubscribed")), "{}", reply.text());
    assert_eq!(world.internet.asked().len(), asked, "the address that would subscribe again is left alone");
    assert_eq!(world.json("/rest/v1/plain").await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forgeries_are_refused() {
    let world = World::new("none", &[]).await;
    let id = "forged";
    let own = |fields| world.signer.signed(fields, "2");
    let plain = || notification(id, r#"{"n": 1}"#);
    // Refused by what they say, before anything is fetched.
    let foreign_topic = own(with(plain(), "TopicArn", "arn:aws:sns:us-east-1:999999999999:MyTopic"));
    let mut early = vec![
        (own(with(plain(), "Timestamp", timestamp(3601))), "sns_stale", 403),
        (own(with(plain(), "Timestamp", timestamp(-400))), "sns_stale", 403),
        (own(with(plain(), "Timestamp", "yesterday")), "malformed_sns", 400),
        (foreign_topic, "sns_topic_not_allowed", 403),
        (with(own(plain()), "Signature", "***"), "malformed_sns", 400),
        (with(own(plain()), "SignatureVersion", "3"), "sns_bad_signature", 403),
        (with(own(plain()), "Type", "SubscriptionConfirmation"), "malformed_sns", 400),
        (Map::new(), "malformed_sns", 400),
    ];
    for url in [
        PEM.replace("https:", "http:"),
        PEM.replace("sns.us-east-1.amazonaws.com", "evil.example"),
        PEM.replace("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com.evil.example"),
        PEM.replace("sns.us-east-1.amazonaws.com", "evil.example/sns.us-east-1.amazonaws.com"),
        PEM.replace("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com@evil.example"),
        PEM.replace("sns.us-east-1.amazonaws.com", "s3.amazonaws.com/sns"),
        PEM.replace("sns.us-east-1.amazonaws.com", "sns.s3-us-east-1.amazonaws.com"),
        PEM.replace("sns.us-east-1.amazonaws.com", "sns.eu-west-1.amazonaws.com"),
        PEM.replace("sns.us-east-1.amazonaws.com", "sns.us-east-1.amazonaws.com:8443"),
        PEM.replace("sns.us-east-1.amazonaws.com", "127.0.0.1"),
        PEM.replace(".pem", ".pem?redirect=evil"),
        PEM.replace(".pem", ".txt"),
        "file:///etc/ssl/cert.pem".to_owned(),
        String::new(),
    ] {
        // The forger's own key, with its certificate at the address that the forger names.
        world.internet.put(&url, Page::There(world.signer.certificate()));
        early.push((own(with(plain(), "SigningCertURL", url)), "sns_foreign_address", 403));
    }
    for (fields, code, status) in &early {
        let reply = world.notify("plain", fields).await;
        assert_eq!((reply.code().as_str(), reply.status), (*code, *status), "{fields:?}: {}", reply.text());
    }
    assert_eq!(world.internet.asked(), Vec::<String>::new(), "nothing was fetched");
    // Refused by their signature.
    let forger = Signer::new();
    let good = own(with(plain(), "Subject", "S"));
    let mut late = vec![
        forger.signed(plain(), "1"),
        forger.signed(plain(), "2"),
        with(world.signer.signed(plain(), "1"), "SignatureVersion", "2"),
        with(good.clone(), "SignatureVersion", "1"),
        with(good.clone(), "Message", r#"{"n": 2}"#),
        with(good.clone(), "MessageId", "other"),
        with(good.clone(), "Subject", "T"),
        with(good.clone(), "Timestamp", timestamp(2)),
        with(good.clone(), "Signature", ""),
        with(good.clone(), "Signature", "AAAA"),
    ];
    let mut without_subject = good.clone();
    without_subject.remove("Subject");
    late.push(without_subject);
    // A line break in one field must not make another.
    late.push(with(with(good, "Message", "{\"n\": 1}\nMessageId\nforged"), "MessageId", ""));
    for fields in &late {
        let reply = world.notify("plain", fields).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "sns_bad_signature"), "{fields:?}: {}", reply.text());
    }
    assert_eq!(world.internet.asked(), [PEM]);
    assert_eq!(world.json("/rest/v1/plain").await, json!([]));
    assert_eq!(world.json("/v1/dead-letters").await, json!([]), "what is not SNS's leaves no trace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_prove_nothing_are_refused() {
    let world = World::new("none", &[]).await;
    let weak = Signer::rsa("1024");
    let elliptic = Signer::elliptic();
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    for (name, signer, page) in [
        ("expired", &world.signer, Some(world.signer.certificate_for("200101000000Z", "210101000000Z"))),
        ("tomorrow", &world.signer, Some(world.signer.certificate_for("400101000000Z", "410101000000Z"))),
        ("weak", &weak, Some(weak.certificate())),
        ("elliptic", &elliptic, Some(elliptic.certificate())),
        ("garbage", &world.signer, Some(garbage)),
        ("page", &world.signer, Some(b"<html>no such key</html>".to_vec())),
        ("empty", &world.signer, Some(Vec::new())),
        ("missing", &world.signer, None),
    ] {
        let url = PEM.replace("0123456789abcdef0123456789abcdef", name);
        if let Some(page) = page {
            world.internet.put(&url, Page::There(page));
        }
        let before = world.internet.asked().len();
        for version in ["1", "2"] {
            let fields = signer.signed(with(notification(name, r#"{"n": 1}"#), "SigningCertURL", url.clone()), version);
            let reply = world.notify("plain", &fields).await;
            assert_eq!((reply.status, reply.code().as_str()), (403, "sns_bad_signature"), "{name}: {}", reply.text());
        }
        assert_eq!(world.internet.asked().len(), before + 1, "{name} is asked for once");
    }
    assert_eq!(world.json("/rest/v1/plain").await, json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_sns_is_away_it_is_asked_to_repeat() {
    let world = World::new("none", &[]).await;
    world.internet.put(PEM, Page::Away);
    let fields = world.signer.signed(notification("away", r#"{"n": 1}"#), "1");
    let reply = world.notify("plain", &fields).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "sns_unreachable"));
    assert_eq!(world.json("/rest/v1/plain").await, json!([]));
    world.internet.put(PEM, Page::There(world.signer.certificate()));
    assert_eq!(world.notify("plain", &fields).await.status, 201, "nothing of the failure is remembered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_api_keys_the_signature_is_enough_and_raw_delivery_needs_one() {
    let key = "a-key-of-ours";
    let world = World::new("none", &[key]).await;
    let fields = world.signer.signed(notification("signed", r#"{"n": 1}"#), "2");
    assert_eq!(world.notify("plain", &fields).await.status, 201);
    for topic in ["closed", "none", "a%2Fb"] {
        let reply = world.notify(topic, &fields).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"), "{topic}");
        assert!(!reply.text().contains("typed"), "{}", reply.text());
    }
    let get = world.api.get("/sns/plain").await.unwrap();
    assert_eq!((get.status, get.code().as_str()), (401, "unauthorized"));

    let raw = async |authorization: &str, more: &[(&str, &str)]| {
        let headers = [
            ("content-type", "text/plain; charset=UTF-8"),
            ("x-amz-sns-message-type", "Notification"),
            ("x-amz-sns-rawdelivery", "true"),
            ("x-amz-sns-message-id", "raw-1"),
            ("x-amz-sns-topic-arn", ARN),
            ("authorization", authorization),
        ];
        let kept =
            headers.into_iter().filter(|(name, value)| !value.is_empty() && !more.iter().any(|(n, _)| n == name));
        let headers: Vec<_> = kept.chain(more.iter().copied()).collect();
        world.api.post("/sns/plain", &headers, r#"{"n": 2}"#).await.unwrap()
    };
    let basic = |password: &str| {
        use base64::Engine;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("sns:{password}")))
    };
    for wrong in ["", "Bearer wrong", &basic("wrong"), "Basic ***", key] {
        let reply = raw(wrong, &[]).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, "sns_unsigned"), "{wrong}");
        assert!(reply.header("www-authenticate").starts_with("Basic"), "SNS sends its password only when asked");
    }
    let bearer = format!("Bearer {key}");
    assert_eq!(raw(&basic(key), &[]).await.status, 201);
    assert_eq!(raw(&bearer, &[]).await.status, 200, "the same message");
    assert_eq!(
        raw(&bearer, &[("x-amz-sns-topic-arn", "arn:aws:sns:us-east-1:1:x")]).await.code(),
        "sns_topic_not_allowed"
    );
    assert_eq!(raw(&bearer, &[("x-amz-sns-message-id", "")]).await.code(), "malformed_sns");
    let reply = world.api.send("GET", "/rest/v1/plain?order=_key", &[("authorization", &bearer)], "").await.unwrap();
    let rows = reply.json();
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["_key"]), (2, &json!(format!("sns:{ARN}:raw-1"))), "{rows}");
    assert_eq!(rows[0]["payload"], json!({ "n": 2 }));
    // The password of Basic opens this door and no other.
    let other = world.api.send("GET", "/rest/v1/plain", &[("authorization", &basic(key))], "").await.unwrap();
    assert_eq!(other.status, 401);
}

/// A tunnel or a proxy keeps the name that SNS knows the server by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_loopback_signed_messages_come_by_any_name() {
    let world = World::new("none", &[]).await;
    let fields = Value::Object(world.signer.signed(notification("tunnel", r#"{"n": 1}"#), "2")).to_string();
    let headers = [("x-amz-sns-message-type", "Notification"), ("host", "a1b2.tunnel.example")];
    let reply = world.api.post("/sns/plain", &headers, fields).await.unwrap();
    assert_eq!(reply.status, 201, "{}", reply.text());
    let raw = [
        &headers[..],
        &[("x-amz-sns-rawdelivery", "true"), ("x-amz-sns-topic-arn", ARN), ("x-amz-sns-message-id", "r")],
    ]
    .concat();
    let reply = world.api.post("/sns/plain", &raw, "{}").await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (401, "sns_unsigned"));
}
