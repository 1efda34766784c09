//! The table of routes.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};

use crate::problem::Problem;
use crate::publish::{self, publish};
use crate::read::{record, table, tail};
use crate::state::App;
use crate::{compat, console, health, operate};

/// Every route of Caudal.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/topics", get(operate::topics))
        .route("/v1/topics/{topic}", get(operate::topic))
        .route("/v1/topics/{topic}/drift", get(operate::drift))
        .route("/v1/topics/{topic}/messages", post(publish))
        .route("/v1/topics/{topic}/messages/{id}", get(record::record))
        .route("/v1/topics/{topic}/stream", get(tail::tail))
        .route("/v1/receipts/{id}", get(operate::receipt))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/v1/dead-letters/redrive", post(operate::redrive_many))
        .route("/v1/dead-letters/{id}", get(operate::dead_letter))
        .route("/v1/dead-letters/{id}/payload", put(operate::repair))
        .route("/v1/dead-letters/{id}/redrive", post(operate::redrive))
        .route("/v1/reconcile", get(operate::reconcile))
        .route("/rest/v1/{table}", get(table::table))
        .route("/ingresar-datos", post(compat::ingest))
        .route("/ingresar-datos/", post(compat::ingest))
        .route("/data/{id}", get(compat::data))
        .route("/ping", get(health::ping))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/docs/errors/{code}", get(operate::error_page))
        .route("/", get(console::page))
        .method_not_allowed_fallback(publish::method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), measure))
        .fallback(not_found)
        .with_state(app)
}

/// `/v1/dead-letters` is the table under its own name, with the same grammar.
async fn dead_letters(
    state: State<Arc<App>>,
    method: http::Method,
    query: axum::extract::RawQuery,
    headers: http::HeaderMap,
) -> Response {
    let name = state.engine.dead_letters.name.clone();
    table::table(state, method, axum::extract::Path(name), query, headers).await
}

async fn not_found() -> Problem {
    Problem::not_found("there is no such path; / shows what there is")
}

/// Times each request under its route's pattern, so that ids and names do not become labels.
async fn measure(State(app): State<Arc<App>>, path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().as_str().to_owned();
    let response = next.run(request).await;
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    app.requests.observe(route, &method, response.status().as_u16(), start.elapsed().as_secs_f64());
    response
}
