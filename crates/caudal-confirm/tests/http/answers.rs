//! Each way in which an answer can be bad.

use std::time::Duration;

use caudal_confirm::http::{HttpConfig, HttpConfirmer, ProbeConfig};
use caudal_core::confirm::answer::{Answer, Rules, Verdict};
use caudal_core::confirm::{Fact, answer};
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use uuid::Uuid;

use crate::{SHORT, called, config, not_sent, plain, probed, unknown};

fn key(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

#[tokio::test]
async fn a_payment_is_confirmed_once_whatever_is_repeated() {
    let (endpoint, confirmer) = plain(Behaviour::default()).await;
    for _ in 0..3 {
        let Answer::Status { code: 200, retry_after: None, body } = called(&confirmer, key(1)).await else { panic!() };
        assert_eq!(&body[..], br#"{"state":"confirmed"}"#);
    }
    let totals = endpoint.totals();
    assert_eq!((totals.calls, totals.effects, totals.connections), (3, 1, 1), "one effect, one kept connection");
}

#[tokio::test]
async fn statuses_arrive_as_they_are() {
    for (behaviour, code, wait, effects) in [
        (Behaviour { declines: 1.0, ..Behaviour::default() }, 422, None, 0),
        (Behaviour { errors_before: 1.0, ..Behaviour::default() }, 500, None, 0),
        (Behaviour { errors_after: 1.0, ..Behaviour::default() }, 500, None, 1),
        (Behaviour { too_many: 1.0, retry_after_seconds: 7, ..Behaviour::default() }, 429, Some(7), 0),
        (Behaviour { unavailable: 1.0, ..Behaviour::default() }, 503, None, 0),
    ] {
        let (endpoint, confirmer) = plain(behaviour).await;
        let answer = called(&confirmer, key(1)).await;
        let Answer::Status { code: found, retry_after, .. } = answer else { panic!("{answer:?}") };
        assert_eq!((found, retry_after), (code, wait.map(Duration::from_secs)));
        assert_eq!(endpoint.totals().effects, effects, "{code}");
    }
}

#[tokio::test]
async fn whatever_may_have_been_done_is_unknown() {
    let effect = |name: &str| !name.contains("before");
    for (name, behaviour) in [
        ("dropped before", Behaviour { drops_before: 1.0, ..Behaviour::default() }),
        ("dropped after", Behaviour { drops_after: 1.0, ..Behaviour::default() }),
        ("malformed", Behaviour { malformed: 1.0, ..Behaviour::default() }),
        ("half an answer", Behaviour { halves: 1.0, ..Behaviour::default() }),
    ] {
        let (endpoint, confirmer) = plain(behaviour).await;
        let answer = called(&confirmer, key(1)).await;
        unknown(&answer);
        assert_eq!(Rules::http().judge(&answer), Verdict::Doubt);
        let totals = endpoint.totals();
        assert_eq!((totals.calls, totals.effects), (1, u64::from(effect(name))), "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_unknown_and_a_slow_one_too() {
    for behaviour in [
        Behaviour { delays: 1.0, delay_ms: 60_000, ..Behaviour::default() },
        Behaviour { drips: 1.0, drip_ms: 50, ..Behaviour::default() },
    ] {
        let endpoint = Endpoint::start(behaviour).await.unwrap();
        let confirmer = HttpConfirmer::open(&HttpConfig { timeout: SHORT, ..config(&endpoint) }).unwrap();
        let answer = called(&confirmer, key(1)).await;
        assert!(unknown(&answer).contains("in time"), "{answer:?}");
        assert_eq!(endpoint.totals().calls, 1);
    }
}

#[tokio::test]
async fn of_a_huge_body_the_beginning_is_kept() {
    let endpoint = Endpoint::start(Behaviour { huge: 1.0, ..Behaviour::default() }).await.unwrap();
    for limit in [1, 1000, 65_536] {
        let confirmer = HttpConfirmer::open(&HttpConfig { body_bytes_max: limit, ..config(&endpoint) }).unwrap();
        let Answer::Status { code: 200, body, .. } = called(&confirmer, key(limit as u128)).await else { panic!() };
        assert_eq!(body.len(), limit);
        // The rest is not read: the connection is of no use any more.
        endpoint.set(Behaviour::default());
        let before = endpoint.totals().connections;
        assert!(matches!(called(&confirmer, key(0)).await, Answer::Status { code: 200, .. }));
        assert_eq!(endpoint.totals().connections, before + 1);
        endpoint.set(Behaviour { huge: 1.0, ..Behaviour::default() });
    }
}

#[tokio::test]
async fn a_cut_body_is_no_proof_where_a_body_was_asked_for() {
    let (_endpoint, confirmer) = plain(Behaviour { huge: 1.0, ..Behaviour::default() }).await;
    let answer = called(&confirmer, key(1)).await;
    let test = |value: &str| Some(answer::BodyTest { pointer: "/state".into(), one_of: vec![value.into()] });
    let confirmed = Rules { confirmed_when: test("confirmed"), ..Rules::http() };
    let rejected = Rules { rejected_when: test("declined"), ..Rules::http() };
    assert_eq!(confirmed.judge(&answer), Verdict::Doubt);
    assert_eq!(rejected.judge(&answer), Verdict::Doubt);
    assert_eq!(Rules::http().judge(&answer), Verdict::Fact(Fact::Confirmed));
}

#[tokio::test]
async fn redirects_are_answers_and_are_not_followed() {
    let elsewhere = Endpoint::start(Behaviour::default()).await.unwrap();
    let redirect_to = elsewhere.url("/payments");
    let (_endpoint, confirmer) = plain(Behaviour { redirects: 1.0, redirect_to, ..Behaviour::default() }).await;
    let answer = called(&confirmer, key(1)).await;
    assert!(matches!(answer, Answer::Status { code: 307, .. }), "{answer:?}");
    assert_eq!(Rules::http().judge(&answer), Verdict::Hold);
    assert_eq!(elsewhere.totals().connections, 0);
}

#[tokio::test]
async fn an_endpoint_that_lies_is_quoted_faithfully() {
    let (_endpoint, confirmer) = plain(Behaviour { lies: 1.0, ..Behaviour::default() }).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(called(&confirmer, key(1)).await.code().unwrap());
    }
    assert_eq!(codes, [200, 422, 200, 422]);
}

#[tokio::test]
async fn in_progress_is_said_until_it_is_done() {
    let behaviour = Behaviour { in_progress: 1.0, delay_ms: 200, ..Behaviour::default() };
    let (endpoint, confirmer) = plain(behaviour).await;
    assert_eq!(called(&confirmer, key(1)).await.code(), Some(409));
    assert_eq!(called(&confirmer, key(1)).await.code(), Some(409));
    while endpoint.totals().effects == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(called(&confirmer, key(1)).await.code(), Some(200));
    assert_eq!(endpoint.effects(key(1)).unwrap().effects, 1);
}

#[tokio::test]
async fn a_probe_asks_and_does_nothing() {
    let endpoint = Endpoint::start(Behaviour { drops_after: 1.0, ..Behaviour::default() }).await.unwrap();
    let probe = Some(ProbeConfig::new(&endpoint.url("/payments/${key}")));
    let confirmer = HttpConfirmer::open(&HttpConfig { probe, ..config(&endpoint) }).unwrap();
    assert_eq!(probed(&confirmer, key(1)).await.code(), Some(404));
    unknown(&called(&confirmer, key(1)).await);
    for _ in 0..2 {
        let answer = probed(&confirmer, key(1)).await;
        assert_eq!(Rules::http().judge_probe(&answer), Verdict::Fact(Fact::Confirmed), "{answer:?}");
    }
    let totals = endpoint.totals();
    assert_eq!((totals.calls, totals.effects, totals.probes), (1, 1, 3));
}

#[tokio::test]
async fn what_never_left_is_known_not_to_have() {
    // A port that nobody listens at.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let confirmer = HttpConfirmer::open(&HttpConfig::new(&format!("http://{closed}/"))).unwrap();
    assert!(not_sent(&called(&confirmer, key(1)).await).contains("refused"));

    let confirmer = HttpConfirmer::open(&HttpConfig::new("http://no-such-host.invalid/")).unwrap();
    assert!(not_sent(&called(&confirmer, key(1)).await).contains("name"));

    // No room in the queue of connections: they are neither refused nor made.
    let full = socket_without_room();
    let config = HttpConfig { connect_timeout: SHORT, ..HttpConfig::new(&format!("http://{}/", full.address)) };
    let answer = called(&HttpConfirmer::open(&config).unwrap(), key(1)).await;
    assert!(not_sent(&answer).contains("in time"), "{answer:?}");
    // The same when the time for the whole call ends first.
    let config = HttpConfig { timeout: SHORT, connect_timeout: crate::PATIENCE, ..config };
    not_sent(&called(&HttpConfirmer::open(&config).unwrap(), key(1)).await);
}

struct Full {
    address: std::net::SocketAddr,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<std::net::TcpStream>,
}

fn socket_without_room() -> Full {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |_| std::net::TcpStream::connect_timeout(&address, SHORT);
    let waiting = (0..8).map_while(|n| connect(n).ok()).collect();
    Full { address, _listener: listener, _waiting: waiting }
}

#[tokio::test]
async fn an_outage_is_told_as_it_comes() {
    let (endpoint, confirmer) = plain(Behaviour::default()).await;
    endpoint.fail_for(crate::PATIENCE, 503);
    assert_eq!(called(&confirmer, key(1)).await.code(), Some(503));
    endpoint.fail_for(crate::PATIENCE, 0);
    unknown(&called(&confirmer, key(1)).await);
    endpoint.fail_for(Duration::ZERO, 0);
    assert_eq!(called(&confirmer, key(1)).await.code(), Some(200));
}
