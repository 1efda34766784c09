//! A small HTTP client for tests, and sockets for what no HTTP client would send.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Body, Method};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Requests to one server.
#[derive(Debug, Clone)]
pub struct Api {
    client: reqwest::Client,
    pub url: String,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The `code` of a problem.
    pub fn code(&self) -> String {
        let body = self.json();
        let code = if body["caudal_code"].is_string() { &body["caudal_code"] } else { &body["code"] };
        code.as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    pub fn new(url: impl Into<String>) -> Result<Self> {
        // No environment proxies, and nothing decoded: tests look at what was sent.
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        Ok(Self { client, url: url.into() })
    }

    /// Sends a request and reads its answer.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Result<Reply> {
        let method = Method::from_bytes(method.as_bytes())?;
        let mut request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { status, headers, body: response.bytes().await? })
    }

    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Result<Reply> {
        self.send("POST", path, headers, body).await
    }

    /// Posts one JSON document to a topic.
    pub async fn publish(&self, topic: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Result<Reply> {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.post(&format!("/v1/topics/{topic}/messages"), &all, body).await
    }

    /// Opens a response whose body goes on and on.
    pub async fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Result<Events> {
        let mut request = self.client.get(format!("{}{path}", self.url)).timeout(Duration::from_secs(600));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?.error_for_status()?;
        Ok(Events { response, buffer: String::new() })
    }

    /// Writes bytes to a socket, then reads until the server closes or `patience` is over.
    pub async fn raw(&self, pieces: &[&[u8]], patience: Duration) -> Result<String> {
        let address = self.url.trim_start_matches("http://");
        let mut socket = TcpStream::connect(address).await?;
        for piece in pieces {
            // The server may have answered and closed before everything is written.
            if socket.write_all(piece).await.is_err() {
                break;
            }
            socket.flush().await?;
        }
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        let read = async {
            while let Ok(n) = socket.read(&mut part).await
                && n > 0
            {
                answer.extend_from_slice(&part[..n]);
            }
        };
        let _ = tokio::time::timeout(patience, read).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// Server-sent events as they come.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    buffer: String,
}

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    pub id: Option<String>,
    pub data: Value,
}

impl Events {
    /// The next event with data; fails when none comes within `patience`.
    pub async fn next(&mut self, patience: Duration) -> Result<Event> {
        tokio::time::timeout(patience, self.read()).await.context("no event came in time")?
    }

    async fn read(&mut self) -> Result<Event> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let event: String = self.buffer.drain(..end + 2).collect();
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim().to_owned());
                if let Some(data) = field("data:") {
                    return Ok(Event { id: field("id:"), data: serde_json::from_str(&data)? });
                }
            }
            let chunk = self.response.chunk().await?.context("the stream ended")?;
            self.buffer.push_str(std::str::from_utf8(&chunk)?);
        }
    }
}
