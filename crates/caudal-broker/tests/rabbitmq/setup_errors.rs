//! Whatever somebody must act upon is said in one sentence that says how.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_unavailable_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let broker = broker(config(format!("amqp://u:secret@127.0.0.1:{port}/"))).await;
    let start = Instant::now();
    let text = unavailable(broker.publish(&fresh("away"), messages(0..1)).await);
    assert!(text.contains(&format!("127.0.0.1:{port}")) && !text.contains("secret"), "{text}");
    unavailable(refused(&broker, &fresh("away")).await);
    unavailable(broker.topic_state(&fresh("away"), "store").await);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_on_the_port_is_not_taken_for_rabbitmq() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://u:secret@{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut greeting = [0; 8];
            socket.read_exact(&mut greeting).await.unwrap();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let broker = broker(config(url)).await;
    let text = unavailable(broker.publish(&fresh("http"), messages(0..1)).await);
    assert!(text.contains("not AMQP"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_login_names_user_and_command() {
    let server = shared().unwrap();
    let wrong = broker(config(server.url_of("guest:secret", "/"))).await;
    let text = setup(wrong.publish(&fresh("login"), messages(0..1)).await);
    assert!(text.contains("\"guest\"") && text.contains("rabbitmqctl"), "{text}");
    let nobody = broker(config(server.url_of("nobody:secret", "/"))).await;
    let text = setup(refused(&nobody, &fresh("login")).await);
    assert!(text.contains("rabbitmqctl add_user nobody"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_virtual_host_names_its_command() {
    let server = shared().unwrap();
    let broker = broker(config(server.url_of("guest:guest", "elsewhere"))).await;
    let text = setup(broker.publish(&fresh("vhost"), messages(0..1)).await);
    assert!(text.contains("rabbitmqctl add_vhost elsewhere"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_without_permissions_names_the_command() {
    let server = shared().unwrap();
    server.control(&["add_user", "stranger", "secret"]).unwrap();
    let broker = broker(config(server.url_of("stranger:secret", "/"))).await;
    let text = setup(broker.publish(&fresh("stranger"), messages(0..1)).await);
    assert!(text.contains("\"stranger\"") && text.contains("rabbitmqctl set_permissions -p / stranger"), "{text}");
}

/// The commands in the sentences do what they say.
#[tokio::test(flavor = "multi_thread")]
async fn each_missing_permission_is_named() {
    let server = shared().unwrap();
    let ours = fresh("limited");
    let admin = shared_broker().await;
    drop(Reader::fresh(&admin, &ours).await);
    server.add_user("limited", "secret", ["^$", "^caudal", "^caudal"]).unwrap();
    let url = server.url_of("limited:secret", "/");
    let text = setup(broker(config(url.clone())).await.publish(&ours, messages(0..1)).await);
    assert!(text.contains(&format!("configure permission for exchange \"caudal.{ours}\"")), "{text}");
    let verify = RemoteConfig { create: false, subscriptions: vec!["store".into()], ..config(url) };
    broker(verify.clone()).await.publish(&ours, messages(0..1)).await.unwrap();
    drop(Reader::fresh(&broker(verify.clone()).await, &ours).await);
    server.control(&["set_permissions", "limited", "^$", "^$", "^caudal"]).unwrap();
    let text = setup(broker(verify.clone()).await.publish(&ours, messages(0..1)).await);
    assert!(text.contains(&format!("write permission for exchange \"caudal.{ours}\"")), "{text}");
    server.control(&["set_permissions", "limited", "^$", "^caudal", "^$"]).unwrap();
    let text = setup(refused(&broker(verify.clone()).await, &ours).await);
    assert!(text.contains(&format!("read permission for queue \"caudal.{ours}.store\"")), "{text}");
    server.control(&["set_permissions", "limited", "^caudal", "^caudal", "^$"]).unwrap();
    let url = server.url_of("limited:secret", "/");
    let text = setup(broker(config(url.clone())).await.publish(&fresh("limited"), messages(0..1)).await);
    assert!(text.contains("read permission for exchange"), "{text}");
    let command = text.split_once("rabbitmqctl ").unwrap().1.replace('\'', "");
    server.control(&command.split(' ').collect::<Vec<_>>()).unwrap();
    broker(config(url)).await.publish(&fresh("limited"), messages(0..1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_when_nothing_may_be_made() {
    let verify = RemoteConfig { create: false, ..config(shared().unwrap().url()) };
    let broker = broker(verify).await;
    let topic = fresh("missing");
    let text = setup(broker.publish(&topic, messages(0..1)).await);
    for part in [
        format!("no exchange \"caudal.{topic}\" and no queue \"caudal.{topic}.store\" and no queue"),
        format!("declare exchange name=caudal.{topic} type=fanout durable=true"),
        format!("declare queue name=caudal.{topic}.audit durable=true arguments='{{\"x-queue-type\":\"quorum\""),
        format!("declare binding source=caudal.{topic} destination=caudal.{topic}.store"),
    ] {
        assert!(text.contains(&part), "{part} is not in {text}");
    }
    let text = setup(refused(&broker, &topic).await);
    assert!(text.contains(&format!("no queue \"caudal.{topic}.store\"")), "{text}");
    let state = broker.topic_state(&topic, "store").await;
    assert!(matches!(state, Err(BrokerError::UnknownTopic(_))), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_another_type_says_which() {
    let server = shared().unwrap();
    let topic = fresh("classic");
    declare(&format!("caudal.{topic}.store"), &[("x-queue-type", "classic")]).await;
    let broker = shared_broker().await;
    for text in [setup(broker.publish(&topic, messages(0..1)).await), setup(refused(&broker, &topic).await)] {
        assert!(text.contains("its x-queue-type is 'classic', and Caudal needs 'quorum'"), "{text}");
        assert!(text.contains(&format!("rabbitmqctl delete_queue -p / caudal.{topic}.store")), "{text}");
    }
    server.control(&["delete_queue", "-p", "/", &format!("caudal.{topic}.store")]).unwrap();
    broker.publish(&topic, messages(0..1)).await.unwrap();
}
