//! `/`: one plain page that says what runs here and how to use it. No script from anywhere else.

use axum::response::{Html, IntoResponse, Response};
use http::header;

const PAGE: &str = include_str!("console.html");

pub(crate) async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE)).into_response()
}
