//! Nobody gets in who should not.

use std::process::Stdio;

use caudal_testkit::api::Api;

use crate::{SQLITE, server};

#[tokio::test]
async fn other_addresses_than_loopback_need_a_key() {
    let server = server(SQLITE, "none:");
    let mut command = server.command(&["serve"]).unwrap();
    let output = command.env("CAUDAL_HTTP__LISTEN", "0.0.0.0:0").stdout(Stdio::null()).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("caudal keys new"), "{message}");
}

#[tokio::test]
async fn with_a_key_only_its_holder_gets_in() {
    let mut server = server(SQLITE, "none:");
    let made = server.run(&["keys", "new"]).unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    let key = made.lines().find_map(|line| line.strip_prefix("key   ")).unwrap().to_owned();
    let hashes = made.lines().find_map(|line| line.strip_prefix("keys = ")).unwrap();
    assert!(!hashes.contains(&key));
    server.set_env("CAUDAL_HTTP__KEYS", hashes);
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    server.set_env("CAUDAL_HTTP__LISTEN", format!("0.0.0.0:{port}"));
    server.start().await.unwrap();
    let api = server.api();
    for path in ["/ping", "/livez", "/readyz"] {
        assert_eq!(api.get(path).await.unwrap().status, 200, "{path}");
    }
    for path in ["/v1/topics", "/rest/v1/notes", "/metrics", "/health", "/", "/data/1", "/nowhere"] {
        let refused = api.get(path).await.unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorized"), "{path}");
        assert!(refused.header("www-authenticate").starts_with("Bearer"));
    }
    let bearer = format!("Bearer {key}");
    let wrong = format!("Bearer {}", key.replace('0', "1"));
    for (name, value, status) in [
        ("authorization", bearer.as_str(), 200),
        ("apikey", key.as_str(), 200),
        ("authorization", wrong.as_str(), 401),
        ("authorization", key.as_str(), 401),
        ("authorization", "Basic YTpi", 401),
        ("authorization", "Bearer ", 401),
    ] {
        let reply = api.send("GET", "/v1/topics", &[(name, value)], "").await.unwrap();
        assert_eq!(reply.status, status, "{name}: {value}");
    }
    let denied = api.publish("notes", &[], "{}").await.unwrap();
    assert_eq!(denied.status, 401);
    let output = server.command(&["query", "notes", "--json"]).unwrap().env("CAUDAL_KEY", &key).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[]");
    assert!(!server.log().contains(&key), "keys are not logged");
}

#[tokio::test]
async fn on_loopback_foreign_hosts_and_origins_are_refused() {
    let mut server = server(SQLITE, "none:");
    server.start().await.unwrap();
    let api: Api = server.api();
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let local =
        [format!("localhost:{port}"), "localhost".to_owned(), format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
    for host in &local {
        assert_eq!(api.send("GET", "/ping", &[("host", host)], "").await.unwrap().status, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1:1"] {
        let reply = api.send("GET", "/v1/topics", &[("host", host)], "").await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (421, "misdirected_request"), "{host}");
    }
    for (origin, status) in [
        ("http://localhost:3000", 200),
        ("http://127.0.0.1", 200),
        ("https://evil.example", 421),
        ("null", 421),
        ("http://localhost.evil.example", 421),
    ] {
        let reply = api.send("GET", "/v1/topics", &[("origin", origin)], "").await.unwrap();
        assert_eq!(reply.status, status, "{origin}");
    }
}
