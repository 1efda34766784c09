//! What is sent, and what is refused before it is.

use caudal_confirm::http::{HttpConfig, HttpConfirmer, ProbeConfig};
use caudal_testkit::endpoint::{Behaviour, Endpoint, Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{blocked, called, called_with, config, probed, record};

async fn keeping() -> Endpoint {
    Endpoint::start(Behaviour { keeps_requests: 10, ..Behaviour::default() }).await.unwrap()
}

fn json_of(request: &Request) -> Value {
    serde_json::from_slice(&request.body).unwrap()
}

#[tokio::test]
async fn the_record_goes_out_under_its_key() {
    let endpoint = keeping().await;
    let key = Uuid::from_u128(9);
    called(&HttpConfirmer::open(&config(&endpoint)).unwrap(), key).await;
    let [sent] = &endpoint.requests()[..] else { panic!() };
    assert_eq!((sent.method.as_str(), sent.target.as_str()), ("POST", "/payments"));
    assert_eq!(sent.body, record().to_string(), "byte for byte");
    let key = key.to_string();
    let host = endpoint.address().to_string();
    for (name, expected) in [
        ("idempotency-key", key.as_str()),
        ("content-type", "application/json"),
        ("host", host.as_str()),
        ("user-agent", concat!("caudal/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(sent.header(name), Some(expected), "{name}");
    }
    assert_eq!(sent.header("webhook-signature"), None);
}

#[tokio::test]
async fn templates_make_url_headers_and_body() {
    let endpoint = keeping().await;
    let url = endpoint.url("/payments/${id}?who=${who.name}&try=${attempt}");
    let config = HttpConfig {
        method: "put".to_owned(),
        headers: vec![("X-Amount".to_owned(), "EUR ${amount}".to_owned()), ("X-Fixed".to_owned(), "a b".to_owned())],
        body: Some(json!({"value": "${amount}", "text": "${amount} by ${who.name}", "key": "${key}", "none": "${n}"})),
        key_header: "X-Request-Id".to_owned(),
        probe: Some(ProbeConfig::new(&endpoint.url("/state/${key}"))),
        ..HttpConfig::new(&url)
    };
    let confirmer = HttpConfirmer::open(&config).unwrap();
    assert_eq!(confirmer.properties().into_iter().collect::<Vec<_>>(), ["amount", "id", "who"]);
    let key = Uuid::from_u128(9);
    called(&confirmer, key).await;
    probed(&confirmer, key).await;
    let [sent, asked] = &endpoint.requests()[..] else { panic!() };
    assert_eq!(sent.target, "/payments/pay%2F1%20%C3%B1?who=Ana&try=3");
    assert_eq!(
        (sent.method.as_str(), sent.header("x-amount"), sent.header("x-fixed")),
        ("PUT", Some("EUR 12.5"), Some("a b"))
    );
    assert_eq!(sent.header("x-request-id"), Some(key.to_string().as_str()));
    assert_eq!(json_of(sent), json!({"value": 12.5, "text": "12.5 by Ana", "key": key, "none": null}));
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", format!("/state/{key}").as_str()));
    assert_eq!((asked.body.len(), asked.header("content-type")), (0, None));
    assert_eq!(asked.header("x-request-id"), Some(key.to_string().as_str()));
}

#[tokio::test]
async fn a_record_that_does_not_fit_is_not_sent() {
    let endpoint = keeping().await;
    let url = |path: &str| HttpConfig::new(&endpoint.url(path));
    let header = |value: &str| HttpConfig { headers: vec![("x-a".into(), value.into())], ..url("/payments") };
    let body = |template: Value| HttpConfig { body: Some(template), ..url("/payments") };
    let table = [
        (url("/p/${missing}"), json!({}), "the record has no missing"),
        (url("/p/${a.b}"), json!({"a": "x"}), "the record has no a.b"),
        (url("/p/${a}"), json!({"a": null}), "no text, number or boolean"),
        (url("/p/${a}"), json!({"a": {}}), "no text, number or boolean"),
        (url("/p/${a}"), json!({"a": ""}), "is empty"),
        (url("/p?x=${a}"), json!({"a": ""}), "is empty"),
        (url("/p/${a}"), json!({"a": ".."}), "names another path"),
        (url("/p/${a}/x"), json!({"a": "."}), "names another path"),
        (url("/p/.${a}"), json!({"a": "."}), "names another path"),
        (header("${a}"), json!({"a": "x\r\nx-evil: 1"}), "characters that a header cannot have"),
        (header("${a}"), json!({"a": "\u{0}"}), "characters that a header cannot have"),
        (header("${a}"), json!({}), "the record has no a"),
        (body(json!({"x": "${a}"})), json!({}), "the record has no a"),
        (body(json!("n ${a}")), json!({"a": []}), "no text, number or boolean"),
        (url("/p/${a}"), json!(null), "no JSON object"),
        (url("/p/${a}"), json!([1]), "no JSON object"),
    ];
    for (config, record, expected) in table {
        let confirmer = HttpConfirmer::open(&config).unwrap();
        let answer = called_with(&confirmer, Uuid::from_u128(1), &record).await;
        assert!(blocked(&answer).contains(expected), "{answer:?}");
    }
    assert_eq!(endpoint.totals().connections, 0);
}

#[test]
fn configurations_that_cannot_work_are_refused_without_showing_secrets() {
    let good = || HttpConfig::new("https://bank.example/confirm");
    let header = |name: &str, value: &str| HttpConfig { headers: vec![(name.into(), value.into())], ..good() };
    let table = [
        (HttpConfig { method: "PO ST".into(), ..good() }, "no method"),
        (HttpConfig { method: "CONNECT".into(), ..good() }, "no method"),
        (HttpConfig::new("https://${bank}/s3cret"), "must not come from a record"),
        (HttpConfig { probe: Some(ProbeConfig::new("https://${bank}/s3cret")), ..good() }, "the probe: the host"),
        (header("a b", "s3cret"), "not a header's name"),
        (header("host", "s3cret"), "Caudal's own business"),
        (header("Transfer-Encoding", "chunked"), "Caudal's own business"),
        (header("x-a", "s3cret\n"), "the header x-a"),
        (header("x-a", "${s3cret"), "does not close it"),
        (HttpConfig { key_header: "".into(), ..good() }, "not a header's name"),
        (HttpConfig { body: Some(json!({"a": "${}"})), ..good() }, "placeholder without a name"),
        (HttpConfig { sign: vec!["s3cret".into()], ..good() }, "begins with whsec_"),
        (HttpConfig { timeout: std::time::Duration::ZERO, ..good() }, "needs time"),
        (HttpConfig { allow_private: Some(false), ..HttpConfig::new("http://127.0.0.1/") }, "allow_private is false"),
        (HttpConfig { allow_private: Some(true), ..HttpConfig::new("http://169.254.169.254/") }, "link-local"),
    ];
    for (config, expected) in table {
        let said = HttpConfirmer::open(&config).expect_err(expected);
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("s3cret") && !format!("{config:?}").contains("s3cret"), "{said} {config:?}");
    }
}
