//! Who is let in, and what is said to who is not.

use caudal_broker::RemoteConfig;
use caudal_core::error::BrokerError;
use caudal_testkit::broker::{Reader, messages};
use caudal_testkit::redis::{Redis, shared};

use super::{broker, config, fresh, key, open, sentence, subscribe};

const USERS: &str = "user default off
user all on >secret ~* &* +@all
user frugal on >p@ss/word ~caudal:* +xadd +xgroup +xreadgroup +xack +xclaim +xautoclaim +xpending +xinfo +xlen +xtrim \
     +memory +info +ping
user reader on >secret ~* +@all -xadd
user elsewhere on >secret ~other:* +@all";

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_one_sentence_without_the_password() {
    let server = Redis::with(USERS).expect("a server");
    let topic = fresh("entry");
    for (url, names) in [
        (server.url_of("all:wrong"), "user \"all\""),
        (server.url_of("unknown:wrong"), "user \"unknown\""),
        (server.url_of(":wrong"), "user \"default\""),
        (server.url(), "lets nobody in without a password"),
    ] {
        let refused = sentence(open(url).await.publish(&topic, messages(0..1)).await);
        assert!(refused.contains(names) && refused.contains("in the broker's URL"), "{refused}");
        assert!(!refused.contains("wrong"), "{refused}");
    }
    open(server.url_of("all:secret")).await.publish(&topic, messages(0..1)).await.expect("publish works");
}

/// The permissions that the sentence asks for are enough.
#[tokio::test(flavor = "multi_thread")]
async fn permissions() {
    let server = Redis::with(USERS).expect("a server");
    let topic = fresh("entry");
    let frugal = open(server.url_of("frugal:p%40ss%2Fword")).await;
    frugal.publish(&topic, messages(0..3)).await.expect("publish works");
    let mut reader = Reader::fresh(&frugal, &topic).await;
    assert_eq!(reader.take(3).await, messages(0..3));
    let state = frugal.topic_state(&topic, "store").await.expect("the topic is known");
    assert!(state.waiting == Some(0) && state.bytes > Some(100), "{state:?}");
    assert!(frugal.probe(&[]).await.is_ok());
    for (user, names) in [("reader", "xadd"), ("elsewhere", "key")] {
        let refused =
            sentence(open(server.url_of(&format!("{user}:secret"))).await.publish(&topic, messages(3..4)).await);
        assert!(refused.contains(&format!("user {user:?}")) && refused.contains(names), "{refused}");
        assert!(refused.contains(&format!("ACL SETUSER {user} '~{}' +xadd", key(&topic))), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls() {
    let tls = "port 0\ntls-port {port}\ntls-cert-file {home}/server.crt\ntls-key-file {home}/server.key
tls-ca-cert-file {home}/ca.crt\ntls-auth-clients no";
    let server = Redis::with(tls).expect("a server");
    let topic = fresh("tls");
    let trusting = open(format!("{}?tls_ca={}", server.tls_url(), server.authority().display())).await;
    trusting.publish(&topic, messages(0..3)).await.expect("publish works");
    assert_eq!(Reader::fresh(&trusting, &topic).await.take(3).await, messages(0..3));
    let refused = sentence(open(server.tls_url()).await.publish(&topic, messages(0..1)).await);
    assert!(refused.contains("not trusted") && refused.contains("tls_ca="), "{refused}");
}

/// `broker.create = false`: what is missing is named with the command that makes it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let server = shared().expect("a server");
    let topic = fresh("missing.here");
    let careful = || broker(RemoteConfig { create: false, ..config(server.url()) });
    let missing = sentence(careful().await.publish(&topic, messages(0..1)).await);
    assert!(missing.contains(&format!("redis-cli XGROUP CREATE {} store 0 MKSTREAM", key(&topic))), "{missing}");
    assert_eq!(sentence(subscribe(&careful().await, &topic).await), missing);
    broker(RemoteConfig::new(server.url())).await.publish(&topic, messages(0..1)).await.expect("publish makes it");
    let missing = sentence(careful().await.publish(&topic, messages(0..1)).await);
    assert!(missing.contains(&format!("redis-cli XGROUP CREATE {} audit 0 MKSTREAM", key(&topic))), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_away() {
    let port = caudal_testkit::server::free_port().expect("a port");
    let broker = open(format!("redis://u:secret@127.0.0.1:{port}")).await;
    let begun = std::time::Instant::now();
    let Err(BrokerError::Unavailable(cause)) = broker.publish(&fresh("away"), messages(0..1)).await else {
        panic!("nobody is there")
    };
    assert!(begun.elapsed().as_secs() < 5 && !cause.to_string().contains("secret"), "{cause}");
    assert!(subscribe(&broker, &fresh("away")).await.is_err());
}
