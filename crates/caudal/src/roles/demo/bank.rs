//! The demo's bank: confirms payments, now and then slowly, not yet, or not at all. It honours keys and can be asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

/// What the bank did, by key: `true` is paid, `false` declined.
type Books = Arc<Mutex<HashMap<String, bool>>>;

/// Longer than the demo's workers wait.
const TOO_LONG: Duration = Duration::from_secs(2);

/// Opens it on a port of its own on this machine, for as long as the process lives. Returns its URL.
pub(crate) async fn open() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("the demo's bank cannot listen on 127.0.0.1")?;
    let url = format!("http://{}", listener.local_addr()?);
    let router =
        Router::new().route("/payments", post(pay)).route("/payments/{key}", get(look)).with_state(Books::default());
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

async fn pay(State(books): State<Books>, headers: HeaderMap) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned) else {
        return say(StatusCode::BAD_REQUEST, "there is no Idempotency-Key");
    };
    if let Some(paid) = known(&books, &key) {
        return said(paid);
    }
    // A payment's luck is in its key, so the demo goes the same way every time.
    let luck = key.bytes().fold(7u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 100;
    tokio::time::sleep(Duration::from_millis(10 + u64::from(luck) / 2)).await;
    if luck < 3 && !refused_before(&books, &key) {
        return say(StatusCode::SERVICE_UNAVAILABLE, "closed for lunch");
    }
    let paid = luck != 50;
    books.lock().unwrap_or_else(PoisonError::into_inner).insert(key, paid);
    if (90..93).contains(&luck) {
        // Paid, and the answer comes when nobody waits for it any more.
        tokio::time::sleep(TOO_LONG).await;
    }
    said(paid)
}

/// Whether this key was turned away once already; notes that it was.
fn refused_before(books: &Books, key: &str) -> bool {
    let note = format!("refused {key}");
    books.lock().unwrap_or_else(PoisonError::into_inner).insert(note, false).is_some()
}

async fn look(State(books): State<Books>, Path(key): Path<String>) -> Response {
    match known(&books, &key) {
        Some(paid) => said(paid),
        None => say(StatusCode::NOT_FOUND, "no such payment"),
    }
}

fn known(books: &Books, key: &str) -> Option<bool> {
    books.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
}

fn said(paid: bool) -> Response {
    match paid {
        true => say(StatusCode::OK, "paid"),
        false => say(StatusCode::PAYMENT_REQUIRED, "declined: the account has no cover"),
    }
}

fn say(status: StatusCode, state: &str) -> Response {
    let body = serde_json::json!({ "state": state }).to_string();
    (status, [("content-type", "application/json")], body).into_response()
}
