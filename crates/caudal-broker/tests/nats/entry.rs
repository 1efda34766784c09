//! Who is let in, and what is said to who is not.

use caudal_core::error::BrokerError;
use caudal_testkit::broker::{Reader, messages};
use caudal_testkit::nats::{self, Nats};

use super::{broker, config, fresh, open, sentence, subscribe};

const USERS: &str = r#"authorization {
  users: [
    { user: all, password: secret }
    { user: frugal, password: "p@ss/word",
      permissions: { publish: ["caudal.>", "$JS.API.>", "$JS.ACK.>"], subscribe: ["_INBOX.>"] } }
    { user: reader, password: secret, permissions: { publish: ["$JS.API.>", "$JS.ACK.>"], subscribe: ["_INBOX.>"] } }
    { user: deaf, password: secret, permissions: { publish: [">"], subscribe: ["other.>"] } }
    { user: nobody, password: secret, permissions: { publish: ["caudal.>"], subscribe: ["_INBOX.>"] } }
  ]
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_one_sentence_without_the_password() {
    let server = Nats::with(USERS).expect("a server");
    let topic = fresh("entry");
    for (url, names) in [
        (server.url_of("all:wrong"), "\"all\""),
        (server.url_of("token"), "the holder of this token"),
        (server.url(), "lets nobody in without credentials"),
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
    let server = Nats::with(USERS).expect("a server");
    let topic = fresh("entry");
    let frugal = open(server.url_of("frugal:p%40ss%2Fword")).await;
    frugal.publish(&topic, messages(0..3)).await.expect("publish works");
    let mut reader = Reader::fresh(&frugal, &topic).await;
    assert_eq!(reader.take(3).await, messages(0..3));
    for (user, subject) in
        [("reader", format!("caudal.{topic}")), ("deaf", "_INBOX.".into()), ("nobody", "$JS.API.".into())]
    {
        let refused =
            sentence(open(server.url_of(&format!("{user}:secret"))).await.publish(&topic, messages(3..4)).await);
        assert!(refused.contains(&format!("{user:?}")) && refused.contains(&subject), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let server = Nats::with("authorization { token: \"s3/cret\" }").expect("a server");
    open(server.url_of("s3%2Fcret")).await.publish(&fresh("entry"), messages(0..1)).await.expect("publish works");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_jetstream() {
    let server = Nats::with("accounts { a: { users: [ { user: u, password: p } ] } }").expect("a server");
    let refused = sentence(open(server.url_of("u:p")).await.publish(&fresh("entry"), messages(0..1)).await);
    assert!(refused.contains("JetStream is not enabled"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls() {
    let tls = "tls { cert_file: \"{home}/server.crt\", key_file: \"{home}/server.key\" }";
    let server = Nats::with(tls).expect("a server");
    let topic = fresh("tls");
    let trusting = open(format!("{}?tls_ca={}", server.tls_url(), server.authority().display())).await;
    trusting.publish(&topic, messages(0..3)).await.expect("publish works");
    assert_eq!(Reader::fresh(&trusting, &topic).await.take(3).await, messages(0..3));
    let refused = sentence(open(server.tls_url()).await.publish(&topic, messages(0..1)).await);
    assert!(refused.contains("not trusted") && refused.contains("tls_ca="), "{refused}");
    let refused = sentence(
        open(format!("{}?tls_ca=/no/such/file", server.tls_url())).await.publish(&topic, messages(0..1)).await,
    );
    assert!(refused.contains("/no/such/file"), "{refused}");
}

/// `broker.create = false`: what is missing is named with the command that makes it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named() {
    let server = nats::shared().expect("a server");
    let topic = fresh("missing.here");
    let careful = || broker(caudal_broker::RemoteConfig { create: false, ..config(server.url()) });
    let stream = format!("caudal-{}", topic.as_str().replace('.', "="));
    let missing = sentence(careful().await.publish(&topic, messages(0..1)).await);
    let command = format!("nats stream add {stream} --subjects=caudal.{topic} ");
    assert!(missing.contains(&command), "{missing}");
    assert_eq!(sentence(subscribe(&careful().await, &topic).await), missing);
    let only_store = caudal_broker::RemoteConfig::new(server.url());
    broker(only_store).await.publish(&topic, messages(0..1)).await.expect("publish makes it");
    let missing = sentence(careful().await.publish(&topic, messages(0..1)).await);
    assert!(missing.contains(&format!("nats consumer add {stream} audit --pull ")), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_away() {
    let port = caudal_testkit::server::free_port().expect("a port");
    let broker = open(format!("nats://u:secret@127.0.0.1:{port}")).await;
    let begun = std::time::Instant::now();
    let Err(BrokerError::Unavailable(cause)) = broker.publish(&fresh("away"), messages(0..1)).await else {
        panic!("nobody is there")
    };
    assert!(begun.elapsed().as_secs() < 5 && !cause.to_string().contains("secret"), "{cause}");
    assert!(subscribe(&broker, &fresh("away")).await.is_err());
}
