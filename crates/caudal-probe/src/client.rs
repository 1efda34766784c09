//! Requests to a server, with its problems turned into sentences.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Body, Method, Response, StatusCode};
use serde_json::Value;

use crate::events::Events;

/// Why a request brought no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server did not answer at all.
    #[error("no answer from {url}: {cause}; is `caudal up` running, and is --url right?")]
    Unreachable { url: String, cause: String },
    /// The server answered with a problem.
    #[error("{}", describe(*.status, .problem))]
    Refused { status: u16, problem: Value },
    /// The answer broke off or was not what it should be.
    #[error("the answer broke off: {0}")]
    Broken(String),
}

impl ClientError {
    /// The exit code that scripts see: 3 not found, 4 refused, 5 not available.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { status: 404, .. } => 3,
            Self::Refused { status: 400..500, .. } => 4,
            _ => 5,
        }
    }
}

fn describe(status: u16, problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let code = if problem["caudal_code"].is_string() { text("caudal_code") } else { text("code") };
    let pointer = if problem["pointer"].is_string() { format!(" (at {})", text("pointer")) } else { String::new() };
    let place = problem["position"].as_u64().map(|at| format!(" (at character {at})")).unwrap_or_default();
    let hint = if problem["hint"].is_string() { format!("; {}", text("hint")) } else { String::new() };
    format!("{status} {code}: {}{pointer}{place}{hint}", text("detail"))
}

/// A success.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| ClientError::Broken(e.to_string()))
    }
}

/// One server.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    key: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `base`, presenting `key` when there is one.
    pub fn new(base: &str, key: Option<String>) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .no_proxy()
            .build()
            .map_err(|e| ClientError::Unreachable { url: base.clone(), cause: e.to_string() })?;
        Ok(Self { base, key, http })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.whole(self.request(Method::GET, path)).await
    }

    /// Asks for another media type than JSON.
    pub async fn get_as(&self, path: &str, accept: &str) -> Result<Response, ClientError> {
        self.send(self.request(Method::GET, path).header("accept", accept)).await
    }

    pub async fn post(&self, path: &str, media: &str, body: impl Into<Body>) -> Result<Answer, ClientError> {
        self.whole(self.request(Method::POST, path).header("content-type", media).body(body)).await
    }

    /// Posts and asks for another media type than JSON.
    pub async fn post_as(
        &self,
        path: &str,
        media: &str,
        body: impl Into<Body>,
        accept: &str,
    ) -> Result<Response, ClientError> {
        let request = self.request(Method::POST, path).header("content-type", media).header("accept", accept);
        self.send(request.body(body)).await
    }

    pub async fn put(&self, path: &str, media: &str, body: impl Into<Body>) -> Result<Answer, ClientError> {
        self.whole(self.request(Method::PUT, path).header("content-type", media).body(body)).await
    }

    /// Publishes a body to a topic with more headers: `Idempotency-Key`, `Prefer`.
    pub async fn publish(
        &self,
        topic: &str,
        media: &str,
        headers: &[(&str, String)],
        body: impl Into<Body>,
    ) -> Result<Answer, ClientError> {
        let path = format!("/v1/topics/{topic}/messages");
        let request = self.request(Method::POST, &path).header("content-type", media);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        self.whole(request.body(body)).await
    }

    /// Follows a topic from now on.
    pub async fn follow(&self, topic: &str) -> Result<Events, ClientError> {
        let request = self.request(Method::GET, &format!("/v1/topics/{topic}/stream"));
        Ok(Events::new(self.send(request).await?))
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    async fn whole(&self, request: reqwest::RequestBuilder) -> Result<Answer, ClientError> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let body = response.bytes().await.map_err(|e| ClientError::Broken(e.to_string()))?;
        Ok(Answer { status, body })
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request
            .send()
            .await
            .map_err(|e| ClientError::Unreachable { url: self.base.clone(), cause: innermost(&e).to_string() })?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let problem = response.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok());
        Err(ClientError::Refused { status: status.as_u16(), problem: problem.unwrap_or_default() })
    }
}

/// The cause that says most: reqwest's own words are the same for every failure.
fn innermost(error: &dyn std::error::Error) -> &dyn std::error::Error {
    error.source().map_or(error, innermost)
}
