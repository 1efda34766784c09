//! The limit of one message a request: Caudal's own accept loop and router before a handler that reads the body, does
//! nothing with it and answers `201`. `limit-noop PORT [MILLISECONDS]`
//!
//! It is also the endpoint of the confirmations that are measured: what it does for one is to wait for those milliseconds.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use caudal_http::{Access, ServerConfig, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::args().nth(1).unwrap_or_default().parse()?;
    let takes = std::env::args().nth(2).map(|ms| ms.parse()).transpose()?.map(Duration::from_millis);
    let confirm = async move |body: Bytes| {
        if let Some(takes) = takes {
            tokio::time::sleep(takes).await;
        }
        std::hint::black_box(body.len());
        StatusCode::OK
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let access = Access::Local { listen: listener.local_addr()? };
    let router = Router::new()
        .route("/ping", get(|| async { "pong" }))
        .route("/confirm", post(confirm))
        .route("/v1/topics/{topic}/messages", post(take));
    serve(listener, router, ServerConfig::new(access), CancellationToken::new()).await;
    Ok(())
}

/// As many bytes as Caudal answers.
async fn take(body: Bytes) -> impl IntoResponse {
    std::hint::black_box(body.len());
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::LOCATION, "/v1/topics/flights/messages/00000000-0000-0000-0000-000000000000"),
    ];
    let answer = r#"{"transaction_id":"00000000-0000-0000-0000-000000000000","topic":"flights","state":"stored"}"#;
    (StatusCode::CREATED, headers, answer)
}
