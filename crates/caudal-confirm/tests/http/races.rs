//! Kept connections that end or say too much, and requests that are many.

use std::sync::Arc;

use caudal_confirm::http::{HttpConfig, HttpConfirmer};
use caudal_core::confirm::answer::Answer;
use caudal_testkit::endpoint::{Behaviour, Endpoint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::{PATIENCE, called, config, not_sent, plain, unknown};

/// The endpoint closes after each answer, without saying so. Every call gets its answer or is in doubt, and is never sent twice.
#[tokio::test]
async fn connections_that_close_between_calls_send_nothing_twice() {
    let (endpoint, confirmer) = plain(Behaviour { closes: 1.0, ..Behaviour::default() }).await;
    let mut answered = 0;
    for n in 0..500u128 {
        match called(&confirmer, Uuid::from_u128(n)).await {
            Answer::Status { code: 200, .. } => answered += 1,
            answer => assert!(!unknown(&answer).is_empty()),
        }
        let effects = endpoint.effects(Uuid::from_u128(n));
        assert!(effects.is_none_or(|effects| effects.calls == 1), "{effects:?}");
    }
    // Most are seen to be closed before they are used.
    assert!(answered > 250, "{answered}");
}

/// An answer that nobody asked for must not be taken for the answer to the next request.
#[tokio::test]
async fn an_answer_to_no_request_ends_its_connection() {
    let (endpoint, confirmer) = plain(Behaviour { doubles: 1.0, ..Behaviour::default() }).await;
    assert_eq!(called(&confirmer, Uuid::from_u128(1)).await.code(), Some(200));
    endpoint.set(Behaviour { declines: 1.0, ..Behaviour::default() });
    assert_eq!(called(&confirmer, Uuid::from_u128(2)).await.code(), Some(422), "its own, not the one left over");
    assert_eq!(endpoint.totals().connections, 2);
}

/// One exchange by hand: reads a request's head and body, and says `answer`.
async fn once(listener: &TcpListener, answer: &[u8]) -> tokio::net::TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut buffer = [0; 4096];
    let read = stream.read(&mut buffer).await.unwrap();
    assert!(buffer[..read].starts_with(b"POST /payments"));
    stream.write_all(answer).await.unwrap();
    stream
}

async fn by_hand() -> (TcpListener, HttpConfirmer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/payments", listener.local_addr().unwrap());
    (listener, HttpConfirmer::open(&HttpConfig { timeout: PATIENCE, ..HttpConfig::new(&url) }).unwrap())
}

#[tokio::test]
async fn answers_that_are_no_http_are_unknown() {
    let huge_head = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    for answer in [
        "",
        "\0\0\0\0",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 2000 High\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nx: y",
        "HTTP/1.1 100 Continue\r\n\r\n",
        &huge_head,
        &many,
    ] {
        let (listener, confirmer) = by_hand().await;
        let (answered, stream) = tokio::join!(called(&confirmer, Uuid::from_u128(1)), async {
            let mut stream = once(&listener, answer.as_bytes()).await;
            let _ = stream.shutdown().await;
            // Whatever is still sent is read, so that the close is not a reset.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        });
        let () = stream;
        unknown(&answered);
    }
}

#[tokio::test]
async fn odd_answers_that_are_http_are_read() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nx: y\r\n\r\n", "abc"),
        ("HTTP/1.0 200 OK\r\n\r\nabc", "abc"),
        ("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc", "abc"),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        let (listener, confirmer) = by_hand().await;
        let (answered, ()) = tokio::join!(called(&confirmer, Uuid::from_u128(1)), async {
            let mut stream = once(&listener, answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
        let Answer::Status { code: 200 | 204, body: found, .. } = &answered else { panic!("{answered:?}") };
        assert_eq!(found, body);
    }
}

/// The connection is made and ends before the request is written: nothing was sent, and that is known.
#[tokio::test]
async fn a_kept_connection_that_was_reset_is_replaced() {
    let (listener, confirmer) = by_hand().await;
    let good = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (first, stream) = tokio::join!(called(&confirmer, Uuid::from_u128(1)), once(&listener, good));
    assert_eq!(first.code(), Some(200));
    drop(stream);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let (second, _stream) = tokio::join!(called(&confirmer, Uuid::from_u128(2)), once(&listener, good));
    assert_eq!(second.code(), Some(200));
    drop(listener);
    // Nothing listens any more, and the kept connection goes as well.
    drop(_stream);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    not_sent(&called(&confirmer, Uuid::from_u128(3)).await);
}

/// Many at once, a tenth of them hostile: every answer belongs to its own request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_never_mixed_up() {
    let endpoint = Endpoint::start(Behaviour {
        declines: 0.5,
        doubles: 0.1,
        drops_after: 0.1,
        closes: 0.1,
        ..Behaviour::default()
    });
    let endpoint = Arc::new(endpoint.await.unwrap());
    let confirmer = Arc::new(HttpConfirmer::open(&config(&endpoint)).unwrap());
    let task = |start: u128| {
        let (endpoint, confirmer) = (endpoint.clone(), confirmer.clone());
        async move {
            for n in 0..200 {
                let key = Uuid::new_v5(&Uuid::NAMESPACE_OID, &(start * 1000 + n).to_be_bytes());
                let answer = called(&confirmer, key).await;
                let did = endpoint.effects(key).map(|did| (did.calls, did.effects, did.declined));
                match answer.code() {
                    Some(200) => assert_eq!(did, Some((1, 1, false))),
                    Some(422) => assert_eq!(did, Some((1, 0, true))),
                    _ => {
                        unknown(&answer);
                        assert!(did.is_none_or(|(calls, ..)| calls == 1), "{did:?}");
                    }
                }
            }
        }
    };
    let tasks: Vec<_> = (0..16).map(|start| tokio::spawn(task(start))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}
