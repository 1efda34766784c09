//! Addresses that must not be reached, by whatever way they come.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use caudal_confirm::http::{HttpConfig, HttpConfirmer, Resolve};
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use uuid::Uuid;

use crate::{SHORT, blocked, called, not_sent, unknown};

/// A resolver that says the next of these lists each time, and the last one from then on.
fn resolver(answers: Vec<Vec<SocketAddr>>) -> (Resolve, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, answers) = (asked.clone(), Arc::new(Mutex::new(answers)));
    let resolve: Resolve = Arc::new(move |host, _| {
        assert_eq!(host, "bank.test");
        count.fetch_add(1, Relaxed);
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(async move { Ok(answer) })
    });
    (resolve, asked)
}

fn named(allow_private: Option<bool>) -> HttpConfig {
    HttpConfig { allow_private, connect_timeout: SHORT, ..HttpConfig::new("http://bank.test/payments") }
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port)
}

#[tokio::test]
async fn a_name_that_leads_into_a_private_network_is_blocked() {
    let endpoint = Endpoint::start(Behaviour::default()).await.unwrap();
    let port = endpoint.address().port();
    for ip in
        ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "192.168.0.1", "100.64.0.1", "fd00::1", "64:ff9b::a00:1"]
    {
        for allow_private in [None, Some(false)] {
            let (resolve, _) = resolver(vec![vec![at(ip, port)]]);
            let confirmer = HttpConfirmer::open_with(&named(allow_private), resolve).unwrap();
            let answer = called(&confirmer, Uuid::nil()).await;
            assert!(blocked(&answer).contains("allow_private"), "{ip}: {answer:?}");
        }
    }
    for ip in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "::", "224.0.0.1", "fd00:ec2::254"] {
        for allow_private in [None, Some(true)] {
            let (resolve, _) = resolver(vec![vec![at(ip, port)]]);
            let confirmer = HttpConfirmer::open_with(&named(allow_private), resolve).unwrap();
            let answer = called(&confirmer, Uuid::nil()).await;
            assert!(blocked(&answer).contains("nothing is sent there"), "{ip}: {answer:?}");
        }
    }
    assert_eq!(endpoint.totals().connections, 0);
}

/// Spellings of loopback that only a resolver understands.
#[tokio::test]
async fn odd_spellings_of_an_address_are_checked_after_they_are_resolved() {
    let endpoint = Endpoint::start(Behaviour::default()).await.unwrap();
    let port = endpoint.address().port();
    for host in ["127.1", "2130706433", "0x7f000001", "0177.0.0.1"] {
        let confirmer = HttpConfirmer::open(&HttpConfig::new(&format!("http://{host}:{port}/"))).unwrap();
        let answer = called(&confirmer, Uuid::nil()).await;
        assert!(blocked(&answer).contains("allow_private"), "{host}: {answer:?}");
    }
    assert_eq!(endpoint.totals().connections, 0);
}

#[tokio::test]
async fn of_several_addresses_only_those_that_may_be_reached_are() {
    let endpoint = Endpoint::start(Behaviour::default()).await.unwrap();
    let good = endpoint.address();
    let (resolve, asked) = resolver(vec![vec![at("169.254.169.254", 80), at("fe80::1", 80), good]]);
    let confirmer = HttpConfirmer::open_with(&named(Some(true)), resolve).unwrap();
    assert_eq!(called(&confirmer, Uuid::nil()).await.code(), Some(200));
    assert_eq!(called(&confirmer, Uuid::nil()).await.code(), Some(200));
    assert_eq!(asked.load(Relaxed), 1, "once for the connection, which was kept");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    let endpoint = Endpoint::start(Behaviour::default()).await.unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (resolve, _) = resolver(vec![vec![closed, endpoint.address()]]);
    let confirmer = HttpConfirmer::open_with(&named(Some(true)), resolve).unwrap();
    assert_eq!(called(&confirmer, Uuid::nil()).await.code(), Some(200));
}

/// A name that is good when it is checked and bad when it is asked again: it is asked once a connection, and each is checked.
#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_each_time() {
    let endpoint = Endpoint::start(Behaviour { drops_after: 1.0, ..Behaviour::default() }).await.unwrap();
    let (resolve, asked) = resolver(vec![vec![endpoint.address()], vec![at("169.254.169.254", 80)]]);
    let confirmer = HttpConfirmer::open_with(&named(Some(true)), resolve).unwrap();
    unknown(&called(&confirmer, Uuid::nil()).await);
    assert_eq!(asked.load(Relaxed), 1);
    blocked(&called(&confirmer, Uuid::nil()).await);
    assert_eq!((asked.load(Relaxed), endpoint.totals().connections), (2, 1));
}

#[tokio::test]
async fn a_name_without_an_address_is_not_sent() {
    let (resolve, _) = resolver(vec![vec![]]);
    let answer = called(&HttpConfirmer::open_with(&named(None), resolve).unwrap(), Uuid::nil()).await;
    assert!(not_sent(&answer).contains("no address"), "{answer:?}");
    let never: Resolve = Arc::new(|_, _| Box::pin(std::future::pending()));
    let answer = called(&HttpConfirmer::open_with(&named(None), never).unwrap(), Uuid::nil()).await;
    assert!(not_sent(&answer).contains("not resolved in time"), "{answer:?}");
}
