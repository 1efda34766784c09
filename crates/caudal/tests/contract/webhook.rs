//! Signed deliveries, as a sender of Standard Webhooks and as GitHub makes them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use caudal_confirm::http::{HttpConfig, HttpConfirmer};
use caudal_core::confirm::Item;
use caudal_core::confirm::ports::{Call, Confirmer};
use caudal_core::topic::TopicName;
use caudal_testkit::api::{Api, Reply};
use serde_json::json;
use uuid::Uuid;

use crate::{Context, SQLITE, id_of, server};

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(crate) const STANDARD: &str = "webhook.standard_secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\", \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"]";
const TOKEN: &str = "correct horse battery staple";
pub(crate) const SINGLE: &str = "webhook.attributes = [\"X-GitHub-Event\"]
webhook.hmac = { header = \"X-Hub-Signature-256\", prefix = \"sha256=\", encoding = \"hex\", secrets = [\"correct horse battery staple\"], id_header = \"X-GitHub-Delivery\" }";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn sign(key: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(HMAC_SHA256, key), signed).as_ref().to_vec()
}

fn standard_signature(secret: &str, id: &str, at: u64, body: &str) -> String {
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    format!("v1,{}", BASE64.encode(sign(&key, format!("{id}.{at}.{body}").as_bytes())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A delivery that is signed as it should be.
pub(crate) async fn delivered(api: &Api, id: &str, body: &str) -> Reply {
    let at = now();
    post(api, id, at, &standard_signature(NEW, id, at, body), body).await
}

async fn deliver(cx: &Context, id: &str, at: u64, signature: &str, body: &str) -> Reply {
    post(&cx.api, id, at, signature, body).await
}

async fn post(api: &Api, id: &str, at: u64, signature: &str, body: &str) -> Reply {
    let at = at.to_string();
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", id),
        ("webhook-timestamp", &at),
        ("webhook-signature", signature),
    ];
    api.post("/webhooks/hooks", &headers, body.to_owned()).await.unwrap()
}

pub(crate) async fn standard(cx: Arc<Context>) {
    let body =
        r#"{"type": "invoice.paid", "timestamp": "2026-03-01T10:00:00Z", "data": {"id": "in_1", "total": 12.50}}"#;
    let good = standard_signature(NEW, "msg_standard", now(), body);
    let reply = deliver(&cx, "msg_standard", now(), &good, body).await;
    assert_eq!(reply.status, if cx.queued { 202 } else { 201 }, "{}", reply.text());
    let id = id_of(&reply);
    cx.until(&id, "stored").await;
    let rows = cx.json("/rest/v1/hooks?_key=eq.msg_standard").await;
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!((&rows[0]["_id"], &rows[0]["_source"]), (&json!(id), &json!("webhook")));
    assert_eq!(rows[0]["payload"], serde_json::from_str::<serde_json::Value>(body).unwrap());
    // A sender that saw no answer signs the same message anew.
    let later = now() + 1;
    let again = deliver(&cx, "msg_standard", later, &standard_signature(NEW, "msg_standard", later, body), body).await;
    assert!(again.status == 200 || again.status == 202, "{} {}", again.status, again.text());
    assert_eq!(id_of(&again), id);
    // The same id with other content is neither dropped nor stored over the first.
    let other = body.replace("12.50", "99.99");
    let signature = standard_signature(NEW, "msg_standard", later, &other);
    assert!(deliver(&cx, "msg_standard", later, &signature, &other).await.status < 300);
    until_count(&cx, "_dead_letters", "topic=eq.hooks&reason=eq.conflict", 1).await;
    assert_eq!(cx.count("hooks", "_key=eq.msg_standard").await, 1);
}

/// What a worker does for a producer that does not wait is soon done.
async fn until_count(cx: &Context, table: &str, query: &str, wanted: u64) {
    let begun = std::time::Instant::now();
    while cx.count(table, query).await != wanted {
        assert!(begun.elapsed().as_secs() < 60, "{table}?{query} never became {wanted}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub(crate) async fn several_secrets(cx: Arc<Context>) {
    let (body, at) = (r#"{"n": 1}"#, now());
    let old = standard_signature(OLD, "msg_old", at, body);
    assert!(deliver(&cx, "msg_old", at, &old, body).await.status < 300, "the one that is being replaced");
    let both = format!(
        "v1a,bm90aGluZw== {} {}",
        standard_signature("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "msg_both", at, body),
        standard_signature(NEW, "msg_both", at, body)
    );
    assert!(deliver(&cx, "msg_both", at, &both, body).await.status < 300, "one of several signatures");
    until_count(&cx, "hooks", "_key=in.(msg_old,msg_both)", 2).await;
}

/// What Caudal sends as a confirmer it lets in as a receiver, once a key.
pub(crate) async fn signed_by_caudal(cx: Arc<Context>) {
    let (topic, at) = (TopicName::parse("payments").unwrap(), caudal_core::time::Instant(0));
    let item = Item {
        id: Uuid::nil(),
        attempts: 0,
        crashes: 0,
        doubt: false,
        since: at,
        first_sent: None,
        claimed: at,
        record: r#"{"amount": 12.50}"#.into(),
    };
    let signing = |secrets: &[&str]| {
        let sign = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let url = format!("{}/webhooks/hooks", cx.api.url);
        HttpConfirmer::open(&HttpConfig { sign, ..HttpConfig::new(&url) }).unwrap()
    };
    let key = Uuid::now_v7();
    let foreign = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let cases: [(&[&str], bool); 5] =
        [(&[foreign], true), (&[], true), (&[NEW], false), (&[foreign, OLD], false), (&[NEW], false)];
    for (secrets, refused) in cases {
        let answer = signing(secrets).call(Call { topic: &topic, item: &item, key, attempt: 1 }).await;
        let code = answer.code().unwrap_or_else(|| panic!("{answer:?}"));
        assert_eq!(code == 401, refused, "{secrets:?}: {answer:?}");
        assert!(refused || code < 300, "{answer:?}");
    }
    until_count(&cx, "hooks", &format!("_key=eq.{key}"), 1).await;
}

pub(crate) async fn refused(cx: Arc<Context>) {
    let (body, at) = (r#"{"n": 2}"#, now());
    let good = standard_signature(NEW, "msg_refused", at, body);
    let old = at - 301;
    let stale = standard_signature(NEW, "msg_refused", old, body);
    let early = at + 3600;
    let ahead = standard_signature(NEW, "msg_refused", early, body);
    let foreign = standard_signature("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "msg_refused", at, body);
    for (id, at, signature, body, code) in [
        ("msg_refused", old, stale.as_str(), body, "webhook_stale"),
        ("msg_refused", early, &ahead, body, "webhook_stale"),
        ("msg_refused", at, &foreign, body, "webhook_bad_signature"),
        ("msg_refused", at, &good, r#"{"n": 3}"#, "webhook_bad_signature"),
        ("msg_refused", at, &good, r#"{"n":2}"#, "webhook_bad_signature"),
        ("msg_other", at, &good, body, "webhook_bad_signature"),
        ("msg_refused", at + 1, &good, body, "webhook_bad_signature"),
        ("msg_refused", at, &good[..20], body, "webhook_bad_signature"),
        ("msg_refused", at, "v1,", body, "webhook_bad_signature"),
        ("msg_refused", at, "", body, "webhook_unsigned"),
        ("", at, &good, body, "webhook_unsigned"),
    ] {
        let reply = deliver(&cx, id, at, signature, body).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (401, code),
            "{id} {at} {signature} {body}: {}",
            reply.text()
        );
    }
    let json = [("content-type", "application/json")];
    let bare = cx.api.post("/webhooks/hooks", &json, body).await.unwrap();
    assert_eq!((bare.status, bare.code().as_str()), (401, "webhook_unsigned"));
    for topic in ["notes", "no-such-topic", "HOOKS", "a%2Fb"] {
        let reply = cx.api.post(&format!("/webhooks/{topic}"), &json, body).await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (404, "not_found"), "{topic}");
        assert!(
            !reply.text().contains("forge") && !reply.text().contains("orders"),
            "names no topic: {}",
            reply.text()
        );
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let reply = cx.api.post("/webhooks/hooks", &form, "payload=%7B%7D").await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (415, "unsupported_media_type"));
    let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(cx.api.post("/webhooks/hooks", &packed, body).await.unwrap().status, 415);
    // Declared, so that it is refused before it is sent.
    let head = "POST /webhooks/hooks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 4194305\r\nexpect: 100-continue\r\n\r\n";
    let long = cx.api.raw(&[head.as_bytes()], std::time::Duration::from_secs(20)).await.unwrap();
    assert!(long.starts_with("HTTP/1.1 413") && long.contains("body_too_large"), "{long}");
    assert_eq!(cx.api.get("/webhooks/hooks").await.unwrap().status, 405);
    assert_eq!(cx.count("hooks", "_key=in.(msg_refused,msg_other)").await, 0);
}

async fn forge(cx: &Context, event: &str, delivery: &str, signature: &str, body: &str) -> Reply {
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "GitHub-Hookshot/044aadd"),
        ("x-github-event", event),
        ("x-github-delivery", delivery),
        ("x-hub-signature-256", signature),
    ];
    cx.api.post("/webhooks/forge", &headers, body.to_owned()).await.unwrap()
}

fn sha256(body: &str) -> String {
    format!("sha256={}", hex(&sign(TOKEN.as_bytes(), body.as_bytes())))
}

pub(crate) async fn in_one_header(cx: Arc<Context>) {
    let delivery = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    let body = json!({
        "n": 1, "action": "opened", "number": 2,
        "pull_request": {
            "url": "https://api.github.com/repos/octo-org/octo-repo/pulls/2", "id": 279_147_437_u64, "state": "open",
            "title": "Update the README with new information – «áéí» 🚀", "user": {"login": "octocat", "id": 583_231},
            "created_at": "2026-05-15T15:20:33Z", "merged_at": null, "labels": [], "draft": false
        },
        "repository": {"id": 186_853_002, "full_name": "octo-org/octo-repo", "private": false},
        "sender": {"login": "octocat", "type": "User"}
    })
    .to_string();
    let reply = forge(&cx, "pull_request", delivery, &sha256(&body), &body).await;
    assert_eq!(reply.status, if cx.queued { 202 } else { 201 }, "{}", reply.text());
    let id = id_of(&reply);
    cx.until(&id, "stored").await;
    let again = forge(&cx, "pull_request", delivery, &sha256(&body), &body).await;
    assert_eq!((again.status < 300, id_of(&again)), (true, id.clone()), "redelivered by hand");
    let rows = cx.json(&format!("/rest/v1/forge?_key=eq.{delivery}")).await;
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["_id"]), (1, &json!(id)));
    assert_eq!(rows[0]["_extra"]["$attributes"], json!({ "x-github-event": "pull_request" }));
    assert_eq!(rows[0]["_extra"]["pull_request"]["title"], "Update the README with new information – «áéí» 🚀");
    for (signature, code) in [
        (sha256("{}"), "webhook_bad_signature"),
        (sha256(&body).replace("sha256=", "sha1="), "webhook_bad_signature"),
        (sha256(&body).replace("sha256=", ""), "webhook_bad_signature"),
        (String::new(), "webhook_unsigned"),
    ] {
        let reply = forge(&cx, "push", "other", &signature, &body).await;
        assert_eq!((reply.status, reply.code().as_str()), (401, code), "{signature}");
    }
    let nameless = forge(&cx, "push", "", &sha256(&body), &body).await;
    assert_eq!((nameless.status, nameless.code().as_str()), (400, "key_invalid"));
    assert_eq!(cx.count("forge", "_key=eq.other").await, 0);
}

pub(crate) async fn bad_ones_are_kept(cx: Arc<Context>) {
    for (i, (body, reason)) in
        [("not json", "malformed_json"), ("", "empty_body"), (r#"{"n": "one"}"#, "schema")].into_iter().enumerate()
    {
        let delivery = format!("bad-{i}");
        let reply = forge(&cx, "push", &delivery, &sha256(body), body).await;
        assert_eq!((reply.status, &reply.json()["state"]), (200, &json!("dead")), "{}", reply.text());
        assert_eq!(reply.json()["code"], reason);
        cx.until(&id_of(&reply), "dead").await;
        let kept = cx.json(&format!("/v1/dead-letters/{}", reply.json()["dead_letter"].as_str().unwrap())).await;
        assert_eq!((&kept["reason"], &kept["payload"], &kept["key"]), (&json!(reason), &json!(body), &json!(delivery)));
        // Delivered again it is the same dead letter.
        assert_eq!(forge(&cx, "push", &delivery, &sha256(body), body).await.json()["dead_letter"], kept["id"]);
    }
    until_count(&cx, "_dead_letters", "topic=eq.forge&state=eq.dead", 3).await;
}

/// With keys configured, and through a tunnel that keeps its own name.
#[tokio::test]
async fn a_signature_takes_the_place_of_the_key() {
    let mut server = server(SQLITE, "embedded:");
    let hash = format!("[\"sha256:{}\"]", "0".repeat(64));
    server.set_env("CAUDAL_HTTP__KEYS", hash);
    server.start().await.unwrap();
    let api = server.api();
    let (body, at) = (r#"{"n": 1}"#, now().to_string());
    let signature = standard_signature(NEW, "msg_key", now(), body);
    let headers = [
        ("content-type", "application/json"),
        ("webhook-id", "msg_key"),
        ("webhook-timestamp", at.as_str()),
        ("webhook-signature", signature.as_str()),
    ];
    assert_eq!(api.post("/webhooks/hooks", &headers, body).await.unwrap().status, 202);
    assert_eq!(api.post("/webhooks/hooks", &headers[..1], body).await.unwrap().code(), "webhook_unsigned");
    assert_eq!(api.post("/webhooks/notes", &headers, body).await.unwrap().status, 404);
    for path in ["/v1/topics/hooks/messages", "/webhooks", "/sns"] {
        assert_eq!(api.post(path, &headers, body).await.unwrap().status, 401, "{path}");
    }
    server.kill().unwrap();
    server.unset_env("CAUDAL_HTTP__KEYS");
    server.start().await.unwrap();
    let tunnel = [&headers[..], &[("host", "a1b2.tunnel.example")]].concat();
    assert_eq!(api.post("/webhooks/hooks", &tunnel, body).await.unwrap().status, 202);
    assert_eq!(api.post("/v1/topics/hooks/messages", &tunnel, body).await.unwrap().status, 421);
    assert_eq!(api.post("/", &tunnel, body).await.unwrap().status, 421);
}

#[test]
fn secrets_are_masked() {
    let server = server(SQLITE, "embedded:").env("CAUDAL_HTTP__AWS_KEYS__AKIDEXAMPLE", "aws-s3cret");
    let output = server.run(&["config", "check"]).unwrap();
    let (shown, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    for secret in [OLD, NEW, TOKEN, "aws-s3cret"] {
        assert!(!shown.contains(secret.trim_start_matches("whsec_")) && !errors.contains(secret), "{shown}{errors}");
    }
    assert!(
        shown.contains("standard_secrets = [\"****\", \"****\"]") && shown.contains("akidexample = \"****\""),
        "{shown}"
    );
    let weak = server
        .command(&["config", "check"])
        .unwrap()
        .env("CAUDAL_TOPICS__HOOKS__WEBHOOK__STANDARD_SECRETS", "x")
        .output();
    let error = String::from_utf8(weak.unwrap().stderr).unwrap();
    assert!(error.contains("topics.hooks.webhook") && error.contains("whsec_"), "{error}");
}
